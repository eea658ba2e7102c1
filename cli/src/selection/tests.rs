//! Filters against a small catalog of which every dependency is written down.

use std::collections::HashSet;

use super::matching::Patterns;
use super::resolve::{Resolved, resolve};
use crate::config::filters::Filters;
use crate::error::Result;
use crate::model::TableName;
use crate::source::inventory::{ForeignKey, Index, Inventory, Need, Relation, class};

const SCHEMAS: [(u32, &str); 2] = [(1, "app"), (2, "old")];

fn relation(oid: u32, kind: char, name: &str, parent: Option<u32>, owner: Option<u32>) -> Relation {
    let (schema, table) = name.split_once('.').expect("schema.table");
    Relation { oid, name: TableName::new(schema, table), kind, parent, extension: None, owner, readable: true }
}
fn need(object: (u32, u32), on: (u32, u32), kind: char) -> Need {
    Need { object, on, kind }
}

/// app: customers ← orders (with a key, a default from a sequence, a view); a partitioned table of two
/// levels; old: log, and a function that a default of app.orders calls.
fn catalog() -> Inventory {
    let relation_of = |oid| (class::RELATION, oid);
    let relations = vec![
        relation(10, 'r', "app.customers", None, None),
        relation(11, 'r', "app.orders", None, None),
        relation(12, 'S', "app.orders_id_seq", None, Some(11)),
        relation(13, 'v', "app.open_orders", None, None),
        relation(14, 'm', "app.totals", None, None),
        relation(20, 'p', "app.events", None, None),
        relation(21, 'p', "app.events_a", Some(20), None),
        relation(22, 'r', "app.events_a1", Some(21), None),
        relation(23, 'r', "app.events_b", Some(20), None),
        relation(30, 'r', "old.log", None, None),
        relation(31, 'r', "app.copies", None, None),
    ];
    let mut needs = vec![
        need((2606, 50), relation_of(11), 'a'),
        need((2606, 50), relation_of(10), 'n'),
        need((class::RULE, 60), relation_of(13), 'i'),
        need((class::RULE, 60), relation_of(11), 'n'),
        need((class::RULE, 61), relation_of(14), 'i'),
        need((class::RULE, 61), relation_of(13), 'n'),
        need((class::DEFAULT, 70), relation_of(11), 'a'),
        need((class::DEFAULT, 70), relation_of(12), 'n'),
        need((class::DEFAULT, 71), relation_of(31), 'a'),
        need((class::DEFAULT, 71), relation_of(12), 'n'),
        need(relation_of(12), relation_of(11), 'a'),
        need((class::DEFAULT, 72), relation_of(10), 'a'),
        need((class::DEFAULT, 72), (1255, 80), 'n'),
        need((1255, 80), (class::SCHEMA, 2), 'n'),
        need(relation_of(21), relation_of(20), 'a'),
        need(relation_of(22), relation_of(21), 'a'),
        need(relation_of(23), relation_of(20), 'a'),
        need(relation_of(90), (class::CONSTRAINT, 91), 'i'),
        need((class::CONSTRAINT, 91), relation_of(10), 'a'),
        need((class::CONSTRAINT, 50), relation_of(90), 'n'),
    ];
    needs.extend(relations.iter().map(|relation| {
        let schema = SCHEMAS.iter().find(|(_, name)| *name == relation.name.schema).expect("a schema of ours").0;
        need(relation_of(relation.oid), (class::SCHEMA, schema), 'n')
    }));
    let index = |oid, name: &str, constraint, identity| Index {
        oid,
        name: TableName::new("app", name),
        table: 10,
        constraint,
        identity,
    };
    Inventory {
        relations,
        schemas: SCHEMAS.map(|(oid, name)| (oid, name.to_string())).to_vec(),
        indexes: vec![index(90, "customers_pkey", Some(91), true), index(92, "customers_name", None, false)],
        foreign_keys: vec![ForeignKey {
            oid: 50,
            title: "fk on app.orders".into(),
            table: 11,
            referenced: 10,
            partitioned: false,
        }],
        needs,
        ..Inventory::default()
    }
}

fn resolved(text: &str) -> Result<Resolved> {
    let filters = Filters::parse("f.ini", text)?;
    let patterns: Patterns =
        [("^events_".to_string(), ["events_a", "events_a1", "events_b"].map(String::from).into())].into();
    resolve(&catalog(), &filters, &patterns, true)
}
/// Names of the relations that are left out.
fn out(text: &str) -> Vec<String> {
    let resolved = resolved(text).unwrap_or_else(|err| panic!("{text}: {err:?}"));
    let gone = |relation: &Relation| resolved.out.contains_key(&(class::RELATION, relation.oid));
    catalog().relations.iter().filter(|relation| gone(relation)).map(|relation| relation.name.table.clone()).collect()
}

#[test]
fn views_go_with_what_they_read_and_a_sequence_stays_for_who_draws_from_it() {
    let text = "[exclude-table]\napp.orders";
    assert_eq!(out(text), ["orders", "open_orders", "totals"]);
    assert_eq!(resolved(text).unwrap().disowned, [12]);
    let told: Vec<_> = resolved(text).unwrap().dependents.into_iter().map(|(object, _)| object).collect();
    assert_eq!(told, [(class::RELATION, 13), (class::RELATION, 14)]);
    assert_eq!(
        out("[exclude-table]\napp.orders\napp.copies"),
        ["orders", "orders_id_seq", "open_orders", "totals", "copies"]
    );
}

#[test]
fn partitions_follow_their_root_and_bring_it_along() {
    let all = ["events", "events_a", "events_a1", "events_b"];
    assert_eq!(out("[exclude-table]\napp.events"), all);
    assert_eq!(out("[exclude-table]\napp.~/^events_/"), all[1..]);
    assert_eq!(out("[exclude-table]\napp.events_a"), ["events_a", "events_a1"]);
    let kept = |text| {
        let out: HashSet<String> = out(text).into_iter().collect();
        all.into_iter().filter(|name| !out.contains(*name)).collect::<Vec<_>>()
    };
    assert_eq!(kept("[include-only-table]\napp.events"), all);
    assert_eq!(kept("[include-only-table]\napp.events_a1"), ["events", "events_a", "events_a1"]);
    let rows = resolved("[exclude-table-data]\napp.events_a").unwrap().without_rows;
    assert_eq!(rows, HashSet::from([21, 22]));
}

#[test]
fn a_foreign_key_goes_with_its_table_and_stays_unchecked_without_its_rows() {
    let without = resolved("[exclude-table]\napp.customers").unwrap();
    assert!(without.out.contains_key(&(class::CONSTRAINT, 50)));
    assert!(without.unchecked.is_empty());
    assert_eq!(resolved("[exclude-table-data]\napp.customers").unwrap().unchecked, [50]);
    assert!(resolved("[exclude-table-data]\napp.customers\napp.orders").unwrap().unchecked.is_empty());
}

#[test]
fn what_a_left_out_schema_lends_to_others_is_only_told() {
    let resolved = resolved("[exclude-schema]\nold").unwrap();
    assert!(resolved.out.contains_key(&(class::RELATION, 30)) && resolved.out.contains_key(&(1255, 80)));
    assert_eq!(resolved.needed.into_iter().collect::<Vec<_>>(), [((1255, 80), vec![(class::DEFAULT, 72)])]);
    assert!(!resolved.out.contains_key(&(class::DEFAULT, 72)));
}

#[test]
fn what_cannot_be_without_each_other_is_refused() {
    for (text, said) in [
        ("[exclude-table]\napp.orders_id_seq", "app.orders has a default that needs app.orders_id_seq"),
        ("[exclude-index]\napp.customers_pkey", "f.ini:2: app.customers_pkey cannot be left out"),
    ] {
        let err = resolved(text).err().unwrap_or_else(|| panic!("{text} was resolved"));
        assert!(err.to_string().contains(said), "{err}");
    }
    assert!(resolved("[exclude-index]\napp.customers_name").unwrap().out.contains_key(&(class::RELATION, 92)));
}

#[test]
fn an_entry_that_matches_nothing_is_noted_in_every_section() {
    let text = "[exclude-schema]\nnope\n[exclude-table]\napp.nope\n[exclude-table-data]\nold.nope\n[exclude-index]\napp.nope\n\
                [exclude-extension]\nnope\n[exclude-event-trigger]\nnope\n";
    let mut unmatched = resolved(text).unwrap().unmatched;
    unmatched.sort_by_key(|text| text.len());
    assert_eq!(unmatched.len(), 6, "{unmatched:?}");
    assert!(unmatched.contains(&"f.ini:4 [exclude-table] app.nope".to_string()), "{unmatched:?}");
}
