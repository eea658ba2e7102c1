//! A relation as the Batch declares it, and how it maps onto the target table: columns by name, which
//! columns are kept, which indexes can find a row.
//! Must never guess: a column that one side lacks is an error, with its name.

use crate::lookup::Lookup;
use crate::relation::Table;
use crate::report::fail;
use crate::value::Encoding;
use crate::wire::Declaration;
use pgrx::pg_sys;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use std::collections::HashMap;

pub struct Shape<'a> {
    pub declared: Declaration<'a>,
    /// None until the first change, and again after the table was closed for a TRUNCATE.
    pub bound: Option<Bound>,
    /// How it maps onto the leaves of a partitioned table that were used.
    pub leaves: HashMap<pg_sys::Oid, Bound>,
}

pub struct Bound {
    pub table: pg_sys::Oid,
    /// For each declared column the attribute it goes to; None where the target computes it.
    pub targets: Vec<Option<usize>>,
    /// For each declared column what reads its values in binary.
    pub receivers: Vec<usize>,
    pub key: Vec<KeyColumn>,
    /// Attributes that an UPDATE copies from the row found: the change has no value for them.
    pub kept: Vec<usize>,
    /// Best first.
    pub lookups: Vec<Lookup>,
    /// A column without which no row can be inserted.
    lacking: Option<String>,
}

pub struct KeyColumn {
    /// Its position in the declaration.
    pub column: usize,
    pub attribute: usize,
    /// False for a virtual generated column: the target has no value to compare with.
    pub compared: bool,
}

impl<'a> Shape<'a> {
    pub fn new(declared: Declaration<'a>) -> Self {
        Shape { declared, bound: None, leaves: HashMap::new() }
    }

    /// schema.table, for messages: quoted where a name needs it.
    pub fn label(&self) -> String {
        let shown = |name: &str| {
            let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
                && !name.starts_with(|c: char| c.is_ascii_digit());
            if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
        };
        format!("{}.{}", shown(self.declared.schema), shown(self.declared.table))
    }

    /// Names of the key columns, for messages.
    pub fn key_names(&self) -> String {
        self.declared.key.iter().map(|&at| self.declared.columns[usize::from(at)]).collect::<Vec<_>>().join(", ")
    }

    /// Maps the declaration onto the open table. Raises 42703 for a column that the table lacks.
    pub fn bind(&mut self, table: &mut Table, encoding: Encoding) {
        self.bound = Some(self.bound_to(table, encoding));
    }

    /// How it maps onto a leaf of the table that it is bound to.
    pub fn leaf(&mut self, leaf: &mut Table, encoding: Encoding) -> &Bound {
        if !self.leaves.contains_key(&leaf.oid) {
            let bound = self.bound_to(leaf, encoding);
            self.leaves.insert(leaf.oid, bound);
        }
        &self.leaves[&leaf.oid]
    }

    fn bound_to(&self, table: &mut Table, encoding: Encoding) -> Bound {
        let attribute = |column: &str| {
            let name = encoding.name(column);
            let found = table.attributes.iter().position(|a| a.input.is_some() && a.name == name);
            found.unwrap_or_else(|| {
                let message = format!("column {column} of the change does not exist in table {}", table.label);
                fail(PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN, message)
            })
        };
        let columns: Vec<usize> = self.declared.columns.iter().map(|column| attribute(column)).collect();
        if let Some(twice) = (1..columns.len()).find(|&at| columns[..at].contains(&columns[at])) {
            let message = format!("column {} of table {} is declared twice", self.declared.columns[twice], table.label);
            fail(PgSqlErrorCode::ERRCODE_DUPLICATE_COLUMN, message);
        }
        let key: Vec<KeyColumn> = self
            .declared
            .key
            .iter()
            .map(|&at| (usize::from(at), columns[usize::from(at)]))
            .map(|(column, attribute)| KeyColumn {
                column,
                attribute,
                compared: !table.attributes[attribute].is_virtual,
            })
            .collect();
        let kept: Vec<usize> = (0..table.attributes.len())
            .filter(|&at| table.attributes[at].input.is_some())
            // The executor computes a generated column only if it thinks that its inputs have changed.
            .filter(|at| table.attributes[*at].generated || !columns.contains(at))
            .collect();
        let types = self.declared.types.iter().map(|oid| pg_sys::Oid::from(*oid));
        let receivers = columns.iter().zip(types).map(|(&at, oid)| table.receiver(at, oid)).collect();
        let lacking = kept.iter().map(|&at| &table.attributes[at]).find(|a| !a.generated);
        Bound {
            table: table.oid,
            targets: columns.iter().map(|&at| (!table.attributes[at].generated).then_some(at)).collect(),
            lookups: Lookup::choose(&table.unique, &key),
            receivers,
            lacking: lacking.map(|a| a.name.to_string_lossy().into_owned()),
            key,
            kept,
        }
    }
}

impl Bound {
    /// Raises 42703 if the target has a column that the change has no value for: its default is a
    /// guess, and the source had something there.
    #[inline]
    pub fn require_whole_row(&self, table: &Table) {
        if let Some(column) = &self.lacking {
            let message = format!("column {column} of table {} is not in the change", table.label);
            fail(PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN, message);
        }
    }
}
