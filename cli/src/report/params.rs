//! What `pgmig params` shows: settings side by side for people, an object for machines. Pure.

use serde::Serialize;

#[derive(Debug, Serialize)]
pub struct Params {
    pub format: u32,
    /// Version and service of each side.
    pub source: String,
    pub target: String,
    pub parameters: Vec<Param>,
    /// What is set for the database or a role on one side only, or otherwise.
    pub for_roles: Vec<ForRole>,
}

#[derive(Debug, Serialize)]
pub struct Param {
    pub group: &'static str,
    pub name: &'static str,
    /// Null where the server does not know it.
    pub source: Option<String>,
    pub target: Option<String>,
    pub same: bool,
    /// What a change on the target waits for: `restart` or `reload`.
    pub change: &'static str,
    /// What a difference may do to the application.
    pub effect: &'static str,
    /// What makes the target like the source; null where it is the same.
    pub statement: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct ForRole {
    pub of: String,
    pub name: String,
    /// Null where it is not set; values of settings with a dot in their name are not shown.
    pub source: Option<String>,
    pub target: Option<String>,
}

/// Longer values are cut in the table.
const VALUE: usize = 18;

/// The settings that differ, group by group; with `all` the others too.
pub fn text(params: &Params, all: bool) -> String {
    let differ = params.parameters.iter().filter(|param| !param.same).count();
    let mut text = format!("source  {}\ntarget  {}\n", params.source, params.target);
    let shown: Vec<&Param> = params.parameters.iter().filter(|param| all || !param.same).collect();
    let name_width = shown.iter().map(|param| param.name.len()).max().unwrap_or(0).max(9);
    let value = |value: &Option<String>| match value {
        None => "-".to_string(),
        Some(value) if value.is_empty() => "''".into(),
        Some(value) if value.chars().count() > VALUE => value.chars().take(VALUE - 1).chain(['…']).collect(),
        Some(value) => value.clone(),
    };
    let mut group = "";
    for (at, param) in shown.iter().enumerate() {
        if param.group != group {
            group = param.group;
            text.push_str(&format!("{group}\n"));
            text.push_str(&format!(
                "  {:<5} {:<name_width$}  {:<VALUE$}  {:<VALUE$}  change\n",
                "", "parameter", "source", "target"
            ));
        }
        let word = if param.same { "same" } else { "DIFF" };
        let (source, target) = (value(&param.source), value(&param.target));
        let line =
            format!("  {word:<5} {:<name_width$}  {source:<VALUE$}  {target:<VALUE$}  {}", param.name, param.change);
        text.push_str(&format!("{}\n", line.trim_end()));
        // Said once for those of one kind.
        let last = shown.get(at + 1).is_none_or(|next| next.effect != param.effect);
        let any = shown[..=at].iter().rev().take_while(|other| other.effect == param.effect).any(|other| !other.same);
        if last && any {
            text.push_str(&format!("        {}\n", param.effect));
        }
    }
    if !params.for_roles.is_empty() {
        text.push_str(
            "set for the database or a role, and not alike (pgmig moves what the source sets for its database)\n",
        );
        for set in &params.for_roles {
            let (source, target) = (value(&set.source), value(&set.target));
            text.push_str(&format!("  {}: {}  source {source}, target {target}\n", set.of, set.name));
        }
    }
    let same = params.parameters.len() - differ;
    text.push_str(&format!("{differ} differ, {same} are the same\n"));
    let statements: Vec<&str> = params.parameters.iter().filter_map(|param| param.statement.as_deref()).collect();
    if !statements.is_empty() {
        text.push_str("to make the target like the source (sizes of memory fit the machine they were chosen for):\n");
        for line in statements.iter().flat_map(|statement| statement.lines()) {
            text.push_str(&format!("  {line}\n"));
        }
    }
    text.push_str(match (differ, all) {
        (0, _) => "next: `pgmig preflight`\n",
        (_, false) => "next: change on the target what the application needs; `pgmig params --all` shows the others\n",
        (_, true) => "next: change on the target what the application needs, then `pgmig preflight`\n",
    });
    text
}
