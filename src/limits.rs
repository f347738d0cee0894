//! The limits of the gateway, each with its unit, and the maximum cost of a client.
//!
//! A limit is set by `--limit name=value`, `POLLGATE_LIMITS__NAME`, or in the `[limits]` table of the configuration file;
//! `pollgate limits` lists all. Limits on the values of the protocol are constants beside those values: the length of a stream
//! name in `stream::StreamName`, the producers of a stream in `stream::Producers`, and the epochs that a store remembers in
//! `stream::EpochHistory`.
//!
//! What one client costs at worst, in user memory unless the table says otherwise:
//!
//! | a connection that | costs at most | by default |
//! |---|---|---|
//! | sends a head | `head_bytes_max`, read into a buffer of at most `connection_buffer_bytes` | 16 KiB |
//! | sends an append | `body_bytes_max`, and the read buffer | 1 MiB + 16 KiB |
//! | does not read a response | `connection_buffer_bytes`, and references into the log | 16 KiB |
//! | waits in a long poll over HTTP/1.1, whatever the request looked like | a socket and a waiter, without a buffer; requests that came in one read with it, up to 8 KiB; over TLS also keys | 2 KiB, over TLS 2.5 KiB, and 8 KiB |
//! | waits in a long poll over HTTP/2 | hyper's connection with its buffers, and the state of one HTTP/2 stream per poll | 10 KiB |
//! | waits for a response that is delayed because two clients use its client id | as in a long poll, for at most `takeover_delay_max` | 2 KiB, 10 s |
//! | reads an idle SSE or NDJSON stream over HTTP/1.1 | a socket, a waiter and the tail | 3.5 KiB |
//! | waits for a stream that has other waiters | nothing more; the stream keeps its last batch of at most `tail_bytes_max`, and up to four encodings of it | 16 KiB, and about 100 for the encodings, per stream |
//! | waits for many streams | about 760 bytes for each of `streams_per_request_max` | 744 KiB |
//! | does not read a response over many streams | an envelope of `read_bytes_max`, at worst in base64, and its resume token | 1.4 MiB |
//! | does not read a live form | one encoded batch of `tail_bytes_max` (or one larger message) and the write buffer | 64 KiB |
//! | reads nothing at all | `socket_send_bytes` of kernel memory, for at most `write_timeout` | 128 KiB, 20 s |
//! | has not sent its whole CONNECT | 4 KiB, and its part of `mqtt_connecting_bytes_max`, which all such connections share | 4 KiB, and 16 MiB for all |
//! | speaks MQTT | one packet of `mqtt_packet_bytes_max`, 64 KiB of messages of QoS 0 that are not synced yet, the bytes that it has not read (a batch of `tail_bytes_max`, or one message), and the positions of 4096 streams | 1 MiB + 128 KiB + 320 KiB |
//! | has MQTT sessions, connected or not | `mqtt_session_bytes_per_address_max` for all sessions of its address; a subscription costs what its filter and the matching streams need, and nothing for retained messages | 128 MiB |
//! | sends requests over XMPP | a stanza of `xmpp_stanza_bytes_max` for each of `xmpp_requests_per_jid_max` requests, and an answer; all clients together have `xmpp_requests_max` requests | 16 times 256 KiB, and 64 for all |
//! | opens a WebSocket for XMPP and has not logged in | a frame of 16 KiB, for at most 15 s | 16 KiB, 15 s |
//! | has logged in over XMPP | one stanza of `xmpp_stanza_bytes_max`, an answer or a batch of `tail_bytes_max` or one message, `xmpp_subscriptions_per_jid_max` subscriptions, and 56 bytes for each of at most 512 notifications that are not acknowledged | 256 KiB + 256 KiB + 1000 times 0.5 KiB + 28 KiB |
//! | waits in a BOSH request | the same as in a long poll, and 1.5 KiB for the session; a body of `xmpp_stanza_bytes_max` that came too early; stanzas and responses that it has not received | 3.5 KiB + 256 KiB + 448 KiB |
//! | opens a WebSocket without a token, on streams that need one | a frame of 16 KiB, for at most `websocket_auth_timeout` | 16 KiB, 5 s |
//! | exports all streams (admin listener, one at a time) | a read of 256 KiB or a message, and its encoding, the writers of a stream, and 64 bytes for each stream that has forks | 3 MiB + 4 MiB |
//! | sends requests while there is an access log | a line with the target for each request under way, and `access_log_bytes_max` for all that wait to be written | 5 KiB, and 1 MiB for all |
//! | speaks HTTP/2 | the cost of an HTTP/1.1 connection for each of `http2_streams_max`, and `http2_connection_window_bytes` | 100 times, 1 MiB |
//!
//! The memory budget bounds all of this together with the stored data: `--memory-max SIZE`, by default half of the machine's
//! memory or of the control group's limit.
//!
//! | stored | costs about |
//! |---|---|
//! | a message in memory | its content, 32 bytes to share it, and 88 bytes of index |
//! | a message on disk | 8 bytes of index, and 170 for each of the newest 64 of a stream; the newest messages of all streams are also cached, up to `store_cache_bytes` and an eighth of the budget |
//! | a stream | 0.7 KiB in memory, 0.9 KiB on disk, and its name |
//! | a fork | the same as a stream, and 32 bytes for each of its ancestors, at most 16 |
//! | a producer | 100 bytes and its id of at most 256 bytes; 10 000 per stream |
//! | a client that is remembered after its poll | 256 bytes, its id and the name of its stream; all of them at most 300 times `idle_clients_max`: 29 MiB |
//! | the takeovers of one client, which the gateway remembers | 300 bytes; `takeover_clients_max` polling clients and as many MQTT clients: 6 MiB |
//! | a device that is woken | 0.5 KiB, 0.25 KiB for each of its streams and channels, with their names and credentials, and 0.5 KiB for each of its filters with 16 bytes for each of their characters; all devices take at most `device_bytes_max` |
//! | a revocation of tokens | about 300 bytes; 10 000 that count, and 30 000 entries in their stream |
//! | a subscription | 6 KiB, and about 300 bytes for each of `subscription_streams_max` streams; `subscription_bytes_max` for all |
//! | a stream of an upstream gateway that is followed | about 1 KiB, and its kept messages, `upstream_stream_bytes_max` |
//! | a stream of a shared engine with readers | about 0.5 KiB, and its newest messages, `engine_news_stream_bytes_max`; those of all streams at most `engine_news_bytes_max` |
//! | an origin of a stream | 4 KiB, and 100 bytes for each of `origin_elements_max` elements with a key; a request to it `origin_bytes_max`, twice while it is compared |
//!
//! | from | of the budget |
//! |---|---|
//! | 85 % | new streams and appends are refused: with 507, with 503 if the shortage is temporary, over MQTT with 0x97; reads go on |
//! | 95 % | clients that do not read are disconnected within a second, idle connections within 10 s; new connections get 503; each second a tenth of the held polls is answered early, and live forms end at a heartbeat, each with its offset |
//!
//! Memory that these estimates miss is found by reading the resident set size of the process, every 100 ms from 70 % on. One
//! client, the subject of a token or else an address, may store `principal_share_percent` of the budget.

mod span;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use span::Span;

/// A limit as `pollgate limits` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// The name that `--limit` takes.
    pub name: &'static str,
    /// The default value as `--limit` takes it. `None`: it depends on the store.
    pub default: Option<String>,
    /// The unit of the value, such as `bytes`.
    pub unit: &'static str,
    /// What the limit applies to, as one paragraph.
    pub meaning: &'static str,
}

/// Defines [`Limits`], its defaults and [`Limits::list`] from one table. The doc comment of a limit is also what `pollgate
/// limits` prints.
macro_rules! limits {
    ($($(#[doc = $meaning:literal])+ $name:ident: $type:ty = $default:expr, $unit:literal;)+) => {
        /// The limits that can be set. Durations are texts such as `25s` or `250ms`.
        #[derive(Debug, Clone, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Limits {
            $($(#[doc = $meaning])+ pub $name: $type,)+
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }

        impl Limits {
            /// All limits, with their default values.
            pub fn list() -> Vec<Limit> {
                let defaults = Self::default();
                vec![$(Limit {
                    name: stringify!($name),
                    default: value_text(&defaults.$name),
                    unit: $unit,
                    meaning: concat!($($meaning),+).trim(),
                },)+]
            }
        }
    };
}

limits! {
    /// Open connections of clients, for HTTP and for MQTT each. 0: the file descriptors of the process less 1024, but at least
    /// half of them.
    connections_max: usize = 0, "connections";
    /// Open connections to the admin address.
    admin_connections_max: usize = 64, "connections";
    /// New connections per second on each address. Further ones are refused, over HTTP with 503 and `Retry-After`.
    connections_per_second_max: u32 = 2000, "connections per second";
    /// Backlog of a listener: connections that wait in the kernel to be accepted.
    backlog: i32 = 4096, "connections";

    /// How long a new connection may take to send its first byte.
    first_byte_timeout: Span = Span::seconds(10), "duration";
    /// How long a request head may take, from its first byte to its end.
    head_timeout: Span = Span::seconds(10), "duration";
    /// How long a keep-alive connection may be idle between two requests.
    idle_timeout: Span = Span::seconds(75), "duration";
    /// How long a request body may take, plus a second for every `body_bytes_per_second_min` bytes received.
    body_timeout: Span = Span::seconds(30), "duration";
    /// Lowest rate at which a request body that exceeds `body_timeout` may arrive.
    body_bytes_per_second_min: u64 = 1024, "bytes per second";
    /// How long a client may read nothing of what is written to it before it is disconnected.
    write_timeout: Span = Span::seconds(20), "duration";
    /// How long a client may go on sending after its last response; the gateway discards these bytes.
    linger_timeout: Span = Span::seconds(5), "duration";

    /// Kernel memory for bytes that a client has not read yet, as the kernel counts it.
    socket_send_bytes: usize = 128 * 1024, "bytes";
    /// Memory of a connection for bytes that hyper has encoded and the kernel has not accepted, and for bytes read ahead.
    connection_buffer_bytes: usize = 16 * 1024, "bytes";

    /// Header fields of an HTTP/1 request.
    headers_max: usize = 64, "fields";
    /// Size of a request head.
    head_bytes_max: usize = 16 * 1024, "bytes";
    /// Size of a request target (path and query).
    target_bytes_max: usize = 8 * 1024, "bytes";

    /// Concurrent HTTP/2 streams of a connection: its concurrent requests.
    http2_streams_max: u32 = 100, "HTTP/2 streams";
    /// Flow control window of an HTTP/2 stream.
    http2_stream_window_bytes: u32 = 64 * 1024, "bytes";
    /// Flow control window of an HTTP/2 connection.
    http2_connection_window_bytes: u32 = 1024 * 1024, "bytes";
    /// HTTP/2 streams of a connection that are reset before they are accepted (rapid reset, CVE-2023-44487).
    http2_resets_max: usize = 20, "HTTP/2 streams";

    /// Size of an append.
    body_bytes_max: usize = 1024 * 1024, "bytes";
    /// Nesting depth of a JSON body.
    json_depth_max: usize = 64, "levels";
    /// Size of the messages in one response.
    read_bytes_max: usize = 1024 * 1024, "bytes";
    /// Size of the messages in one event of a live form, which is encoded in memory for each reader.
    tail_bytes_max: usize = 16 * 1024, "bytes";
    /// Size of the messages that one request with `from=last:N` reads to find where the last appends to streams that are not JSON
    /// begin. The streams of the request share it, with at most 64 KiB each.
    history_bytes_max: usize = 1024 * 1024, "bytes";
    /// Cache of the newest messages of a store on disk, index included; never more than an eighth of the memory budget.
    store_cache_bytes: u64 = 64 * 1024 * 1024, "bytes";

    /// Streams in one request for many streams. While the request waits, it costs about 760 bytes for each stream without
    /// other waiters, and about 200 for each of the others.
    streams_per_request_max: usize = 1000, "streams";

    /// Invalid tokens that an address (an IPv4 address, or an IPv6 network of 64 bits) may send within `failed_logins_window`
    /// without a consequence. After that, unknown tokens from it get 429 with `Retry-After`, over MQTT 0x9F, until a delay has
    /// passed; tokens in use are not affected. 0: any number.
    failed_logins_max: u32 = 50, "tokens";
    /// How long the invalid tokens of an address are counted, from the first.
    failed_logins_window: Span = Span::seconds(60), "duration";
    /// Delay of unknown tokens after `failed_logins_max` invalid ones; each further invalid token doubles it.
    failed_login_delay: Span = Span::seconds(1), "duration";
    /// Longest delay of unknown tokens from an address that has sent too many invalid ones.
    failed_login_delay_max: Span = Span::seconds(8), "duration";
    /// Addresses whose invalid tokens are counted, about 150 bytes each. Beyond it, the one that was counted first is forgotten.
    failed_login_addresses_max: usize = 10_000, "addresses";

    /// Tenants of the file of `--auth` that have metrics of their own, about 2 KiB each; the others share theirs.
    tenant_metrics_max: usize = 100, "tenants";

    /// Tickets that can still be used, about 300 bytes each.
    tickets_max: usize = 20_000, "tickets";
    /// Tickets of one subject that can still be used.
    tickets_per_subject_max: usize = 1000, "tickets";

    /// Held polls of one client.
    client_polls_max: usize = 16, "polls";
    /// How long a client without a held poll is remembered.
    client_idle_timeout: Span = Span::seconds(300), "duration";
    /// Remembered clients without a held poll. All of them together take at most 300 bytes times this number, so fewer are
    /// remembered if their ids and the names of their streams have more than 44 bytes in sum.
    idle_clients_max: u64 = 100_000, "clients";

    /// Delay of the third takeover of a client id within a second; each further one is delayed twice as long. What is delayed
    /// is the response to the superseded poll, or the CONNACK of the newer MQTT connection. 0: no delay.
    takeover_delay: Span = Span::seconds(1), "duration";
    /// Longest delay of a takeover of a client id.
    takeover_delay_max: Span = Span::seconds(10), "duration";
    /// Clients whose latest takeovers are remembered, for polls and for MQTT each; about 300 bytes each.
    takeover_clients_max: u64 = 10_000, "clients";

    /// Interval of the heartbeats of an SSE or NDJSON stream whose client asks for none (1 s to 300 s).
    live_heartbeat: Span = Span::seconds(15), "duration";
    /// An SSE or NDJSON stream ends after this time, jittered by 10 %, and the client reconnects; at most 1 h.
    live_life: Span = Span::seconds(60), "duration";

    /// Interval of the pings on a WebSocket.
    websocket_ping: Span = Span::seconds(25), "duration";
    /// How long a client without a token in its handshake may take to send one in a frame, if the streams need one.
    websocket_auth_timeout: Span = Span::seconds(5), "duration";
    /// How long a client may take to answer a ping with a pong, or a close frame with its own.
    websocket_pong_timeout: Span = Span::seconds(8), "duration";
    /// Size of a WebSocket message.
    websocket_message_bytes_max: usize = 1024 * 1024, "bytes";

    /// How long a new MQTT connection may take to send its CONNECT.
    mqtt_connect_timeout: Span = Span::seconds(5), "duration";
    /// Size of a CONNECT, with its will and credentials, and of the first WebSocket frame of an MQTT client.
    mqtt_connect_bytes_max: usize = 64 * 1024, "bytes";
    /// Size of an MQTT client id.
    mqtt_client_id_bytes_max: usize = 1024, "bytes";
    /// Memory that all connections with an incomplete CONNECT share, beyond 4 KiB each.
    mqtt_connecting_bytes_max: usize = 16 * 1024 * 1024, "bytes";
    /// Size of an MQTT packet.
    mqtt_packet_bytes_max: usize = 1024 * 1024, "bytes";
    /// Size of the packets, sent earlier, that the gateway still reads from an MQTT connection that fails or that it ends, because
    /// another connection takes over the client id or because of a drain: messages and a DISCONNECT.
    mqtt_last_bytes_max: usize = 8 * 1024 * 1024, "bytes";
    /// How long the gateway reads the packets of `mqtt_last_bytes_max`. A connection that takes over waits for that.
    mqtt_last_bytes_timeout: Span = Span::seconds(10), "duration";
    /// Messages of QoS 1 and 2 in flight to an MQTT client, and from it; each costs a name and two offsets. A client of MQTT
    /// 3.1.1 cannot be told this limit: it has at most one message for each of its 65 535 packet ids, of which a session keeps
    /// only the ids of QoS 2: 384 KiB.
    mqtt_in_flight_max: u16 = 100, "messages";
    /// Longest keep alive. An MQTT 5 client that asks for a longer one, or for none, is told this one. A client that sends no
    /// packet for one and a half times its keep alive is disconnected.
    mqtt_keep_alive_max: Span = Span::seconds(3600), "duration";
    /// Longest time that the session of a disconnected MQTT client is kept.
    mqtt_session_expiry_max: Span = Span::seconds(24 * 3600), "duration";
    /// Sessions of MQTT clients, connected or not. Beyond it, the address with the most disconnected sessions loses the one
    /// that has been disconnected longest.
    mqtt_sessions_max: usize = 100_000, "sessions";
    /// MQTT sessions of one subject of tokens or, without a token, of one address (an IPv4 address, or an IPv6 network of 64
    /// bits). Beyond it, the session that has been disconnected longest is dropped.
    mqtt_sessions_per_address_max: usize = 50_000, "sessions";
    /// Memory of the MQTT sessions of one subject or address: 1 KiB for each session, about 0.5 KiB for each filter and for each level of
    /// it, and 80 bytes for each stream that a filter matches, 240 if the session is stored on disk. Beyond it, disconnected
    /// sessions are dropped, and a subscription that needs more is refused.
    mqtt_session_bytes_per_address_max: usize = 128 * 1024 * 1024, "bytes";
    /// Subscriptions of one MQTT client.
    mqtt_subscriptions_max: usize = 1000, "subscriptions";
    /// Streams that the filters of one MQTT client match. A subscription that matches more is refused, and a client whose
    /// filters come to match more is disconnected with reason 0x97.
    mqtt_session_streams_max: usize = 100_000, "streams";
    /// Topic aliases of an MQTT connection in each direction.
    mqtt_topic_aliases_max: u16 = 16, "aliases";

    /// Size of an XMPP stanza, in both directions. A larger message of a stream is replaced by an element with its length.
    xmpp_stanza_bytes_max: usize = 256 * 1024, "bytes";
    /// Messages, and names of streams, in one answer to an XMPP client; an answer ends before it has four times
    /// `tail_bytes_max`, but has at least one.
    xmpp_page_max: usize = 100, "entries";
    /// Requests of XMPP clients that are under way. The gateway reads nothing more from the server until some are answered.
    xmpp_requests_max: usize = 64, "requests";
    /// The same for one XMPP address. Further ones are answered with `resource-constraint`.
    xmpp_requests_per_jid_max: usize = 16, "requests";
    /// Subscriptions of all XMPP addresses, about 500 bytes each and the lengths of address and name.
    xmpp_subscriptions_max: usize = 100_000, "subscriptions";
    /// Subscriptions of one XMPP address, with all of its resources, or of one client that has logged in at the gateway itself.
    xmpp_subscriptions_per_jid_max: usize = 1000, "subscriptions";
    /// How long an XMPP client whose connection is lost may resume its stream; 0: not at all.
    xmpp_resume_time: Span = Span::seconds(300), "duration";
    /// Streams of XMPP clients that can be resumed, connected or not: about 600 bytes, and their subscriptions. The streams of further
    /// clients end with their connections.
    xmpp_resumable_max: usize = 100_000, "streams";
    /// The same for one subject of tokens or, without a token, for one address.
    xmpp_resumable_per_client_max: usize = 10_000, "streams";
    /// How long messages wait for an XMPP client that says that it is inactive. Then all that have come are sent together.
    xmpp_inactive_interval: Span = Span::seconds(60), "duration";

    /// BOSH sessions, about 1.5 KiB each, and the stanzas that they keep for their clients.
    bosh_sessions_max: usize = 100_000, "sessions";
    /// BOSH sessions of one address (an IPv4 address, or an IPv6 network of 64 bits).
    bosh_sessions_per_address_max: usize = 20_000, "sessions";
    /// Longest time that a BOSH request waits for something to send.
    bosh_wait_max: Span = Span::seconds(60), "duration";
    /// A BOSH session ends when its client has had no request for this time.
    bosh_inactivity: Span = Span::seconds(60), "duration";

    /// Messages that a stream keeps if its creator sets no retention; 0: all. Trimming moves its earliest offset.
    retention_messages_max: u64 = 0, "messages";
    /// Bytes of messages that a stream keeps if its creator sets no retention; 0: all. By default a store on disk keeps all,
    /// and a store in memory keeps 64 MiB, but at most a sixteenth of `memory_max`.
    retention_bytes_max: Option<u64> = None, "bytes";
    /// How long a stream keeps a message if its creator sets no retention; 0: forever. By default a store on disk keeps it
    /// forever, and a store in memory for a week.
    retention_age_max: Option<Span> = None, "duration";

    /// Streams, about 1 KiB each plus their messages.
    streams_max: u64 = 1_000_000, "streams";
    /// Share of one client, the subject of a token or else an address: of `memory_max`, or of the memory of the engine, for what it
    /// stores, of `streams_max`, and of the producers that a stream remembers; 100: all. Without tokens behind a reverse proxy that
    /// `--behind-proxy` does not name, all clients have one address, so set it to 100 there.
    principal_share_percent: u64 = 50, "percent";

    /// Appends per second of one client, with bursts of one second's worth after a pause; 0: no limit. A client is the subject of a
    /// token, or else an address. Further appends get 429 with `Retry-After`, over MQTT 0x97.
    appends_per_second_max: u64 = 0, "appends per second";
    /// Bytes of appends per second of one client, with bursts of one second's worth after a pause; 0: no limit. An append larger
    /// than that is accepted after a pause, and delays the next one accordingly.
    append_bytes_per_second_max: u64 = 0, "bytes per second";
    /// Refusals that have a line of their own in the audit log, in each 10 s; further ones are counted in one line. A line has at
    /// most 1.5 KiB.
    audit_refusals_max: u64 = 20, "lines";
    /// Lines in the audit log for all events but refusals, in each 10 s; further events are counted in one line.
    audit_events_max: u64 = 10_000, "lines";
    /// Size of the access log lines that wait to be written; further lines are lost and counted.
    access_log_bytes_max: usize = 1024 * 1024, "bytes";

    /// Devices that are registered to be woken.
    devices_max: usize = 200_000, "devices";
    /// Memory of all registered devices.
    device_bytes_max: usize = 256 * 1024 * 1024, "bytes";
    /// Wakes per second over all providers. More wait, so that the polls that follow do not all come at once.
    wakes_per_second_max: u32 = 500, "wakes per second";
    /// Wakes under way to one provider.
    wakes_at_once_max: usize = 64, "wakes";
    /// Subscriptions, each with a task and about 6 KiB.
    subscriptions_max: usize = 10_000, "subscriptions";
    /// Subscriptions of one tenant.
    subscriptions_per_tenant_max: usize = 1000, "subscriptions";
    /// Streams of one subscription. Streams that its pattern matches beyond it wait until others are deleted.
    subscription_streams_max: usize = 1000, "streams";
    /// Memory of all subscriptions: 6 KiB each, and about 300 bytes for each stream.
    subscription_bytes_max: usize = 64 * 1024 * 1024, "bytes";
    /// Memory of the subscriptions of one tenant.
    subscription_bytes_per_tenant_max: usize = 32 * 1024 * 1024, "bytes";
    /// Streams that are filled from an origin, each with a task of about 4 KiB, and 100 bytes for each element that its origin has.
    origins_max: usize = 1000, "streams";
    /// Streams of one tenant that are filled from an origin.
    origins_per_tenant_max: usize = 200, "streams";
    /// Size of the response of an origin.
    origin_bytes_max: usize = 1024 * 1024, "bytes";
    /// Elements of the JSON array of an origin with `Stream-Origin-Key`.
    origin_elements_max: usize = 4096, "elements";
    /// Shortest interval between two polls of an origin. A shorter one that a client asks for becomes this one.
    origin_interval_min: Span = Span::seconds(1), "duration";
    /// How long an origin may take to respond.
    origin_timeout: Span = Span::seconds(10), "duration";
    /// Requests to origins at once, each with a response of at most `origin_bytes_max`; further ones wait. One tenant has a quarter of
    /// them, and one host an eighth.
    origin_requests_max: usize = 16, "requests";

    /// Streams of the upstream gateway that are followed at once (`--upstream`). Readers of further ones get 503.
    upstream_streams_max: usize = 10_000, "streams";
    /// Memory for messages of the upstream gateway, and never more than a quarter of the memory budget. What is not kept is read from
    /// it again.
    upstream_bytes_max: u64 = 256 * 1024 * 1024, "bytes";
    /// Memory for messages of one stream of the upstream gateway.
    upstream_stream_bytes_max: u64 = 16 * 1024 * 1024, "bytes";

    /// Memory for messages that news of a shared engine bring to readers (`--store redis://…`), and never more than an eighth of the memory
    /// budget. What is not kept is read from the engine.
    engine_news_bytes_max: u64 = 64 * 1024 * 1024, "bytes";
    /// Memory for messages of one stream that news bring.
    engine_news_stream_bytes_max: u64 = 256 * 1024, "bytes";

    /// Time over which a drain spreads the ends of held polls and live forms.
    drain_spread: Span = Span::seconds(5), "duration";
}

/// A value as `--limit` takes it.
fn value_text(value: &impl Serialize) -> Option<String> {
    match serde_json::to_value(value) {
        Ok(Value::String(text)) => Some(text),
        Ok(Value::Null) | Err(_) => None,
        Ok(value) => Some(value.to_string()),
    }
}

impl Limits {
    /// Checks that the gateway works with these values. The error is a text for the operator.
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
        at_least("wakes_per_second_max", usize::try_from(self.wakes_per_second_max).unwrap_or(1), 1)?;
        at_least("wakes_at_once_max", self.wakes_at_once_max, 1)?;
        at_least("origin_bytes_max", self.origin_bytes_max, 1)?;
        at_least("origin_requests_max", self.origin_requests_max, 1)?;
        at_least("origin_interval_min (in seconds)", self.origin_interval_min.whole_seconds(), 1)?;
        at_least("xmpp_stanza_bytes_max", self.xmpp_stanza_bytes_max, 4096)?;
        at_least("xmpp_page_max", self.xmpp_page_max, 1)?;
        at_least("xmpp_requests_max", self.xmpp_requests_max, 1)?;
        at_least("xmpp_requests_per_jid_max", self.xmpp_requests_per_jid_max, 1)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_allowed() {
        assert_eq!(Limits::default().check(), Ok(()));
    }

    #[test]
    fn each_limit_is_listed_with_its_unit_and_meaning() {
        for Limit { name, default, unit, meaning } in Limits::list() {
            assert!(!unit.is_empty() && meaning.ends_with('.'), "{name}: {meaning:?}");
            assert!(!meaning.contains("  "), "{name}: {meaning:?}");
            let depends_on_store = ["retention_bytes_max", "retention_age_max"].contains(&name);
            assert_eq!(default.is_none(), depends_on_store, "{name}");
        }
    }
}
