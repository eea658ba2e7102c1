//! How a server is set, value by value in units that can be compared, and which settings are worth
//! comparing before an application moves: what a difference may do to it.

use std::collections::HashMap;

use tokio_postgres::Client;

use super::parameters::{GROUPS, Kind};
use crate::connect::Side;
use crate::error::{Context, Result};

/// A setting that is compared: its group, its name, and what a difference may do.
pub struct Parameter {
    pub group: &'static str,
    pub name: &'static str,
    pub effect: &'static str,
}

/// All that are compared, in the order in which they are shown.
pub fn parameters() -> Vec<Parameter> {
    let of = |group: &'static str, list: &'static [Kind]| {
        list.iter().flat_map(move |(names, effect)| names.split(' ').map(move |name| Parameter { group, name, effect }))
    };
    GROUPS.iter().flat_map(|(group, list)| of(group, list)).collect()
}

/// A setting as a session of the application finds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// With its unit, as people write it.
    pub shown: String,
    /// Whether a change of it waits for a restart.
    pub restart: bool,
    /// Bytes or microseconds where it has a unit; otherwise the number, or the text.
    comparable: Comparable,
}

#[derive(Debug, Clone, PartialEq)]
enum Comparable {
    Number(f64),
    Text(String),
}

impl Setting {
    fn new(value: &str, unit: Option<&str>, restart: bool) -> Setting {
        let Ok(number) = value.parse::<f64>() else {
            return Setting { shown: value.into(), restart, comparable: Comparable::Text(value.into()) };
        };
        let scale = unit.and_then(scale);
        let shown = match scale {
            // -1 and 0 mean "off" or "by itself" whatever the unit.
            Some((to, kind)) if number > 0.0 => in_units(number * to, kind),
            _ => value.to_string(),
        };
        Setting { shown, restart, comparable: Comparable::Number(number * scale.map_or(1.0, |(to, _)| to)) }
    }
    pub fn same(&self, other: &Setting) -> bool {
        self.comparable == other.comparable
    }
}

#[derive(Debug, Clone, Copy)]
enum Unit {
    Bytes,
    Microseconds,
}

/// How many bytes or microseconds a unit of pg_settings is, such as `8kB` or `ms`.
fn scale(unit: &str) -> Option<(f64, Unit)> {
    let digits = unit.find(|c: char| !c.is_ascii_digit()).unwrap_or(unit.len());
    let times: f64 = unit[..digits].parse().unwrap_or(1.0);
    let (one, kind) = match &unit[digits..] {
        "B" => (1.0, Unit::Bytes),
        "kB" => (1024.0, Unit::Bytes),
        "MB" => (1048576.0, Unit::Bytes),
        "GB" => (1073741824.0, Unit::Bytes),
        "us" => (1.0, Unit::Microseconds),
        "ms" => (1e3, Unit::Microseconds),
        "s" => (1e6, Unit::Microseconds),
        "min" => (6e7, Unit::Microseconds),
        _ => return None,
    };
    Some((times * one, kind))
}

/// In the largest unit that leaves it whole, as PostgreSQL takes it.
fn in_units(value: f64, kind: Unit) -> String {
    let units: &[(&str, f64)] = match kind {
        Unit::Bytes => &[("TB", 1099511627776.0), ("GB", 1073741824.0), ("MB", 1048576.0), ("kB", 1024.0), ("B", 1.0)],
        Unit::Microseconds => &[("d", 8.64e10), ("h", 3.6e9), ("min", 6e7), ("s", 1e6), ("ms", 1e3), ("us", 1.0)],
    };
    let fits = units.iter().find(|(_, one)| value >= *one && value % one == 0.0);
    let (unit, one) = fits.unwrap_or(&units[units.len() - 1]);
    format!("{}{unit}", value / one)
}

/// The settings of this server by name. What pgmig set for its own session does not count.
pub async fn settings(client: &Client, side: Side) -> Result<HashMap<String, Setting>> {
    let names: Vec<&str> = parameters().iter().map(|parameter| parameter.name).collect();
    let rows = client
        .query(
            "select name::text, coalesce(reset_val, setting, ''), unit, context = 'postmaster'
               from pg_catalog.pg_settings where name = any ($1)",
            &[&names],
        )
        .await
        .during(side.exit(), || format!("read the settings of the {side}"))?;
    let setting = |row: &tokio_postgres::Row| {
        let (value, unit): (&str, Option<&str>) = (row.get(1), row.get(2));
        (row.get(0), Setting::new(value, unit, row.get(3)))
    };
    Ok(rows.iter().map(setting).collect())
}

/// What is set for the database and for roles in it or everywhere: whom for, name, value.
pub async fn for_roles(client: &Client, side: Side) -> Result<Vec<(String, String, String)>> {
    let rows = client
        .query(
            "select concat_ws(' ', case when s.setdatabase <> 0 then 'the database' end,
                              case when s.setrole <> 0 then 'role ' || pg_catalog.pg_get_userbyid(s.setrole) end),
                    split_part(c, '=', 1), substr(c, strpos(c, '=') + 1)
               from pg_catalog.pg_db_role_setting s cross join unnest(s.setconfig) c
              where s.setdatabase in (0, (select oid from pg_catalog.pg_database where datname = current_database()))
              order by 1, 2",
            &[],
        )
        .await
        .during(side.exit(), || format!("read what is set for roles of the {side}"))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_in_other_units_are_the_same() {
        let same = [
            (("16384", Some("8kB")), ("131072", Some("kB")), "128MB"),
            (("60000", Some("ms")), ("60", Some("s")), "1min"),
            (("0.50", None), ("0.5", None), "0.50"),
            (("on", None), ("on", None), "on"),
            (("-1", Some("MB")), ("-1", Some("MB")), "-1"),
        ];
        for ((one, unit), (other, other_unit), shown) in same {
            let (one, other) = (Setting::new(one, unit, false), Setting::new(other, other_unit, false));
            assert!(one.same(&other), "{one:?} {other:?}");
            assert_eq!(one.shown, shown);
        }
        assert!(!Setting::new("4096", Some("kB"), false).same(&Setting::new("4096", Some("MB"), false)));
        assert_eq!(Setting::new("4097", Some("kB"), false).shown, "4097kB");
    }

    #[test]
    fn every_parameter_is_named_once_and_says_what_it_does() {
        let all = parameters();
        let names: std::collections::HashSet<&str> = all.iter().map(|parameter| parameter.name).collect();
        assert_eq!(names.len(), all.len());
        assert!(all.iter().all(|parameter| !parameter.effect.is_empty() && !parameter.name.is_empty()));
    }
}
