//! The pgmig binary as a child process: what it says is kept with its time, and a warning or an
//! error that a test did not name fails that test.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Lines with the time since the start.
type Lines = Arc<Mutex<Vec<(Duration, String)>>>;

/// A running pgmig. Dropping it kills it.
pub struct Pgmig {
    child: Child,
    stdout: Lines,
    stderr: Lines,
    readers: Vec<JoinHandle<()>>,
    folder: tempfile::TempDir,
}

/// `PGMIG_BIN`, or the binary of the same build as the test.
pub fn path() -> PathBuf {
    if let Some(path) = std::env::var_os("PGMIG_BIN") {
        return path.into();
    }
    // target/debug/deps/it-0123 → target/debug/pgmig
    let test = std::env::current_exe().expect("a test knows its own path");
    let profile = test.ancestors().nth(2).expect("a test lies in target/<profile>/deps");
    profile.join("pgmig")
}

impl Pgmig {
    pub fn start<S: AsRef<str>>(args: &[S], env: &[(&str, &str)]) -> Pgmig {
        let binary = path();
        assert!(binary.exists(), "there is no {}: build it with `cargo build`, or set PGMIG_BIN", binary.display());
        let mut command = Command::new(binary);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(name);
        }
        command.args(args.iter().map(AsRef::as_ref)).envs(env.iter().copied()).env("NO_COLOR", "1");
        Pgmig::spawn(command)
    }

    /// Runs a command that the caller has put together.
    pub fn spawn(mut command: Command) -> Pgmig {
        let folder = tempfile::Builder::new().prefix("pgmig-log-").tempdir().expect("a temporary folder can be made");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("start {command:?}: {e}"));
        let (stdout, stderr) = (Lines::default(), Lines::default());
        let readers = vec![
            keep(child.stdout.take().expect("stdout is piped"), stdout.clone(), &folder.path().join("stdout")),
            keep(child.stderr.take().expect("stderr is piped"), stderr.clone(), &folder.path().join("stderr")),
        ];
        Pgmig { child, stdout, stderr, readers, folder }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
    /// Where stdout and stderr are also written.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }
    pub fn stderr(&self) -> String {
        text(&self.stderr)
    }
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
    /// Ctrl-C.
    pub fn interrupt(&mut self) {
        self.signal(Signal::SIGINT);
    }
    /// kill -9.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
    }
    pub fn signal(&mut self, signal: Signal) {
        // Once it has ended, its number may be another's.
        if self.is_running() {
            let _ = kill(Pid::from_raw(self.child.id() as i32), signal);
        }
    }

    /// Waits for its end; panics, with what it said, if that takes longer than `timeout`.
    pub async fn wait(mut self, timeout: Duration) -> Finished {
        let start = Instant::now();
        let status = loop {
            match self.child.try_wait().expect("a child can be waited for") {
                Some(status) => break status,
                None if start.elapsed() > timeout => {
                    let said = self.stderr();
                    self.kill();
                    panic!("pgmig was still running after {timeout:?}; its stderr:\n{said}");
                }
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        for reader in std::mem::take(&mut self.readers) {
            let _ = reader.join();
        }
        Finished { status, stdout: self.stdout(), stderr: self.stderr() }
    }
}

impl Drop for Pgmig {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }
}

fn keep(pipe: impl std::io::Read + Send + 'static, lines: Lines, file: &Path) -> JoinHandle<()> {
    let start = Instant::now();
    let mut file = fs::File::create(file).expect("a file can be made in a folder of ours");
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_string();
            line.clear();
            let at = start.elapsed();
            let _ = writeln!(file, "{:10.3} {text}", at.as_secs_f64());
            lines.lock().unwrap_or_else(PoisonError::into_inner).push((at, text));
        }
    })
}

fn text(lines: &Lines) -> String {
    let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
    lines.iter().flat_map(|(_, line)| [line.as_str(), "\n"]).collect()
}

/// A pgmig that has ended.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// The exit code; 128 and the signal's number if one ended it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }
    /// Panics if stderr warns or errs in a line that holds none of the allowed texts.
    pub fn finish(self, allowed: &[&str]) -> Finished {
        let odd = unnamed(&self.stderr, allowed);
        assert!(
            odd.is_empty(),
            "pgmig said what the test does not allow:\n{}\nwhole stderr:\n{}",
            odd.join("\n"),
            self.stderr
        );
        self
    }
    pub fn expect_code(self, code: i32) -> Finished {
        assert_eq!(self.code(), code, "exit code; stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
}

impl Pgmig {
    /// Waits up to two minutes for its end and holds its log against what is allowed.
    pub async fn finish(self, allowed: &[&str]) -> Finished {
        self.wait(Duration::from_secs(120)).await.finish(allowed)
    }
}

fn unnamed<'a>(stderr: &'a str, allowed: &[&str]) -> Vec<&'a str> {
    let odd = |line: &&str| {
        let words = || line.split(|c: char| !c.is_ascii_alphanumeric());
        words().any(|word| matches!(word, "WARN" | "ERROR"))
            || line.trim_start().starts_with("error:")
            || line.trim_start().starts_with("warning:")
    };
    stderr.lines().filter(odd).filter(|line| !allowed.iter().any(|text| line.contains(text))).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_warnings_and_errors_that_nobody_named_are_odd() {
        let stderr = "INFO all is well\n12:00 WARN slow disk\nerror: no slot\n  warning: x\nNOERRORS\nERROR: y";
        assert_eq!(super::unnamed(stderr, &["slow disk"]), ["error: no slot", "  warning: x", "ERROR: y"]);
    }
}
