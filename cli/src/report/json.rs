//! One JSON object a line on stdout, for machines. `format` is the number of this shape: fields may be
//! added under one number, never renamed or removed.

use std::io::Write;

use serde::Serialize;

use super::tally::Tally;
use super::{Display, Event};

pub const FORMAT: u32 = 1;

#[derive(Serialize)]
struct Line<'a> {
    format: u32,
    at: jiff::Timestamp,
    #[serde(flatten)]
    event: &'a Event,
}

pub struct Json;

impl Display for Json {
    fn event(&mut self, event: &Event, _: &Tally) {
        let line = Line { format: FORMAT, at: jiff::Timestamp::now(), event };
        if let Ok(text) = serde_json::to_string(&line) {
            // A reader that went away does not stop a migration.
            let _ = writeln!(std::io::stdout(), "{text}");
        }
    }
    fn tick(&mut self, _: &Tally) {}
    fn end(&mut self, _: &Tally) {}
}
