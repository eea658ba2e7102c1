//! A run whose migration was cut over with a way back goes on with that: the same process, from the target
//! to the source.

use tokio_postgres::Client;

use super::{Config, Run, Summary, steered};
use crate::connect::{self, Side};
use crate::error::{Error, Exit, Result};
use crate::report::Reporter;
use crate::source::slot;
use crate::target::sentinel::WayBack;
use crate::target::{install, sentinel};

/// The migration to its end; then, if it was cut over with a way back, that.
pub(super) async fn there_and_back(config: Config, report: &Reporter) -> Result<Summary> {
    let summary = steered(config.clone(), report).await?;
    if way_back(&config).await? != Some(WayBack::Open) {
        return Ok(summary);
    }
    report.info("the target takes the writes now: its changes are carried back to the source, until pgmig cutover --back or pgmig cleanup");
    steered(config.back(), report).await
}

async fn way_back(config: &Config) -> Result<Option<WayBack>> {
    let target = connect::client(&config.target, Side::Target, "pgmig run", &[]).await?;
    Ok(match install::installed(&target).await? {
        Some(_) => sentinel::load(&target, &config.name).await?.and_then(|found| found.way_back),
        // Cleaned up by somebody who was quick.
        None => None,
    })
}

pub fn lost(config: &Config) -> Error {
    Error::new(
        Exit::Phase,
        format!("the state of the way back of migration `{}` is gone from the old source", config.name),
    )
    .hint("there is no way back any more: pgmig cleanup")
}

impl Run {
    /// What is carried back must not be kept for the way forth, whose slot nobody reads any more.
    pub(super) async fn retire_the_way_forth(&self) {
        let Some(forth) = &self.config.back_of else { return };
        let client: &Client = &self.target;
        let retired = async {
            slot::drop_when_free(client, forth, false).await?;
            slot::drop_publications(client, &self.config.name).await
        };
        if let Err(err) = retired.await {
            self.report.warning(format!(
                "slot `{forth}` of the way forth is still on the old source, which keeps WAL for it: {}",
                err.chain()
            ));
        }
    }
}
