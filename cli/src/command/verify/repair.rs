//! `pgmig verify --repair`: shows what would be written, asks, repairs table by table while apply is held, and
//! compares those tables again.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use super::{Outcome, Verify};
use crate::connect::{self, Side};
use crate::error::{Error, Exit, Result};
use crate::model::TableName;
use crate::report::units;
use crate::target::{cutover as record, sentinel};
use crate::verify::align;
use crate::verify::live::recodes;
use crate::verify::repair::{self, Work};

impl Verify<'_> {
    /// Repairs what was found to differ.
    pub(super) async fn repair(&self, outcome: Outcome) -> Result<Exit> {
        let (work, not) = repair::work(&outcome.compared.differences);
        for (table, why) in &not {
            eprintln!("not repaired: {table}: {why}");
        }
        if work.is_empty() {
            return Ok(Exit::No);
        }
        self.preview(&work);
        if !self.args.yes {
            confirm()?;
        }
        let began = Instant::now();
        let pause = self.repair_all(&work).await?;
        self.say(&format!(
            "repaired in {}; apply was held for {:.2} s",
            units::duration(began.elapsed()),
            pause.as_secs_f64()
        ));
        let tables: Vec<TableName> = work.into_iter().map(|work| work.table).collect();
        let again = self.again(tables).await?;
        self.tell(&again);
        let equal = again.is_equal() && not.is_empty();
        if equal {
            self.say("equal; next: find out who else writes to the target, then pgmig cutover");
        } else {
            self.say("they still differ; next: see what is named above");
        }
        Ok(if equal { Exit::Done } else { Exit::No })
    }

    async fn again(&self, tables: Vec<TableName>) -> Result<Outcome> {
        let aligned = self.align().await?;
        let began = Instant::now();
        let compared = self.rows(&aligned, tables).await?;
        Ok(Outcome { lsn: aligned.lsn, pause: aligned.pause, took: began.elapsed(), compared, objects: None })
    }

    async fn repair_all(&self, work: &[Work]) -> Result<std::time::Duration> {
        let name = &self.args.target.name;
        let control = align::control(&self.target, name).await?;
        let found = sentinel::load(&self.client, name)
            .await?
            .ok_or_else(|| Error::new(Exit::Phase, "the migration is gone"))?;
        let (aligned, held) = align::hold(&control, &self.source, &self.target, name, &found).await?;
        let done = async {
            let writer = connect::client(&self.target, Side::Target, "pgmig verify", &[]).await?;
            let source = &aligned.source.client;
            let recode = recodes(source, &writer).await?;
            for work in work {
                let repaired = repair::repair(source, &writer, work, recode).await?;
                self.say(&format!("{}: {} rows deleted, {} written", work.table, repaired.deleted, repaired.written));
            }
            Ok(())
        };
        let done = done.await;
        let released = held.release().await;
        record::unlock(&control, name).await?;
        done.and(released)
    }

    fn preview(&self, work: &[Work]) {
        eprintln!("on the target this makes rows those of the source, a transaction a table, while apply is held:");
        for Work { table, missing, extra, other, .. } in work {
            let count = |count: &usize| units::count(*count as u64);
            eprintln!(
                "  {table}: {} to write, {} to delete, {} to replace",
                count(missing),
                count(extra),
                count(other)
            );
        }
    }
}

fn confirm() -> Result<()> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::usage("nobody is there to ask whether to repair that").hint("say so with --yes"));
    }
    eprint!("repair it? [y/N] ");
    let _ = std::io::stderr().flush();
    let mut typed = String::new();
    let read = std::io::stdin().read_line(&mut typed);
    if read.is_ok() && matches!(typed.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Error::new(Exit::No, "nothing was repaired"))
}
