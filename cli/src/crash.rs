//! Points at which a test has the process die as by kill -9: before and after what must not be torn apart.
//! Only builds for development have them; in a release build nothing of this is left.

/// Something that is done whole or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point(pub &'static str);

/// The slot, which is made before the target knows where it begins.
pub const SLOT: Point = Point("slot");
/// The commit of Parts and steps.
pub const PLAN: Point = Point("plan");
/// The commit of an object and its mark.
pub const STEP: Point = Point("step");
/// The commit of rows and the mark of their Part.
pub const PART: Point = Point("part");
/// What is copied again under another snapshot, since its Parts cannot be told apart.
pub const ANEW: Point = Point("anew");
/// The commit of a Batch and `replay_lsn`.
pub const BATCH: Point = Point("batch");
/// A piece of a large transaction.
pub const PIECE: Point = Point("piece");
/// The commit of a large transaction.
pub const LARGE: Point = Point("large transaction");
/// A frame in the spool.
pub const FRAME: Point = Point("frame");
/// A sync of the spool.
pub const SYNC: Point = Point("sync");
/// The first byte of the next segment of the spool, behind one that is synced.
pub const SEGMENT: Point = Point("segment");
/// What the source is told.
pub const FEEDBACK: Point = Point("feedback");
/// The removal of segments that are applied.
pub const PRUNE: Point = Point("prune");
/// The door that is closed behind endpos.
pub const CUTOVER: Point = Point("cutover");
/// What sequences are set to.
pub const SEQUENCES: Point = Point("sequences");

/// Variable that names the point: `before part`, or `after batch 3` for the third time it is passed.
pub const VARIABLE: &str = "PGMIG_CRASH";

pub fn before(point: Point) {
    pass("before", point.0);
}
pub fn after(point: Point) {
    pass("after", point.0);
}

#[cfg(not(debug_assertions))]
#[inline(always)]
fn pass(_: &str, _: &str) {}

#[cfg(debug_assertions)]
fn pass(side: &str, name: &str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// The point, and how often it is still passed.
    static WANTED: LazyLock<Option<(String, AtomicU32)>> = LazyLock::new(|| {
        let wanted = std::env::var(VARIABLE).ok()?;
        let (point, times) = match wanted.rsplit_once(' ') {
            Some((point, times)) if times.parse::<u32>().is_ok() => (point.to_string(), times.parse().ok()?),
            _ => (wanted, 1),
        };
        Some((point, AtomicU32::new(times)))
    });
    if let Some((point, times)) = &*WANTED
        && point.split_once(' ') == Some((side, name))
        && times.fetch_sub(1, Ordering::Relaxed) == 1
    {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
        // It ends within this call, or a moment later on another thread: nothing more is done here.
        loop {
            std::thread::park();
        }
    }
}
