//! Large objects, all of them together: how many there are, whose they are and who may use them. What is in
//! them is not compared.

use tokio_postgres::Client;

use super::read::{Catalog, Object, Property};
use crate::connect::Side;
use crate::error::{Context, Result};

/// What they are called.
pub const KIND: &str = "large objects";

/// Adds them as one object, whose properties are numbers and digests.
pub async fn summary(client: &Client, side: Side, catalog: &mut Catalog) -> Result<()> {
    let row = client.query_one(include_str!("../../../../sql/verify/large_objects.sql"), &[]).await;
    let row = row.during(side.exit(), || format!("count the large objects of the {side}"))?;
    let id = (row.get(0), 0);
    let object = Object { id, relation: 0, made_by: 0, step: None };
    catalog.objects.insert((KIND.into(), "in all".into()), object);
    let properties = catalog.properties.entry(id).or_default();
    for (at, label) in ["count", "owner", "privileges of all roles"].into_iter().enumerate() {
        let value: Option<String> = row.get(at + 1);
        properties.extend(value.map(|value| (label.into(), Property { value, mend: None, undo: None, probe: None })));
    }
    Ok(())
}
