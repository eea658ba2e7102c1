//! How many bytes must have come before the reader of a socket is woken (SO_RCVLOWAT). A server that
//! sends row by row wakes its reader for each of them otherwise. A hint: where it cannot be set, the
//! reader is woken more often and nothing else changes.

use std::os::fd::OwnedFd;

use socket2::SockRef;
use tokio::net::TcpStream;

pub(super) struct LowWater {
    socket: Option<OwnedFd>,
    bytes: usize,
}

impl LowWater {
    pub(super) fn of(stream: &TcpStream) -> LowWater {
        LowWater { socket: SockRef::from(stream).try_clone().ok().map(OwnedFd::from), bytes: 1 }
    }
    /// Of a wire that has none.
    pub(super) fn none() -> LowWater {
        LowWater { socket: None, bytes: 1 }
    }
    pub(super) fn set(&mut self, bytes: usize) {
        if let Some(socket) = self.socket.as_ref().filter(|_| self.bytes != bytes) {
            set_option(socket, bytes);
            self.bytes = bytes;
        }
    }
}

#[cfg(target_os = "linux")]
fn set_option(socket: &OwnedFd, bytes: usize) {
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
fn set_option(_socket: &OwnedFd, _bytes: usize) {}
