//! The two sessions of a copy worker, as it needs them.

use tokio_postgres::Client;

use super::shared::Shared;
use crate::connect::{self, Lane, Side};
use crate::error::{Context, Result};
use crate::model::Lsn;
use crate::source::copy_out;
use crate::source::replication::CopyClient;
use crate::target::queue;

/// How long the target may make a worker wait for a lock. A few tries stay below half a minute.
const LOCK_TIMEOUT: &str = "5s";

/// The sessions with what is known of them.
pub(super) struct Sessions {
    /// Under the migration's snapshot.
    pub source: CopyClient,
    pub target: Client,
    pub lane: Lane,
    /// The target's backend.
    pub target_pid: i32,
    /// Tag of the snapshot, and whatever it shows was committed before this.
    pub tag: (String, Lsn),
}

/// # Errors
/// Either side cannot be reached, or the snapshot is gone.
pub(super) async fn sessions(shared: &Shared) -> Result<Sessions> {
    let mut source = CopyClient::connect(&shared.source, "pgmig copy").await?;
    let mut tag = (String::new(), shared.lsn);
    if let Some(exported) = &shared.exported {
        copy_out::begin_under(&mut source, Some(exported)).await?;
        tag.0 = copy_out::tag(&mut source).await?.0;
    }
    // A crash of the target takes a Part and its mark together, flushed or not.
    let mut settings = vec![("lock_timeout", LOCK_TIMEOUT), ("synchronous_commit", "off")];
    if shared.follow {
        // A table that is copied late may have its triggers already.
        settings.push(("session_replication_role", "replica"));
    }
    let (target, lane) = connect::client_with_lane(&shared.target, Side::Target, "pgmig copy", &settings).await?;
    target.batch_execute(connect::ROWS_AS_STORED).await.on_target(|| "prepare a session on the target".into())?;
    let target_pid = queue::session_pid(&target).await?;
    Ok(Sessions { source, target, lane, target_pid, tag })
}
