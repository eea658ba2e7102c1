//! Cuts tables into Parts. Pure.

use crate::model::TableName;
use crate::source::catalog::Table;
use crate::target::queue::Part;

/// How to cut.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// Tables larger than this many bytes are cut into Parts of about this size; None cuts nothing.
    pub larger_than: Option<u64>,
    /// Whether both servers are of one major version, so that a safe type has one binary form.
    pub binary: bool,
    /// TID range scans came with PostgreSQL 14: before, each Part would read the whole table.
    pub by_ctid: bool,
}

/// The table whose Part stands for all large objects. Its rows are not copied as they are: not every
/// role may read or write it.
pub const LARGE_OBJECTS: (&str, &str) = ("pg_catalog", "pg_largeobject");

/// The Part of the large objects.
pub fn large_objects(bytes: i64) -> Part {
    let (schema, table) = LARGE_OBJECTS;
    Part {
        id: 0,
        table: TableName::new(schema, table),
        number: 1,
        parts: 1,
        predicate: None,
        columns: Vec::new(),
        binary: true,
        bytes,
    }
}

/// No table is cut finer, whatever its size.
const PARTS_MAX: u64 = 1024;

/// The Parts of a table: one, or ranges of heap blocks. The first and the last are open, so that
/// blocks that came after planning, and whatever else the bounds missed, belong to one of them.
pub fn parts(table: &Table, cut: Cut) -> Vec<Part> {
    let count = match cut.larger_than {
        Some(size) if size > 0 && cut.by_ctid && table.bytes > size => {
            table.bytes.div_ceil(size).min(table.blocks).clamp(1, PARTS_MAX)
        }
        _ => 1,
    };
    let bound = |number: u64| table.blocks * number / count;
    (0..count)
        .map(|number| {
            let mut conditions = Vec::new();
            if number > 0 {
                conditions.push(format!("ctid >= '({},0)'::tid", bound(number)));
            }
            if number + 1 < count {
                conditions.push(format!("ctid < '({},0)'::tid", bound(number + 1)));
            }
            Part {
                id: 0,
                table: table.name.clone(),
                number: number as i32 + 1,
                parts: count as i32,
                predicate: (!conditions.is_empty()).then(|| conditions.join(" and ")),
                columns: table.columns.clone(),
                binary: cut.binary && table.binary_safe && !table.columns.is_empty(),
                bytes: (table.bytes * (number + 1) / count - table.bytes * number / count) as i64,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(bytes: u64, blocks: u64) -> Table {
        Table {
            oid: 1,
            name: TableName::new("public", "t"),
            bytes,
            blocks,
            columns: vec!["id".into()],
            binary_safe: true,
            identified: true,
            float_column: None,
            logged: true,
        }
    }
    fn cut(larger_than: u64) -> Cut {
        Cut { larger_than: Some(larger_than), binary: false, by_ctid: true }
    }

    #[test]
    fn the_first_and_the_last_part_are_open_and_the_rest_touch() {
        let parts = parts(&table(1000, 10), cut(300));
        let predicates: Vec<_> = parts.iter().map(|part| part.predicate.clone().unwrap()).collect();
        assert_eq!(
            predicates,
            [
                "ctid < '(2,0)'::tid",
                "ctid >= '(2,0)'::tid and ctid < '(5,0)'::tid",
                "ctid >= '(5,0)'::tid and ctid < '(7,0)'::tid",
                "ctid >= '(7,0)'::tid"
            ]
        );
        assert_eq!(parts.iter().map(|part| part.bytes).sum::<i64>(), 1000);
    }

    #[test]
    fn a_small_table_and_one_with_few_blocks_stay_whole() {
        assert_eq!(parts(&table(300, 10), cut(300)).len(), 1);
        // All in TOAST: one block of heap cannot be cut.
        assert_eq!(parts(&table(1 << 40, 1), cut(300)).len(), 1);
        assert_eq!(parts(&table(0, 0), cut(300)).len(), 1);
        assert!(parts(&table(300, 10), cut(300))[0].predicate.is_none());
    }
}
