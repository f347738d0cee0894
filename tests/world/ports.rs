//! [`reserved_port`]: a port on which a server can be started again.

use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};

/// Blocks of ports below those that the system gives to clients (`net.ipv4.ip_local_port_range`). Who listens on the first port of
/// a block may use the others; the tests in JavaScript do the same.
const BLOCKS: std::ops::Range<u16> = 0..1374;
const FIRST: u16 = 10_000;
const SIZE: u16 = 16;

/// The reserved blocks, and what is left of the last one.
struct Reserved {
    first_ports: Vec<TcpListener>,
    left: std::ops::Range<u16>,
}

static RESERVED: Mutex<Reserved> = Mutex::new(Reserved { first_ports: Vec::new(), left: 0..0 });

/// Returns a port of 127.0.0.1 that belongs to this process until it ends. A port that is found by listening on port 0 does not: while
/// its server is down, any connection of another program may get it.
pub fn reserved_port() -> u16 {
    let mut reserved = RESERVED.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        // Another program may listen on a port without asking.
        if let Some(port) = reserved.left.find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return port;
        }
        let first = FIRST + SIZE * fastrand::u16(BLOCKS);
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", first)) {
            reserved.first_ports.push(listener);
            reserved.left = first + 1..first + SIZE;
        }
    }
}
