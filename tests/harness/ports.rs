//! Ports on 127.0.0.1 to 127.0.0.3 that nobody else is given.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below those that the system gives to connections (32768 and up), one of which might take a port before its server does.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A port that is free on the addresses of all nodes, and so is the one above it. Each call returns another one.
pub fn free_port() -> u16 {
    // Another process of tests most likely begins elsewhere; where they meet, what is in use is passed over.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = std::process::id().wrapping_mul(101) % u32::from(COUNT);
    loop {
        let step = u32::from(NEXT.fetch_add(2, Ordering::Relaxed));
        let port = FIRST + ((begin + step) % u32::from(COUNT)) as u16;
        let is_free = |node: usize, port: u16| TcpListener::bind((super::nodes::address(node), port)).is_ok();
        if (1..=3).all(|node| is_free(node, port) && is_free(node, port + 1)) {
            return port;
        }
    }
}
