//! The state from before the backlog, once for each contender: a slot that is never read, a template
//! of the target, for pgmig its folder too. Runs get copies.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::contender::{Contender, Plugin};
use super::workload::{LastRow, Workload};
use crate::meter::Tool;
use crate::servers::{Servers, TARGET, pgmig_command, run};
use crate::{Common, Outcome};

pub struct Base {
    pub workload: Workload,
    pgmig: PathBuf,
    /// Where the backlog ends.
    limit: Duration,
}

/// A contender at work.
pub struct Begun {
    contender: Contender,
    child: Option<Child>,
    /// What it says on stderr.
    log: PathBuf,
}

const PUBLICATION: &str = "bench";
/// pgcopydb's on the target.
const ORIGIN: &str = "bench";

impl Base {
    pub async fn make(
        workload: Workload,
        contenders: &[Contender],
        servers: &Servers,
        pgmig: &Path,
        common: &Common,
    ) -> Outcome<Base> {
        let start = Instant::now();
        workload.load(servers, common).await?;
        let base = Base { workload, pgmig: pgmig.to_path_buf(), limit: common.limit() };
        let database = workload.database();
        // pgcopydb updates a table of its own there, which has no key.
        if contenders.iter().any(|contender| *contender != Contender::Pgcopydb) {
            servers.source.sql(database, &format!("create publication {PUBLICATION} for all tables")).await?;
        }
        for contender in contenders {
            let (word, keep) = (contender.word(), base.kept_slot(contender));
            match contender {
                Contender::Native | Contender::Floor(_) => {
                    let slot = format!("select pg_create_logical_replication_slot('{keep}', '{}')", contender.plugin());
                    servers.source.sql(database, &slot).await?;
                }
                Contender::Pgmig(..) => base.pgmig_before(contender, servers).await?,
                Contender::Pgcopydb => base.pgcopydb_before(contender, servers).await?,
            }
            if *contender == Contender::Native {
                servers.new_target().await?;
                dump_and_restore(servers, database)?;
            }
            if contender.applies() {
                servers.drop_database(&servers.target, &word).await?;
                servers.target.sql("postgres", &format!("alter database {TARGET} rename to {word}")).await?;
            }
        }
        eprintln!("{database}: made ready in {:.1} s", start.elapsed().as_secs_f64());
        Ok(base)
    }

    fn kept_slot(&self, contender: &Contender) -> String {
        format!("keep_{}", contender.word())
    }
    /// pgmig goes on with the slot that it began with.
    fn slot(&self, contender: &Contender) -> String {
        format!("run_{}", contender.word())
    }

    /// A migration that has copied everything and follows, and is then stopped.
    async fn pgmig_before(&self, contender: &Contender, servers: &Servers) -> Outcome<()> {
        servers.new_target().await?;
        servers.folder("cdc")?;
        let mut command = self.pgmig_run(contender, servers);
        let log = log(servers, contender);
        command.stderr(std::fs::File::create(&log)?);
        let tool = Tool::default();
        let mut begun = Begun { contender: *contender, child: Some(tool.spawn(command)?), log };
        begun.follows(servers, self.limit).await?;
        begun.end(servers).await?;
        self.keep(contender, servers).await
    }

    /// One that has copied everything with the help of pg_dump, and has set up its slot and its origin.
    async fn pgcopydb_before(&self, contender: &Contender, servers: &Servers) -> Outcome<()> {
        servers.new_target().await?;
        dump_and_restore(servers, self.workload.database())?;
        servers.folder("cdc")?;
        // Origins are the server's, not the database's.
        let drop =
            format!("select pg_replication_origin_drop(roname) from pg_replication_origin where roname = '{ORIGIN}'");
        servers.target.sql(TARGET, &drop).await?;
        run(self.pgcopydb(contender, servers, &["stream", "setup"]).arg("--not-consistent"))?;
        // pgcopydb 0.10 keeps its state beside the data of the source.
        servers.source.sql(self.workload.database(), "update pgcopydb.sentinel set apply = true").await?;
        self.keep(contender, servers).await
    }

    fn pgcopydb(&self, contender: &Contender, servers: &Servers, words: &[&str]) -> Command {
        let mut command = Command::new("pgcopydb");
        command.args(words).args(["--source", &servers.source.uri(self.workload.database())]);
        command.args(["--target", &servers.target.uri(TARGET), "--dir"]).arg(servers.scratch.path().join("cdc"));
        command.args(["--slot-name", &self.slot(contender), "--origin", ORIGIN]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Puts the slot and the folder of a contender aside.
    async fn keep(&self, contender: &Contender, servers: &Servers) -> Outcome<()> {
        let (slot, keep) = (self.slot(contender), self.kept_slot(contender));
        servers.source.sql("postgres", &wait_for_slot(&slot)).await?;
        let copy =
            format!("select pg_copy_logical_replication_slot('{slot}', '{keep}'), pg_drop_replication_slot('{slot}')");
        servers.source.sql(self.workload.database(), &copy).await?;
        let (folder, kept) = (servers.scratch.path().join("cdc"), servers.folder(&contender.word())?);
        // pgcopydb has not made one yet.
        if folder.exists() {
            std::fs::rename(folder, kept)?
        } else {
            std::fs::create_dir(kept)?
        }
        Ok(())
    }

    fn pgmig_run(&self, contender: &Contender, servers: &Servers) -> Command {
        let mut command = pgmig_command(&self.pgmig);
        command.args(["run", "--quiet", "--source", &servers.source.uri(self.workload.database())]);
        command.args(["--target", &servers.target.uri(TARGET), "--dir"]).arg(servers.scratch.path().join("cdc"));
        command.args(["--name", &contender.word(), "--slot-name", &self.slot(contender)]);
        if let Contender::Pgmig(flavour, plugin) = contender {
            command.args(["--flavour", &flavour.to_string(), "--plugin", &plugin.to_string()]);
        }
        // pgbench_history has no key, and only ever gets inserts.
        command.arg("--allow-insert-only");
        command.stdout(Stdio::null());
        command
    }

    /// The target, the folder and the slot as they were before the backlog.
    pub async fn restore(&self, contender: &Contender, servers: &Servers) -> Outcome<()> {
        let (slot, keep) = (self.slot(contender), self.kept_slot(contender));
        let drop =
            format!("select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = '{slot}'");
        servers.source.sql("postgres", &wait_for_slot(&slot)).await?;
        servers.source.sql("postgres", &drop).await?;
        let copy = format!("select pg_copy_logical_replication_slot('{keep}', '{slot}')");
        servers.source.sql(self.workload.database(), &copy).await?;
        servers.drop_database(&servers.target, TARGET).await?;
        if contender.applies() {
            // Copied file by file, and not through WAL.
            let strategy = if servers.target.major() >= 15 { "strategy file_copy" } else { "" };
            let create = format!("create database {TARGET} template {} {strategy}", contender.word());
            servers.target.sql("postgres", &create).await?;
        }
        if *contender == Contender::Pgcopydb {
            let begins = format!("select confirmed_flush_lsn from pg_replication_slots where slot_name = '{keep}'");
            let lsn = servers.source.value("postgres", &begins).await?.unwrap_or_default();
            let forget = format!(
                "update pgcopydb.sentinel
                    set startpos = '{lsn}', endpos = '0/0', write_lsn = '0/0', flush_lsn = '0/0', replay_lsn = '0/0'"
            );
            servers.source.sql(self.workload.database(), &forget).await?;
            let origin = format!(
                "select pg_replication_origin_drop(roname) from pg_replication_origin where roname = '{ORIGIN}';
                 select pg_replication_origin_create('{ORIGIN}');
                 select pg_replication_origin_advance('{ORIGIN}', '{lsn}')"
            );
            servers.target.sql(TARGET, &origin).await?;
        }
        if let Contender::Pgmig(..) | Contender::Pgcopydb = contender {
            let folder = servers.folder("cdc")?;
            run(Command::new("cp").arg("-a").arg(servers.scratch.path().join(contender.word())).arg(folder))?;
        }
        if *contender == Contender::Native {
            let subscribe = format!(
                "create subscription bench connection '{}' publication {PUBLICATION}
                 with (enabled = false, create_slot = false, slot_name = '{slot}', copy_data = false)",
                servers.source.uri(self.workload.database())
            );
            servers.target.sql(TARGET, &subscribe).await?;
        }
        Ok(())
    }

    /// Starts it; this is where time begins.
    pub async fn begin(&self, contender: &Contender, servers: &Servers, tool: &Tool) -> Outcome<Begun> {
        let log = log(servers, contender);
        let child = match contender {
            Contender::Native => {
                servers.target.sql(TARGET, "alter subscription bench enable").await?;
                None
            }
            Contender::Floor(plugin) => {
                let database = self.workload.database();
                let end = servers.source.value(database, "select pg_current_wal_insert_lsn()").await?;
                let mut receive = servers.source.bin_dir().tool("pg_recvlogical");
                receive.args(["--start", "-s", "1", "-F", "0", "-f", "/dev/null", "-E", &end.unwrap_or_default()]);
                receive.args(["--slot", &self.slot(contender), "-d", &servers.source.uri(database)]);
                let options: &[&str] = match plugin {
                    Plugin::Pgoutput => &["proto_version=1", "publication_names=bench"],
                    // As pgmig asks for it.
                    Plugin::Wal2json => &[
                        "format-version=2",
                        "include-transaction=1",
                        "include-xids=1",
                        "include-timestamp=1",
                        "include-types=1",
                        "include-typmod=0",
                    ],
                };
                for option in options {
                    receive.args(["-o", option]);
                }
                receive.stdout(Stdio::null()).stderr(std::fs::File::create(&log)?);
                Some(tool.spawn(receive)?)
            }
            Contender::Pgmig(..) => {
                let mut command = self.pgmig_run(contender, servers);
                command.stderr(std::fs::File::create(&log)?);
                Some(tool.spawn(command)?)
            }
            Contender::Pgcopydb => {
                let end = servers.source.value(self.workload.database(), "select pg_current_wal_insert_lsn()").await?;
                let mut follow = self.pgcopydb(contender, servers, &["follow"]);
                follow.args(["--resume", "--not-consistent", "--endpos", &end.unwrap_or_default()]);
                follow.stderr(std::fs::File::create(&log)?);
                Some(tool.spawn(follow)?)
            }
        };
        Ok(Begun { contender: *contender, child, log })
    }

    pub async fn remove(&self, contenders: &[Contender], servers: &Servers) -> Outcome<()> {
        servers.drop_database(&servers.target, TARGET).await?;
        for contender in contenders {
            servers.drop_database(&servers.target, &contender.word()).await?;
            servers.folder(&contender.word())?;
        }
        let drop = format!(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = '{}'",
            self.workload.database()
        );
        servers.source.sql("postgres", &drop).await?;
        servers.drop_database(&servers.source, self.workload.database()).await
    }
}

fn log(servers: &Servers, contender: &Contender) -> PathBuf {
    servers.scratch.path().join(format!("{}.log", contender.word()))
}

fn dump_and_restore(servers: &Servers, database: &str) -> Outcome<()> {
    let folder = servers.folder("dump")?;
    let mut dump = servers.source.bin_dir().tool("pg_dump");
    run(dump.args(["-Fd", "-Z0", "-j2", "--no-publications", "-d", &servers.source.uri(database), "-f"]).arg(&folder))?;
    let mut restore = servers.source.bin_dir().tool("pg_restore");
    run(restore.args(["-j2", "-d", &servers.target.uri(TARGET)]).arg(&folder))?;
    servers.folder("dump")?;
    Ok(())
}

/// Waits, in the server, until nobody reads a slot any more: a session ends a moment after its client.
fn wait_for_slot(slot: &str) -> String {
    format!(
        "do $$ begin
             for n in 1 .. 1000 loop
                 exit when not exists (select from pg_replication_slots where slot_name = '{slot}' and active);
                 perform pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = '{slot}' and n = 200;
                 perform pg_sleep(0.02);
             end loop;
         end $$"
    )
}

impl Begun {
    /// Whether its process has ended; an error if it ended badly.
    fn ended(&mut self) -> Outcome<bool> {
        match self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
            None => Ok(false),
            Some(status) if status.success() => Ok(true),
            Some(status) => {
                let said = std::fs::read_to_string(&self.log).unwrap_or_default();
                Err(format!("{} ended with {status}: {}", self.contender.name(), said.trim()).into())
            }
        }
    }

    pub async fn until(&mut self, last_row: LastRow, limit: Duration) -> Outcome<()> {
        last_row.arrives(limit, || self.ended()).await
    }

    /// Waits until it is level with the source and follows.
    pub async fn follows(&mut self, servers: &Servers, limit: Duration) -> Outcome<()> {
        let start = Instant::now();
        let ready = match self.contender {
            Contender::Pgmig(..) => "select phase from pgmig.sentinel where phase = 'follow'",
            _ => "select pid from pg_stat_subscription where received_lsn is not null",
        };
        while !matches!(servers.target.value(TARGET, ready).await, Ok(Some(_))) {
            if self.ended()? || start.elapsed() > limit {
                return Err(format!("{} did not come to follow", self.contender.name()).into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Stops it, and takes what would keep its target from being dropped.
    pub async fn end(mut self, servers: &Servers) -> Outcome<()> {
        if let Some(mut child) = self.child.take() {
            let start = Instant::now();
            while child.try_wait()?.is_none() {
                let signal = if start.elapsed() < Duration::from_secs(10) { Signal::SIGINT } else { Signal::SIGKILL };
                let _ = killpg(Pid::from_raw(child.id() as i32), signal);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        if self.contender == Contender::Native {
            for statement in ["disable", "set (slot_name = none)"] {
                servers.target.sql(TARGET, &format!("alter subscription bench {statement}")).await?;
            }
            servers.target.sql(TARGET, "drop subscription bench").await?;
        }
        Ok(())
    }
}
