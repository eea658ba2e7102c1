//! `pgmig completions` and `pgmig man`: what a shell and a manual want to know of the arguments.

use std::io::Write;
use std::path::Path;

use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::error::{Context, Exit, Result};

pub fn completions(args: CompletionsArgs) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pgmig", &mut script);
    // A reader that went away is no error.
    let _ = std::io::stdout().write_all(&script);
    Ok(Exit::Done)
}

/// One page for pgmig and one for each verb, as `git` has them.
pub fn man(args: ManArgs) -> Result<Exit> {
    let mut command = Cli::command();
    command.build();
    std::fs::create_dir_all(&args.dir).during(Exit::Dir, || format!("make {}", args.dir.display()))?;
    page(&args.dir, command.clone())?;
    for verb in command.get_subcommands() {
        let name = format!("pgmig-{}", verb.get_name());
        // A name lives as long as the program does.
        let name: &'static str = Box::leak(name.into_boxed_str());
        page(&args.dir, verb.clone().name(name).bin_name(name.replacen('-', " ", 1)))?;
    }
    eprintln!("wrote the manual to {}\nnext: man -l {}", args.dir.display(), args.dir.join("pgmig.1").display());
    Ok(Exit::Done)
}

fn page(dir: &Path, command: clap::Command) -> Result<()> {
    let path = dir.join(format!("{}.1", command.get_name()));
    let doing = || format!("write {}", path.display());
    let mut text = Vec::new();
    clap_mangen::Man::new(command).render(&mut text).during(Exit::Dir, doing)?;
    std::fs::write(&path, text).during(Exit::Dir, doing)
}
