//! `pgmig notify --test`: whether a webhook takes what a run would tell it.

use crate::args::{NotifyArgs, NotifyFormatArg};
use crate::error::{Error, Exit, Result};
use crate::notify::{self, Form, Kind, News, Url};

pub fn form(url: &Url, asked: Option<NotifyFormatArg>) -> Form {
    match asked {
        Some(NotifyFormatArg::Slack) => Form::Slack,
        Some(NotifyFormatArg::Json) => Form::Json,
        None => url.form(),
    }
}

pub async fn notify(args: NotifyArgs) -> Result<Exit> {
    let url = Url::parse(&args.test)?;
    let form = form(&url, args.notify_format);
    let to = url.clone();
    let news = News::new(Kind::Test, "test", "this is a test: events of a run will come here");
    let sent = tokio::task::spawn_blocking(move || notify::send(&to, form, &news)).await;
    match sent {
        Ok(Ok(())) => {
            eprintln!("{url} took a test event\nnext: give the same URL to `pgmig run --notify`, best as PGMIG_NOTIFY");
            Ok(Exit::Done)
        }
        Ok(Err(failed)) => Err(Error::new(Exit::No, format!("{url} did not take a test event: {}", failed.why))
            .hint("see that the URL is whole and that this machine may reach it; --notify-format says what is sent")),
        Err(_) => Err(Error::bug("the thread that sends a test event died")),
    }
}
