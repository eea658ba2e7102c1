//! Brings events to a webhook from a thread of its own. What cannot be delivered is tried again for about
//! half a minute, then left with a warning in the log; what comes meanwhile waits, up to a limit.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_rustls::rustls::crypto::ring;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::{Form, News, Url};

/// How many events may wait.
const MOST: usize = 64;
/// What one request may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// What is waited for before each further try.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(10)];

/// Takes events and never waits.
#[derive(Debug)]
pub struct Sender(SyncSender<News>);

impl Sender {
    pub fn start(url: Url, form: Form) -> (Sender, oneshot::Receiver<()>) {
        let (sender, receiver) = sync_channel(MOST);
        let (ended, end) = oneshot::channel();
        let deliver = move || {
            deliver_all(&receiver, &url, form);
            let _ = ended.send(());
        };
        if let Err(err) = std::thread::Builder::new().name("notify".into()).spawn(deliver) {
            tracing::warn!(%err, "no thread for --notify");
        }
        (Sender(sender), end)
    }

    pub fn send(&self, news: News) {
        if let Err(TrySendError::Full(news)) = self.0.try_send(news) {
            tracing::warn!(event = ?news.event, "too many events wait for --notify: left out");
        }
    }
}

fn deliver_all(receiver: &Receiver<News>, url: &Url, form: Form) {
    let agent = agent();
    while let Ok(news) = receiver.recv() {
        let mut tried = send_with(&agent, url, form, &news);
        for pause in PAUSES {
            match &tried {
                Err(failed) if failed.may_pass => std::thread::sleep(pause),
                _ => break,
            }
            tried = send_with(&agent, url, form, &news);
        }
        if let Err(failed) = tried {
            tracing::warn!(event = ?news.event, %url, why = failed.why, "could not notify");
        }
    }
}

/// Why an event was not delivered; holds nothing of the URL.
#[derive(Debug)]
pub struct Failed {
    pub why: String,
    may_pass: bool,
}

/// One try.
pub fn send(url: &Url, form: Form, news: &News) -> Result<(), Failed> {
    send_with(&agent(), url, form, news)
}

fn agent() -> Agent {
    let found = rustls_native_certs::load_native_certs();
    let roots: Vec<Certificate<'static>> =
        found.certs.iter().map(|cert| Certificate::from_der(cert.as_ref()).to_owned()).collect();
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .build();
    Agent::config_builder()
        .tls_config(tls)
        .timeout_global(Some(ANSWERS_WITHIN))
        // It would carry the event to somebody who was not named.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .user_agent(concat!("pgmig/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent()
}

fn send_with(agent: &Agent, url: &Url, form: Form, news: &News) -> Result<(), Failed> {
    let request = agent.post(url.reveal()).header("content-type", "application/json");
    match request.send(news.body(form)) {
        Ok(answer) if answer.status().is_success() => Ok(()),
        Ok(answer) => {
            let status = answer.status();
            let may_pass = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
            Err(Failed { why: format!("it answers {status}"), may_pass })
        }
        Err(err) => Err(failed(&err)),
    }
}

/// The crate's own words may hold the URL.
fn failed(err: &ureq::Error) -> Failed {
    let (why, may_pass) = match err {
        ureq::Error::Io(err) => (format!("{}", err.kind()), true),
        ureq::Error::Timeout(_) => ("it does not answer in time".into(), true),
        ureq::Error::HostNotFound => ("its host is not known".into(), true),
        ureq::Error::ConnectionFailed => ("it cannot be reached".into(), true),
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) => ("TLS with it failed".into(), false),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => ("the URL is malformed".into(), false),
        _ => ("the request failed".into(), true),
    };
    Failed { why, may_pass }
}
