//! Digests of rows and of large objects. A table's digest is the sum of its rows' digests: it does
//! not depend on their order, and it counts equal rows as often as they occur.

use std::collections::BTreeMap;
use std::fmt;

use futures_util::{TryStreamExt, pin_mut};
use tokio_postgres::Client;
use twox_hash::XxHash3_128;

use super::side::Side;
use crate::error::{Context, Result};

/// A multiset of rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest {
    pub rows: u64,
    sum: u128,
}

impl Digest {
    fn add(&mut self, row: &[u8]) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(XxHash3_128::oneshot(row));
    }
}
impl fmt::Display for Digest {
    /// The upper digits suffice to see a difference.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", (self.sum >> 96) as u32)
    }
}

/// Splits a COPY stream into rows. In text format each row ends with a newline, and a newline
/// inside a value is escaped; where messages are cut does not matter.
#[derive(Default)]
struct Rows {
    digest: Digest,
    begun: Vec<u8>,
}

impl Rows {
    fn read(&mut self, mut bytes: &[u8]) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            if self.begun.is_empty() {
                self.digest.add(&bytes[..end]);
            } else {
                self.begun.extend_from_slice(&bytes[..end]);
                self.digest.add(&self.begun);
                self.begun.clear();
            }
            bytes = &bytes[end + 1..];
        }
        self.begun.extend_from_slice(bytes);
    }
    fn finish(mut self) -> Digest {
        if !self.begun.is_empty() {
            self.digest.add(&self.begun);
        }
        self.digest
    }
}

/// A table whose rows can be read, with its columns in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Quoted columns.
    pub columns: Vec<String>,
    pub bytes: i64,
}

/// Ordinary tables, leaf partitions among them, by quoted name. What belongs to an extension or
/// to pgmig is left out.
pub async fn tables(side: &Side, client: &Client, materialized: bool) -> Result<BTreeMap<String, Table>> {
    let kinds: &[i8] = if materialized { &[b'r' as i8, b'm' as i8] } else { &[b'r' as i8] };
    let found = client.query(TABLES, &[&kinds]).await;
    let found = found.during(side.exit(), || format!("list the tables of the {}", side.name()))?;
    Ok(found.iter().map(|row| (row.get(0), Table { columns: row.get(1), bytes: row.get(2) })).collect())
}

const TABLES: &str = "
select format('%I.%I', n.nspname, c.relname),
       array(select format('%I', a.attname) from pg_catalog.pg_attribute a
              where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
              order by a.attname collate \"C\"),
       pg_catalog.pg_table_size(c.oid)
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.relkind = any ($1) and (c.relkind <> 'm' or c.relispopulated) and c.relpersistence <> 't'
   and n.nspname <> all ('{pg_catalog,information_schema,pg_toast,pgmig}')
   and not exists (select from pg_catalog.pg_depend d
                    where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid
                      and d.deptype = 'e')";

/// `encoding`: how the server prints the rows.
pub async fn digest(side: &Side, client: &Client, name: &str, columns: &[String], encoding: &str) -> Result<Digest> {
    let doing = || format!("read {name} from the {}", side.name());
    let copy = format!("copy (select {} from only {name}) to stdout (encoding '{encoding}')", columns.join(", "));
    let stream = client.copy_out(&copy).await.during(side.exit(), doing)?;
    pin_mut!(stream);
    let mut rows = Rows::default();
    while let Some(bytes) = stream.try_next().await.during(side.exit(), doing)? {
        rows.read(&bytes);
    }
    Ok(rows.finish())
}

/// Size and digest of each large object, by its number.
pub async fn large_objects(side: &Side, client: &Client) -> Result<BTreeMap<u32, (u64, u128)>> {
    let doing = || format!("read large objects from the {}", side.name());
    let numbers = client.query("select oid from pg_catalog.pg_largeobject_metadata", &[]).await;
    let read = client.prepare("select pg_catalog.lo_get($1, $2, $3)").await.during(side.exit(), doing)?;
    let mut found = BTreeMap::new();
    const CHUNK: i32 = 1 << 20;
    for row in numbers.during(side.exit(), doing)? {
        let number: u32 = row.get(0);
        let (mut size, mut hash) = (0_u64, twox_hash::xxhash3_128::Hasher::new());
        loop {
            let row = client.query_one(&read, &[&number, &(size as i64), &CHUNK]).await.during(side.exit(), doing)?;
            let bytes: &[u8] = row.get(0);
            hash.write(bytes);
            size += bytes.len() as u64;
            if bytes.len() < CHUNK as usize {
                break;
            }
        }
        found.insert(number, (size, hash.finish_128()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pieces: &[&str]) -> Digest {
        let mut rows = Rows::default();
        pieces.iter().for_each(|piece| rows.read(piece.as_bytes()));
        rows.finish()
    }

    #[test]
    fn neither_the_order_of_rows_nor_the_cut_of_messages_matters() {
        let whole = of(&["a\tb\n", "c\t\\N\n", "\n"]);
        assert_eq!(whole.rows, 3);
        assert_eq!(whole, of(&["\nc\t\\", "N\na\t", "b\n"]));
    }

    #[test]
    fn an_equal_row_more_matters() {
        assert_ne!(of(&["a\na\n"]), of(&["a\n"]));
        assert_ne!(of(&["a\na\nb\n"]), of(&["a\nb\nb\n"]));
        assert_ne!(of(&["\n"]), of(&[]));
    }
}
