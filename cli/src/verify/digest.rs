//! Digests that the servers compute: of each row a hash of its text, of each chunk the count and the sum of
//! its rows' hashes. A chunk is what shares the last bits of the hash, so neither the order of rows nor a
//! key matters, and a table is read once. What differs is narrowed to rows by reading such chunks again.

use std::collections::{BTreeMap, HashMap};

use tokio_postgres::Client;

use crate::connect::Side;
use crate::error::{Context, Result};
use crate::model::name::identifier;
use crate::model::{RowDifference, TableName};
use crate::target::layout::rows_of;

/// Blocks that one query reads: what `--max-rate` and progress count.
const PIECE_BLOCKS: i64 = 8192;
/// Rows that a chunk should hold: so many are read again for each that differs.
const CHUNK_ROWS: f64 = 1000.0;
/// Chunks of one table that are narrowed to rows, to show some of them, or to repair all.
pub const SHOWN: usize = 64;
pub const REPAIRED: usize = 1024;

/// A table as one side has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// In the order of their names.
    pub columns: Vec<String>,
    /// Columns of the key that rows are named by; none if there is none.
    pub key: Vec<String>,
    pub blocks: i64,
    rows: i64,
    /// How all its rows are named.
    from: String,
}

/// A table on one side; None if it is not there.
pub async fn form(client: &Client, side: Side, table: &TableName) -> Result<Option<Form>> {
    let row = client
        .query_opt(
            r#"select array(select a.attname::text from pg_catalog.pg_attribute a
                            where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by a.attname collate "C"),
                      coalesce((select array_agg(a.attname::text order by k.at)
                                  from pg_catalog.pg_index i,
                                       unnest(i.indkey::int2[]) with ordinality k (attnum, at)
                                       join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum
                                 where i.indexrelid = (select x.indexrelid from pg_catalog.pg_index x
                                                        where x.indrelid = c.oid and x.indisunique and x.indisvalid
                                                          and x.indpred is null and x.indexprs is null and x.indimmediate
                                                        order by not x.indisprimary, x.indnatts, x.indexrelid limit 1)
                                   and k.at <= i.indnkeyatts), '{}'),
                      -- Of partitions the largest: a piece is those blocks of each.
                      (select max(pg_catalog.pg_relation_size(coalesce(t.relid, c.oid))) / current_setting('block_size')::int8
                         from (values (true)) one left join lateral pg_catalog.pg_partition_tree(c.oid) t on t.isleaf),
                      greatest(c.reltuples, 0)::int8
                 from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                where n.nspname = $1 and c.relname = $2 and c.relkind in ('r', 'm', 'p')"#,
            &[&table.schema, &table.table],
        )
        .await
        .during(side.exit(), || format!("look at {table} on the {side}"))?;
    let from = rows_of(client, side, table).await?;
    Ok(row.map(|row| Form { columns: row.get(0), key: row.get(1), blocks: row.get(2), rows: row.get(3), from }))
}

/// How a table is read, on both sides alike.
#[derive(Debug, Clone)]
pub struct Reading {
    pub table: TableName,
    /// The hash of a row, as SQL.
    pub hash: String,
    pub key: Vec<String>,
    mask: i64,
    on_source: String,
    on_target: String,
}

impl Reading {
    /// `other`: as the target has it. `recode`: the databases are in two encodings.
    pub fn new(table: &TableName, form: &Form, other: &Form, recode: bool) -> Reading {
        let columns: Vec<String> = form.columns.iter().map(|column| identifier(column)).collect();
        let text = format!("row({})::text", columns.join(", "));
        let text = if recode { format!("encode(convert_to({text}, 'UTF8'), 'hex')") } else { text };
        let chunks = ((form.rows as f64 / CHUNK_ROWS) as u64).clamp(16, 1 << 16).next_power_of_two();
        Reading {
            table: table.clone(),
            hash: format!("pg_catalog.hashtextextended({text} collate \"C\", 0)"),
            key: form.key.clone(),
            mask: chunks as i64 - 1,
            on_source: form.from.clone(),
            on_target: other.from.clone(),
        }
    }

    /// How all rows of the table are named on this side.
    pub fn from(&self, side: Side) -> &str {
        if side == Side::Source { &self.on_source } else { &self.on_target }
    }
}

/// Counts and sums of the chunks.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Digest(BTreeMap<i64, (i64, i128)>);

impl Digest {
    pub fn rows(&self) -> i64 {
        self.0.values().map(|(rows, _)| rows).sum()
    }
    /// The chunks that are not the same.
    pub fn differing(&self, other: &Digest) -> Vec<i64> {
        let mut chunks: Vec<i64> = self.0.keys().chain(other.0.keys()).copied().collect();
        chunks.sort_unstable();
        chunks.dedup();
        chunks.retain(|chunk| self.0.get(chunk) != other.0.get(chunk));
        chunks
    }
}

/// Reads a table piece by piece; `after` hears of the blocks of each, and may wait.
pub async fn digest(
    client: &Client,
    side: Side,
    reading: &Reading,
    blocks: i64,
    mut after: impl AsyncFnMut(i64),
) -> Result<Digest> {
    let Reading { table, hash, mask, .. } = reading;
    let doing = || format!("read {table} on the {side}");
    let mut digest = Digest::default();
    let mut from = 0;
    loop {
        // The last piece is open: the table may have grown since it was measured.
        let is_last = from + PIECE_BLOCKS >= blocks;
        let upper = if is_last { String::new() } else { format!(" and ctid < '({},0)'::tid", from + PIECE_BLOCKS) };
        let sql = format!(
            "select h & {mask}, count(*), sum(h)::text
               from (select {hash} as h from {} where ctid >= '({from},0)'::tid{upper} offset 0) t
              group by 1",
            reading.from(side)
        );
        for row in client.query(&sql, &[]).await.during(side.exit(), doing)? {
            let sum: String = row.get(2);
            let sum: i128 = sum.parse().during(side.exit(), doing)?;
            let chunk = digest.0.entry(row.get(0)).or_default();
            *chunk = (chunk.0 + row.get::<_, i64>(1), chunk.1.wrapping_add(sum));
        }
        after(PIECE_BLOCKS.min(blocks - from).max(0)).await;
        if is_last {
            return Ok(digest);
        }
        from += PIECE_BLOCKS;
    }
}

/// The key of a row and its hash.
type Found = (Vec<Option<String>>, i64);

/// The rows of differing chunks that differ, of at most so many chunks. False if there are more.
pub async fn narrow(
    source: &Client,
    target: &Client,
    reading: &Reading,
    chunks: &[i64],
    most: usize,
) -> Result<(Vec<RowDifference>, bool)> {
    let some = &chunks[..chunks.len().min(most)];
    let (here, there) =
        tokio::try_join!(rows(source, Side::Source, reading, some), rows(target, Side::Target, reading, some))?;
    // By key: the hashes on either side that the other does not have as often.
    let mut found: BTreeMap<Vec<Option<String>>, [Vec<i64>; 2]> = BTreeMap::new();
    for (side, (ours, theirs)) in [(&here, &there), (&there, &here)].into_iter().enumerate() {
        for (row, count) in ours {
            let more = count - theirs.get(row).copied().unwrap_or(0);
            if more > 0 {
                let hashes = &mut found.entry(row.0.clone()).or_default()[side];
                hashes.extend(std::iter::repeat_n(row.1, more as usize));
            }
        }
    }
    let mut differing = Vec::new();
    for (key, [mut on_source, mut on_target]) in found {
        let key: Vec<(String, Option<String>)> = reading.key.iter().cloned().zip(key).collect();
        // Without a key nothing says which two rows were one.
        while !key.is_empty() && !on_source.is_empty() && !on_target.is_empty() {
            let hashes = on_source.pop().into_iter().chain(on_target.pop()).collect();
            differing.push(RowDifference { key: key.clone(), what: RowDifference::OTHER, hashes });
        }
        let one = |hash: i64, what: &'static str| RowDifference { key: key.clone(), what, hashes: vec![hash] };
        differing.extend(on_source.into_iter().map(|hash| one(hash, RowDifference::MISSING)));
        differing.extend(on_target.into_iter().map(|hash| one(hash, RowDifference::EXTRA)));
    }
    Ok((differing, some.len() == chunks.len()))
}

/// Rows of chunks, by key and hash, and how often each is there.
async fn rows(client: &Client, side: Side, reading: &Reading, chunks: &[i64]) -> Result<HashMap<Found, i64>> {
    let Reading { table, hash, key, mask, .. } = reading;
    let key: Vec<String> = key.iter().map(|column| format!("{}::text", identifier(column))).collect();
    let sql = format!(
        "select k, h, count(*) from (select array[{}]::text[] as k, {hash} as h from {} offset 0) t
          where h & {mask} = any($1) group by 1, 2",
        key.join(", "),
        reading.from(side)
    );
    let found = client.query(&sql, &[&chunks]).await.during(side.exit(), || format!("read {table} on the {side}"))?;
    Ok(found.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_that_one_side_lacks_differ() {
        let digest = |chunks: &[(i64, i64, i128)]| Digest(chunks.iter().map(|(c, n, s)| (*c, (*n, *s))).collect());
        let (here, there) = (digest(&[(0, 2, 7), (1, 1, 3)]), digest(&[(0, 2, 7), (2, 1, 3)]));
        assert_eq!(here.differing(&there), [1, 2]);
        assert_eq!(here.differing(&here), [] as [i64; 0]);
        assert_eq!(here.rows(), 3);
    }
}
