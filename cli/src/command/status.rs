//! `pgmig status`: reads views and catalogs, and blocks nothing. With `--watch` on a terminal it takes the
//! whole screen and gives it back as it was.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyModifiers};
use futures_util::StreamExt;
use tokio_postgres::Client;

use crate::args::StatusArgs;
use crate::command::conninfo;
use crate::connect::{self, Side};
use crate::error::{Error, Exit, Result};
use crate::model::status::Status;
use crate::report::watch::Screen;
use crate::report::{json, status};
use crate::source::health;
use crate::target::{self, install};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(1);
/// How long the source may take: what the target says does not wait for it any longer.
const SOURCE_WITHIN: Duration = Duration::from_secs(3);

pub async fn status(args: StatusArgs) -> Result<Exit> {
    let mut looker = Looker { args, target: None, source: None };
    let first = looker.look().await?;
    if looker.args.watch && !looker.args.json && std::io::stdout().is_terminal() {
        return full_screen(looker, first).await;
    }
    let mut found = first;
    loop {
        let text = if looker.args.json {
            let object = serde_json::json!({ "format": json::FORMAT, "migrations": found });
            format!("{object}\n")
        } else {
            found.iter().map(status::table).collect::<Vec<_>>().join("\n")
        };
        let mut out = std::io::stdout();
        // A reader that went away is no error.
        if write!(out, "{text}").and_then(|()| out.flush()).is_err() || !looker.args.watch {
            return Ok(Exit::Done);
        }
        tokio::time::sleep(EVERY).await;
        found = looker.look().await?;
    }
}

/// Looks at both sides, with sessions that are made when they are needed.
struct Looker {
    args: StatusArgs,
    target: Option<Client>,
    source: Option<Client>,
}

impl Looker {
    async fn look(&mut self) -> Result<Vec<Status>> {
        let client = match self.target.take() {
            Some(client) => client,
            None => {
                let client = connect::client(&conninfo(&self.args.target)?, Side::Target, "pgmig status", &[]).await?;
                if install::installed(&client).await?.is_none() {
                    return Err(
                        Error::new(Exit::Phase, "there is no migration on the target").hint("start one: pgmig run")
                    );
                }
                client
            }
        };
        let mut found = target::status::status(&client, self.args.name.as_deref(), self.args.caught_up_at).await?;
        self.target = Some(client);
        if found.is_empty() {
            let what = self.args.name.as_ref().map_or("no migration".into(), |name| format!("no migration `{name}`"));
            return Err(Error::new(Exit::Phase, format!("there is {what} on the target"))
                .hint("see them all: pgmig status; start one: pgmig run"));
        }
        if self.args.source.is_some() {
            for status in &mut found {
                let asked = tokio::time::timeout(SOURCE_WITHIN, self.ask_source(&status.progress.slot_name)).await;
                status.source = match asked {
                    Ok(Ok(health)) => Some(health),
                    Ok(Err(err)) => {
                        tracing::debug!(error = %err.chain(), "the source does not answer");
                        None
                    }
                    Err(_) => None,
                };
            }
        }
        for status in &mut found {
            status.abandoned = status.is_abandoned(self.args.abandoned_after.as_secs_f64());
        }
        Ok(found)
    }

    async fn ask_source(&mut self, slot_name: &str) -> Result<crate::model::status::SourceHealth> {
        let client = match (self.source.take(), &self.args.source) {
            (Some(client), _) => client,
            (None, Some(source)) => connect::client(&conninfo(source)?, Side::Source, "pgmig status", &[]).await?,
            (None, None) => return Err(Error::usage("there is no --source")),
        };
        let health = health::health(&client, slot_name).await?;
        self.source = Some(client);
        Ok(health)
    }
}

/// Draws until q, Esc or Ctrl-C. A target that does not answer for a while leaves the last figures, with
/// their age.
async fn full_screen(mut looker: Looker, first: Vec<Status>) -> Result<Exit> {
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut terminal = ratatui::init();
    let (mut found, mut seen, mut trouble) = (first, Instant::now(), None::<String>);
    let mut keys = EventStream::new();
    let mut shown = 0;
    let drawn = loop {
        let screen = Screen {
            status: &found[shown % found.len()],
            stale: trouble.as_deref().map(|why| (why, seen.elapsed())),
            colour,
        };
        if let Err(err) = terminal.draw(|frame| screen.draw(frame)) {
            break Err(err);
        }
        tokio::select! {
            key = keys.next() => match key {
                Some(Ok(Event::Key(key))) if quits(&key) => break Ok(()),
                Some(Ok(Event::Key(key))) if key.code == KeyCode::Tab => shown += 1,
                Some(Ok(_)) => {}
                Some(Err(err)) => break Err(err),
                None => break Ok(()),
            },
            () = tokio::time::sleep_until((seen + EVERY).max(Instant::now() + EVERY / 4).into()) => {
                match tokio::time::timeout(EVERY * 5, looker.look()).await {
                    Ok(Ok(now)) => (found, seen, trouble) = (now, Instant::now(), None),
                    Ok(Err(err)) => trouble = Some(err.chain()),
                    Err(_) => trouble = Some("the target does not answer".into()),
                }
            }
        }
    };
    ratatui::restore();
    drawn.map_err(|cause| {
        Error::new(Exit::Usage, "cannot draw on this terminal").cause(cause).hint("leave --watch out")
    })?;
    // What was on the screen last is left behind.
    found.iter().for_each(|status| print!("{}", status::table(status)));
    Ok(Exit::Done)
}

fn quits(key: &KeyEvent) -> bool {
    matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
        || key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL)
}
