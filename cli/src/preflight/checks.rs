//! What the checks have found so far: every finding for people, and an error for each that refuses a run.

use crate::error::{Error, Exit};
use crate::model::{Finding, Mend, Place, Verdict};

#[derive(Debug, Default)]
pub struct Checks {
    pub findings: Vec<Finding>,
    /// What refuses a run, in the order in which it was found.
    pub wrong: Vec<Error>,
    /// What a run says as a warning: something will be other than on the source.
    pub warnings: Vec<String>,
}

impl Checks {
    fn push(&mut self, place: Place, check: &'static str, verdict: Verdict, message: String, mend: Mend) {
        self.findings.push(Finding { place, check, verdict, message, mend });
    }
    pub(super) fn pass(&mut self, place: Place, check: &'static str, message: impl Into<String>) {
        self.push(place, check, Verdict::Pass, message.into(), Mend::default());
    }
    pub(super) fn warn(
        &mut self,
        place: Place,
        check: &'static str,
        message: impl Into<String>,
        mend: impl Into<Mend>,
    ) {
        self.push(place, check, Verdict::Warn, message.into(), mend.into());
    }
    /// A warning that `run` says too.
    pub(super) fn warn_aloud(
        &mut self,
        place: Place,
        check: &'static str,
        message: impl Into<String>,
        mend: impl Into<Mend>,
    ) {
        let message = message.into();
        self.warnings.push(message.clone());
        self.warn(place, check, message, mend);
    }
    pub(super) fn fail(
        &mut self,
        place: Place,
        check: &'static str,
        message: impl Into<String>,
        mend: impl Into<Mend>,
    ) {
        let exit = match place {
            Place::Source => Exit::Source,
            Place::Target => Exit::Target,
            Place::Here => Exit::Usage,
        };
        self.refuse_mended(place, check, Error::new(exit, message), mend.into());
    }
    /// A failure that is an error already, with its exit code, causes and hint.
    pub fn refuse(&mut self, place: Place, check: &'static str, error: Error) {
        let mend = error.hint_text().unwrap_or_default().into();
        self.push(place, check, Verdict::Fail, error.chain(), mend);
        self.wrong.push(error);
    }
    /// The same, with what mends it.
    pub(super) fn refuse_mended(&mut self, place: Place, check: &'static str, error: Error, mend: Mend) {
        let error = if mend.is_empty() { error } else { error.hint(mend.to_string()) };
        self.push(place, check, Verdict::Fail, error.chain(), mend);
        self.wrong.push(error);
    }
}

/// The first few of a list, and how many more there are.
pub(super) fn some<N: ToString>(names: &[N]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = names.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = if names.len() > SHOWN { format!(" and {} more", names.len() - SHOWN) } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

/// `1 table`, `2 tables`.
pub(super) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Seconds as people say them.
pub(super) fn age(seconds: f64) -> String {
    match seconds as u64 {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}
