//! What came out: the costs of each contender, their medians and ratios, and the targets that were
//! met or not. Ratios are taken round by round, where both had the same machine, then the median.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use crate::meter::Cost;

/// One contender's runs. A round that failed leaves a gap, so that rounds stay side by side.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub name: String,
    pub runs: Vec<Option<Cost>>,
    pub error: Option<String>,
}

/// A promise of the project, and the figure that was found.
#[derive(Debug, Clone, Serialize)]
pub struct Target {
    pub what: String,
    pub limit: f64,
    pub found: Option<f64>,
}

impl Target {
    pub fn at_most(what: impl Into<String>, limit: f64, found: Option<f64>) -> Target {
        Target { what: what.into(), limit, found }
    }
    fn verdict(&self) -> &'static str {
        match self.found {
            Some(found) if found <= self.limit => "met",
            Some(_) => "NOT MET",
            None => "not measured",
        }
    }
}

#[derive(Debug, Default, Serialize)]
pub struct Table {
    pub title: String,
    pub rows: Vec<Row>,
    /// Contenders that the others are held against, a pair of columns each.
    pub references: Vec<String>,
    /// Further facts, a line each.
    pub notes: Vec<String>,
    pub targets: Vec<Target>,
}

impl Table {
    pub fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }
    /// The median of a figure of one contender.
    pub fn median(&self, name: &str, of: impl Fn(&Cost) -> f64) -> Option<f64> {
        median(self.row(name)?.runs.iter().flatten().map(of).collect())
    }
    /// The highest value of a figure of one contender.
    pub fn highest(&self, name: &str, of: impl Fn(&Cost) -> f64) -> Option<f64> {
        self.row(name)?.runs.iter().flatten().map(of).max_by(f64::total_cmp)
    }
    pub fn ratio(&self, name: &str, to: &str, of: impl Fn(&Cost) -> f64) -> Option<f64> {
        let (row, reference) = (self.row(name)?, self.row(to)?);
        let both = row.runs.iter().zip(&reference.runs).filter_map(|(a, b)| Some(of(a.as_ref()?) / of(b.as_ref()?)));
        median(both.filter(|ratio| ratio.is_finite()).collect())
    }
    /// Of the named contenders the one with the lowest median of a figure.
    pub fn best<'a>(&self, names: impl Iterator<Item = &'a str>, of: impl Fn(&Cost) -> f64 + Copy) -> Option<&'a str> {
        let measured = names.filter_map(|name| Some((name, self.median(name, of)?)));
        measured.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(name, _)| name)
    }
}

/// In milliseconds.
pub fn percentile(times: &[Duration], part: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort();
    let at = ((sorted.len() as f64 * part).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}

pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[half]),
        _ => Some((values[half - 1] + values[half]) / 2.0),
    }
}

#[derive(Debug, Serialize)]
pub struct Report {
    /// What was measured where, a line each.
    pub about: Vec<String>,
    pub tables: Vec<Table>,
}

impl Report {
    pub fn json(&self) -> String {
        let mut value = json!({ "format": 1, "about": self.about, "tables": self.tables });
        for (table, shown) in self.tables.iter().zip(value["tables"].as_array_mut().into_iter().flatten()) {
            for (target, shown) in table.targets.iter().zip(shown["targets"].as_array_mut().into_iter().flatten()) {
                shown["verdict"] = json!(target.verdict());
            }
        }
        value.to_string()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.about {
            writeln!(f, "{line}")?;
        }
        for table in &self.tables {
            write!(f, "\n{table}")?;
        }
        let targets: Vec<(&Table, &Target)> =
            self.tables.iter().flat_map(|table| table.targets.iter().map(move |target| (table, target))).collect();
        if !targets.is_empty() {
            writeln!(f, "\ntargets")?;
        }
        for (table, target) in targets {
            let title = table.title.split(':').next().unwrap_or_default();
            let found = target.found.map_or("-".to_string(), short);
            let limit = short(target.limit);
            writeln!(f, "  {:12} {title}: {}: {found} (at most {limit})", target.verdict(), target.what)?;
        }
        Ok(())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        let mut lines = vec![
            ["contender", "wall s", "tool CPU s", "source CPU s", "target CPU s", "all CPU s", "peak MB"]
                .map(String::from)
                .to_vec(),
        ];
        for reference in &self.references {
            lines[0].push(format!("wall/{reference}"));
            lines[0].push(format!("CPU/{reference}"));
        }
        lines[0].push("every wall s".to_string());
        for row in &self.rows {
            let figure = |of: fn(&Cost) -> f64| self.median(&row.name, of).map_or("-".to_string(), short);
            let mut line = vec![
                row.name.clone(),
                figure(|c| c.wall),
                figure(|c| c.tool_cpu),
                figure(|c| c.source_cpu),
                figure(|c| c.target_cpu),
                figure(Cost::total_cpu),
                self.highest(&row.name, |c| c.peak_mb).map_or("-".to_string(), |mb| format!("{mb:.0}")),
            ];
            for reference in &self.references {
                for of in [(|c: &Cost| c.wall) as fn(&Cost) -> f64, Cost::total_cpu] {
                    line.push(self.ratio(&row.name, reference, of).map_or("-".to_string(), |r| format!("{r:.2}")));
                }
            }
            let every = row.runs.iter().map(|run| run.map_or("failed".to_string(), |cost| short(cost.wall)));
            line.push(every.collect::<Vec<_>>().join(" "));
            lines.push(line);
        }
        let widths: Vec<usize> = (0..lines[0].len())
            .map(|at| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or_default())
            .collect();
        for line in &lines {
            let cells = line.iter().zip(&widths).enumerate().map(|(at, (cell, width))| match at {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            writeln!(f, "  {}", cells.collect::<Vec<_>>().join("  "))?;
        }
        for row in &self.rows {
            if let Some(error) = &row.error {
                writeln!(f, "  {}: {error}", row.name)?;
            }
        }
        for note in &self.notes {
            writeln!(f, "  {note}")?;
        }
        Ok(())
    }
}

/// Three figures or so.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, walls: &[Option<f64>]) -> Row {
        let runs = walls.iter().map(|wall| wall.map(|wall| Cost { wall, ..Cost::default() })).collect();
        Row { name: name.to_string(), runs, error: None }
    }

    #[test]
    fn a_ratio_is_taken_round_by_round_and_a_failed_round_counts_for_neither() {
        let rows = vec![row("a", &[Some(1.0), Some(30.0), None]), row("b", &[Some(2.0), Some(60.0), Some(1.0)])];
        let table = Table { rows, ..Table::default() };
        assert_eq!(table.ratio("a", "b", |c| c.wall), Some(0.5));
        assert_eq!(table.ratio("a", "nobody", |c| c.wall), None);
        assert_eq!(table.median("b", |c| c.wall), Some(2.0));
        assert_eq!(table.best(["a", "b"].into_iter(), |c| c.wall), Some("b"));
    }

    #[test]
    fn a_target_without_a_figure_is_not_met_in_silence() {
        assert_eq!(Target::at_most("wall", 0.9, None).verdict(), "not measured");
        assert_eq!(Target::at_most("wall", 0.9, Some(0.9)).verdict(), "met");
        assert_eq!(Target::at_most("wall", 0.9, Some(0.91)).verdict(), "NOT MET");
    }
}
