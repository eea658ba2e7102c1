//! The file of `--requirements`: which version of an extension the target gets.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};

/// Versions by extension.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requirements(BTreeMap<String, String>);

#[derive(Deserialize)]
struct Requirement {
    name: String,
    version: String,
}

impl Requirements {
    /// Reads a JSON array of objects with `name` and `version`.
    pub fn read(path: &Path) -> Result<Requirements> {
        let text = std::fs::read_to_string(path).map_err(|cause| {
            Error::usage(format!("cannot read the requirements in {}", path.display())).cause(cause)
        })?;
        Requirements::parse(&text).map_err(|cause| {
            Error::usage(format!("cannot understand the requirements in {}", path.display()))
                .cause(cause)
                .hint(r#"give a JSON array: [{"name": "postgis", "version": "3.4.2"}]"#)
        })
    }

    fn parse(text: &str) -> serde_json::Result<Requirements> {
        let list: Vec<Requirement> = serde_json::from_str(text)?;
        Ok(Requirements(list.into_iter().map(|one| (one.name, one.version)).collect()))
    }

    pub fn version(&self, extension: &str) -> Option<&str> {
        self.0.get(extension).map(String::as_str)
    }
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_pgcopydb_is_read_as_it_is() {
        let text = r#"[{"name": "hstore", "version": "1.8", "default_version": true}, {"name": "x", "version": "2"}]"#;
        let read = Requirements::parse(text).expect("it is such a list");
        assert_eq!((read.version("hstore"), read.version("y")), (Some("1.8"), None));
        assert_eq!(read.names().collect::<Vec<_>>(), ["hstore", "x"]);
        assert!(Requirements::parse(r#"{"name": "x"}"#).is_err());
    }
}
