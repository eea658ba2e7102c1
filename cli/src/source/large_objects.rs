//! Large objects, read under the migration's snapshot: small ones many to a round trip, large ones in
//! chunks, for one may be 4 TB.

use tokio_postgres::Client;

use super::replication::{CopyClient, Rows};
use crate::error::{Context, Error, Result};
use crate::model::name::{identifier, literal};

/// Bytes of a large object read at once.
pub const CHUNK: usize = 256 << 10;
/// A large object below this is read together with others, in bytes.
pub const SMALL: usize = 8 << 10;
/// How many are read together.
pub const TOGETHER: usize = 100;

/// The oids of all of them.
pub async fn numbers(client: &Client) -> Result<Vec<u32>> {
    let query = "select oid from pg_catalog.pg_largeobject_metadata order by oid";
    let rows = client.query(query, &[]).await.on_source(|| "list the large objects of the source".into())?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// How many there are, and about how many bytes they hold.
pub async fn size(client: &Client) -> Result<(i64, i64)> {
    let row = client
        .query_one(
            "select (select count(*) from pg_catalog.pg_largeobject_metadata),
                    pg_catalog.pg_relation_size('pg_catalog.pg_largeobject')",
            &[],
        )
        .await
        .on_source(|| "count the large objects of the source".into())?;
    Ok((row.get(0), row.get(1)))
}

/// Conditions on `oid` that cut them into about `parts` equal Parts; the first and the last are open.
pub async fn ranges(client: &Client, parts: usize) -> Result<Vec<Option<String>>> {
    let fractions: Vec<f64> = (1..parts).map(|part| part as f64 / parts as f64).collect();
    let row = client
        .query_one(
            "select percentile_disc($1::float8[]) within group (order by oid) from pg_catalog.pg_largeobject_metadata",
            &[&fractions],
        )
        .await
        .on_source(|| "cut the large objects of the source into Parts".into())?;
    let mut bounds: Vec<u32> = row.get::<_, Option<Vec<u32>>>(0).unwrap_or_default();
    bounds.dedup();
    let starts = std::iter::once(None).chain(bounds.iter().copied().map(Some));
    let ends = bounds.iter().copied().map(Some).chain([None]);
    Ok(starts
        .zip(ends)
        .map(|range| match range {
            (None, None) => None,
            (None, Some(end)) => Some(format!("oid < {end}")),
            (Some(start), None) => Some(format!("oid >= {start}")),
            (Some(start), Some(end)) => Some(format!("oid >= {start} and oid < {end}")),
        })
        .collect())
}

/// The oids of a Part, ascending.
pub async fn list(client: &mut CopyClient, predicate: Option<&str>) -> Result<Vec<u32>> {
    let sql = format!(
        "select oid from pg_catalog.pg_largeobject_metadata where {} order by oid",
        predicate.unwrap_or("true")
    );
    let rows = client.query(&sql, || "list the large objects of the source".into()).await?;
    let oid = |row: usize| rows.value(row, 0)?.and_then(|oid| oid.parse().ok()).ok_or_else(odd);
    (0..rows.rows.len()).map(oid).collect()
}

/// The first `SMALL` bytes of each.
pub async fn read_heads(client: &mut CopyClient, oids: &[u32]) -> Result<Vec<(u32, Vec<u8>)>> {
    let list = oids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "select oid, pg_catalog.lo_get(oid, 0, {SMALL}) from pg_catalog.pg_largeobject_metadata where oid in ({list})"
    );
    let rows = client.query(&sql, || "read large objects".into()).await?;
    let head =
        |row: usize| Ok((rows.value(row, 0)?.and_then(|oid| oid.parse().ok()).ok_or_else(odd)?, bytes(&rows, row, 1)?));
    (0..rows.rows.len()).map(head).collect()
}

/// Up to `CHUNK` bytes from `offset` on; fewer at the end.
pub async fn read(client: &mut CopyClient, oid: u32, offset: i64) -> Result<Vec<u8>> {
    let sql = format!("select pg_catalog.lo_get({oid}, {offset}, {CHUNK})");
    let rows = client.query(&sql, || format!("read large object {oid}")).await?;
    bytes(&rows, 0, 0)
}

/// What belongs to large objects beside their bytes.
#[derive(Debug, Clone, Copy)]
pub struct Belongings {
    pub owner: bool,
    pub acl: bool,
    pub comments: bool,
}

/// Statements that give the large objects of a Part their owners, privileges and comments.
pub async fn belongings(client: &mut CopyClient, predicate: Option<&str>, wanted: Belongings) -> Result<Vec<String>> {
    let sql = format!(
        "select m.oid, pg_catalog.pg_get_userbyid(m.lomowner), pg_catalog.obj_description(m.oid, 'pg_largeobject'),
                case when a.grantee <> 0 then pg_catalog.pg_get_userbyid(a.grantee) end, a.privilege_type, a.is_grantable
           from (select oid, lomowner, lomacl from pg_catalog.pg_largeobject_metadata where {}) m
                left join lateral pg_catalog.aclexplode(m.lomacl) a on true
          order by m.oid",
        predicate.unwrap_or("true")
    );
    let rows = client.query(&sql, || "read owners and privileges of large objects".into()).await?;
    let mut statements = Vec::new();
    let mut last = None;
    for at in 0..rows.rows.len() {
        let oid = rows.value(at, 0)?.ok_or_else(odd)?;
        let owner = rows.value(at, 1)?.ok_or_else(odd)?;
        let granted = rows.value(at, 4)?;
        if last != Some(oid) {
            last = Some(oid);
            if wanted.owner {
                statements.push(format!("alter large object {oid} owner to {}", identifier(owner)));
            }
            if let (true, Some(comment)) = (wanted.comments, rows.value(at, 2)?) {
                statements.push(format!("comment on large object {oid} is {}", literal(comment)));
            }
            // The list of privileges is all there is: the owner's own may have been taken away.
            if wanted.acl && wanted.owner && granted.is_some() {
                statements.push(format!("revoke all on large object {oid} from {}", identifier(owner)));
            }
        }
        if let (true, Some(privilege)) = (wanted.acl, granted) {
            let grantee = rows.value(at, 3)?.map_or("public".into(), identifier);
            // Without owners the target's role owns it, and the source's owner may not exist there.
            if wanted.owner || rows.value(at, 3)? != Some(owner) {
                let option = if rows.value(at, 5)? == Some("t") { " with grant option" } else { "" };
                statements.push(format!("grant {privilege} on large object {oid} to {grantee}{option}"));
            }
        }
    }
    Ok(statements)
}

/// A bytea as the server prints it: `\x` and hexadecimal digits.
fn bytes(rows: &Rows, row: usize, column: usize) -> Result<Vec<u8>> {
    let digits = rows.value(row, column)?.and_then(|text| text.strip_prefix("\\x")).ok_or_else(odd)?;
    hex::decode(digits).map_err(|cause| odd().cause(cause))
}

fn odd() -> Error {
    Error::bug("the source answered with a large object in another form than was asked for")
}
