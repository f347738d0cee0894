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

/// What clients cost the gateway, as it was measured.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerCosts {
    /// Bytes of the kernel, for each connection.
    pub kernel_bytes: f64,
    /// Bytes of the gateway's process with its first clients, besides those for each client.
    pub process_bytes: f64,
    /// Bytes of the gateway's process, for each client that is connected, by its form.
    bytes: BTreeMap<String, f64>,
    /// Microseconds of processor time for a connection that is opened and closed.
    pub connection: f64,
    /// Processor time for what happens on a connection, by the form.
    events: BTreeMap<String, EventCosts>,
}

/// Microseconds of processor time of the gateway for the events of one form.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventCosts {
    /// A message: its append, its delivery, and the long poll that follows.
    pub message: f64,
    /// A short poll; a long poll that ends without a message; another response of a live form.
    pub request: f64,
    /// A heartbeat of a live form.
    #[serde(default)]
    pub heartbeat: f64,
}

impl ServerCosts {
    /// The costs of the embedded table; `None` if it cannot be read, which a test excludes.
    pub fn measured() -> Option<Self> {
        toml::from_str(include_str!("server_load.toml")).ok()
    }

    /// Bytes of the gateway's process for each client of a form.
    pub fn bytes(&self, form: &str) -> Option<f64> {
        self.bytes.get(form).copied()
    }

    /// Processor time for the events of a form.
    pub fn events(&self, form: &str) -> Option<EventCosts> {
        self.events.get(form).copied()
    }

    /// Replaces the processor time for the events of a form, which was measured anew.
    pub fn set_events(&mut self, form: &str, costs: EventCosts) {
        self.events.insert(form.to_owned(), costs);
    }
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
    let costs = ServerCosts::measured()?;
    Some(costs.bytes(form)? + costs.kernel_bytes)
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
        let costs = ServerCosts::measured().unwrap();
        for form in ["short-poll", "long-poll", "sse", "ndjson", "websocket"] {
            assert!(costs.events(form).is_some_and(|costs| costs.message > 0.0), "{form}");
        }
        assert_eq!(ServerLoad::of("push:fcm", 50_000, &figures, Some(0.1)).memory_bytes, None);
    }
}
