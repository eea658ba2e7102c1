//! A PgBouncer on the loopback interface before a throwaway server. It dies with us.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{Cluster, EXIT, process, session};
use crate::error::{Context, Error, Result};

/// The user that may pause it, on the database `pgbouncer`.
pub const ADMIN: &str = "admin";
const READY_WITHIN: Duration = Duration::from_secs(10);

/// For how long a client has a session with the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lends {
    Transaction,
    Session,
}

pub struct PgBouncer {
    child: Child,
    dir: tempfile::TempDir,
    port: u16,
    user: String,
    database: String,
    lends: Lends,
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        process::signal(&mut self.child, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

impl PgBouncer {
    /// Where distributions put it; None if it is not installed.
    pub fn program() -> Option<&'static Path> {
        ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"]
            .into_iter()
            .map(Path::new)
            .find(|path| path.exists())
    }

    /// Lets `user` in, without a password, to one database of the server, in transaction pooling.
    ///
    /// # Errors
    /// It cannot be started, or does not let anybody in.
    pub async fn start(program: &Path, server: &Cluster, database: &str, user: &str) -> Result<PgBouncer> {
        PgBouncer::start_that(Lends::Transaction, program, server, database, user).await
    }

    /// The same, in either kind of pooling.
    ///
    /// # Errors
    /// As of [`PgBouncer::start`].
    pub async fn start_that(
        lends: Lends,
        program: &Path,
        server: &Cluster,
        database: &str,
        user: &str,
    ) -> Result<PgBouncer> {
        let doing = || "start PgBouncer".to_string();
        let dir = tempfile::Builder::new().prefix("pgmig-pgbouncer-").tempdir().during(EXIT, doing)?;
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = port.during(EXIT, doing)?.port();
        let users = dir.path().join("users.txt");
        std::fs::write(&users, format!("\"{user}\" \"\"\n\"{ADMIN}\" \"\"\n")).during(EXIT, doing)?;
        let ini = dir.path().join("pgbouncer.ini");
        std::fs::write(&ini, config(dir.path(), port, server, (database, user), lends)).during(EXIT, doing)?;
        let mut command = Command::new(program);
        command.arg("-q").arg(&ini).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if nix::unistd::Uid::effective().is_root() {
            // It refuses to be root.
            let nobody = nix::unistd::User::from_name("nobody").during(EXIT, doing)?;
            let nobody = nobody.ok_or_else(|| Error::new(EXIT, "there is no user `nobody` to run PgBouncer"))?;
            for path in [dir.path(), &users, &ini] {
                std::os::unix::fs::chown(path, Some(nobody.uid.as_raw()), None).during(EXIT, doing)?;
            }
            std::os::unix::process::CommandExt::uid(&mut command, nobody.uid.as_raw());
        }
        let child = process::spawn(command).during(EXIT, doing)?;
        let bouncer = PgBouncer { child, dir, port, user: user.into(), database: database.into(), lends };
        let began = Instant::now();
        while let Err(err) = session(&bouncer.uri(), "pgmig").await {
            if began.elapsed() > READY_WITHIN {
                return Err(err);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(bouncer)
    }

    /// For clients.
    pub fn uri(&self) -> String {
        format!("postgresql://{}@127.0.0.1:{}/{}", self.user, self.port, self.database)
    }

    /// Its admin console.
    pub fn console(&self) -> String {
        format!("postgresql://{ADMIN}@127.0.0.1:{}/pgbouncer", self.port)
    }

    /// A shell command that writes the configuration for `to`, and the one for `from` when it is asked to undo
    /// that; for `--switch`.
    ///
    /// # Errors
    /// The two configurations cannot be kept.
    pub fn switch(&self, from: &Cluster, to: &Cluster) -> Result<String> {
        let keep = |name: &str, server: &Cluster| -> Result<PathBuf> {
            let path = self.dir.path().join(name);
            let text = config(self.dir.path(), self.port, server, (&self.database, &self.user), self.lends);
            std::fs::write(&path, text).during(EXIT, || "keep a configuration of PgBouncer".into())?;
            Ok(path)
        };
        let (here, there) = (keep("from.ini", from)?, keep("to.ini", to)?);
        let ini = self.dir.path().join("pgbouncer.ini");
        let [here, there, ini] = [here, there, ini].map(|path| path.display().to_string());
        Ok(format!("case $PGMIG_ACTION in do) cp {there} {ini};; undo) cp {here} {ini};; esac; chmod a+r {ini}"))
    }
}

fn config(dir: &Path, port: u16, server: &Cluster, (database, user): (&str, &str), lends: Lends) -> String {
    let (mode, sessions) = match lends {
        Lends::Transaction => ("transaction", 10),
        // Who waits for one waits until another client goes.
        Lends::Session => ("session", 50),
    };
    format!(
        "[databases]\n{database} = host=127.0.0.1 port={} dbname={database} user={user}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
         listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {}/users.txt\nadmin_users = {ADMIN}\n\
         pool_mode = {mode}\ndefault_pool_size = {sessions}\nignore_startup_parameters = extra_float_digits\n",
        server.port(),
        dir.display()
    )
}
