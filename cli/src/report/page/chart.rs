//! A chart of values over time as numbers for its template. Where nothing is known a line has a gap. Pure.

use jiff::Timestamp;

use super::axis::{LEFT, RIGHT, Tick, Times, Unit, WIDTH, place};

const HEIGHT: f64 = 190.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 26.0;

/// One line: pieces of it, each without a gap.
#[derive(Debug, Clone, Default)]
pub struct Line {
    pub name: &'static str,
    pub class: &'static str,
    pub pieces: Vec<Vec<(Timestamp, f64)>>,
}

impl Line {
    pub fn highest(&self) -> f64 {
        self.pieces.iter().flatten().map(|(_, value)| *value).fold(0.0, f64::max)
    }
}

#[derive(Debug)]
pub struct Path {
    pub class: &'static str,
    pub name: &'static str,
    pub highest: String,
    pub d: String,
}

/// What the template draws.
#[derive(Debug)]
pub struct Chart {
    pub id: &'static str,
    pub title: &'static str,
    pub about: String,
    pub width: f64,
    pub height: String,
    pub left: String,
    pub right: String,
    pub paths: Vec<Path>,
    pub ticks: Vec<Tick>,
    pub values: Vec<Tick>,
}

/// None where there is nothing to draw.
pub fn chart(id: &'static str, title: &'static str, about: String, unit: Unit, lines: &[Line]) -> Option<Chart> {
    let times = || lines.iter().flat_map(|line| line.pieces.iter().flatten()).map(|(at, _)| *at);
    let times = Times::new(times().min()?, times().max()?);
    let highest = lines.iter().map(Line::highest).fold(0.0, f64::max);
    let step = unit.step(highest.max(if unit == Unit::Seconds { 0.01 } else { 1.0 }));
    let steps = (highest / step).ceil().max(1.0);
    let (bottom, room) = (HEIGHT - BOTTOM, HEIGHT - BOTTOM - TOP);
    let y = |value: f64| bottom - value / (steps * step) * room;
    let path = |line: &Line| {
        let mut d = String::new();
        for piece in &line.pieces {
            for (at, (time, value)) in piece.iter().enumerate() {
                d.push_str(&format!(
                    "{}{} {} ",
                    if at == 0 { 'M' } else { 'L' },
                    place(times.x(*time)),
                    place(y(*value))
                ));
            }
            // A lone point is seen as well.
            if let [(time, value)] = piece.as_slice() {
                d.push_str(&format!("L{} {} ", place(times.x(*time) + 1.5), place(y(*value))));
            }
        }
        Path { class: line.class, name: line.name, highest: unit.text(line.highest()), d: d.trim_end().to_string() }
    };
    Some(Chart {
        id,
        title,
        about,
        width: WIDTH,
        height: place(HEIGHT),
        left: place(LEFT),
        right: place(WIDTH - RIGHT),
        paths: lines.iter().filter(|line| !line.pieces.is_empty()).map(path).collect(),
        ticks: times.ticks(),
        values: (0..=steps as usize)
            .map(|n| n as f64 * step)
            .map(|value| Tick { at: place(y(value)), label: if value == 0.0 { "0".into() } else { unit.text(value) } })
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_begins_a_new_piece_and_values_fit_their_axis() {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        let pieces = vec![vec![(at(0), 0.0), (at(10), 4000.0)], vec![(at(50), 100.0), (at(100), 0.0)]];
        let line = Line { name: "lag", class: "a", pieces };
        let drawn = chart("lag", "Lag", String::new(), Unit::Bytes, &[line]).unwrap();
        assert_eq!(drawn.paths[0].d.matches('M').count(), 2);
        assert_eq!(
            drawn.values.iter().map(|tick| tick.label.as_str()).collect::<Vec<_>>(),
            ["0", "1.0 KiB", "2.0 KiB", "3.0 KiB", "4.0 KiB"]
        );
        assert!(chart("lag", "Lag", String::new(), Unit::Bytes, &[Line::default()]).is_none());
    }
}
