//! The full-screen view of `pgmig status --watch`: what a person wants to see from across the room. Draws
//! one [`Status`] and keeps nothing. Colour never carries meaning alone.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph};

use super::{status, units};
use crate::model::Phase;
use crate::model::status::Status;

/// Where the program is in its own life: what the last look at the target gave.
pub struct Screen<'a> {
    pub status: &'a Status,
    /// Why the figures are old, and how old.
    pub stale: Option<(&'a str, Duration)>,
    pub colour: bool,
}

/// How much a line matters.
#[derive(Clone, Copy)]
enum Tone {
    Plain,
    Good,
    Warn,
    Bad,
    Faint,
    Loud,
}

impl Screen<'_> {
    fn style(&self, tone: Tone) -> Style {
        let coloured = |colour| if self.colour { Style::new().fg(colour) } else { Style::new() };
        match tone {
            Tone::Plain => Style::new(),
            Tone::Good => coloured(Color::Green),
            Tone::Warn => coloured(Color::Yellow),
            Tone::Bad => coloured(Color::Red).add_modifier(Modifier::BOLD),
            Tone::Faint => coloured(Color::DarkGray),
            Tone::Loud => Style::new().add_modifier(Modifier::BOLD | Modifier::REVERSED),
        }
    }

    fn line(&self, tone: Tone, text: String) -> Line<'static> {
        Line::styled(text, self.style(tone))
    }

    /// Draws it into whatever room there is: what matters least goes first where that is too little.
    pub fn draw(&self, frame: &mut Frame<'_>) {
        let area = frame.area();
        let head = self.head();
        let sections = [
            ("copy", self.copy(area.width)),
            ("objects", self.objects(area.width)),
            ("stream", self.stream(area.width)),
            ("servers", self.servers()),
            ("errors", self.errors()),
        ];
        let shown: Vec<&(&str, Vec<Line<'static>>)> = sections.iter().filter(|(_, lines)| !lines.is_empty()).collect();
        let next = vec![Line::from(vec![
            Span::styled("next  ", self.style(Tone::Faint)),
            Span::raw(status::next(&self.status.progress)),
        ])];
        let room = usize::from(area.height).saturating_sub(head.len() + next.len());
        let heights = heights(&shown.iter().map(|(_, lines)| lines.len() + 1).collect::<Vec<_>>(), room);
        let mut constraints = vec![Constraint::Length(head.len() as u16)];
        constraints.extend(heights.iter().map(|height| Constraint::Length(*height as u16)));
        constraints.extend([Constraint::Min(0), Constraint::Length(next.len() as u16)]);
        let areas = Layout::vertical(constraints).split(area);
        frame.render_widget(Paragraph::new(head), areas[0]);
        for (at, (title, lines)) in shown.iter().enumerate() {
            self.section(frame, areas[at + 1], title, lines);
        }
        if let Some(last) = areas.last() {
            frame.render_widget(Paragraph::new(next), *last);
        }
    }

    fn section(&self, frame: &mut Frame<'_>, area: Rect, title: &str, lines: &[Line<'static>]) {
        let room = usize::from(area.height).saturating_sub(1);
        let mut lines = lines.to_vec();
        if lines.len() > room && room > 0 {
            let hidden = lines.len() - room + 1;
            lines.truncate(room - 1);
            lines.push(self.line(Tone::Faint, format!("… {hidden} more")));
        }
        let block = Block::new()
            .borders(Borders::TOP)
            .border_style(self.style(Tone::Faint))
            .title(Span::styled(format!(" {title} "), Style::new().add_modifier(Modifier::BOLD)));
        frame.render_widget(Paragraph::new(lines).block(block), area);
    }

    fn head(&self) -> Vec<Line<'static>> {
        let p = &self.status.progress;
        let (tone, state) = status::state(p);
        let tone = match tone {
            status::Health::Good => Tone::Good,
            status::Health::Warn => Tone::Warn,
            status::Health::Bad => Tone::Bad,
        };
        let now = p.done_at.unwrap_or_else(jiff::Timestamp::now);
        let age = Duration::try_from(now.duration_since(p.started_at)).unwrap_or_default();
        let mut first = vec![
            Span::styled(format!(" {} ", p.phase.to_uppercase()), self.style(Tone::Loud)),
            Span::styled(format!("  {state}"), self.style(tone)),
            Span::raw(format!("   migration `{}`   for {}", p.migration, units::duration(age))),
        ];
        match self.status.caught_up {
            Some(true) => first.push(Span::styled("   CAUGHT UP", self.style(Tone::Good).add_modifier(Modifier::BOLD))),
            Some(false) if p.phase == "follow" => first.push(Span::styled("   behind", self.style(Tone::Warn))),
            _ => {}
        }
        let at = p.interrupted_phase.as_deref().unwrap_or(&p.phase);
        let reached = Phase::ALL.iter().position(|phase| phase.as_str() == at).unwrap_or(0);
        let mut phases = vec![Span::raw(" ")];
        for (number, phase) in Phase::ALL.iter().enumerate() {
            let (mark, tone) = match number {
                _ if p.phase == "done" || number < reached => ("✓", Tone::Good),
                _ if number == reached => ("▶", Tone::Plain),
                _ => ("·", Tone::Faint),
            };
            phases.push(Span::styled(format!("{mark} {phase}  "), self.style(tone)));
        }
        let mut lines = vec![Line::from(first), Line::from(phases)];
        if let Some((why, age)) = self.stale {
            lines.push(self.line(Tone::Bad, format!(" figures of {} ago: {why}", units::duration(age))));
        }
        lines
    }

    fn copy(&self, width: u16) -> Vec<Line<'static>> {
        let p = &self.status.progress;
        let share = share(p.bytes_done, p.bytes_total);
        let mut text = format!(
            " {} {:>3.0} %  {} of {}   tables {} of {}",
            bar(share, usize::from(width / 4).clamp(8, 40)),
            share * 100.0,
            bytes(p.bytes_done),
            bytes(p.bytes_total),
            p.tables_done,
            p.tables_total
        );
        if p.phase == "copy" {
            if let Some(rate) = p.copy_bytes_per_second {
                text.push_str(&format!("   {}/s", bytes(rate)));
            }
            if let Some(eta) = p.eta_seconds {
                text.push_str(&format!("   all rows in {}", seconds(eta)));
            }
        }
        let done = p.bytes_total > 0 && p.bytes_done >= p.bytes_total;
        let mut lines = vec![self.line(if done { Tone::Faint } else { Tone::Plain }, text)];
        if let Some(limits) = status::limits(p) {
            lines.push(self.line(Tone::Warn, format!(" {limits}")));
        }
        if let Some(why) = &p.gives_way {
            lines.push(self.line(Tone::Warn, format!(" gives way: {why}")));
        }
        let longest = self.status.copying.iter().map(|part| part.table.chars().count()).max().unwrap_or(0).min(40);
        for part in &self.status.copying {
            let share = self::share(part.bytes_done, part.bytes);
            let rate = part.bytes_per_second.map_or("-".into(), |rate| format!("{}/s", bytes(rate as i64)));
            let left = part.seconds_left.map_or("-".into(), |left| format!("{} left", seconds(left)));
            let which =
                if part.parts > 1 { format!("part {}/{}", part.part_number, part.parts) } else { String::new() };
            lines.push(self.line(
                Tone::Plain,
                format!(
                    " {} {:>3.0} %  {:<longest$}  {which:<10} {:>10}  {rate:>12}  {left}",
                    bar(share, 8),
                    share * 100.0,
                    shortened(&part.table, longest.max(12)),
                    bytes(part.bytes),
                ),
            ));
        }
        lines
    }

    fn objects(&self, width: u16) -> Vec<Line<'static>> {
        let p = &self.status.progress;
        let of = |stages: &[&str]| {
            let (mut done, mut total) = (0, 0);
            for stage in self.status.stages.iter().filter(|stage| stages.contains(&stage.stage.as_str())) {
                (done, total) = (done + stage.done + stage.failed, total + stage.total);
            }
            (done, total)
        };
        let groups: [(&str, &[&str]); 5] = [
            ("indexes", &["index"]),
            ("constraints", &["constraint"]),
            ("foreign keys", &["foreign_key"]),
            ("validated", &["validate"]),
            ("others", &["schema", "analyze", "attach", "rest", "refresh", "finish"]),
        ];
        let mut parts = Vec::new();
        for (name, stages) in groups {
            let (done, total) = of(stages);
            if total > 0 {
                parts.push(format!("{name} {done}/{total}"));
            }
        }
        if parts.is_empty() {
            return Vec::new();
        }
        let all = p.steps_done >= p.steps_total;
        let tone = if all { Tone::Faint } else { Tone::Plain };
        let mut lines: Vec<Line<'static>> =
            wrapped(&parts, width).into_iter().map(|text| self.line(tone, text)).collect();
        for step in &self.status.building {
            let done = step.done.map_or(String::new(), |done| format!("{:>3.0} %  ", done * 100.0));
            let waits =
                step.waits.as_ref().filter(|waits| waits.starts_with("Lock")).map(|w| format!("   waits for {w}"));
            let tone = if waits.is_some() { Tone::Warn } else { Tone::Plain };
            let text = format!(
                " building {} {}  {done}{}{}",
                step.kind,
                step.name,
                seconds(step.seconds),
                waits.unwrap_or_default()
            );
            lines.push(self.line(tone, text));
        }
        lines
    }

    fn stream(&self, width: u16) -> Vec<Line<'static>> {
        let p = &self.status.progress;
        if !p.follow {
            return Vec::new();
        }
        let lsn = |lsn: Option<crate::model::Lsn>| lsn.map_or("-".to_string(), |lsn| lsn.to_string());
        let rate = |rate: Option<i64>| rate.map_or("-".to_string(), |rate| format!("{}/s", bytes(rate)));
        let tone = match self.status.caught_up {
            Some(false) if p.phase == "follow" => Tone::Warn,
            _ => Tone::Plain,
        };
        let late = p.lag_seconds.map_or("-".into(), seconds);
        let lines = [
            (
                tone,
                vec![
                    format!("backlog {}, {late}", p.lag_bytes.map_or("-".into(), bytes)),
                    format!("to catch up {}", p.catch_up_seconds.map_or("-".into(), seconds)),
                    format!("spool {}", bytes(p.spool_bytes)),
                    format!("endpos {}", p.endpos.map_or("open".into(), |endpos| endpos.to_string())),
                ],
            ),
            (
                Tone::Plain,
                vec![
                    format!("last minute: applied {}", rate(p.replay_bytes_per_second)),
                    format!("written on the source {}", rate(p.source_bytes_per_second)),
                    format!(
                        "{} rows in {} transactions applied",
                        units::count(p.applied_rows.max(0) as u64),
                        units::count(p.applied_transactions.max(0) as u64)
                    ),
                ],
            ),
            (
                Tone::Faint,
                vec![
                    format!("source {}", lsn(p.source_lsn)),
                    format!("write {}", lsn(p.write_lsn)),
                    format!("flush {}", lsn(p.flush_lsn)),
                    format!("replay {}", lsn(p.replay_lsn)),
                ],
            ),
        ];
        let lines = lines
            .into_iter()
            .flat_map(|(tone, parts)| wrapped(&parts, width).into_iter().map(move |text| (tone, text)));
        lines.map(|(tone, text)| self.line(tone, text)).collect()
    }

    fn servers(&self) -> Vec<Line<'static>> {
        let mut lines = Vec::new();
        if let Some(line) = status::abandoned(self.status) {
            lines.push(self.line(Tone::Bad, format!(" {line}")));
        }
        if let Some(source) = &self.status.source {
            for (bad, line) in status::source_lines(source, &self.status.progress) {
                lines.push(self.line(if bad { Tone::Bad } else { Tone::Plain }, format!(" {line}")));
            }
        }
        if let Some(verified) = status::verified(self.status) {
            lines.push(self.line(Tone::Plain, format!(" verified: {verified}")));
        }
        if self.status.progress.retries > 0 {
            lines.push(self.line(Tone::Warn, format!(" {} retries by this run", self.status.progress.retries)));
        }
        for session in &self.status.activity {
            let waits = session.waits.as_ref().map_or(String::new(), |waits| format!("   {waits}"));
            let tone = if waits.contains("Lock:") { Tone::Warn } else { Tone::Faint };
            let text = format!(
                " target: {:<16} {:<24} {:>9}{waits}",
                shortened(&session.command, 16),
                shortened(&session.application, 24),
                seconds(session.seconds)
            );
            lines.push(self.line(tone, text));
        }
        lines
    }

    fn errors(&self) -> Vec<Line<'static>> {
        let p = &self.status.progress;
        let mut lines: Vec<Line<'static>> =
            p.last_error.iter().map(|err| self.line(Tone::Bad, format!(" {err}"))).collect();
        if p.conflicts > 0 {
            lines.push(self.line(
                Tone::Bad,
                format!(" {} changes did not fit and were passed over: pgmig.conflicts", p.conflicts),
            ));
        }
        for step in &self.status.failed {
            lines.push(self.line(Tone::Bad, format!(" could not make {} {}: {}", step.kind, step.name, step.message)));
        }
        lines
    }
}

/// Gives each section what it wants, and where that is too much takes from the longest.
fn heights(wanted: &[usize], room: usize) -> Vec<usize> {
    let mut heights = wanted.to_vec();
    while heights.iter().sum::<usize>() > room {
        let Some(longest) = heights.iter_mut().rev().max_by_key(|height| **height) else { break };
        if *longest <= 2 {
            // The last sections go where not even two lines each have room.
            let Some(last) = heights.iter().rposition(|height| *height > 0) else { break };
            heights[last] = 0;
            continue;
        }
        *longest -= 1;
    }
    heights
}

fn bytes(bytes: i64) -> String {
    units::bytes(bytes.max(0) as u64)
}

fn seconds(seconds: f64) -> String {
    units::duration(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default())
}

fn share(done: i64, total: i64) -> f64 {
    if total <= 0 { 1.0 } else { (done as f64 / total as f64).clamp(0.0, 1.0) }
}

fn bar(share: f64, width: usize) -> String {
    let full = (share * width as f64).floor() as usize;
    format!("{}{}", "█".repeat(full), "░".repeat(width - full))
}

/// Parts that belong together on as few lines as the width allows; none is cut in two.
fn wrapped(parts: &[String], width: u16) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 3 + part.chars().count() <= usize::from(width) => {
                line.push_str("   ");
                line.push_str(part);
            }
            _ => lines.push(format!(" {part}")),
        }
    }
    lines
}

fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_string();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_section_gives_way_first_and_the_last_goes_where_nothing_is_left() {
        assert_eq!(heights(&[3, 10, 4], 20), [3, 10, 4]);
        assert_eq!(heights(&[3, 10, 4], 12), [3, 5, 4]);
        assert_eq!(heights(&[3, 10, 4], 4), [2, 2, 0]);
        assert_eq!(bar(0.5, 4), "██░░");
        assert_eq!(shortened("a_long_name", 6), "a_lon…");
        let parts = ["one".to_string(), "two".to_string(), "three".to_string()];
        assert_eq!(wrapped(&parts, 80), [" one   two   three"]);
        assert_eq!(wrapped(&parts, 12), [" one   two", " three"]);
    }
}
