//! Ports for servers that keep theirs over a restart.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range from which the kernel takes ports for outgoing connections: otherwise a client's connection may
/// sit on the port of a server that is down for a moment.
const FIRST: u16 = 15_000;
const LAST: u16 = 31_999;

/// A port on the loopback address that nobody listens on, never given twice by this process.
#[must_use]
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let span = LAST - FIRST;
    // Test processes that run at the same time look from different places on.
    let start = (std::process::id().wrapping_mul(397) % u32::from(span)) as u16;
    for _ in 0..span {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start + step % span) % span;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {FIRST} to {LAST}")
}
