//! How bytes come from a socket: how many must be there before its reader is woken (SO_RCVLOWAT), and how
//! many may be on their way (SO_RCVBUF). A server that streams changes writes each of them by itself: it
//! wakes its reader each time otherwise, and each time pays for a packet. Hints: where they cannot be
//! set, the same bytes come at a higher price.

use std::os::fd::OwnedFd;

use socket2::SockRef;
use tokio::net::TcpStream;

/// What a server on this machine may send ahead. Two packets of the loopback device, which are the largest
/// there are: with less the sender would wait for its timer.
const NARROW: usize = 128 << 10;

pub(super) struct Flow {
    socket: Option<OwnedFd>,
    wakes_at: usize,
    is_local: bool,
}

impl Flow {
    pub(super) fn of(stream: &TcpStream) -> Flow {
        let socket = SockRef::from(stream).try_clone().ok().map(OwnedFd::from);
        let ends = stream.local_addr().ok().zip(stream.peer_addr().ok());
        Flow { socket, wakes_at: 1, is_local: ends.is_some_and(|(ours, theirs)| ours.ip() == theirs.ip()) }
    }
    /// Of a wire that has none.
    pub(super) fn none() -> Flow {
        Flow { socket: None, wakes_at: 1, is_local: false }
    }
    /// Where nothing lies between the ends, lets a server wait for its reader: it writes into its own
    /// buffer meanwhile, and one packet takes all of that. Elsewhere the network needs more on its way,
    /// and gathers small writes by itself.
    pub(super) fn narrow(&self) {
        if let Some(socket) = self.socket.as_ref().filter(|_| self.is_local)
            && let Err(err) = SockRef::from(socket).set_recv_buffer_size(NARROW)
        {
            tracing::debug!(%err, "SO_RCVBUF cannot be set");
        }
    }
    pub(super) fn wake_at(&mut self, bytes: usize) {
        if let Some(socket) = self.socket.as_ref().filter(|_| self.wakes_at != bytes) {
            set_low_water(socket, bytes);
            self.wakes_at = bytes;
        }
    }
}

#[cfg(target_os = "linux")]
fn set_low_water(socket: &OwnedFd, bytes: usize) {
    use std::os::fd::AsRawFd;

    use nix::libc::{SO_RCVLOWAT, SOL_SOCKET, c_int, setsockopt, socklen_t};
    let bytes = bytes as c_int;
    // SAFETY: the descriptor is open as long as it is borrowed, and the option is one int.
    let answer = unsafe {
        setsockopt(
            socket.as_raw_fd(),
            SOL_SOCKET,
            SO_RCVLOWAT,
            (&raw const bytes).cast(),
            size_of::<c_int>() as socklen_t,
        )
    };
    if answer != 0 {
        tracing::debug!("SO_RCVLOWAT cannot be set");
    }
}

#[cfg(not(target_os = "linux"))]
fn set_low_water(_socket: &OwnedFd, _bytes: usize) {}
