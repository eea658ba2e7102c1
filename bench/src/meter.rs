//! What a run costs: wall time, CPU seconds of the tool and of each server, and the tool's memory.
//! Read from the system's own accounts, so that a process that has ended is counted too.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use pgmig::embedded::Cluster;
use serde::Serialize;

use crate::Outcome;

/// Memory is looked at this often; more often would cost what is being measured.
const LOOK_EVERY: Duration = Duration::from_millis(150);
const TICKS_PER_SECOND: f64 = 100.0;

/// What one run took; times in seconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Cost {
    pub wall: f64,
    pub tool_cpu: f64,
    /// Of that, of the processes that the bench started, without the helpers that they started.
    pub own_cpu: f64,
    pub source_cpu: f64,
    pub target_cpu: f64,
    /// Highest sum of the proportional set sizes of the tool's processes.
    pub peak_mb: f64,
    /// Highest resident size of one process that the bench started: pgmig without its helpers.
    pub rss_mb: f64,
}

impl Cost {
    pub fn total_cpu(&self) -> f64 {
        self.tool_cpu + self.source_cpu + self.target_cpu
    }
}

/// Starts the processes that count as the tool, and remembers what their memory was at its highest.
#[derive(Debug, Default)]
pub struct Tool {
    roots: Mutex<Vec<u32>>,
    peak: Mutex<(f64, f64)>,
    /// CPU seconds of the roots that have ended.
    own: Mutex<f64>,
}

impl Tool {
    pub fn spawn(&self, mut command: Command) -> Outcome<Child> {
        // Nothing of a tool outlives an interrupted bench by long: its sessions end with the servers.
        command.process_group(0);
        let child = command.spawn().map_err(|e| format!("start {:?}: {e}", command.get_program()))?;
        self.roots.lock().unwrap_or_else(PoisonError::into_inner).push(child.id());
        Ok(child)
    }

    /// Runs a program to its end; what it says on stderr is in the error if that is not a good one.
    pub fn run(&self, mut command: Command) -> Outcome<()> {
        let doing = format!("{:?}", command.get_program());
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let child = self.spawn(command)?;
        self.ended(&doing, child)
    }

    /// Runs `from | to`.
    pub fn pipe(&self, mut from: Command, mut to: Command) -> Outcome<()> {
        from.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut from = self.spawn(from)?;
        let output = from.stdout.take().ok_or("a pipe without an end")?;
        to.stdin(output).stdout(Stdio::null()).stderr(Stdio::piped());
        let to = self.spawn(to)?;
        self.ended("the reading end of a pipe", to)?;
        self.ended("the writing end of a pipe", from)
    }

    fn ended(&self, doing: &str, mut child: Child) -> Outcome<()> {
        let mut said = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            stderr.read_to_string(&mut said)?;
        }
        // Its account is there until it is waited for.
        let id = Id::Pid(Pid::from_raw(child.id() as i32));
        waitid(id, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
        let [user, system, ..] = cpu_times(child.id());
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) += user + system;
        let status = child.wait()?;
        if status.success() {
            return Ok(());
        }
        let last: Vec<&str> = said.lines().rev().take(4).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        Err(format!("{doing} ended with {status}: {}", last.join(" / ")).into())
    }

    /// Those that we started and have not waited for.
    fn running(&self) -> Vec<u32> {
        let ours = children(std::process::id());
        let roots = self.roots.lock().unwrap_or_else(PoisonError::into_inner);
        roots.iter().copied().filter(|root| ours.contains(root)).collect()
    }

    /// CPU seconds of what still runs.
    fn cpu(&self) -> f64 {
        let running = self.running().into_iter().flat_map(with_descendants);
        running.flat_map(cpu_times).sum()
    }

    /// Ends what still runs. Each root leads a process group.
    fn end(&self) {
        for root in self.running() {
            let _ = killpg(Pid::from_raw(root as i32), Signal::SIGKILL);
        }
    }

    fn look(&self) {
        let (mut tree, mut largest): (f64, f64) = (0.0, 0.0);
        for root in self.running() {
            largest = largest.max(resident(root));
            tree += with_descendants(root).into_iter().map(proportional).sum::<f64>();
        }
        let mut peak = self.peak.lock().unwrap_or_else(PoisonError::into_inner);
        *peak = (peak.0.max(tree), peak.1.max(largest));
    }
}

/// Measures what is done between now and `finish`.
pub struct Meter<'a> {
    source: &'a Cluster,
    target: &'a Cluster,
    before: (f64, f64, f64),
    start: Instant,
    over: Arc<AtomicBool>,
    watcher: std::thread::JoinHandle<()>,
    pub tool: Arc<Tool>,
}

impl<'a> Meter<'a> {
    /// What still runs after `limit` is killed, and its run fails.
    pub fn start(source: &'a Cluster, target: &'a Cluster, limit: Duration) -> Outcome<Meter<'a>> {
        let (tool, over) = (Arc::new(Tool::default()), Arc::new(AtomicBool::new(false)));
        let (watched, is_over) = (tool.clone(), over.clone());
        let watcher = std::thread::spawn(move || {
            let start = Instant::now();
            while !is_over.load(Ordering::Relaxed) {
                watched.look();
                if start.elapsed() > limit {
                    watched.end();
                }
                std::thread::sleep(LOOK_EVERY);
            }
        });
        let before = (children_cpu(), cluster_cpu(source)?, cluster_cpu(target)?);
        Ok(Meter { source, target, before, start: Instant::now(), over, watcher, tool })
    }

    pub fn finish(self) -> Outcome<Cost> {
        let wall = self.start.elapsed().as_secs_f64();
        // What still runs counts too.
        let tool_cpu = children_cpu() + self.tool.cpu() - self.before.0;
        let after = (cluster_cpu(self.source)?, cluster_cpu(self.target)?);
        self.over.store(true, Ordering::Relaxed);
        let _ = self.watcher.join();
        let (peak_mb, rss_mb) = *self.tool.peak.lock().unwrap_or_else(PoisonError::into_inner);
        let own_cpu = *self.tool.own.lock().unwrap_or_else(PoisonError::into_inner);
        let (source_cpu, target_cpu) = (after.0 - self.before.1, after.1 - self.before.2);
        Ok(Cost { wall, tool_cpu, own_cpu, source_cpu, target_cpu, peak_mb, rss_mb })
    }
}

/// CPU seconds of all processes that we started and waited for, with theirs. The servers are children
/// of ours that nobody waits for while something is measured.
fn children_cpu() -> f64 {
    let [_, _, user, system] = cpu_times(std::process::id());
    user + system
}

/// CPU seconds of a server since it was started: the postmaster, its children, and those it had.
pub fn cluster_cpu(cluster: &Cluster) -> Outcome<f64> {
    let file = fs::read_to_string(cluster.data_dir().join("postmaster.pid"))?;
    let postmaster: u32 = file.lines().next().ok_or("postmaster.pid is empty")?.trim().parse()?;
    loop {
        let before = children(postmaster);
        let sum: f64 = before.iter().chain([&postmaster]).flat_map(|pid| cpu_times(*pid)).sum();
        // Read again if a child has come or gone: it would be missed, or counted twice.
        if children(postmaster) == before {
            return Ok(sum);
        }
    }
}

/// User and system time of a process, and of the children that it has waited for.
fn cpu_times(pid: u32) -> [f64; 4] {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold anything. After it: state, parent, …, utime, stime, cutime, cstime.
    let fields = line.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
    let mut times = fields.split(' ').skip(11).map(|field| field.parse::<f64>().unwrap_or(0.0) / TICKS_PER_SECOND);
    std::array::from_fn(|_| times.next().unwrap_or(0.0))
}

/// The living children of a process, whichever thread started them.
fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split(' ').filter_map(|pid| pid.trim().parse().ok()).collect::<Vec<u32>>()).collect()
}

fn with_descendants(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut at = 0;
    while at < found.len() {
        found.extend(children(found[at]));
        at += 1;
    }
    found
}

/// Proportional set size in MB: what several processes share is divided among them.
fn proportional(pid: u32) -> f64 {
    size_in(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

/// Highest resident size so far, in MB, as the system remembers it.
fn resident(pid: u32) -> f64 {
    size_in(&format!("/proc/{pid}/status"), "VmHWM:")
}

fn size_in(file: &str, name: &str) -> f64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1024.0
}
