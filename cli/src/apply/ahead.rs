//! Gets the next thing to write ready while the target is still at the one before. It only reads the
//! spool: what comes of it may be thrown away and gathered again.

use std::future::{Future, poll_fn};
use std::panic::resume_unwind;
use std::pin::pin;
use std::task::Poll;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::Writer;
use super::gather::{Gathered, Gatherer};
use super::merge::Merger;
use crate::error::Result;
use crate::model::Lsn;

/// What is to be done next, ready to be sent.
pub struct Next<Work> {
    pub gathered: Gathered,
    pub work: Option<Work>,
    /// The work is not in the source's order.
    pub reordered: bool,
}

impl<Work> Next<Work> {
    pub fn gather<W: Writer<Work = Work>>(
        gatherer: &mut Gatherer,
        merger: &Merger,
        endpos: Option<Lsn>,
    ) -> Result<Next<Work>> {
        Ok(Next::of::<W>(gatherer.gather(endpos)?, merger))
    }

    pub fn of<W: Writer<Work = Work>>(gathered: Gathered, merger: &Merger) -> Next<Work> {
        let (work, reordered) = match &gathered {
            Gathered::Batch(batch) => {
                let net = merger.merge(&batch.ops);
                (Some(W::work(net.ops)), net.reordered)
            }
            Gathered::Piece(batch) | Gathered::LastPiece(batch) => (Some(W::work(merger.grouped(&batch.ops))), false),
            _ => (None, false),
        };
        Next { gathered, work, reordered }
    }
    /// Whether it stays true while time goes by; of endpos, the caller looks again. An error always
    /// stays: the reader has moved.
    pub fn is_settled(&self) -> bool {
        !matches!(self.gathered, Gathered::Level | Gathered::Waiting | Gathered::Look(..))
    }
}

/// Starts `work`, does something else in a thread of its own while `work` goes on, and finishes it.
pub async fn overlapped<T, M: Send>(
    work: impl Future<Output = T>,
    meanwhile: impl FnOnce() -> M + Send,
) -> (T, Option<M>) {
    let mut work = pin!(work);
    if let Poll::Ready(done) = poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await {
        return (done, None);
    }
    let (finished, has_finished) = oneshot::channel();
    let (done, made) = tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let aside = move || {
                let made = meanwhile();
                // Nobody listens where `work` was done first.
                let _ = finished.send(());
                made
            };
            let Ok(aside) = std::thread::Builder::new().spawn_scoped(scope, aside) else { return (None, None) };
            let done = Handle::current().block_on(async {
                tokio::select! {
                    biased;
                    done = &mut work => Some(done),
                    _ = has_finished => None,
                }
            });
            (done, Some(aside.join().unwrap_or_else(|panic| resume_unwind(panic))))
        })
    });
    // What else this task waits for may have been woken meanwhile, and was not looked at.
    tokio::task::yield_now().await;
    match done {
        Some(done) => (done, made),
        None => (work.await, made),
    }
}
