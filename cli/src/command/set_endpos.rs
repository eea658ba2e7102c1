//! `pgmig set-endpos`: the same as `select pgmig.set_endpos(…)` on the target.

use crate::args::SetEndposArgs;
use crate::command::conninfo;
use crate::connect::{self, Side};
use crate::error::{Error, Exit, Result};
use crate::source::slot;
use crate::target::{install, sentinel};

pub async fn set_endpos(args: SetEndposArgs) -> Result<Exit> {
    let target = conninfo(&args.target.target)?;
    let client = connect::client(&target, Side::Target, "pgmig set-endpos", &[]).await?;
    if install::installed(&client).await?.is_none() {
        return Err(Error::new(Exit::Phase, "there is no migration on the target").hint("start one: pgmig run"));
    }
    let endpos = match (args.lsn, args.source) {
        (Some(lsn), _) => lsn,
        (None, Some(source)) => {
            let source = connect::client(&conninfo(&source)?, Side::Source, "pgmig set-endpos", &[]).await?;
            slot::current_lsn(&source).await?
        }
        (None, None) => return Err(Error::usage("--current needs --source")),
    };
    sentinel::set_endpos(&client, &args.target.name, Some(endpos)).await?;
    println!("{endpos}");
    eprintln!("endpos of migration `{}` is {endpos}\nnext: watch it end with `pgmig status --watch`", args.target.name);
    Ok(Exit::Done)
}
