//! Every bound of the gateway, with its unit and what it can cost at the worst.
//!
//! Each can be set by `--limit name=value`, `POLLGATE_LIMITS__NAME` or in the `[limits]` table of the
//! configuration file. Bounds that belong to the protocol's values stand where those are: the length of a name in
//! `stream::StreamName`, the producers that a stream remembers in `stream::Producers`,
//! the runs of a store that its offsets are told apart by in `stream::Lineage`.
//!
//! What one client can cost at the worst, in user memory unless it says otherwise:
//!
//! | a connection that | costs at most | by default |
//! |---|---|---|
//! | sends a head | `head_bytes_max`, read into a buffer of at most `connection_buffer_bytes` | 16 KiB |
//! | sends an append | `body_bytes_max`, and the read buffer | 1 MiB + 16 KiB |
//! | does not take an answer | `connection_buffer_bytes`, and references into the log | 16 KiB |
//! | waits in a long poll over HTTP/1.1, whatever the request looked like | a socket and a waiter, without a buffer | 2 KiB |
//! | waits in a long poll over HTTP/2 | hyper's connection with its buffers, and a stream's state for each poll | 10 KiB |
//! | waits for a response that is delayed because its client id is used twice | the same, for at most `takeover_delay_max` | 2 KiB, 10 s |
//! | follows an idle event or NDJSON stream over HTTP/1.1 | the same, and its tail | 3.5 KiB |
//! | waits for a stream that others wait for too | nothing more; the stream keeps what was read last, at most `tail_bytes_max`, and up to four encodings of it | 16 KiB, and some 100 for the encodings, a stream |
//! | waits for many streams | about 760 bytes for each of `streams_per_request_max` | 744 KiB |
//! | does not take an answer over many streams | an envelope of `read_bytes_max`, as base64 at the worst, and its cursor | 1.4 MiB |
//! | does not take a live form | one encoded batch of `tail_bytes_max` (a larger single message as a whole) and the write buffer | 64 KiB |
//! | does not take anything | `socket_send_bytes` of kernel memory, for at most `write_timeout` | 128 KiB, 20 s |
//! | has not sent a whole CONNECT | 4 KiB, and its part of `mqtt_connecting_bytes_max` for all such connections | 4 KiB, and 16 MiB for all |
//! | speaks MQTT | one packet of `mqtt_packet_bytes_max`, what it was sent and has not taken (a batch of `tail_bytes_max`, or one message), and marks of 4096 streams | 1 MiB + 64 KiB + 320 KiB |
//! | has sessions, here or left behind | `mqtt_session_bytes_per_address_max` for all connections of its address; a subscription costs what its filter and the streams that it matches need, and nothing for retained messages | 128 MiB |
//! | speaks HTTP/2 | that for each of `http2_streams_max`, and `http2_connection_window_bytes` | 100 times, 1 MiB |
//!
//! All of this together, and what is stored, is bounded by the memory budget, `--memory-max SIZE` (half of the machine's
//! memory or of the control group's limit):
//!
//! | what is stored | costs about |
//! |---|---|
//! | a message in memory | its content, 32 bytes to share it, and 88 to find it |
//! | a message on disk | what is needed to find it: about 8 bytes, and 170 for the newest 64 of a stream; of the newest ones the content too, `store_cache_bytes` in all, but no more than an eighth of the budget |
//! | a stream | 0.7 KiB in memory, 0.9 KiB on disk, and its name |
//! | a fork | that, and 32 bytes for each stream behind it, at most 16 |
//! | a producer | 100 bytes and its id, at most 256; 10 000 a stream |
//!
//! | from | of the budget |
//! |---|---|
//! | 85 % | new streams and appends are refused with 507, with 503 if that will pass soon, and in MQTT with 0x97; readers go on |
//! | 95 % | clients that do not take what is written to them are cut within a second; new connections get 503; each second a tenth of the held polls is answered early, and live forms end at a heartbeat, each with its offset |
//!
//! What the estimates miss is found in the resident set of the process, which is read every 100 ms from 70 % on. One address
//! has `principal_share_percent` of the budget for what it stores.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The bounds. Durations are texts such as `25s` or `250ms`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections that are open at once. 0: the process's descriptors less 1024 (at least half of them).
    pub connections_max: usize,
    /// Connections of operators that are open at once.
    pub admin_connections_max: usize,
    /// New connections a second; what comes on top is answered 503 with `Retry-After`.
    pub connections_per_second_max: u32,
    /// Connections that wait in the kernel for `accept`.
    pub backlog: i32,

    /// From the connection to its first byte.
    pub first_byte_timeout: Span,
    /// From the first byte of a request to the end of its head.
    pub head_timeout: Span,
    /// Between two requests on a connection.
    pub idle_timeout: Span,
    /// For a request body, and a second more for each `body_bytes_per_second_min` that came.
    pub body_timeout: Span,
    /// The slowest that a body may come for long.
    pub body_bytes_per_second_min: u64,
    /// How long a client may not take what is written to it.
    pub write_timeout: Span,
    /// How long a client may still send after its last answer; what comes is thrown away.
    pub linger_timeout: Span,

    /// Kernel memory for what a client has not taken yet, as the kernel counts it.
    pub socket_send_bytes: usize,
    /// User memory for what hyper has encoded and the kernel has not taken, and for what it reads ahead.
    pub connection_buffer_bytes: usize,

    /// HTTP/1 header fields in a request.
    pub headers_max: usize,
    /// Bytes of a request head.
    pub head_bytes_max: usize,
    /// Bytes of a request target (path and query).
    pub target_bytes_max: usize,

    /// HTTP/2 streams on a connection, which are requests at once.
    pub http2_streams_max: u32,
    /// HTTP/2 flow control window of a stream.
    pub http2_stream_window_bytes: u32,
    /// HTTP/2 flow control window of a connection.
    pub http2_connection_window_bytes: u32,
    /// HTTP/2 streams reset before they were accepted (rapid reset, CVE-2023-44487).
    pub http2_resets_max: usize,

    /// Bytes of one append.
    pub body_bytes_max: usize,
    /// Nesting of a JSON body.
    pub json_depth_max: usize,
    /// Bytes of messages in one answer.
    pub read_bytes_max: usize,
    /// Bytes of messages in one event of a live form, which is encoded in user memory for each reader.
    pub tail_bytes_max: usize,
    /// The newest messages of the store on disk that are kept in memory, in bytes with what is needed to find them; no more
    /// than an eighth of the memory budget.
    pub store_cache_bytes: u64,

    /// Streams in one request for many. While it waits it costs about 760 bytes for each of them that nobody else
    /// waits for, and about 200 for each of the others.
    pub streams_per_request_max: usize,

    /// Polls that one client holds at once.
    pub client_polls_max: usize,
    /// How long a client that holds no poll is remembered.
    pub client_idle_timeout: Span,
    /// Clients that are remembered while they hold no poll, about 300 bytes each.
    pub idle_clients_max: u64,

    /// By how much the third takeover of a client id within a second is delayed, each further one by twice as much: the
    /// response to a superseded poll, or the CONNACK of a newer MQTT connection. 0: not at all.
    pub takeover_delay: Span,
    /// The longest such delay.
    pub takeover_delay_max: Span,
    /// Clients whose latest takeovers are remembered, for polls and for MQTT each, about 300 bytes each.
    pub takeover_clients_max: u64,

    /// Between two signs of life on an event or NDJSON stream, unless the client asks otherwise (1 s to 300 s).
    pub live_heartbeat: Span,
    /// After this, give or take 10 %, an event or NDJSON stream ends and the client comes again; at most 1 h.
    pub live_life: Span,

    /// Between two pings on a WebSocket.
    pub websocket_ping: Span,
    /// From a ping to its pong, or from our close to the client's.
    pub websocket_pong_timeout: Span,
    /// Bytes of a WebSocket message.
    pub websocket_message_bytes_max: usize,

    /// From the connection of an MQTT client to its CONNECT.
    pub mqtt_connect_timeout: Span,
    /// Bytes of a CONNECT, its will and credentials included, and of the first WebSocket frame of an MQTT client.
    pub mqtt_connect_bytes_max: usize,
    /// Bytes that connections may hold together beyond 4 KiB each as long as their CONNECT is not whole.
    pub mqtt_connecting_bytes_max: usize,
    /// Bytes of an MQTT packet.
    pub mqtt_packet_bytes_max: usize,
    /// Messages of quality of service 1 and 2 that are on their way to an MQTT client, and from it: a name and two
    /// offsets each. A client of 3.1.1 can not be told how many it may send; it has at most one for each of its
    /// 65 535 ids, of which a session keeps just the ids of quality 2: 384 KiB.
    pub mqtt_in_flight_max: u16,
    /// The longest keep alive; a client of MQTT 5 that asks for more, or for none, is told. A client is cut after
    /// one and a half times of it without a packet.
    pub mqtt_keep_alive_max: Span,
    /// How long the session of an MQTT client that is away is kept at the most.
    pub mqtt_session_expiry_max: Span,
    /// Sessions of MQTT clients, of those that are here and those that are away. If there are more, the one that was left
    /// behind first gives way, of the address that left the most behind.
    pub mqtt_sessions_max: usize,
    /// Sessions of the clients of one address (an IPv4 address, or an IPv6 network of 64 bits). If there are more, the one
    /// that was left behind first gives way.
    pub mqtt_sessions_per_address_max: usize,
    /// Bytes of the sessions of one address: 1 KiB each, about 0.5 KiB for a filter and for each of its levels, and 80 bytes
    /// for each stream that a filter matches, 240 if the session is stored on disk. If there are more, what was left behind
    /// gives way, and a subscription that needs more is refused.
    pub mqtt_session_bytes_per_address_max: usize,
    /// Subscriptions of one MQTT client.
    pub mqtt_subscriptions_max: usize,
    /// Streams that the filters of one MQTT client match; a subscription that matches more is refused, and a client whose
    /// filters come to match more is disconnected with the reason 0x97.
    pub mqtt_session_streams_max: usize,
    /// Topic aliases in each direction of an MQTT connection.
    pub mqtt_topic_aliases_max: u16,

    /// Messages that a stream keeps whose creator did not say; 0: all. What is trimmed moves its earliest offset.
    pub retention_messages_max: u64,
    /// Bytes of messages that such a stream keeps; 0: all. By default a store on disk keeps all, and one in memory 64 MiB,
    /// but no more than a sixteenth of `memory_max`.
    pub retention_bytes_max: Option<u64>,
    /// How long such a stream keeps a message; 0: for ever. By default a store on disk keeps it for ever, and one in memory
    /// for a week.
    pub retention_age_max: Option<Span>,

    /// Streams: about 1 KiB each, and its messages.
    pub streams_max: u64,
    /// What one address may have, in percent of `memory_max` for what it stores, of `streams_max`, and of the producers that
    /// a stream remembers; 100: all. Behind a proxy all clients come from one address, so there it should be 100.
    pub principal_share_percent: u64,

    /// Over how long held polls and streams end when the gateway drains.
    pub drain_spread: Span,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 0,
            admin_connections_max: 64,
            connections_per_second_max: 2000,
            backlog: 4096,
            first_byte_timeout: Span::seconds(10),
            head_timeout: Span::seconds(10),
            idle_timeout: Span::seconds(75),
            body_timeout: Span::seconds(30),
            body_bytes_per_second_min: 1024,
            write_timeout: Span::seconds(20),
            linger_timeout: Span::seconds(5),
            socket_send_bytes: 128 * 1024,
            connection_buffer_bytes: 16 * 1024,
            headers_max: 64,
            head_bytes_max: 16 * 1024,
            target_bytes_max: 4 * 1024,
            http2_streams_max: 100,
            http2_stream_window_bytes: 64 * 1024,
            http2_connection_window_bytes: 1024 * 1024,
            http2_resets_max: 20,
            body_bytes_max: 1024 * 1024,
            json_depth_max: 64,
            read_bytes_max: 1024 * 1024,
            tail_bytes_max: 16 * 1024,
            store_cache_bytes: 64 * 1024 * 1024,
            streams_per_request_max: 1000,
            client_polls_max: 16,
            client_idle_timeout: Span::seconds(300),
            idle_clients_max: 100_000,
            takeover_delay: Span::seconds(1),
            takeover_delay_max: Span::seconds(10),
            takeover_clients_max: 10_000,
            live_heartbeat: Span::seconds(15),
            live_life: Span::seconds(60),
            websocket_ping: Span::seconds(25),
            websocket_pong_timeout: Span::seconds(8),
            websocket_message_bytes_max: 1024 * 1024,
            mqtt_connect_timeout: Span::seconds(5),
            mqtt_connect_bytes_max: 64 * 1024,
            mqtt_connecting_bytes_max: 16 * 1024 * 1024,
            mqtt_packet_bytes_max: 1024 * 1024,
            mqtt_in_flight_max: 100,
            mqtt_keep_alive_max: Span::seconds(3600),
            mqtt_session_expiry_max: Span::seconds(24 * 3600),
            mqtt_sessions_max: 100_000,
            mqtt_sessions_per_address_max: 50_000,
            mqtt_session_bytes_per_address_max: 128 * 1024 * 1024,
            mqtt_subscriptions_max: 1000,
            mqtt_session_streams_max: 100_000,
            mqtt_topic_aliases_max: 16,
            retention_messages_max: 0,
            retention_bytes_max: None,
            retention_age_max: None,
            streams_max: 1_000_000,
            principal_share_percent: 50,
            drain_spread: Span::seconds(5),
        }
    }
}

impl Limits {
    /// Refuses values that would break the gateway, in words for its operator.
    pub fn check(&self) -> Result<(), String> {
        let at_least = |name: &str, value: usize, least: usize| {
            (value >= least)
                .then_some(())
                .ok_or_else(|| format!("limits.{name} must be at least {least}, not {value}"))
        };
        at_least("connections_per_second_max", self.connections_per_second_max as usize, 1)?;
        at_least("streams_max", usize::try_from(self.streams_max).unwrap_or(usize::MAX), 1)?;
        at_least("principal_share_percent", usize::try_from(self.principal_share_percent).unwrap_or(100), 1)?;
        at_least("connection_buffer_bytes", self.connection_buffer_bytes, 8192)?;
        at_least("body_bytes_max", self.body_bytes_max, 1)?;
        at_least("read_bytes_max", self.read_bytes_max, 1)?;
        at_least("streams_per_request_max", self.streams_per_request_max, 1)?;
        at_least("client_polls_max", self.client_polls_max, 1)?;
        at_least("mqtt_connect_bytes_max", self.mqtt_connect_bytes_max, 1024)?;
        at_least("mqtt_packet_bytes_max", self.mqtt_packet_bytes_max, 1024)?;
        at_least("mqtt_in_flight_max", self.mqtt_in_flight_max.into(), 1)?;
        at_least("mqtt_keep_alive_max (in seconds)", self.mqtt_keep_alive_max.whole_seconds(), 1)?;
        at_least(
            "body_bytes_per_second_min",
            usize::try_from(self.body_bytes_per_second_min).unwrap_or(1),
            1,
        )?;
        if self.body_bytes_max > 1 << 30 {
            return Err(format!("limits.body_bytes_max must be at most 1 GiB, not {}", self.body_bytes_max));
        }
        if self.live_life.get() > Duration::from_secs(3600) {
            return Err("limits.live_life must be at most 1h".into());
        }
        if self.mqtt_keep_alive_max.whole_seconds() > u16::MAX.into() {
            return Err(format!("limits.mqtt_keep_alive_max must be at most {} s", u16::MAX));
        }
        Ok(())
    }
}

/// A duration that reads and writes itself as `25s`, `1m 30s` or `250ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

impl Span {
    /// Whole seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// How many whole seconds it is.
    fn whole_seconds(self) -> usize {
        usize::try_from(self.0.as_secs()).unwrap_or(usize::MAX)
    }

    /// The duration.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl std::str::FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let span: jiff::SignedDuration =
            text.parse().map_err(|error| format!("{text:?} is no duration: {error}"))?;
        let span = Duration::try_from(span).map_err(|_| format!("{text:?} is negative"))?;
        if span > Duration::from_secs(7 * 24 * 3600) {
            Err(format!("{text:?} is over a week"))
        } else {
            Ok(Self(span))
        }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}ms", self.0.as_millis()))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        for (text, millis) in [("25s", 25_000), ("250ms", 250), ("1m 30s", 90_000), ("0s", 0)] {
            assert_eq!(text.parse::<Span>().map(|span| span.get().as_millis()), Ok(millis));
        }
        for text in ["", "25", "-1s", "8d", "1e9h"] {
            assert!(text.parse::<Span>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_defaults_are_allowed() {
        assert_eq!(Limits::default().check(), Ok(()));
    }
}
