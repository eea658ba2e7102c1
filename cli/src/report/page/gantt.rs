//! A Gantt chart as numbers for its template: rows of bars over one axis of time. Bars that are too short to
//! be seen are put together, so that a drawing of any migration stays small. Pure.

use jiff::Timestamp;

use super::axis::{LEFT, Tick, Times, WIDTH, place, took};

const ROW: f64 = 22.0;
const BAR: f64 = 16.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 26.0;
/// A bar is drawn at least so wide.
const LEAST: f64 = 1.5;
/// About the width of a letter.
const LETTER: f64 = 6.6;
const LABEL_LETTERS: usize = 20;

/// Something that took a time.
#[derive(Debug, Clone)]
pub struct Item {
    pub from: Timestamp,
    pub to: Timestamp,
    /// What it is, as its class in the style sheet.
    pub class: &'static str,
    pub label: String,
    /// Said when it is pointed at.
    pub title: String,
}

#[derive(Debug, Clone)]
pub struct Row {
    pub label: String,
    pub items: Vec<Item>,
}

#[derive(Debug, PartialEq)]
pub struct Bar {
    pub x: String,
    pub y: String,
    pub width: String,
    pub class: &'static str,
    pub title: String,
    /// What stands in it, if there is room, and where.
    pub label: Option<(String, String)>,
}

#[derive(Debug)]
pub struct Label {
    pub y: String,
    pub text: String,
    pub whole: String,
}

/// What the template draws.
#[derive(Debug)]
pub struct Gantt {
    pub id: &'static str,
    pub title: String,
    pub about: String,
    pub width: f64,
    pub height: String,
    pub left: String,
    pub bottom: String,
    pub bar: f64,
    pub labels: Vec<Label>,
    pub bars: Vec<Bar>,
    pub ticks: Vec<Tick>,
    /// Class and name of what is drawn.
    pub legend: Vec<(&'static str, &'static str)>,
}

pub fn gantt(id: &'static str, title: &str, about: String, times: Times, rows: &[Row]) -> Gantt {
    let (mut bars, mut labels) = (Vec::new(), Vec::new());
    for (at, row) in rows.iter().enumerate() {
        let y = TOP + at as f64 * ROW;
        labels.push(Label {
            y: place(y + BAR - 4.0),
            text: short(&row.label, LABEL_LETTERS),
            whole: row.label.clone(),
        });
        bars.extend(bars_of(row, times, y));
    }
    let bottom = TOP + rows.len() as f64 * ROW;
    Gantt {
        id,
        title: title.into(),
        about,
        width: WIDTH,
        height: place(bottom + BOTTOM),
        left: place(LEFT),
        bottom: place(bottom),
        bar: BAR,
        labels,
        bars,
        ticks: times.ticks(),
        legend: Vec::new(),
    }
}

/// Bars in hand, before they are written as text.
struct Drawn<'a> {
    left: f64,
    right: f64,
    items: Vec<&'a Item>,
}

fn bars_of(row: &Row, times: Times, y: f64) -> Vec<Bar> {
    let mut items: Vec<&Item> = row.items.iter().collect();
    items.sort_by_key(|item| item.from);
    let mut drawn: Vec<Drawn<'_>> = Vec::new();
    for item in items {
        let (left, right) = (times.x(item.from), times.x(item.to));
        let is_short = right - left < LEAST;
        match drawn.last_mut() {
            Some(last)
                if is_short
                    && left < last.right + 0.5
                    && last.right - last.left < 4.0 * LEAST
                    && last.items[0].class == item.class =>
            {
                last.right = last.right.max(right);
                last.items.push(item);
            }
            _ => drawn.push(Drawn { left, right: right.max(left + LEAST), items: vec![item] }),
        }
    }
    drawn.into_iter().map(|drawn| bar(&drawn, y)).collect()
}

fn bar(drawn: &Drawn<'_>, y: f64) -> Bar {
    let (first, last) = (drawn.items[0], drawn.items[drawn.items.len() - 1]);
    let width = drawn.right - drawn.left;
    let title = match drawn.items.len() {
        1 => first.title.clone(),
        count => format!("{count} short ones in {}: {}, …", took(first.from, last.to), first.title),
    };
    let room = ((width - 8.0) / LETTER).max(0.0) as usize;
    let label = (room >= 4 && !first.label.is_empty()).then(|| (place(drawn.left + 4.0), short(&first.label, room)));
    Bar { x: place(drawn.left), y: place(y), width: place(width), class: first.class, title, label }
}

/// The text, or its begin.
pub fn short(text: &str, letters: usize) -> String {
    if text.chars().count() <= letters {
        return text.to_string();
    }
    let begin: String = text.chars().take(letters.saturating_sub(1)).collect();
    format!("{begin}…")
}

/// As few rows as hold the items with none over another: who worked side by side.
pub fn side_by_side(mut items: Vec<Item>, name: &str) -> Vec<Row> {
    items.sort_by_key(|item| (item.from, item.to));
    let mut rows: Vec<Row> = Vec::new();
    for item in items {
        let free = rows.iter_mut().find(|row| row.items.last().is_none_or(|last| last.to <= item.from));
        match free {
            Some(row) => row.items.push(item),
            None => rows.push(Row { label: String::new(), items: vec![item] }),
        }
    }
    let one = rows.len() == 1;
    for (at, row) in rows.iter_mut().enumerate() {
        row.label = if one { name.to_string() } else { format!("{name} {}", at + 1) };
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(from: i64, to: i64) -> Item {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        Item { from: at(from), to: at(to), class: "copy", label: "public.t".into(), title: format!("{from}") }
    }

    #[test]
    fn what_overlaps_lies_in_rows_of_its_own() {
        let rows = side_by_side(vec![item(0, 10), item(0, 5), item(5, 8), item(10, 12), item(7, 9)], "worker");
        let held: Vec<(String, usize)> = rows.iter().map(|row| (row.label.clone(), row.items.len())).collect();
        assert_eq!(held, [("worker 1".into(), 3), ("worker 2".into(), 1), ("worker 3".into(), 1)]);
    }

    #[test]
    fn a_thousand_short_ones_are_a_few_bars_and_a_long_one_bears_its_name() {
        let mut items: Vec<Item> = (0..5000).map(|n| item(n, n + 1)).collect();
        items.push(item(5000, 100_000));
        let times = Times::new(items[0].from, items[5000].to);
        let drawn = gantt("g", "g", String::new(), times, &[Row { label: "a".into(), items }]);
        assert!(drawn.bars.len() < 30, "{}", drawn.bars.len());
        assert!(drawn.bars[0].title.contains("short ones in "), "{}", drawn.bars[0].title);
        assert_eq!(drawn.bars.last().and_then(|bar| bar.label.clone()).map(|(_, text)| text), Some("public.t".into()));
    }
}
