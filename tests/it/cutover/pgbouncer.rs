//! The cutover behind a real PgBouncer, in transaction pooling: its clients wait, none of them fails.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness::{Outcome, tell, wait_until};
use pgmig::embedded::Cluster;

use super::writer::Clients;
use crate::life::{EXTENSION, Life};

/// A PgBouncer on the loopback interface; it dies with the test.
pub struct PgBouncer {
    child: Child,
    dir: tempfile::TempDir,
    port: u16,
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn program() -> Option<&'static str> {
    ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"]
        .into_iter()
        .find(|path| Path::new(path).exists())
}

impl PgBouncer {
    pub async fn start(program: &str, to: &Cluster) -> std::io::Result<PgBouncer> {
        let dir = tempfile::Builder::new().prefix("pgmig-pgbouncer-").tempdir()?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        std::fs::write(dir.path().join("users.txt"), "\"app\" \"\"\n\"admin\" \"\"\n")?;
        let bouncer = dir.path().join("pgbouncer.ini");
        std::fs::write(&bouncer, config(dir.path(), port, to.port()))?;
        let mut command = Command::new(program);
        command.arg("-q").arg(&bouncer).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if nix::unistd::Uid::effective().is_root() {
            // It refuses to be root.
            let nobody = nix::unistd::User::from_name("nobody").ok().flatten().expect("there is a user nobody");
            for path in [dir.path().to_path_buf(), dir.path().join("users.txt"), bouncer] {
                std::os::unix::fs::chown(&path, Some(nobody.uid.as_raw()), None)?;
            }
            std::os::unix::process::CommandExt::uid(&mut command, nobody.uid.as_raw());
        }
        Ok(PgBouncer { child: command.spawn()?, dir, port })
    }
    pub fn uri(&self, user: &str, database: &str) -> String {
        format!("postgresql://{user}@127.0.0.1:{}/{database}", self.port)
    }
}

fn config(dir: &Path, port: u16, server: u16) -> String {
    format!(
        "[databases]\napp = host=127.0.0.1 port={server} dbname=app user=app\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir =\nauth_type = trust\nauth_file = {}/users.txt\nadmin_users = admin\npool_mode = transaction\n\
         default_pool_size = 10\nignore_startup_parameters = extra_float_digits\n",
        dir.display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_pgbouncer_no_client_fails_and_none_waits_long() -> Outcome {
    let Some(program) = program() else {
        tell("skipped: there is no pgbouncer; `make deps` installs it");
        return Ok(());
    };
    let life = Life::shop(EXTENSION).await;
    let run = life.follow().await;
    let bouncer = PgBouncer::start(program, &life.pair.source).await?;
    wait_until(Duration::from_secs(10), "PgBouncer answers", async || {
        tokio_postgres::connect(&bouncer.uri("app", "app"), tokio_postgres::NoTls).await.is_ok()
    })
    .await;
    let clients = Clients::start(&bouncer.uri("app", "app"), 8).await;
    clients.have_written(100).await;
    let ini = bouncer.dir.path().join("pgbouncer.ini");
    let there = bouncer.dir.path().join("target.ini");
    let here = bouncer.dir.path().join("source.ini");
    std::fs::write(&there, config(bouncer.dir.path(), bouncer.port, life.pair.target.port()))?;
    std::fs::copy(&ini, &here)?;
    let [ini, there, here] = [&ini, &there, &here].map(|path| path.display().to_string());
    let hook = |then: &str| {
        format!("case $PGMIG_ACTION in do) cp {there} {ini};; undo) cp {here} {ini};; esac; chmod a+r {ini}; {then}")
    };
    let console = bouncer.uri("admin", "pgbouncer");

    // The switch fails: clients go on with the source, and have noticed nothing but a pause.
    let with = ["--pgbouncer", &console, "--pgbouncer-database", "app", "--max-downtime", "60s"];
    let failing = hook("test $PGMIG_ACTION = undo");
    let cut = life.cutover(&[&with[..], &["--switch", &failing]].concat());
    let cut = cut.finish(&["error: the cutover was undone"]).await.expect_code(1);
    assert!(cut.stderr.contains("the switch hook did not do it"), "{}", cut.stderr);
    clients.have_written(50).await;

    let switching = hook("true");
    let cut = life.cutover(&[&with[..], &["--switch", &switching]].concat()).finish(&[]).await.expect_code(0);
    run.finish(&[]).await.expect_code(0);
    clients.have_written(50).await;
    let written = clients.stop().await;
    tell(&format!("behind PgBouncer: {} the longest wait of a client was {:?}", cut.stdout.trim(), written.longest));
    assert_eq!(written.refused, 0, "no client failed");
    let there = life.on_target("select string_agg(format('%s:%s', client, most), ',' order by client) from (select client, max(number) as most from note group by 1) n").await;
    assert_eq!(there, written.answered(), "what was answered is on the target");
    let missing = "select count(*) from (select client, max(number) as most, count(*) as rows from note group by client) n where most <> rows";
    assert_eq!(life.on_target(missing).await, "0", "no number is missing, none is there twice");
    Ok(())
}
