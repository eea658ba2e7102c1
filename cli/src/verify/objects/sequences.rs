//! Where sequences stand. While the source is followed they are kept ahead, and only their end counts.

use tokio_postgres::Client;

use super::read::{Catalog, Property};
use crate::connect::Side;
use crate::error::{Context, Result};
use crate::model::name::literal;

/// Read by one statement.
const TOGETHER: usize = 200;

/// Adds the position of each sequence to its properties.
pub async fn positions(client: &Client, side: Side, catalog: &mut Catalog) -> Result<()> {
    let names: Vec<(String, (u32, u32))> = catalog
        .objects
        .iter()
        .filter(|((kind, _), _)| kind == "sequence")
        .map(|((_, name), object)| (name.clone(), object.id))
        .collect();
    for names in names.chunks(TOGETHER) {
        let each = names.iter().map(|(name, _)| {
            format!(
                "(select pg_catalog.format('%s%s', last_value, case when not is_called then ', not called' end)
                         || e'\\n' || pg_catalog.format('select setval(%L, %s, %s)', {}::text, last_value, is_called::text) from {name})",
                literal(name)
            )
        });
        let query = format!("select array[{}]", each.collect::<Vec<_>>().join(", "));
        let row = client.query_one(&query, &[]).await;
        let read: Vec<String> = row.during(side.exit(), || format!("read the sequences of the {side}"))?.get(0);
        for ((_, id), read) in names.iter().zip(read) {
            let (value, mend) = read.split_once('\n').unwrap_or((&read, ""));
            let property = Property { value: value.into(), mend: Some(mend.into()), undo: None, probe: None };
            catalog.properties.entry(*id).or_default().insert("position".into(), property);
        }
    }
    Ok(())
}
