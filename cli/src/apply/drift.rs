//! Holds the columns of changes against those of the target's tables, before a change is written: DDL
//! on the source is noticed at the first row that it shaped, and nothing of that row's transaction is
//! written. What is to be done about it is for others to say.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::Client;

use crate::error::{Error, Exit, Result};
use crate::model::wire::{Kind, Shape};
use crate::model::{Column, TableName};
use crate::target::columns;

/// Shapes that are remembered; each frame of the spool brings its own.
const REMEMBERED: usize = 10_000;

pub struct Drift {
    columns: HashMap<TableName, Vec<Column>>,
    /// Shapes that fit, by address and whether a whole row was asked for. They are held, so that no
    /// other comes to lie there.
    fit: HashMap<(usize, bool), Arc<Shape>>,
    /// Every change lists every column of its table: pgoutput. Through wal2json an UPDATE does not.
    lists_all: bool,
}

impl Drift {
    pub fn new(lists_all: bool) -> Drift {
        Drift { columns: HashMap::new(), fit: HashMap::new(), lists_all }
    }

    /// Looks at the target anew.
    pub fn forget(&mut self) {
        self.columns.clear();
        self.fit.clear();
    }

    /// Whether `check` has found that it fits.
    pub fn fits(&self, shape: &Arc<Shape>, kind: Kind) -> bool {
        self.fit.contains_key(&(Arc::as_ptr(shape) as usize, self.is_whole(kind) || shape.columns.is_empty()))
    }

    /// Whether a shape that fits lists every column that is not computed.
    pub fn is_complete(&self, shape: &Shape) -> bool {
        self.columns.get(&shape.table).is_some_and(|columns| misfit(shape, columns, true).is_none())
    }

    fn is_whole(&self, kind: Kind) -> bool {
        kind == Kind::Insert || (kind == Kind::Update && self.lists_all)
    }

    /// An error unless the target's table has the columns of the change, and no other that the change
    /// should have.
    pub async fn check(&mut self, client: &Client, shape: &Arc<Shape>, kind: Kind) -> Result<()> {
        // Without any column, it must be a table without columns.
        let whole = self.is_whole(kind) || shape.columns.is_empty();
        let known = (Arc::as_ptr(shape) as usize, whole);
        if self.fit.contains_key(&known) {
            return Ok(());
        }
        // What is remembered of the target may be older than the DDL that was run there.
        let remembered = self.columns.get(&shape.table).is_some_and(|columns| misfit(shape, columns, whole).is_none());
        if !remembered {
            let found = columns::columns(client, std::slice::from_ref(&shape.table)).await?;
            let found = found.into_values().next().unwrap_or_default();
            if let Some(what) = misfit(shape, &found, whole) {
                return Err(Error::new(Exit::Differ, format!("{} was altered: {what}", shape.table)));
            }
            self.columns.insert(shape.table.clone(), found);
        }
        if self.fit.len() >= REMEMBERED {
            self.fit.clear();
        }
        self.fit.insert(known, Arc::clone(shape));
        Ok(())
    }
}

/// What the change has and the table lacks, or the other way round.
fn misfit(shape: &Shape, columns: &[Column], whole: bool) -> Option<String> {
    let lacks = shape.columns.iter().find(|name| !columns.iter().any(|column| column.name == **name));
    if let Some(name) = lacks {
        return Some(format!("column \"{name}\" of a change is not on the target"));
    }
    let lacking = columns.iter().find(|column| !column.generated && !shape.columns.contains(&column.name));
    lacking.filter(|_| whole).map(|column| format!("column \"{}\" of the target is not in a change", column.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_row_must_have_every_column() {
        let column = |name: &str, generated| Column {
            name: name.into(),
            type_name: "integer".into(),
            not_null: false,
            generated,
            identity: String::new(),
            default: None,
        };
        let columns = [column("id", false), column("n", false), column("twice", true)];
        let shape = |names: &[&str]| Shape {
            table: TableName::new("s", "t"),
            columns: names.iter().map(ToString::to_string).collect(),
            types: Vec::new(),
            key: vec![0],
        };
        assert_eq!(misfit(&shape(&["id", "n"]), &columns, true), None);
        assert_eq!(misfit(&shape(&["id", "n", "twice"]), &columns, true), None);
        assert_eq!(misfit(&shape(&["id"]), &columns, false), None);
        assert!(misfit(&shape(&["id"]), &columns, true).is_some_and(|what| what.contains("\"n\" of the target")));
        assert!(misfit(&shape(&["id", "x"]), &columns, false).is_some_and(|what| what.contains("\"x\" of a change")));
    }
}
