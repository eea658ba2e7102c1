//! The comparison as a part of a cutover: of the rows while writes go on, of what is quick while they are stopped.
//! What differs ends the cutover.

use std::sync::Arc;
use std::time::Instant;

use super::Cutover;
use crate::cutover::Comparing;
use crate::error::{Error, Exit, Result};
use crate::model::{ObjectDifference, TableDifference};
use crate::report::units;
use crate::target::history;
use crate::verify::align;
use crate::verify::digest;
use crate::verify::live::{self, Compared, How};
use crate::verify::objects::{self, ComparedObjects, Excused};

/// How many differences an error names.
const NAMED: usize = 10;

impl Cutover<'_> {
    /// Both sides at one position, before anything is stopped.
    pub(super) async fn verify(&mut self) -> Result<String> {
        let (config, began) = (self.run.config(), Instant::now());
        let quick = self.settings.verify == Some(Comparing::Quick);
        let found = self.run.sentinel().await?;
        let (aligned, held) = align::hold(&self.target, &config.source, &config.target, &config.name, &found).await?;
        let pause = held.release().await?;
        let tables = live::tables(&self.target, &config.name).await?;
        let how = How { jobs: config.table_jobs, quick, narrowed: digest::SHOWN, max_rate: 0 };
        let progress: live::Progress = Arc::new(|_, _| {});
        let compared = live::compare(&config.source, &config.target, &aligned, tables, how, progress).await?;
        let mut excused = Excused::of(self.run.plan.selection()?.as_ref());
        // A cutover names what has changed of them.
        excused.large_objects = true;
        excused.laid_out_otherwise(&aligned.source.client, &self.target, &config.name).await?;
        excused.until_the_end(&self.target, &config.name).await?;
        let found = objects::compare(&aligned.source.client, &aligned.target, &config.target, &excused).await?;
        let noted = compared.noted(Some(&found), Some(aligned.lsn), quick, began.elapsed(), Some(pause));
        history::verified(&self.target, &config.name, &noted).await?;
        let hint = if quick { "pgmig verify --quick" } else { "pgmig verify, and pgmig verify --quick" };
        same(&compared, &found, hint)?;
        Ok(format!(
            "{} tables, {} rows{}, {} objects are equal at {}; apply was held for {:.2} s",
            compared.tables,
            units::count(compared.rows.max(0) as u64),
            if quick { " by their number" } else { "" },
            units::count(found.objects as u64),
            aligned.lsn,
            pause.as_secs_f64()
        ))
    }

    /// The catalogs and the sequences, when all is made and nothing is written any more.
    pub(super) async fn proof(&mut self) -> Result<String> {
        let config = self.run.config();
        let sides = align::as_they_are(&config.source, &config.target).await?;
        let mut excused = Excused::of(self.run.plan.selection()?.as_ref());
        excused.large_objects = true;
        excused.laid_out_otherwise(&sides.source.client, &self.target, &config.name).await?;
        let found = objects::compare(&sides.source.client, &sides.target, &config.target, &excused).await?;
        same(&Compared::default(), &found, "pgmig verify --quick")?;
        Ok(format!("{} objects are equal, with where sequences stand", units::count(found.objects as u64)))
    }
}

fn same(compared: &Compared, found: &ComparedObjects, command: &str) -> Result<()> {
    let tables = compared.differences.iter().map(|TableDifference { table, what, .. }| format!("{table} ({what})"));
    let objects = found.differences.iter().map(|ObjectDifference { kind, object, property, what, .. }| {
        let of = if property.is_empty() { what } else { property };
        format!("{kind} {object} ({of})")
    });
    let all: Vec<String> = tables.chain(objects).collect();
    if all.is_empty() {
        return Ok(());
    }
    let named = all.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    let more = if all.len() > NAMED { format!(" and {} more", all.len() - NAMED) } else { String::new() };
    Err(Error::new(Exit::No, format!("both sides differ: {named}{more}"))
        .hint(format!("see what it is: {command}; mend it, or cut over without --verify")))
}
