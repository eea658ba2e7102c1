//! What people read, kept whole: exit code, stdout and stderr of each command, held against a file in
//! `expected/`. `PGMIG_TEST_UPDATE=1` writes the files anew, to be read in the diff.

use std::path::PathBuf;

use harness::Finished;

pub struct Transcript {
    name: &'static str,
    text: String,
    /// What differs from run to run, and what stands for it.
    changing: Vec<(String, String)>,
    blotted: Vec<(String, String)>,
}

impl Transcript {
    pub fn new(name: &'static str) -> Transcript {
        let mut transcript = Transcript { name, text: String::new(), changing: Vec::new(), blotted: Vec::new() };
        // A machine without a network says it in other words.
        transcript.replace("failed to lookup address information: Temporary failure in name resolution", "NOT FOUND");
        transcript.replace("failed to lookup address information: Name or service not known", "NOT FOUND");
        transcript.replace(env!("CARGO_PKG_VERSION"), "VERSION");
        transcript
    }
    /// What stands between these two, on one line, is other each time.
    pub fn blot(&mut self, before: &str, after: &str) {
        self.blotted.push((before.to_string(), after.to_string()));
    }
    pub fn replace(&mut self, text: impl ToString, by: &str) {
        self.changing.push((text.to_string(), by.to_string()));
    }
    pub fn add(&mut self, title: &str, args: &[&str], finished: &Finished) {
        let shown = |stream: &str, text: &str| match text.is_empty() {
            true => String::new(),
            false => format!("{stream}\n{}\n", text.trim_end()),
        };
        let mut text = format!(
            "# {title}\n$ pgmig {}\nexit {}\n{}{}\n",
            args.join(" "),
            finished.code(),
            shown("-- stdout", &finished.stdout),
            shown("-- stderr", &finished.stderr)
        );
        for (changing, by) in &self.changing {
            text = text.replace(changing, by);
        }
        for (before, after) in &self.blotted {
            let blot = |line: &str| match line.split_once(before.as_str()) {
                Some((start, rest)) if rest.contains(after.as_str()) => {
                    format!("{start}{before}…{}", &rest[rest.find(after.as_str()).unwrap_or(0)..])
                }
                _ => line.to_string(),
            };
            text = text.lines().map(blot).collect::<Vec<_>>().join("\n") + "\n";
        }
        self.text.push_str(&text);
    }
    /// Panics with the first line that is not as expected.
    pub fn check(&self) {
        let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/it/expected")).join(self.name);
        if std::env::var_os("PGMIG_TEST_UPDATE").is_some() {
            std::fs::write(&path, &self.text).expect("the expected text can be written");
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        if expected == self.text {
            return;
        }
        let same = expected.lines().zip(self.text.lines()).take_while(|(a, b)| a == b).count();
        panic!(
            "{} differs from line {}:\nexpected: {}\nis:       {}\nwhole:\n{}",
            path.display(),
            same + 1,
            expected.lines().nth(same).unwrap_or("(its end)"),
            self.text.lines().nth(same).unwrap_or("(its end)"),
            self.text
        );
    }
}
