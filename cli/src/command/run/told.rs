//! Who hears of a run beside its terminal: the log file, Prometheus, a webhook.

use tokio::sync::oneshot;

use crate::args::WatchedArgs;
use crate::command::notify::form;
use crate::error::Result;
use crate::metrics::{Listener, Metrics};
use crate::notify::{LAST_WORDS_WITHIN, Notifier, Url};
use crate::report::{Display, log::Log};

/// Kept until the reporter has ended.
pub struct Told {
    _metrics: Option<Listener>,
    notified: Option<oneshot::Receiver<()>>,
}

impl Told {
    /// `between` says from where to where the migration goes, without passwords.
    ///
    /// # Errors
    /// Exit 2: an address that cannot be listened on, a URL that is none.
    pub async fn start(args: &WatchedArgs, migration: &str, between: String) -> Result<(Told, Vec<Box<dyn Display>>)> {
        let mut displays: Vec<Box<dyn Display>> = vec![Box::new(Log::default())];
        let mut told = Told { _metrics: None, notified: None };
        if let Some(address) = args.metrics_listen {
            let (metrics, registry) = Metrics::new(migration);
            told._metrics = Some(Listener::start(address, registry).await?);
            displays.push(Box::new(metrics));
        }
        if let Some(url) = &args.notify {
            let url = Url::parse(url)?;
            let form = form(&url, args.notify_format);
            let (notifier, ended) = Notifier::start(url, form, migration, between, args.notify_lag);
            told.notified = Some(ended);
            displays.push(Box::new(notifier));
        }
        Ok((told, displays))
    }

    /// Waits for a moment until what was told is delivered.
    pub async fn end(self) {
        if let Some(ended) = self.notified {
            let _ = tokio::time::timeout(LAST_WORDS_WITHIN, ended).await;
        }
    }
}
