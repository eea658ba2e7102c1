//! Where events go. A webhook's address is a password: its path and query are never shown.

use std::fmt;

use crate::config::Secret;
use crate::error::{Error, Result};

/// How an event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Slack,
    Json,
}

/// Prints as scheme and host.
#[derive(Clone)]
pub struct Url {
    shown: String,
    host: String,
    whole: Secret,
}

impl Url {
    /// # Errors
    /// Exit 2, without what was given.
    pub fn parse(text: &str) -> Result<Url> {
        let cannot = |why: &str| {
            Error::usage(format!("the URL of --notify {why}"))
                .hint("give one such as https://hooks.slack.com/services/…, best in PGMIG_NOTIFY, where no process list shows it")
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| cannot("has no scheme"))?;
        let scheme = scheme.to_ascii_lowercase();
        if !matches!(scheme.as_str(), "http" | "https") {
            return Err(cannot("is neither http nor https"));
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        // What stands before an @ is a name and a password.
        let host = authority.rsplit('@').next().unwrap_or_default();
        if host.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(cannot("names no host, or holds a blank"));
        }
        Ok(Url { shown: format!("{scheme}://{host}/***"), host: host.to_ascii_lowercase(), whole: Secret::new(text) })
    }

    /// The form that is meant where none is given.
    pub fn form(&self) -> Form {
        let host = self.host.split(':').next().unwrap_or_default();
        if host == "hooks.slack.com" || host.ends_with(".slack.com") { Form::Slack } else { Form::Json }
    }

    pub(super) fn reveal(&self) -> &str {
        self.whole.reveal()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_shows_its_host_and_nothing_else() {
        let url = Url::parse("HTTPS://user:hunter2@hooks.slack.com/services/T0/B0/secret?x=secret").expect("a URL");
        assert_eq!(format!("{url} {url:?}"), "https://hooks.slack.com/*** https://hooks.slack.com/***");
        assert_eq!(url.form(), Form::Slack);
        let other = Url::parse("http://127.0.0.1:9/x").expect("a URL");
        assert_eq!((other.to_string().as_str(), other.form()), ("http://127.0.0.1:9/***", Form::Json));
        for bad in ["secret", "ftp://secret/", "https:///secret", "https://h/ secret"] {
            let err = Url::parse(bad).expect_err("it is none");
            assert!(!err.chain().contains("secret"), "{}", err.chain());
        }
    }
}
