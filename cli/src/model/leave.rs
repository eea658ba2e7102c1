//! What flags leave out of a migration, whatever the filters say.

#[derive(Debug, Clone, Copy, Default)]
pub struct Leave {
    pub owner: bool,
    pub acl: bool,
    pub comments: bool,
    pub tablespaces: bool,
    pub extensions: bool,
    pub extension_comments: bool,
    pub publications: bool,
    pub collations: bool,
    /// What is set for the database, and for roles in it.
    pub db_properties: bool,
    /// Statistics of the target's tables.
    pub analyze: bool,
}

impl Leave {
    /// The flag that leaves out an entry of the dump, by its kind and tag.
    pub fn flag(&self, kind: &str, tag: &str) -> Option<&'static str> {
        let note = matches!(kind, "COMMENT" | "ACL" | "SECURITY LABEL");
        // What is noted on an object goes with it.
        let of =
            |object: &str| kind == object || (note && tag.strip_prefix(object).is_some_and(|t| t.starts_with(' ')));
        match kind {
            _ if self.extensions && of("EXTENSION") => Some("--skip-extensions"),
            _ if self.publications && (kind.starts_with("PUBLICATION") || of("PUBLICATION")) => {
                Some("--skip-publications")
            }
            _ if self.collations && of("COLLATION") => Some("--skip-collations"),
            "DATABASE PROPERTIES" if self.db_properties => Some("--skip-db-properties"),
            "ACL" | "DEFAULT ACL" if self.acl => Some("--no-acl"),
            "COMMENT" if self.comments => Some("--no-comments"),
            "COMMENT" if self.extension_comments && of("EXTENSION") => Some("--skip-ext-comments"),
            _ => None,
        }
    }

    /// The flags that leave out something of every object, and what.
    pub fn of_all(&self) -> Vec<(&'static str, &'static str)> {
        [
            (self.owner, "--no-owner", "owners"),
            (self.tablespaces, "--no-tablespaces", "tablespaces"),
            (self.analyze, "--skip-vacuum", "statistics"),
        ]
        .into_iter()
        .filter_map(|(is, flag, what)| is.then_some((flag, what)))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_leaves_out_its_kind_and_what_is_noted_on_it() {
        let extensions = Leave { extensions: true, ..Leave::default() };
        assert_eq!(extensions.flag("EXTENSION", "hstore"), Some("--skip-extensions"));
        assert_eq!(extensions.flag("COMMENT", "EXTENSION hstore"), Some("--skip-extensions"));
        assert_eq!(extensions.flag("COMMENT", "TABLE \"EXTENSION x\""), None);
        assert_eq!(extensions.flag("TABLE", "EXTENSION x"), None);
        let publications = Leave { publications: true, ..Leave::default() };
        assert_eq!(publications.flag("PUBLICATION TABLE", "p t"), Some("--skip-publications"));
        let comments = Leave { extension_comments: true, ..Leave::default() };
        assert_eq!(comments.flag("COMMENT", "EXTENSION hstore"), Some("--skip-ext-comments"));
        assert_eq!(comments.flag("COMMENT", "TABLE t"), None);
    }
}
