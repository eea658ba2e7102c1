//! Cuts tables into Parts. Pure.

use crate::model::{KeyRange, TableName};
use crate::source::catalog::Table;
use crate::target::queue::Part;

/// What large tables are cut by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SplitBy {
    /// Ranges of heap blocks. TID range scans came with PostgreSQL 14: before, each Part would read the
    /// whole table.
    Ctid,
    /// Ranges of the leading column of a unique index.
    Key,
}

/// How to cut.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// Tables larger than this many bytes are cut into Parts of about this size; None cuts nothing.
    pub larger_than: Option<u64>,
    /// No table is cut finer.
    pub parts_max: u64,
    pub by: SplitBy,
    /// Whether both servers are of one major version, so that a safe type has one binary form.
    pub binary: bool,
}

impl Cut {
    /// Into how many Parts the table should be cut.
    pub fn count(&self, table: &Table) -> u64 {
        match self.larger_than {
            Some(size) if size > 0 && table.bytes > size => {
                table.bytes.div_ceil(size).min(table.blocks).min(self.parts_max).clamp(1, PARTS_MAX)
            }
            _ => 1,
        }
    }
}

/// The table whose Part stands for all large objects. Its rows are not copied as they are: not every
/// role may read or write it.
pub const LARGE_OBJECTS: (&str, &str) = ("pg_catalog", "pg_largeobject");

/// The Parts of the large objects, by conditions on their oids.
pub fn large_objects(ranges: Vec<Option<String>>, bytes: i64) -> Vec<Part> {
    let (schema, table) = LARGE_OBJECTS;
    let count = ranges.len();
    ranges
        .into_iter()
        .enumerate()
        .map(|(at, predicate)| Part {
            id: 0,
            table: TableName::new(schema, table),
            number: at as i32 + 1,
            parts: count as i32,
            predicate,
            leaf: None,
            range: None,
            columns: Vec::new(),
            binary: true,
            bytes: bytes / count as i64,
            rows: None,
            copy_bytes: None,
        })
        .collect()
}

/// No table is cut finer, whatever its size and whatever was asked for.
const PARTS_MAX: u64 = 1024;

/// The Parts of a table: one, or ranges of heap blocks, or of `keys` where some are given. The first and
/// the last are open, so that blocks and keys that came after planning, and whatever else the bounds
/// missed, belong to one of them.
pub fn parts(table: &Table, cut: Cut, keys: &[String]) -> Vec<Part> {
    let by_key = table.split_key.as_ref().filter(|_| cut.by == SplitBy::Key);
    let bounds: Vec<String> = match cut.by {
        SplitBy::Key => by_key.map_or(Vec::new(), |_| keys.to_vec()),
        SplitBy::Ctid => {
            let count = cut.count(table);
            (1..count).map(|number| format!("({},0)", table.blocks * number / count)).collect()
        }
    };
    let (column, type_name) = by_key.map_or(("ctid", "tid"), |key| (&key.column, &key.type_name));
    let count = bounds.len() as u64 + 1;
    (0..count)
        .map(|number| {
            let range = KeyRange {
                column: column.into(),
                type_name: type_name.into(),
                lower: number.checked_sub(1).map(|at| bounds[at as usize].clone()),
                upper: bounds.get(number as usize).cloned(),
            };
            Part {
                id: 0,
                table: table.name.clone(),
                number: number as i32 + 1,
                parts: count as i32,
                predicate: range.condition(),
                leaf: None,
                range: Some(range).filter(|_| count > 1 && by_key.is_some_and(|key| key.tells_part)),
                columns: table.columns.clone(),
                binary: cut.binary && table.binary_safe && !table.columns.is_empty(),
                bytes: (table.bytes * (number + 1) / count - table.bytes * number / count) as i64,
                rows: table.rows.map(|rows| (rows / count) as i64),
                copy_bytes: table.copy_bytes.map(|bytes| (bytes / count) as i64),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::catalog::SplitKey;

    fn table(bytes: u64, blocks: u64) -> Table {
        Table {
            oid: 1,
            name: TableName::new("public", "t"),
            bytes,
            blocks,
            rows: Some(70),
            copy_bytes: None,
            columns: vec!["id".into()],
            binary_safe: true,
            identified: true,
            float_column: None,
            logged: true,
            split_key: Some(SplitKey { column: "Id".into(), type_name: "bigint".into(), tells_part: true }),
        }
    }
    fn cut(larger_than: u64) -> Cut {
        Cut { larger_than: Some(larger_than), parts_max: 100, by: SplitBy::Ctid, binary: false }
    }

    #[test]
    fn the_first_and_the_last_part_are_open_and_the_rest_touch() {
        let parts = parts(&table(1000, 10), cut(300), &[]);
        let predicates: Vec<_> = parts.iter().map(|part| part.predicate.clone().unwrap()).collect();
        assert_eq!(
            predicates,
            [
                r#""ctid" < '(2,0)'::tid"#,
                r#""ctid" >= '(2,0)'::tid and "ctid" < '(5,0)'::tid"#,
                r#""ctid" >= '(5,0)'::tid and "ctid" < '(7,0)'::tid"#,
                r#""ctid" >= '(7,0)'::tid"#
            ]
        );
        assert_eq!(parts.iter().map(|part| part.bytes).sum::<i64>(), 1000);
        assert!(parts.iter().all(|part| part.range.is_none()));
    }

    #[test]
    fn a_small_table_and_one_with_few_blocks_stay_whole() {
        assert_eq!(parts(&table(300, 10), cut(300), &[]).len(), 1);
        // All in TOAST: one block of heap cannot be cut.
        assert_eq!(parts(&table(1 << 40, 1), cut(300), &[]).len(), 1);
        assert_eq!(parts(&table(0, 0), cut(300), &[]).len(), 1);
        assert!(parts(&table(300, 10), cut(300), &[])[0].predicate.is_none());
    }

    #[test]
    fn keys_cut_a_table_into_ranges_that_leave_out_nothing() {
        let keys = ["-9".to_string(), "-1".to_string()];
        let parts = parts(&table(1000, 10), Cut { by: SplitBy::Key, ..cut(300) }, &keys);
        let predicates: Vec<_> = parts.iter().map(|part| part.predicate.clone().unwrap()).collect();
        assert_eq!(
            predicates,
            [r#""Id" < '-9'::bigint"#, r#""Id" >= '-9'::bigint and "Id" < '-1'::bigint"#, r#""Id" >= '-1'::bigint"#]
        );
    }

    #[test]
    fn no_table_is_cut_finer_than_asked_for() {
        assert_eq!(parts(&table(1000, 10), Cut { parts_max: 2, ..cut(100) }, &[]).len(), 2);
        let without_key = Table { split_key: None, ..table(1000, 10) };
        assert_eq!(parts(&without_key, Cut { by: SplitBy::Key, ..cut(100) }, &[]).len(), 1);
    }
}
