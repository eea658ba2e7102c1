//! One line of a filter file: a heading, or a name with its quoting. Pure.

use super::{Name, Section};

/// What is wrong with a line and how to mend it; the caller knows file and line.
#[derive(Debug)]
pub struct Wrong {
    pub what: String,
    pub hint: String,
}

fn wrong<T>(what: impl Into<String>, hint: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { what: what.into(), hint: hint.into() })
}

/// `[section]`, in any case, perhaps with a comment behind it.
pub fn heading(line: &str) -> Result<Section, Wrong> {
    let Some((name, rest)) = line[1..].split_once(']') else {
        return wrong(format!("the heading `{line}` has no closing ]"), "write it as [exclude-table]");
    };
    if !is_nothing(rest) {
        return wrong(format!("`{}` behind the heading [{name}]", rest.trim()), "put each name on a line of its own");
    }
    let name = name.trim().to_ascii_lowercase();
    if let Some(section) = Section::ALL.into_iter().find(|section| section.name() == name) {
        return Ok(section);
    }
    let bare = |name: &str| name.replace(['_', '-', ' '], "").trim_end_matches('s').to_string();
    let near = Section::ALL.into_iter().find(|section| bare(section.name()) == bare(&name));
    let hint = match near {
        Some(section) => format!("did you mean {section}?"),
        None => format!("sections are {}", Section::ALL.map(|section| section.to_string()).join(", ")),
    };
    wrong(format!("there is no section [{name}]"), hint)
}

/// Schema, name, and the entry as it was typed, without what follows it.
pub fn entry(section: Section, line: &str) -> Result<(Option<Name>, Name, String), Wrong> {
    let mut names = Vec::new();
    let mut rest = line;
    loop {
        let (name, behind) = name(rest)?;
        names.push(name);
        match behind.strip_prefix('.') {
            Some(behind) => rest = behind,
            None => {
                rest = behind;
                break;
            }
        }
    }
    let text = line[..line.len() - rest.len()].to_string();
    // An INI file's value: pgcopydb ignores it.
    if !is_nothing(rest) && !rest.trim_start().starts_with('=') {
        let hint = "one name a line; a name with white space needs double quotes; a comment begins with # or ;";
        return wrong(format!("`{}` behind the name {text}", rest.trim()), hint);
    }
    if !section.takes_patterns() && names.iter().any(|name| matches!(name, Name::Pattern(_))) {
        return wrong(format!("{section} takes no pattern"), "write each name out, as pgcopydb does");
    }
    let mut names = names.into_iter();
    match (names.next(), names.next(), names.next(), section.is_qualified()) {
        (Some(schema), Some(name), None, true) => Ok((Some(schema), name, text)),
        (Some(name), None, None, false) => Ok((None, name, text)),
        (_, None, _, true) => wrong(
            format!("{text} has no schema"),
            format!("write schema.name, such as public.{text}; quote a name that holds a dot"),
        ),
        (_, _, _, true) => wrong(
            format!("{text} has too many dots"),
            "write schema.name; quote a name that holds a dot: public.\"a.b\"",
        ),
        (.., false) => wrong(
            format!("{text} is more than a name"),
            format!("{section} takes a name alone; quote it if it holds a dot"),
        ),
    }
}

/// Nothing, or a comment that white space sets off.
fn is_nothing(rest: &str) -> bool {
    let text = rest.trim_start();
    text.is_empty() || (text.starts_with([';', '#']) && (text.len() < rest.len()))
}

/// The name that `text` begins with, and what follows it.
fn name(text: &str) -> Result<(Name, &str), Wrong> {
    if let Some(pattern) = text.strip_prefix("~/") {
        return match closed(pattern, '/', '\\') {
            Some(("", _)) => wrong(format!("the pattern in `{text}` is empty"), "it would match every name"),
            Some((inside, behind)) => Ok((Name::Pattern(inside.replace("\\/", "/")), behind)),
            None => {
                wrong(format!("the pattern in `{text}` has no closing /"), "write ~/pattern/; a / inside it is \\/")
            }
        };
    }
    if let Some(quoted) = text.strip_prefix('"') {
        return match closed(quoted, '"', '"') {
            Some(("", _)) => wrong(format!("an empty name in `{text}`"), "no object is called that"),
            Some((inside, behind)) if behind.is_empty() || behind.starts_with(['.', '=', ' ', '\t']) => {
                Ok((Name::Quoted(inside.replace("\"\"", "\"")), behind))
            }
            Some(_) => wrong(
                format!("something follows the closing quote in `{text}`"),
                "quote the whole name; a quote inside it is doubled; set a comment off with a space",
            ),
            None => {
                wrong(format!("the quote in `{text}` is not closed"), "a quote inside a name is doubled: \"a\"\"b\"")
            }
        };
    }
    let end = text.find(['.', '=', ' ', '\t']).unwrap_or(text.len());
    let (plain, behind) = text.split_at(end);
    if plain.is_empty() {
        return wrong(format!("an empty name in `{text}`"), "write schema.name");
    }
    if plain.contains(['"', ';', '#']) || plain.starts_with('~') {
        let hint = "put a name with such characters in double quotes, or a space before a comment; a pattern is ~/…/";
        return wrong(format!("`{plain}` is no plain name"), hint);
    }
    Ok((Name::Plain(plain.to_string()), behind))
}

/// Cuts at the `close` that no `escape` stands before; where they are one character, it is doubled.
fn closed(text: &str, close: char, escape: char) -> Option<(&str, &str)> {
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c == escape && (close != escape || chars.peek().is_some_and(|(_, next)| *next == close)) {
            chars.next();
        } else if c == close {
            return Some((&text[..at], &text[at + close.len_utf8()..]));
        }
    }
    None
}
