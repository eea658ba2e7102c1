//! Starts a server process that dies with us, and signals it together with its children.
//! Must never signal a process that is not a child of ours or a child of that child.

use std::io;
use std::process::{Child, Command};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts a process that gets SIGQUIT (an immediate shutdown, to a postmaster) when we end, however
/// we end. Linux sends that signal when the *thread* that started the process ends, so that one
/// thread, which lives as long as the program, starts them all. Other systems lack it.
pub fn spawn(command: Command) -> io::Result<Child> {
    static KEEPER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        let body = move || {
            for (command, answer) in inbox {
                let _ = answer.send(spawn_here(command));
            }
        };
        std::thread::Builder::new().name("server keeper".to_string()).spawn(body).expect("threads can be started");
        Mutex::new(orders)
    });
    let (answer, child) = mpsc::channel();
    let gone = || io::Error::other("the thread that starts servers is gone");
    keeper.lock().map_err(|_| gone())?.send((command, answer)).map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
}

#[cfg(target_os = "linux")]
fn spawn_here(mut command: Command) -> io::Result<Child> {
    use std::os::unix::process::CommandExt;
    let us = Pid::this();
    // A group of its own: Ctrl-C at the terminal is for us, and we stop the server in good order.
    command.process_group(0);
    // SAFETY: between fork and exec only system calls are made, nothing is allocated.
    // std runs this after it changed the user, which would have reset the signal.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGQUIT)?;
            if nix::unistd::getppid() != us {
                return Err(io::Error::from_raw_os_error(nix::libc::ESRCH));
            }
            Ok(())
        });
    }
    command.spawn()
}

#[cfg(not(target_os = "linux"))]
fn spawn_here(mut command: Command) -> io::Result<Child> {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
    command.spawn()
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id() as i32)
}

/// Signals the process alone, unless it has ended: its number may belong to another by now.
pub fn signal(child: &mut Child, signal: Signal) {
    if matches!(child.try_wait(), Ok(None)) {
        let _ = kill(pid(child), signal);
    }
}

/// Signals the children too, stopping their parent first so that none is born meanwhile.
pub fn signal_all(child: &mut Child, signal: Signal) -> Vec<Pid> {
    if !matches!(child.try_wait(), Ok(None)) {
        return Vec::new();
    }
    let parent = pid(child);
    let _ = kill(parent, Signal::SIGSTOP);
    let children = children_of(parent);
    for one in &children {
        let _ = kill(*one, signal);
    }
    let _ = kill(parent, signal);
    children
}

/// Waits for the end of the process; false if it is still there after `timeout`.
pub fn wait(child: &mut Child, timeout: Duration) -> bool {
    until(timeout, || matches!(child.try_wait(), Ok(Some(_)) | Err(_)))
}

/// Waits until processes that are not our children have ended.
pub fn wait_for_others(pids: &[Pid], timeout: Duration) -> bool {
    until(timeout, || pids.iter().all(|pid| !runs(*pid)))
}

pub fn until(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > timeout {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// The state letter and the parent of a process, from /proc; None where there is none.
fn stat(pid: i32) -> Option<(char, i32)> {
    let line = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let (_, rest) = line.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn runs(pid: Pid) -> bool {
    stat(pid.as_raw()).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// Without /proc there are none to see; PostgreSQL's children end by themselves without their parent.
fn children_of(parent: Pid) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|(_, of)| of == parent.as_raw())).map(Pid::from_raw).collect()
}
