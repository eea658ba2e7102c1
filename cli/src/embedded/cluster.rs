//! One throwaway server: made in a temporary folder, stopped and removed when it is dropped.
//! It listens on the loopback interface and on a socket in its folder, never anywhere else.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio_postgres::SimpleQueryMessage;

use super::bin_dir::{BinDir, RunAs, run};
use super::{EXIT, process, session, template};
use crate::error::{Context, Error, Result};

/// What `Cluster::sql` gives: rows of columns, as text.
pub type Rows = Vec<Vec<Option<String>>>;

/// How a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Ends the sessions, writes a checkpoint.
    Fast,
    /// Ends at once; the next start recovers from WAL.
    Immediate,
}

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Where folders of servers are made: the path must leave room for a socket's name (107 bytes).
pub(super) fn temp_root() -> PathBuf {
    Some(std::env::temp_dir()).filter(|dir| dir.as_os_str().len() <= 60).unwrap_or_else(|| PathBuf::from("/tmp"))
}

#[derive(Debug, Clone)]
pub struct Builder {
    bin_dir: Option<PathBuf>,
    settings: Vec<(String, String)>,
    encoding: String,
    fsync: bool,
    password: bool,
}

impl Builder {
    /// The folder that holds `postgres`; without it `PGMIG_PG_BIN`, then the newest that is found.
    pub fn bin_dir(mut self, path: impl Into<PathBuf>) -> Builder {
        self.bin_dir = Some(path.into());
        self
    }
    /// A line of postgresql.conf; a later one wins over an earlier one and over ours.
    pub fn setting(mut self, name: &str, value: &str) -> Builder {
        self.settings.push((name.to_string(), value.to_string()));
        self
    }
    /// UTF8 unless told otherwise.
    pub fn encoding(mut self, encoding: &str) -> Builder {
        self.encoding = encoding.to_string();
        self
    }
    /// Keeps fsync on; it is off by default.
    pub fn durable(mut self) -> Builder {
        self.fsync = true;
        self
    }
    /// Asks for a password (scram-sha-256) over TCP; the socket stays open to all.
    pub fn with_password(mut self) -> Builder {
        self.password = true;
        self
    }

    pub async fn start(self) -> Result<Cluster> {
        let password = self.password;
        let server = blocking(move || self.make()).await?;
        let cluster = Cluster { server: Arc::new(server) };
        if password {
            // Through the socket, which asks for none; letters and digits only.
            let set = format!("alter role postgres password '{}'", cluster.server.password.as_deref().unwrap_or(""));
            cluster.sql("postgres", &set).await?;
        }
        Ok(cluster)
    }

    fn make(self) -> Result<Server> {
        let bin = BinDir::find(self.bin_dir.as_deref())?;
        let run_as = RunAs::choose()?;
        let folder = own_folder(run_as)?;
        template::make(&bin, run_as, &self.encoding, &folder.path().join("data"))?;
        self.configure(&bin, folder.path())?;

        let password = self.password.then(|| std::iter::repeat_with(fastrand::alphanumeric).take(20).collect());
        let server = Server { bin, run_as, folder, port: free_port()?, password, child: Mutex::new(None) };
        server.launch_somewhere()
    }

    fn configure(&self, bin: &BinDir, folder: &Path) -> Result<()> {
        let socket_dir = folder.display().to_string();
        let mut settings: Vec<(&str, &str)> = vec![
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", &socket_dir),
            ("wal_level", "logical"),
            ("max_replication_slots", "16"),
            ("max_wal_senders", "16"),
            ("max_connections", "60"),
            ("fsync", if self.fsync { "on" } else { "off" }),
            ("autovacuum", "on"),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
            ("log_line_prefix", "%m [%p] %q%u@%d %a "),
            ("password_encryption", "scram-sha-256"),
        ];
        // Only where it is known; an older server would not start with it.
        if bin.knows_setting("output_plugin_libraries")? {
            settings.push(("output_plugin_libraries", "pgoutput, test_decoding, wal2json"));
        }
        if !bin.has_jit() {
            settings.push(("jit", "off"));
        }
        settings.extend(self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let lines: String =
            settings.iter().map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''"))).collect();
        let doing = || "configure a throwaway server".to_string();
        let mut conf = OpenOptions::new().append(true).open(folder.join("data/postgresql.conf")).during(EXIT, doing)?;
        conf.write_all(lines.as_bytes()).during(EXIT, doing)?;
        let host = if self.password { "scram-sha-256" } else { "trust" };
        let rules: String = ["all", "replication"]
            .iter()
            .map(|db| format!("local {db} all trust\nhost {db} all 127.0.0.1/32 {host}\n"))
            .collect();
        // Written over in place, so that it stays the server's own file.
        let mut hba =
            OpenOptions::new().write(true).truncate(true).open(folder.join("data/pg_hba.conf")).during(EXIT, doing)?;
        hba.write_all(rules.as_bytes()).during(EXIT, doing)
    }
}

/// A folder of the server's user that nobody else may read.
fn own_folder(run_as: RunAs) -> Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix("pgmig-").tempdir_in(temp_root());
    let folder = folder.during(EXIT, || "make a folder for a throwaway server".to_string())?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700))
        .during(EXIT, || "close the folder of a throwaway server to others".to_string())?;
    run_as.give(folder.path())?;
    Ok(folder)
}

/// Below the range that the system takes for outgoing connections: nobody takes the port while the
/// server restarts.
fn free_port() -> Result<u16> {
    (0..200)
        .map(|_| fastrand::Rng::new().u16(20_000..32_000))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .ok_or_else(|| Error::new(EXIT, "find a free TCP port for a throwaway server"))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(Error::bug("run a throwaway server").cause(e)),
    }
}

/// A throwaway PostgreSQL server.
#[derive(Debug)]
pub struct Cluster {
    server: Arc<Server>,
}

impl Cluster {
    pub fn builder() -> Builder {
        Builder { bin_dir: None, settings: Vec::new(), encoding: "UTF8".to_string(), fsync: false, password: false }
    }

    /// The address over TCP, for the superuser `postgres`; holds the password if there is one.
    pub fn uri(&self, dbname: &str) -> String {
        let password = self.server.password.as_deref().map(|p| format!(":{p}")).unwrap_or_default();
        format!("postgresql://postgres{password}@127.0.0.1:{}/{}", self.port(), quoted(dbname))
    }
    /// The address of the socket; asks for no password.
    pub fn socket_uri(&self, dbname: &str) -> String {
        let host = quoted(&self.server.folder.path().display().to_string());
        format!("postgresql://postgres@{host}:{}/{}", self.port(), quoted(dbname))
    }
    pub fn port(&self) -> u16 {
        self.server.port
    }
    pub fn password(&self) -> Option<&str> {
        self.server.password.as_deref()
    }
    pub fn bin_dir(&self) -> &BinDir {
        &self.server.bin
    }
    pub fn major(&self) -> u32 {
        self.server.bin.major()
    }
    pub fn data_dir(&self) -> PathBuf {
        self.server.folder.path().join("data")
    }
    pub fn log_path(&self) -> PathBuf {
        self.server.folder.path().join("log")
    }
    /// What the server has written to its log so far.
    pub fn log_text(&self) -> String {
        self.server.log()
    }

    pub async fn create_database(&self, name: &str) -> Result<()> {
        self.sql("postgres", &format!("create database \"{}\"", name.replace('"', "\"\""))).await.map(drop)
    }
    /// Runs statements as psql would and gives the rows of all of them.
    pub async fn sql(&self, dbname: &str, text: &str) -> Result<Rows> {
        let client = session(&self.socket_uri(dbname), "pgmig throwaway").await?;
        let answers = client.simple_query(text).await.during(EXIT, || format!("run SQL in {dbname}"))?;
        let rows = answers.iter().filter_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| row.get(i).map(str::to_string)).collect()),
            _ => None,
        });
        Ok(rows.collect())
    }
    /// The first column of the first row.
    pub async fn value(&self, dbname: &str, text: &str) -> Result<Option<String>> {
        Ok(self.sql(dbname, text).await?.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
    }
    /// Loads a file of SQL with psql; the first error ends it.
    pub async fn load_file(&self, dbname: &str, path: &Path) -> Result<()> {
        let mut psql = self.server.bin.tool("psql");
        psql.args(["--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-f"]).arg(path);
        psql.arg("-d").arg(self.socket_uri(dbname));
        let doing = format!("load {} into {dbname}", path.display());
        blocking(move || run(&mut psql, &doing).map(drop)).await
    }

    pub async fn stop(&self, how: Stop) -> Result<()> {
        let server = self.server.clone();
        blocking(move || server.stop(how)).await
    }
    /// A standby of this server, with its settings and these, which streams from a slot that is there.
    pub async fn standby(&self, slot: &str, settings: &[(&str, &str)]) -> Result<Cluster> {
        let (primary, slot) = (self.server.clone(), slot.to_string());
        let settings: String = settings.iter().map(|(name, value)| format!("{name} = '{value}'\n")).collect();
        let server = blocking(move || primary.standby(&slot, &settings)).await?;
        Ok(Cluster { server: Arc::new(server) })
    }
    /// Starts a server that was stopped or killed, at the same address.
    pub async fn start(&self) -> Result<()> {
        let server = self.server.clone();
        blocking(move || server.launch()).await
    }
    pub async fn restart(&self, how: Stop) -> Result<()> {
        self.stop(how).await?;
        self.start().await
    }
    /// SIGKILL to the postmaster and all of its children: a crash.
    pub async fn kill(&self) -> Result<()> {
        let server = self.server.clone();
        blocking(move || {
            server.kill();
            Ok(())
        })
        .await
    }
    /// Freezes the server: connections stay open and nothing answers.
    pub fn pause(&self) {
        self.server.signal_all(Signal::SIGSTOP);
    }
    pub fn unpause(&self) {
        self.server.signal_all(Signal::SIGCONT);
    }
    pub fn is_running(&self) -> bool {
        self.server.child().as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }
}

fn quoted(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

#[derive(Debug)]
struct Server {
    bin: BinDir,
    run_as: RunAs,
    folder: tempfile::TempDir,
    port: u16,
    password: Option<String>,
    child: Mutex<Option<Child>>,
}

impl Server {
    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn log(&self) -> String {
        fs::read(self.folder.path().join("log")).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    fn standby(&self, slot: &str, settings: &str) -> Result<Server> {
        let (bin, run_as, folder) = (self.bin.clone(), self.run_as, own_folder(self.run_as)?);
        let (socket, data) = (self.folder.path().display().to_string(), folder.path().join("data"));
        let port = self.port.to_string();
        let mut copy = bin.tool("pg_basebackup");
        copy.args(["--checkpoint=fast", "--no-sync", "-h", &socket, "-p", &port, "-U", "postgres", "-S", slot, "-D"]);
        run(run_as.apply(copy.arg(&data)), "make a standby of a throwaway server")?;
        let doing = || "configure a standby".to_string();
        let mut conf = OpenOptions::new().append(true).open(data.join("postgresql.conf")).during(EXIT, doing)?;
        let own = format!(
            "unix_socket_directories = '{}'\nprimary_slot_name = '{slot}'\n\
             primary_conninfo = 'host={socket} port={port} user=postgres dbname=postgres'\n{settings}",
            folder.path().display()
        );
        conf.write_all(own.as_bytes()).during(EXIT, doing)?;
        fs::write(data.join("standby.signal"), "").during(EXIT, doing)?;
        run_as.give(&data.join("standby.signal"))?;
        let password = self.password.clone();
        Server { bin, run_as, folder, port: free_port()?, password, child: Mutex::new(None) }.launch_somewhere()
    }

    /// Starts it at a port that is free.
    fn launch_somewhere(mut self) -> Result<Server> {
        for attempt in 1.. {
            match self.launch() {
                Ok(()) => break,
                Err(_) if attempt < 5 && self.log().contains("could not bind") => self.port = free_port()?,
                Err(e) => return Err(e),
            }
        }
        Ok(self)
    }

    /// Starts the postmaster and waits until it takes connections.
    fn launch(&self) -> Result<()> {
        let mut running = self.child();
        if running.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None))) {
            return Ok(());
        }
        let doing = || format!("start a throwaway server ({})", self.bin.version());
        let data = self.folder.path().join("data");
        let log =
            OpenOptions::new().create(true).append(true).open(self.folder.path().join("log")).during(EXIT, doing)?;
        let before = log.metadata().map(|m| m.len() as usize).unwrap_or(0);
        let mut command = self.bin.tool("postgres");
        command.arg("-D").arg(&data).arg("-p").arg(self.port.to_string());
        command.stdout(log.try_clone().during(EXIT, doing)?).stderr(log);
        self.run_as.apply(&mut command);
        let mut child = process::spawn(command).during(EXIT, doing)?;

        // Line 1 of postmaster.pid is the process, line 8 says "ready" once it takes connections, or "standby".
        let pid = child.id().to_string();
        let ready = || {
            let text = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
            let state = text.lines().nth(7).map(str::trim);
            text.lines().next() == Some(&pid) && matches!(state, Some("ready" | "standby"))
        };
        let mut ended = false;
        process::until(START_TIMEOUT, || {
            ended = matches!(child.try_wait(), Ok(Some(_)) | Err(_));
            ended || ready()
        });
        if !ended && ready() {
            *running = Some(child);
            return Ok(());
        }
        process::signal_all(&mut child, Signal::SIGKILL);
        process::wait(&mut child, Duration::from_secs(5));
        let log = self.log();
        Err(Error::new(EXIT, doing()).cause(log.get(before..).unwrap_or(&log).trim().to_string()))
    }

    fn stop(&self, how: Stop) -> Result<()> {
        let signal = if how == Stop::Fast { Signal::SIGINT } else { Signal::SIGQUIT };
        let mut running = self.child();
        let Some(child) = running.as_mut() else { return Ok(()) };
        process::signal_all(child, Signal::SIGCONT);
        process::signal(child, signal);
        if process::wait(child, Duration::from_secs(30)) {
            *running = None;
            return Ok(());
        }
        drop(running);
        self.kill();
        Err(Error::new(EXIT, "stop a throwaway server: it was still there after 30 s, and was killed"))
    }

    fn kill(&self) {
        let Some(mut child) = self.child().take() else { return };
        let children = process::signal_all(&mut child, Signal::SIGKILL);
        process::wait(&mut child, Duration::from_secs(10));
        // They hold the shared memory, and a new postmaster refuses to start beside them.
        process::wait_for_others(&children, Duration::from_secs(10));
    }

    fn signal_all(&self, signal: Signal) {
        if let Some(child) = self.child().as_mut() {
            process::signal_all(child, signal);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = self.child().as_mut() {
            process::signal_all(child, Signal::SIGCONT);
            process::signal(child, Signal::SIGQUIT);
            if process::wait(child, Duration::from_secs(5)) {
                return;
            }
        }
        self.kill();
    }
}
