//! What happens at the gateway for one client in a second.

use std::time::Duration;

use serde::Serialize;

use crate::model::server_load::EventCosts;
use crate::simulate::{Outcome, Reader};
use crate::strategies::Strategy;

/// How long the gateway keeps a connection that is not used (its default limit `idle_timeout`).
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// Events of one client in a second, on average.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Events {
    /// Messages to it.
    pub messages: f64,
    /// Its requests, those that bring a message among them.
    pub requests: f64,
    /// Requests that cost what a request costs, and not what a message does.
    pub other_requests: f64,
    /// Heartbeats of a live form.
    pub heartbeats: f64,
    /// Connections that it opens.
    pub connections: f64,
    /// Bytes in both directions, with the headers of packets.
    pub bytes: f64,
    /// Connections that it has open.
    pub open: f64,
}

impl Events {
    /// The events of the clients of a simulation.
    pub fn of(outcome: &Outcome, reader: Reader, length: Duration) -> Self {
        let each = |count: u64| count as f64 / outcome.phones.max(1) as f64 / length.as_secs_f64();
        let (messages, requests) = (each(outcome.received), each(outcome.requests));
        let strategy = reader.strategy();
        let other_requests = match strategy {
            Some(Strategy::LongPoll(_)) => (requests - messages).max(0.0),
            _ => requests,
        };
        let heartbeats = match strategy {
            Some(Strategy::ShortPoll(_) | Strategy::LongPoll(_)) => 0.0,
            _ => reader.heartbeat().map_or_else(
                || (each(outcome.arrivals) - messages - requests).max(0.0),
                |heartbeat| heartbeats(heartbeat, messages),
            ),
        };
        let open = match strategy {
            Some(Strategy::ShortPoll(interval)) => IDLE_TIMEOUT.div_duration_f64(interval).min(1.0),
            _ => 1.0,
        };
        let (connections, bytes) = (each(outcome.connections), each(outcome.packet_bytes));
        Self { messages, requests, other_requests, heartbeats, connections, bytes, open }
    }

    /// Processor time of the gateway for them, in microseconds.
    pub fn processor(&self, costs: EventCosts, connection: f64) -> f64 {
        self.messages * costs.message
            + self.other_requests * costs.request
            + self.heartbeats * costs.heartbeat
            + self.connections * connection
    }
}

/// Heartbeats in a second, each after this much silence, if messages come at random at this rate: a gap of `t` between two messages has
/// `t / heartbeat` of them, rounded down.
pub fn heartbeats(heartbeat: Duration, rate: f64) -> f64 {
    let seconds = heartbeat.as_secs_f64();
    // Without messages 0 / 0, whose limit this is.
    if rate * seconds < 1e-9 { 1.0 / seconds } else { rate / (rate * seconds).exp_m1() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_put_heartbeats_off() {
        let minute = Duration::from_secs(60);
        assert!((heartbeats(minute, 0.0) * 60.0 - 1.0).abs() < 1e-6);
        assert!((heartbeats(minute, 1e-6) * 60.0 - 1.0).abs() < 1e-3);
        assert!(heartbeats(minute, 1.0) < 1e-20);
        // One message a minute: 1 / (e - 1) heartbeats.
        assert!((heartbeats(minute, 1.0 / 60.0) * 60.0 - 0.581_98).abs() < 1e-4);
    }
}
