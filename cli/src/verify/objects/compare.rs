//! Holds one side's catalogs against the other's.

use std::collections::{BTreeMap, HashSet};

use tokio_postgres::Client;

use super::read::{self, Catalog, Object, Property, Title};
use super::reprint::Reprint;
use super::{ComparedObjects, Excused, large_objects, sequences};
use crate::config::Conninfo;
use crate::connect::Side;
use crate::error::Result;
use crate::model::ObjectDifference;
use crate::source::inventory::class;

/// What is longer is told by the line where it differs.
const SHOWN: usize = 100;

/// Compares the catalogs that two sessions see. `target_conninfo`: for a session that reads definitions again.
pub async fn compare(
    source: &Client,
    target: &Client,
    target_conninfo: &Conninfo,
    excused: &Excused,
) -> Result<ComparedObjects> {
    let (here, there) = tokio::try_join!(read::major(source, Side::Source), read::major(target, Side::Target))?;
    let (both, same_major) = (here.min(there), here == there);
    let read_side = async |client: &Client, side: Side, major: i32| {
        let mut catalog = read::catalog(client, side, major, both).await?;
        if !excused.large_objects {
            large_objects::summary(client, side, &mut catalog).await?;
        }
        if !excused.follows {
            sequences::positions(client, side, &mut catalog).await?;
        }
        Ok::<_, crate::error::Error>(catalog)
    };
    let (here, there) =
        tokio::try_join!(read_side(source, Side::Source, here), read_side(target, Side::Target, there))?;
    let mut comparing = Comparing { here, there, same_major, excused, reprint: Reprint::new(target_conninfo) };
    comparing.all().await
}

struct Comparing<'a> {
    here: Catalog,
    there: Catalog,
    same_major: bool,
    excused: &'a Excused,
    reprint: Reprint<'a>,
}

impl Comparing<'_> {
    async fn all(&mut self) -> Result<ComparedObjects> {
        let mut compared = ComparedObjects::default();
        let mut pairs = Vec::new();
        let mut missing = Vec::new();
        let mut known: HashSet<&Title> = HashSet::new();
        let routed = self.routed();
        for (title, object) in &self.here.objects {
            known.insert(title);
            let elsewhere = routed.contains(&object.relation) || self.excused.is_united(object);
            if elsewhere || self.excused.is_left_out(title, object) {
                continue;
            }
            compared.objects += 1;
            match self.there.objects.get(title) {
                Some(other) => pairs.push((title.clone(), object.clone(), other.clone())),
                None if self.excused.comes_later(object) => compared.at_the_end += 1,
                // An index that is not valid is in no dump.
                None if self.here.value(object, "valid") == Some("no") => {}
                None => missing.push((title, object)),
            }
        }
        compared.differences.extend(one_sided(&missing, true, &self.here));
        let is_extra = |(title, object): &(&Title, &Object)| {
            !known.contains(title) && !self.excused.leaves_kind(&title.0) && !self.excused.is_routed(object)
        };
        let extra: Vec<(&Title, &Object)> = self.there.objects.iter().filter(is_extra).collect();
        compared.differences.extend(one_sided(&extra, false, &self.there));
        for (title, object, other) in pairs {
            self.properties(&title, &object, &other, &mut compared).await?;
        }
        compared.differences.sort();
        Ok(compared)
    }

    /// Tables of the source that are laid out otherwise on the target.
    fn routed(&self) -> HashSet<u32> {
        let there = |title: &Title| self.there.objects.get(title).is_some_and(|other| self.excused.is_routed(other));
        let tables =
            self.here.objects.iter().filter(|(_, object)| object.id.0 == class::RELATION && object.relation == 0);
        tables.filter(|(title, _)| there(title)).map(|(_, object)| object.id.1).collect()
    }

    async fn properties(
        &mut self,
        title: &Title,
        object: &Object,
        other: &Object,
        compared: &mut ComparedObjects,
    ) -> Result<()> {
        let none = BTreeMap::new();
        let here = self.here.properties.get(&object.id).unwrap_or(&none);
        let there = self.there.properties.get(&other.id).unwrap_or(&none);
        let labels: std::collections::BTreeSet<&String> = here.keys().chain(there.keys()).collect();
        for label in labels {
            let (ours, theirs) = (here.get(label), there.get(label));
            if ours.map(|p| &p.value) == theirs.map(|p| &p.value) || self.excused.leaves(object, label) {
                continue;
            }
            // The type comes first; how a column is stored goes with the layout.
            let same_type = || type_of(ours) == type_of(theirs);
            if self.excused.is_routed(other) && (!label.starts_with("column ") || same_type()) {
                continue;
            }
            // Versions of PostgreSQL come with versions of their extensions.
            let is_default = || theirs.map(|p| &p.value) == there.get("default version").map(|p| &p.value);
            if label == "default version" || (label == "version" && !self.same_major && is_default()) {
                continue;
            }
            if self.excused.is_set_later(object, label) {
                compared.at_the_end += 1;
                continue;
            }
            let mut unread = None;
            if let (Some(here), Some(there)) =
                (ours.and_then(|p| p.probe.as_ref()), theirs.and_then(|p| p.probe.as_ref()))
            {
                match self.reprint.alike(here, there).await? {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(why) => unread = Some(why),
                }
            }
            compared.differences.push(difference(title, label, ours, theirs, unread));
        }
        Ok(())
    }
}

fn difference(
    (kind, name): &Title,
    label: &str,
    here: Option<&Property>,
    there: Option<&Property>,
    unread: Option<String>,
) -> ObjectDifference {
    let (a, b) = (here.map(|p| p.value.as_str()), there.map(|p| p.value.as_str()));
    let mut what = match (a, b) {
        (Some(a), Some(b)) if a.len() <= SHOWN && b.len() <= SHOWN && !a.contains('\n') && !b.contains('\n') => {
            format!("source {a}; target {b}")
        }
        (Some(a), Some(b)) => {
            let (a, b) = first_other_line(a, b);
            format!("source … {a} …; target … {b} …")
        }
        (Some(a), None) => format!("source {}; target none", short(a)),
        (None, b) => format!("source none; target {}", short(b.unwrap_or_default())),
    };
    if let Some(why) = unread {
        what.push_str(&format!(" (the target cannot read both to tell whether they mean the same: {why})"));
    }
    let mend = match (here, there) {
        (Some(here), _) => here.mend.clone(),
        (None, there) => there.and_then(|there| there.undo.clone()),
    };
    ObjectDifference { kind: kind.clone(), object: name.clone(), property: label.into(), what, mend }
}

fn type_of(column: Option<&Property>) -> Option<&str> {
    column.and_then(|column| column.value.split(", ").next())
}

fn short(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default().trim();
    let cut: String = line.chars().take(SHOWN).collect();
    if cut.len() < text.trim().len() { format!("{cut} …") } else { cut }
}

/// The first lines that are not the same, from where they differ.
fn first_other_line(a: &str, b: &str) -> (String, String) {
    let (mut a, mut b) = (a.lines(), b.lines());
    loop {
        match (a.next(), b.next()) {
            (Some(a), Some(b)) if a == b => {}
            (a, b) => {
                let (a, b) = (a.unwrap_or("(ends)").trim(), b.unwrap_or("(ends)").trim());
                let same = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count().saturating_sub(20);
                let cut = |text: &str| text.chars().skip(same).take(SHOWN).collect();
                return (cut(a), cut(b));
            }
        }
    }
}

/// Objects that only one side has. What hangs on such a table, or comes with such a constraint, is not told.
fn one_sided(alone: &[(&Title, &Object)], on_source: bool, catalog: &Catalog) -> Vec<ObjectDifference> {
    let ids: HashSet<_> = alone.iter().map(|(_, object)| object.id).collect();
    let told = alone.iter().filter(|(_, object)| {
        !ids.contains(&(class::RELATION, object.relation)) && !ids.contains(&(class::CONSTRAINT, object.made_by))
    });
    told.map(|((kind, name), object)| ObjectDifference {
        kind: kind.clone(),
        object: name.clone(),
        property: String::new(),
        what: if on_source { "is missing on the target" } else { "is on the target only" }.into(),
        mend: catalog.creates.get(&object.id).filter(|_| on_source).cloned(),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_told_by_the_place_where_they_differ() {
        let (a, b) = first_other_line("select 1\n  from t\n where a = 1", "select 1\n  from t\n where a = 2");
        assert_eq!((a.as_str(), b.as_str()), ("where a = 1", "where a = 2"));
        assert_eq!(first_other_line("a\nb", "a"), ("b".into(), "(ends)".into()));
        assert_eq!(short("one\ntwo"), "one …");
    }
}
