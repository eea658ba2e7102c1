//! What can go wrong on purpose: sessions that the server ends, connections that break or stall.
//! Servers that crash or freeze are `Cluster::kill`, `stop` and `pause`; pgmig's own death is
//! `Pgmig::kill`. Nothing here reaches beyond this machine.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use pgmig::embedded::Cluster;
use pgmig::error::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Ends the sessions whose application_name is like `pattern`; how many there were.
pub async fn end_sessions(cluster: &Cluster, pattern: &str) -> Result<u64> {
    let query = format!(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name like '{}' and application_name <> 'pgmig writer' and pid <> pg_backend_pid()",
        pattern.replace('\'', "''")
    );
    let ended = cluster.value("postgres", &query).await?;
    Ok(ended.and_then(|count| count.parse().ok()).unwrap_or(0))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Open,
    /// Connections stay, and nothing gets through.
    Stalled,
    /// Nobody gets in.
    Down,
}

/// An application_name, and how much the next connections that have it hear of the server before they break.
#[derive(Default)]
struct Breaks(Mutex<(String, VecDeque<u64>)>);

impl Breaks {
    /// Takes the next one, if this is where a client says its name.
    fn of(&self, said: &[u8]) -> Option<u64> {
        let mut breaks = self.0.lock().expect("nobody panics with it");
        let name = format!("application_name\0{}\0", breaks.0);
        let says = !breaks.1.is_empty() && said.windows(name.len()).any(|part| part == name.as_bytes());
        if says { breaks.1.pop_front() } else { None }
    }
}

/// Stands between pgmig and a server on the loopback interface.
pub struct Proxy {
    address: SocketAddr,
    line: watch::Sender<Line>,
    /// A new value ends the connections that were there before it.
    cuts: watch::Sender<u64>,
    bytes: Arc<AtomicU64>,
    breaks: Arc<Breaks>,
    listener: JoinHandle<()>,
}

impl Proxy {
    pub async fn to(cluster: &Cluster) -> std::io::Result<Proxy> {
        let server = SocketAddr::from(([127, 0, 0, 1], cluster.port()));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (line, line_now) = watch::channel(Line::Open);
        let (cuts, cut_now) = watch::channel(0);
        let bytes = Arc::new(AtomicU64::new(0));
        let (counted, breaks) = (bytes.clone(), Arc::<Breaks>::default());
        let next = breaks.clone();
        let listener = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *line_now.borrow() == Line::Down {
                    continue;
                }
                tokio::spawn(carry(client, server, next.clone(), line_now.clone(), cut_now.clone(), counted.clone()));
            }
        });
        Ok(Proxy { address, line, cuts, bytes, breaks, listener })
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }
    /// The cluster's address, by way of the proxy.
    pub fn uri(&self, cluster: &Cluster, dbname: &str) -> String {
        cluster.uri(dbname).replace(&format!(":{}/", cluster.port()), &format!(":{}/", self.port()))
    }
    /// Bytes carried so far, both ways.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
    /// Breaks every connection there is; new ones get through.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
    /// Breaks every connection, and lets none through before `go_on`.
    pub fn down(&self) {
        self.line.send_replace(Line::Down);
        self.cut();
    }
    /// Breaks every connection, and each of the next ones with this application_name once the server has answered
    /// so many bytes.
    pub fn cut_after(&self, name: &str, answers: &[u64]) {
        let mut breaks = self.breaks.0.lock().expect("nobody panics with it");
        *breaks = (name.to_string(), answers.iter().copied().collect());
        drop(breaks);
        self.cut();
    }
    /// How many connections are still to be broken.
    pub fn breaks_left(&self) -> usize {
        self.breaks.0.lock().expect("nobody panics with it").1.len()
    }
    pub fn stall(&self) {
        self.line.send_replace(Line::Stalled);
    }
    pub fn go_on(&self) {
        self.line.send_replace(Line::Open);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
        self.cut();
    }
}

async fn carry(
    client: TcpStream,
    server: SocketAddr,
    breaks: Arc<Breaks>,
    line: watch::Receiver<Line>,
    mut cuts: watch::Receiver<u64>,
    bytes: Arc<AtomicU64>,
) {
    cuts.mark_unchanged();
    let Ok(server) = TcpStream::connect(server).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // What the client may still hear.
    let hears = AtomicU64::new(u64::MAX);
    let say = |said: &mut Vec<u8>| {
        if let Some(answers) = breaks.of(said) {
            hears.store(answers, Ordering::Relaxed);
        }
        true
    };
    let hear = |heard: &mut Vec<u8>| {
        let most = hears.load(Ordering::Relaxed);
        heard.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        hears.store(most.saturating_sub(if most == u64::MAX { 0 } else { heard.len() as u64 }), Ordering::Relaxed);
        hears.load(Ordering::Relaxed) > 0
    };
    tokio::select! {
        _ = pump(from_client, to_server, say, line.clone(), &bytes) => {}
        _ = pump(from_server, to_client, hear, line, &bytes) => {}
        _ = cuts.changed() => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut passes: impl FnMut(&mut Vec<u8>) -> bool,
    mut line: watch::Receiver<Line>,
    bytes: &AtomicU64,
) -> std::io::Result<()> {
    let mut buffer = Vec::with_capacity(16 * 1024);
    loop {
        buffer.clear();
        let read = from.read_buf(&mut buffer).await;
        let goes_on = read.as_ref().is_ok_and(|read| *read > 0 && passes(&mut buffer));
        // What was read while the line was open still waits here once it stalls; an end of it too.
        if line.wait_for(|now| *now == Line::Open).await.is_err() || read? == 0 {
            return Ok(());
        }
        to.write_all(&buffer).await?;
        bytes.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        if !goes_on {
            return Ok(());
        }
    }
}
