//! Bars on a terminal: the whole copy with rate and time left, the tables in flight, what is being
//! built, and the stream. Drawn on stderr.

use std::collections::BTreeMap;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::plain::catch_up;
use super::tally::Tally;
use super::{Display, Event, plain, units};
use crate::model::Phase;

#[derive(Default)]
pub struct Bars {
    all: MultiProgress,
    total: Option<ProgressBar>,
    parts: BTreeMap<i64, ProgressBar>,
    building: Option<ProgressBar>,
    stream: Option<ProgressBar>,
}

impl Bars {
    fn spinner(&self, template: &str) -> ProgressBar {
        let bar = self.all.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ "));
        }
        bar
    }

    fn bar(&self, length: u64, template: &str) -> ProgressBar {
        let bar = self.all.add(ProgressBar::new(length));
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar
    }

    fn clear_copy(&mut self) {
        for bar in self
            .total
            .take()
            .into_iter()
            .chain(self.building.take())
            .chain(std::mem::take(&mut self.parts).into_values())
        {
            bar.finish_and_clear();
        }
    }

    fn draw_copy(&mut self, tally: &Tally) {
        let total = match &self.total {
            Some(total) => total.clone(),
            None => {
                let bar = self.bar(tally.bytes.max(1), "  {bar:40} {percent:>3} %  {msg}");
                self.total.insert(bar).clone()
            }
        };
        total.set_length(tally.bytes.max(1));
        total.set_position(if tally.bytes == 0 { 1 } else { tally.bytes_now() });
        let rate = tally.pace().map_or(String::new(), |(rate, left)| {
            format!("   {}/s   {} left", units::bytes(rate as u64), units::duration(left))
        });
        total.set_message(format!(
            "{} of {}   {} of {} Parts{rate}{}",
            units::bytes(tally.bytes_now()),
            units::bytes(tally.bytes),
            tally.parts_done,
            tally.parts,
            if tally.load.gives_way.is_some() { "   gives way to the source" } else { "" }
        ));
        let gone: Vec<i64> = self.parts.keys().filter(|id| !tally.in_flight.contains_key(id)).copied().collect();
        for bar in gone.iter().filter_map(|id| self.parts.remove(id)) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
        for (id, part) in &tally.in_flight {
            // A table that is over before the eye sees it needs no bar.
            if part.since.elapsed().as_millis() < 250 && !self.parts.contains_key(id) {
                continue;
            }
            if !self.parts.contains_key(id) {
                let bar = self.bar(part.bytes.max(1), "  {bar:40} {percent:>3} %  {msg}");
                self.parts.insert(*id, bar);
            }
            let bar = &self.parts[id];
            bar.set_position(part.bytes_now());
            bar.set_message(format!("{}   {}", part.name, units::bytes(part.copied)));
        }
        if tally.building.is_empty() {
            if let Some(bar) = self.building.take() {
                bar.finish_and_clear();
            }
        } else {
            let text = format!("building {}", tally.building.join(", "));
            if self.building.is_none() {
                self.building = Some(self.spinner("  {spinner} {msg}"));
            }
            if let Some(bar) = &self.building {
                bar.set_message(text);
                bar.tick();
            }
        }
    }

    fn draw_stream(&mut self, tally: &Tally) {
        if self.stream.is_none() {
            self.stream = Some(self.spinner("  {spinner} {msg}"));
        }
        if let Some(bar) = &self.stream {
            let at = &tally.stream;
            bar.set_message(format!(
                "replay {}   lag {}{}   {} transactions, {} rows applied{}",
                units::position(at.replay_lsn),
                units::bytes(at.lag_bytes),
                catch_up(tally).map_or(String::new(), |left| format!(", {left} to catch up")),
                units::count(at.transactions),
                units::count(at.rows),
                at.endpos.map_or(String::new(), |endpos| format!("   endpos {endpos}"))
            ));
            bar.tick();
        }
    }
}

impl Display for Bars {
    fn event(&mut self, event: &Event, tally: &Tally) {
        if let Event::Phase { phase } = event {
            match phase {
                Phase::Catchup => self.clear_copy(),
                Phase::Done => self.end(tally),
                _ => {}
            }
        }
        if let Some(line) = plain::line(event, tally) {
            // Printed above the bars; when it cannot be, a line on stderr is no worse.
            if self.all.println(&line).is_err() {
                eprintln!("{line}");
            }
        }
    }

    fn tick(&mut self, tally: &Tally) {
        match tally.phase {
            Some(Phase::Copy | Phase::Indexes) => self.draw_copy(tally),
            Some(Phase::Catchup | Phase::Follow | Phase::Cutover) => self.draw_stream(tally),
            _ => {}
        }
    }

    fn end(&mut self, _: &Tally) {
        self.clear_copy();
        if let Some(bar) = self.stream.take() {
            bar.finish_and_clear();
        }
    }
}
