//! A log file that is turned over when it is large or the day ends: `run.log` becomes `run.log.1`, that one
//! `run.log.2`, and the oldest goes. No failure of the disk or of a rename comes back to whoever logs: a
//! migration does not end for its log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Zoned;
use jiff::civil::Date;

/// When a file is turned over, and how many are kept beside it.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    pub bytes: Option<u64>,
    pub daily: bool,
    pub keep: u16,
}

#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    turn: Turn,
    file: File,
    bytes: u64,
    day: Date,
}

impl LogFile {
    /// Goes on with a file that is there.
    ///
    /// # Errors
    /// The file or its folder cannot be made.
    pub fn open(path: &Path, turn: Turn) -> io::Result<LogFile> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder)?;
        }
        let file = append(path)?;
        let about = file.metadata()?;
        let written = about.modified().ok().and_then(|at| jiff::Timestamp::try_from(at).ok());
        let day = match written.filter(|_| about.len() > 0) {
            Some(at) => at.to_zoned(jiff::tz::TimeZone::system()).date(),
            None => Zoned::now().date(),
        };
        Ok(LogFile { path: path.into(), turn, file, bytes: about.len(), day })
    }

    fn numbered(&self, number: u16) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    fn is_over(&self, more: u64, today: Date) -> bool {
        self.bytes > 0
            && (self.turn.bytes.is_some_and(|most| self.bytes + more > most) || self.turn.daily && today != self.day)
    }

    fn turn_over(&mut self, today: Date) -> io::Result<()> {
        // Whatever comes of it, it is not tried again for each line.
        (self.bytes, self.day) = (0, today);
        if self.turn.keep == 0 {
            return self.file.set_len(0);
        }
        for number in (1..self.turn.keep).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
                _ => {}
            }
        }
        fs::rename(&self.path, self.numbered(1))?;
        self.file = append(&self.path)?;
        Ok(())
    }

    fn write_line(&mut self, line: &[u8], today: Date) -> io::Result<()> {
        if self.is_over(line.len() as u64, today) {
            self.turn_over(today)?;
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = self.write_line(line, Zoned::now().date());
        Ok(line.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<(String, String)> {
        let mut found: Vec<(String, String)> = fs::read_dir(folder)
            .expect("a folder")
            .flatten()
            .map(|entry| {
                let text = fs::read_to_string(entry.path()).expect("text");
                (entry.file_name().to_string_lossy().into_owned(), text)
            })
            .collect();
        found.sort();
        found
    }

    #[test]
    fn a_file_is_turned_over_by_size_and_by_day_and_the_oldest_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("run.log");
        let open = |bytes, daily| LogFile::open(&path, Turn { bytes, daily, keep: 2 }).expect("it opens");
        let today = Zoned::now().date();
        let mut log = open(Some(10), false);
        for line in ["one...\n", "two...\n", "three.\n", "a line that is longer than a file\n"] {
            log.write_line(line.as_bytes(), today).expect("it is written");
        }
        let is = |name: &str, text: &str| (name.to_string(), text.to_string());
        let long = "a line that is longer than a file\n";
        assert_eq!(
            names(folder.path()),
            [is("run.log", long), is("run.log.1", "three.\n"), is("run.log.2", "two...\n")]
        );
        // Another process goes on with it.
        let mut log = open(Some(100), true);
        log.write_line(b"more\n", today).expect("it is written");
        assert_eq!(names(folder.path())[0].1, format!("{long}more\n"));
        log.write_line(b"tomorrow\n", today.tomorrow().expect("there is one")).expect("it is written");
        assert_eq!(names(folder.path())[0], is("run.log", "tomorrow\n"));
        assert_eq!(names(folder.path())[1].1, format!("{long}more\n"));
        assert_eq!(names(folder.path()).len(), 3);
    }

    #[test]
    fn a_log_that_cannot_be_turned_over_is_written_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("run.log");
        let mut log = LogFile::open(&path, Turn { bytes: Some(5), daily: false, keep: 3 }).expect("it opens");
        log.write_all(b"first\n").expect("it is written");
        fs::remove_file(&path).expect("somebody takes it away");
        log.write_all(b"lost\n").expect("nobody hears of it");
        log.write_all(b"third\n").expect("nobody hears of it");
    }
}
