//! Holds the sources to the rules of the house: who may use whom, how a file opens, how long it gets.
//! It reads text, so that a rule is broken the moment it is typed, not when somebody notices.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const LONGEST: usize = 500;

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Every Rust file under a folder of the workspace: path from the workspace, and text.
fn files(folder: &str) -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder of the workspace can be read").flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    found.sort();
    let text = |path: &Path| std::fs::read_to_string(path).expect("a source file is text");
    let name = |path: &Path| path.strip_prefix(root()).expect("it lies in the workspace").display().to_string();
    found.iter().map(|path| (name(path), text(path))).collect()
}

/// The names that follow `crate::` in a text: `crate::a::b` gives a, `crate::{a, b::{c, d}}` a and b.
fn paths_from(start: &str, text: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices(start) {
        let rest = text[at + start.len()..].trim_start();
        let Some(list) = rest.strip_prefix('{') else {
            names.insert(word(rest));
            continue;
        };
        let (mut depth, mut item) = (0, String::new());
        for c in list.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    names.insert(word(item.trim()));
                    item.clear();
                }
                c if depth == 0 => item.push(c),
                _ => {}
            }
        }
        names.insert(word(item.trim()));
    }
    names.remove("");
    names
}

/// Which modules of the first level each such module uses.
fn uses() -> BTreeMap<String, BTreeSet<String>> {
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in files("cli/src") {
        let inside = path.strip_prefix("cli/src/").expect("it lies there");
        let module = inside.split('/').next().unwrap_or_default().trim_end_matches(".rs").to_string();
        let code: String =
            text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        let start = if module == "main" { "pgmig::" } else { "crate::" };
        let mut found = paths_from(start, &code);
        // From the top of a module `super` is the crate; in its tests it is the module itself.
        if !inside.contains('/') || inside.matches('/').count() == 1 && inside.ends_with("/mod.rs") {
            let before_tests = code.split("#[cfg(test)]").next().unwrap_or_default();
            found.extend(paths_from("super::", before_tests));
        }
        assert!(!code.contains("super::super::") || inside.starts_with("config/"), "{path}: write crate:: instead");
        found.remove(&module);
        uses.entry(module).or_default().extend(found);
    }
    uses
}

#[test]
fn paths_are_found_alone_and_in_lists() {
    let text = "use crate::a::b; use crate::{c, d::{e, f}, g::h};\nlet x = crate::i::j();";
    let found = paths_from("crate::", text);
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["a", "c", "d", "g", "i"]);
}

#[test]
fn each_layer_uses_only_what_lies_below_it() {
    let uses = uses();
    let of = |module: &str| uses.get(module).cloned().unwrap_or_else(|| panic!("there is no module {module}"));
    assert!(of("command").contains("source"), "the test sees nothing: {uses:?}");
    assert_eq!(of("model"), BTreeSet::new(), "model uses nothing of ours");
    assert_eq!(of("error"), BTreeSet::new(), "error uses nothing of ours");
    let report = of("report");
    assert!(report.iter().all(|used| used == "model"), "report only reads events: {report:?}");
    for (one, other) in [("source", "target"), ("target", "source"), ("copy", "stream"), ("stream", "copy")] {
        assert!(!of(one).contains(other), "{one} uses {other}");
    }
    for (module, used) in &uses {
        assert!(module == "main" || !used.contains("command"), "{module} uses command");
    }
    // A rule of DESIGN's picture: what is said to a server knows nothing of the work that needs it.
    for side in ["source", "target", "connect", "config"] {
        for work in ["copy", "stream", "apply", "preflight", "verify", "plan_db", "report", "command"] {
            assert!(!of(side).contains(work), "{side} uses {work}");
        }
    }
}

#[test]
fn every_file_says_what_it_is_for_and_stays_short() {
    for folder in ["bench/src", "cli/src", "pg_ext/src", "tests"] {
        for (path, text) in files(folder) {
            assert!(text.starts_with("//! "), "{path} does not say what it is for");
            let lines = text.lines().count();
            let long = lines > LONGEST && folder != "tests";
            assert!(!long, "{path} has {lines} lines; {LONGEST} is the most");
        }
    }
}

#[test]
fn the_map_names_every_folder_of_the_code() {
    let Ok(map) = std::fs::read_to_string(root().join("ARCHITECTURE.md")) else {
        println!("skipped: there is no ARCHITECTURE.md yet");
        return;
    };
    for entry in std::fs::read_dir(root().join("cli/src")).expect("the sources can be read").flatten() {
        if entry.path().is_dir() {
            let name = entry.file_name().to_string_lossy().into_owned();
            assert!(map.contains(&format!("{name}/")), "ARCHITECTURE.md does not name cli/src/{name}/");
        }
    }
}

/// docs/failures.md claims nothing that no test shows.
#[test]
fn each_failure_on_the_page_names_its_test() {
    let page = std::fs::read_to_string(root().join("docs/failures.md")).expect("the page is there");
    let tests: String = files("tests/it").into_iter().map(|(_, text)| text).collect();
    let (mut rows, mut missing) = (0, Vec::new());
    for row in
        page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| what ") && !line.contains("---"))
    {
        rows += 1;
        let last = row.trim_end_matches(['|', ' ']).rsplit('|').next().unwrap_or_default();
        let names: Vec<&str> = last.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test is named: {row}");
        missing.extend(names.into_iter().filter(|name| !tests.contains(&format!("fn {name}("))).map(str::to_string));
    }
    assert!(rows > 10, "the page has no rows");
    assert_eq!(missing, Vec::<String>::new(), "there are no such tests");
}
