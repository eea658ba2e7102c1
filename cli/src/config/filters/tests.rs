//! What pgcopydb gets wrong is read right, and what cannot be read is refused with its line.

use super::*;

fn read(text: &str) -> Vec<(Section, Option<Name>, Name, usize)> {
    let filters = Filters::parse("f.ini", text).unwrap_or_else(|err| panic!("{text:?}: {err:?}"));
    filters.entries.into_iter().map(|e| (e.section, e.schema, e.name, e.line)).collect()
}
fn table(schema: &str, name: &str) -> (Option<Name>, Name) {
    (Some(Name::Plain(schema.into())), Name::Plain(name.into()))
}
fn one(text: &str) -> (Option<Name>, Name) {
    let mut entries = read(&format!("[exclude-table]\n{text}\n"));
    assert_eq!(entries.len(), 1, "{text}");
    let (_, schema, name, _) = entries.remove(0);
    (schema, name)
}

#[test]
fn comments_of_both_kinds_are_comments_everywhere() {
    let text = "# first\n; second\n[exclude-table] # third\n# fourth\npublic.a # fifth\npublic.b ; sixth\n\n  \tpublic.c\t#seventh\n";
    let found: Vec<_> = read(text).into_iter().map(|(_, schema, name, line)| ((schema, name), line)).collect();
    assert_eq!(found, [(table("public", "a"), 5), (table("public", "b"), 6), (table("public", "c"), 8)]);
}

#[test]
fn quotes_hide_what_would_mean_something() {
    let schema = Some(Name::Plain("public".into()));
    let quoted = |name: &str| (schema.clone(), Name::Quoted(name.into()));
    assert_eq!(one(r#"public."Weird, T#1""#), quoted("Weird, T#1"));
    assert_eq!(one(r#"public."T #1" # note"#), quoted("T #1"));
    assert_eq!(one(r#"public."a ; b = c" ; note"#), quoted("a ; b = c"));
    assert_eq!(one(r#"public."a.b""#), quoted("a.b"));
    assert_eq!(one(r#"public."say ""x""""#), quoted("say \"x\""));
    assert_eq!(one(r#""Back Office".t"#), (Some(Name::Quoted("Back Office".into())), Name::Plain("t".into())));
}

#[test]
fn patterns_stand_for_either_half() {
    let pattern = |text: &str| Name::Pattern(text.into());
    assert_eq!(one("public.~/^tmp_/"), (Some(Name::Plain("public".into())), pattern("^tmp_")));
    assert_eq!(one("~/^log/.audit_log"), (Some(pattern("^log")), Name::Plain("audit_log".into())));
    assert_eq!(one(r"~/a.c/.~/b\/ #[0-9]$/ # note"), (Some(pattern("a.c")), pattern("b/ #[0-9]$")));
    let schema = read("[include-only-schema]\n~/^app_/\n");
    assert_eq!(schema, [(IncludeOnlySchema, None, pattern("^app_"), 2)]);
}

#[test]
fn headings_are_read_in_any_case_and_repeated_ones_are_one_section() {
    let text =
        "\u{feff}[EXCLUDE-TABLE]\r\npublic.a\r\n\r\n[ Exclude-Index ]\r\npublic.i\r\n[exclude-table]\r\npublic.b\r\n";
    let filters = Filters::parse("f.ini", text).unwrap();
    let tables: Vec<_> = filters.of(ExcludeTable).map(|entry| entry.text.as_str()).collect();
    assert_eq!(tables, ["public.a", "public.b"]);
    assert_eq!(filters.of(ExcludeIndex).count(), 1);
}

#[test]
fn values_are_ignored_as_in_pgcopydb() {
    assert_eq!(one("public.a = 1"), table("public", "a"));
    assert_eq!(one("public.a="), table("public", "a"));
}

#[test]
fn what_cannot_be_read_is_refused_with_its_line() {
    let rows = [
        (
            "[exclude-tables]\npublic.a",
            "f.ini:1: there is no section [exclude-tables]",
            "did you mean [exclude-table]?",
        ),
        ("[tables]", "f.ini:1: there is no section [tables]", "sections are [include-only-schema]"),
        ("public.a\n[exclude-table]", "f.ini:1: `public.a` stands before any section", "heading"),
        ("[exclude-table\npublic.a", "f.ini:1: the heading `[exclude-table` has no closing ]", "[exclude-table]"),
        ("[exclude-table]\n\na", "f.ini:3: a has no schema", "public.a"),
        ("[exclude-table]\na.b.c", "f.ini:2: a.b.c has too many dots", "quote"),
        ("[exclude-table]\npublic.", "f.ini:2: an empty name", "schema.name"),
        ("[exclude-table]\n.a", "f.ini:2: an empty name", "schema.name"),
        ("[exclude-table]\npublic.\"a", "f.ini:2: the quote in `\"a` is not closed", "doubled"),
        ("[exclude-table]\npublic.\"a\"b", "f.ini:2: something follows the closing quote", "whole name"),
        ("[exclude-table]\npublic.a\"b\"", "f.ini:2: `a\"b\"` is no plain name", "double quotes"),
        ("[exclude-table]\npublic.my table", "f.ini:2: `table` behind the name public.my", "double quotes"),
        ("[exclude-table]\npublic.a#b", "f.ini:2: `a#b` is no plain name", "a space before a comment"),
        ("[exclude-table]\npublic.~/^a", "f.ini:2: the pattern in `~/^a` has no closing /", "~/pattern/"),
        ("[exclude-table]\npublic.~//", "f.ini:2: the pattern in `~//` is empty", "every name"),
        ("[exclude-schema]\na.b", "f.ini:2: a.b is more than a name", "name alone"),
        ("[exclude-extension]\n~/pg_/", "f.ini:2: [exclude-extension] takes no pattern", "write each name out"),
        (
            "[include-only-table]\npublic.a\n[exclude-table]\npublic.b",
            "f.ini:4: [include-only-table] and [exclude-table] exclude each other (the other one is at line 2)",
            "either",
        ),
        (
            "[exclude-schema]\na\n[include-only-table]\nb.c",
            "f.ini:4: [include-only-table] and [exclude-schema]",
            "either",
        ),
        (
            "[exclude-schema]\na\n[include-only-schema]\nb",
            "f.ini:4: [include-only-schema] and [exclude-schema]",
            "either",
        ),
        ("[include-only-extension]\na\n[exclude-extension]\nb", "f.ini:4: [include-only-extension]", "either"),
    ];
    for (text, what, hint) in rows {
        let err = Filters::parse("f.ini", text).err().unwrap_or_else(|| panic!("{text:?} was read"));
        assert!(err.to_string().starts_with(what), "{text:?}: {err}");
        assert!(err.hint_text().is_some_and(|found| found.contains(hint)), "{text:?}: {:?}", err.hint_text());
        assert_eq!(err.exit(), Exit::Usage);
    }
    // An empty section says nothing, so it contradicts nothing.
    assert_eq!(read("[include-only-table]\n[exclude-table]\npublic.b").len(), 1);
}

#[test]
fn files_are_the_same_when_they_say_the_same() {
    let a = Filters::parse("a.ini", "[exclude-table]\npublic.a\npublic.b").unwrap();
    let b = Filters::parse("b.ini", "# moved\n[exclude-table]\npublic.b\n\npublic.a # twice\npublic.a").unwrap();
    assert!(a.same(&b));
    assert!(!a.same(&Filters::parse("a.ini", "[exclude-table-data]\npublic.a\npublic.b").unwrap()));
}
