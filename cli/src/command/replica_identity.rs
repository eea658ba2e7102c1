//! `pgmig replica-identity`: gives tables that lack one a replica identity, and takes back what it gave.
//! The one verb that changes tables of the source: it shows every statement first, and asks.

use std::io::Write;

use tokio_postgres::Client;

use crate::args::ReplicaIdentityArgs;
use crate::command::run::{default_dir, identity};
use crate::command::{agreed, conninfo};
use crate::config::filters::Filters;
use crate::connect::{self, Side};
use crate::error::{Error, Exit, Result};
use crate::plan_db::PlanDb;
use crate::selection::select;
use crate::source::catalog::Sizes;
use crate::source::identity::{self as identities, Mend, Missing};
use crate::source::{self, slot};

pub async fn replica_identity(args: ReplicaIdentityArgs) -> Result<Exit> {
    let target = conninfo(&args.target.target)?;
    let name = &args.target.name;
    let dir = args.dir.clone().unwrap_or_else(|| default_dir(&target, name));
    let client = connect::client(&conninfo(&args.source.source)?, Side::Source, "pgmig replica-identity", &[]).await?;
    let source_identity = source::checks::abilities(&client).await?.identity;
    let open = || PlanDb::open(&dir, &identity(&source_identity, name));
    if args.revert {
        let plan = open()?;
        return revert(&client, &plan, name, args.yes).await;
    }
    let filters = args.filters.as_deref().map(Filters::read).transpose()?;
    let selected = select(&client, filters.as_ref(), true, Sizes::Estimates).await?;
    let missing = identities::missing(&client, &selected.tables).await?;
    if missing.is_empty() {
        eprintln!("every table has a replica identity that says which row changed\nnext: `pgmig preflight`");
        return Ok(Exit::Done);
    }
    let statements: String = missing.iter().map(|table| preview(table) + "\n").collect();
    show(&statements);
    let able: Vec<&Missing> = missing.iter().filter(|table| table.owned && table.mend != Mend::None).collect();
    let question = format!("change {} of {} tables of the source?", able.len(), missing.len());
    if able.is_empty() || !agreed(args.yes, &question) {
        eprintln!(
            "nothing was changed\nnext: `pgmig replica-identity --yes`, or run the statements as the owners of the tables"
        );
        return Ok(Exit::No);
    }
    let plan = open()?;
    for table in &able {
        let statement = table.statement().unwrap_or_default();
        // First the record: what is recorded and was not changed is put back to what it is.
        plan.give(&table.given())?;
        identities::alter(&client, &table.name, &statement).await?;
        eprintln!("changed {}", table.name);
    }
    let left = missing.len() - able.len();
    if left > 0 {
        eprintln!("left as they were: {left}, see above\nnext: mend them, then `pgmig preflight`");
        return Ok(Exit::No);
    }
    eprintln!("next: `pgmig preflight`; after the migration and `pgmig cleanup`: `pgmig replica-identity --revert`");
    Ok(Exit::Done)
}

/// The statement, below a comment that says why this one.
fn preview(table: &Missing) -> String {
    let why = match &table.mend {
        Mend::Default => "it has a primary key".to_string(),
        Mend::Index(_) => "a unique index without nulls: as good as a key".into(),
        Mend::Full => "no unique index without nulls, so the WAL gets the whole old row".into(),
        Mend::None => "only a primary key does, since it has a virtual generated column".into(),
    };
    let owner = if table.owned { String::new() } else { format!(" (as its owner, {})", table.owner) };
    format!("-- {}: {why}{owner}\n{}", table.name, table.statement().unwrap_or_default()).trim_end().to_string()
}

async fn revert(client: &Client, plan: &PlanDb, name: &str, yes: bool) -> Result<Exit> {
    let slot_name = format!("pgmig_{name}");
    if slot::find(client, &slot_name).await?.is_some() {
        return Err(Error::new(Exit::Phase, format!("slot `{slot_name}` still follows these tables"))
            .hint("end the migration first: pgmig cleanup"));
    }
    let given = plan.given()?;
    if given.is_empty() {
        eprintln!("nothing to take back: {} records no replica identity that pgmig gave", plan.dir.display());
        return Ok(Exit::Done);
    }
    let statements: String = given.iter().map(|given| format!("{}\n", given.revert)).collect();
    show(&statements);
    if !agreed(yes, &format!("take back the replica identity of {} tables of the source?", given.len())) {
        eprintln!("nothing was changed\nnext: `pgmig replica-identity --revert --yes`");
        return Ok(Exit::No);
    }
    for given in &given {
        match identities::now(client, given.oid).await? {
            // Somebody has changed it since, or dropped the table: theirs counts.
            now if now.as_deref() != Some(given.made.as_str()) => {
                eprintln!("left {} as it is: it is not what pgmig made it any more", given.table);
            }
            _ => {
                identities::alter(client, &given.table, &given.revert).await?;
                eprintln!("took back {}", given.table);
            }
        }
        plan.take_back(given.oid)?;
    }
    eprintln!("next: nothing; the source's tables are as they were");
    Ok(Exit::Done)
}

fn show(statements: &str) {
    // A reader that went away is no error.
    let _ = std::io::stdout().write_all(statements.as_bytes());
}
