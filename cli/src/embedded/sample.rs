//! Fills an empty database with the sample shop of sample.sql, for when there is no real one.
//! Two loads at the same scale hold the same rows, so that they can be compared.

use super::{EXIT, session};
use crate::error::{Context, Error, Result};

pub const SQL: &str = include_str!("sample.sql");

/// Scale 1 is about 60 MB; the number of rows grows with it, the number of tables does not.
pub async fn load(uri: &str, scale: f64) -> Result<()> {
    if !(scale > 0.0 && scale <= 1000.0) {
        return Err(Error::usage(format!("load the sample database at scale {scale}: not above 0 and up to 1000")));
    }
    let client = session(uri, "pgmig sample").await?;
    let settings = format!(
        "set sample.scale = '{scale}'; set timezone = 'UTC'; set client_min_messages = warning; \
         set synchronous_commit = off; set check_function_bodies = on"
    );
    client.batch_execute(&settings).await.during(EXIT, || "prepare to load the sample database".to_string())?;
    for section in SQL.split("\n-- section: ").skip(1) {
        let title = section.lines().next().unwrap_or_default();
        // The title is the rest of a comment line.
        let text = format!("-- {section}");
        client.batch_execute(&text).await.during(EXIT, || format!("load the sample database: {title}"))?;
    }
    Ok(())
}
