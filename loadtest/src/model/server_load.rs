//! What the clients of one strategy cost the gateway: requests, sockets and memory.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::candidate::Figures;

/// Load of the gateway by all clients together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerLoad {
    /// Requests of the clients per second.
    pub requests_per_second: f64,
    /// Connections that are open at the same time.
    pub sockets: f64,
    /// Bytes of the gateway and of the kernel for these connections, from what one was measured to take; `None` if it was not
    /// measured.
    pub memory_bytes: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// Of the kernel, for each connection.
    kernel_bytes: f64,
    /// Of the gateway's process, for each client that is connected, by its form.
    bytes: BTreeMap<String, f64>,
}

impl ServerLoad {
    /// No gateway.
    pub const NONE: Self = Self { requests_per_second: 0.0, sockets: 0.0, memory_bytes: Some(0.0) };

    /// Computes the load of `clients` clients with the figures of one client. `connections` is the mean number of connections of one
    /// client; `None` means that it is always connected.
    pub fn of(form: &str, clients: u32, figures: &Figures, connections: Option<f64>) -> Self {
        let clients = f64::from(clients);
        let sockets = clients * connections.unwrap_or(1.0);
        Self {
            requests_per_second: clients * figures.requests_per_client_hour / 3600.0,
            sockets,
            memory_bytes: bytes_of_a_connection(form).map(|bytes| sockets * bytes),
        }
    }
}

fn bytes_of_a_connection(form: &str) -> Option<f64> {
    // A test asserts that the embedded table parses.
    let table: Table = toml::from_str(include_str!("server_load.toml")).ok()?;
    Some(table.bytes.get(form)? + table.kernel_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_that_of_the_open_connections() {
        let figures = Figures {
            p95: std::time::Duration::ZERO,
            requests_per_client_hour: 72.0,
            bytes_per_client_hour: 0.0,
            energy: Vec::new(),
            wakes_per_client_hour: None,
        };
        let load = ServerLoad::of("long-poll", 50_000, &figures, Some(0.5));
        assert_eq!((load.requests_per_second, load.sockets), (1000.0, 25_000.0));
        let each = load.memory_bytes.unwrap() / load.sockets;
        assert!((4000.0..10_000.0).contains(&each), "{each}");
        for form in ["short-poll", "long-poll", "sse", "ndjson", "websocket", "mqtt"] {
            assert!(bytes_of_a_connection(form).is_some(), "{form}");
        }
        assert_eq!(ServerLoad::of("push:fcm", 50_000, &figures, Some(0.1)).memory_bytes, None);
    }
}
