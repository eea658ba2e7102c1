//! How long the rows of large tables are as COPY writes them: a compressed value is sent whole, and a table that
//! was never vacuumed does not say how many rows it has. From a few blocks of each.

use tokio_postgres::Client;

use super::catalog::Table;

/// Tables from this size on, in bytes, and so many of them, are looked at.
const FROM: u64 = 1 << 20;
const BLOCK: u64 = 8192;
const TABLES: usize = 200;
/// Blocks of a table that are read: fewer where they refer to more TOAST than this, in bytes.
const BLOCKS: f64 = 20.0;
const BLOCKS_MIN: f64 = 4.0;
const READ: f64 = 16_777_216.0;
/// All of it is given up after this.
const WITHIN: &str = "20s";

/// Maps and an empty TOAST table take so much beside the heap, in bytes.
const AROUND: u64 = 64 << 10;

/// Fills in what a sample says, as well as it goes: it is for the forecast of the copy's end alone. Inside the
/// transaction of the snapshot, which an error does not end.
pub async fn measure(client: &Client, tables: &mut [Table]) {
    for table in tables.iter_mut() {
        let heap = table.blocks * BLOCK;
        // A small one without TOAST is about its heap.
        if table.bytes < FROM && table.bytes.saturating_sub(heap) <= AROUND {
            table.copy_bytes = Some(heap);
        }
    }
    let mut large: Vec<&mut Table> = tables.iter_mut().filter(|table| share(table).is_some()).collect();
    large.sort_by_key(|table| std::cmp::Reverse(table.bytes));
    large.truncate(TABLES);
    if large.is_empty() {
        return;
    }
    let of_table = |table: &&mut Table| {
        let percent = share(table).unwrap_or(100.0);
        format!(
            "select {}::oid, count(*), coalesce(sum(octet_length((t.*)::text)), 0)::int8 from only {} t tablesample system ({percent})",
            table.oid,
            table.name.sql()
        )
    };
    let query = large.iter().map(of_table).collect::<Vec<_>>().join(" union all ");
    let before =
        format!("savepoint pgmig_sample; set local statement_timeout = '{WITHIN}'; set local lock_timeout = '1s'");
    if let Err(error) = client.batch_execute(&before).await {
        tracing::debug!(%error, "no table is sampled");
        return;
    }
    let sampled = client.query(&query, &[]).await;
    let after = client.batch_execute("rollback to savepoint pgmig_sample; release savepoint pgmig_sample").await;
    match (sampled, after) {
        (Ok(rows), Ok(())) => {
            for row in rows {
                let (oid, count, bytes): (u32, i64, i64) = (row.get(0), row.get(1), row.get(2));
                if let Some(table) = large.iter_mut().find(|table| table.oid == oid && count > 0) {
                    let all = count as f64 * 100.0 / share(table).unwrap_or(100.0);
                    let rows = *table.rows.get_or_insert(all as u64);
                    table.copy_bytes = Some((rows as f64 * bytes as f64 / count as f64) as u64);
                }
            }
        }
        (sampled, after) => {
            tracing::debug!(sampled = ?sampled.err(), after = ?after.err(), "the tables could not be sampled");
        }
    }
}

/// How much of a table is read, in percent; None for one that is not worth it, or whose values are too large.
fn share(table: &Table) -> Option<f64> {
    if table.bytes < FROM || table.blocks == 0 {
        return None;
    }
    let blocks = (READ / (table.bytes as f64 / table.blocks as f64)).min(BLOCKS);
    (blocks >= BLOCKS_MIN).then(|| (blocks * 100.0 / table.blocks as f64).min(100.0))
}
