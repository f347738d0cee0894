//! [`Strategy`]: a delivery form with its settings. One file per form reads a stream.

mod asleep;
mod live;
mod long_poll;
mod mqtt;
mod nats;
mod redis;
mod short_poll;
mod socket_io;
mod websocket;
mod xmpp;

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::dialects::{Dialect, LiveForm};
use crate::model::candidate::Setting;
use crate::providers::Provider;
use crate::wire::WireError;

/// A delivery form with its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// A request every interval, answered at once.
    ShortPoll(Duration),
    /// A request that is held for up to this time, followed by the next at once.
    LongPoll(Duration),
    /// Server-sent events.
    Sse(Heartbeat),
    /// One JSON envelope per line.
    Ndjson(Heartbeat),
    /// One JSON envelope per frame.
    WebSocket(Heartbeat),
    /// A subscription at an MQTT broker; the client sends the heartbeats.
    Mqtt(Heartbeat),
    /// A subscription to a node over XMPP on a WebSocket. The server pings it as it does other WebSockets.
    XmppWebSocket,
    /// The same over BOSH: a request that waits at the server, for up to a minute, followed by the next at once.
    XmppBosh,
    /// No connection: a provider wakes the client, which polls.
    Wake(Provider),
}

/// Interval between two heartbeats on an idle connection, in whole seconds. `None` keeps the server's default, and with MQTT
/// the client's (`wire::mqtt`).
pub type Heartbeat = Option<Duration>;

/// The strategies that are compared by default.
pub const DEFAULTS: [Strategy; 7] = [
    Strategy::ShortPoll(Duration::from_secs(1)),
    Strategy::ShortPoll(Duration::from_secs(5)),
    Strategy::LongPoll(Duration::from_secs(25)),
    Strategy::Sse(None),
    Strategy::Ndjson(None),
    Strategy::WebSocket(None),
    Strategy::Mqtt(None),
];

/// The gateway wakes no client whose last poll is more recent.
const AWAKE: Duration = Duration::from_secs(2);

/// Minimum of [`Strategy::late_after`].
const LATE_AFTER_MIN: Duration = Duration::from_millis(5);

impl Strategy {
    /// Returns the interval between two polls: the time that a message may take even if nothing goes wrong.
    pub fn pause(self) -> Duration {
        match self {
            Self::ShortPoll(interval) => interval,
            Self::Wake(_) => AWAKE,
            _ => Duration::ZERO,
        }
    }

    /// Returns the default time after which a send counts as late. A hundredth of an interval changes a short poll's latencies
    /// by at most that share. A busy machine's scheduler takes up to 5 ms to run a thread whose sleep is over; a generator that
    /// is later more often shows in the percentiles of a push strategy.
    pub fn late_after(self) -> Duration {
        LATE_AFTER_MIN.max(self.pause() / 100)
    }

    /// Returns the requested heartbeat.
    pub fn heartbeat(self) -> Heartbeat {
        match self {
            Self::ShortPoll(_) | Self::LongPoll(_) | Self::XmppWebSocket | Self::XmppBosh | Self::Wake(_) => {
                None
            }
            Self::Sse(heartbeat)
            | Self::Ndjson(heartbeat)
            | Self::WebSocket(heartbeat)
            | Self::Mqtt(heartbeat) => heartbeat,
        }
    }

    /// Reads from the client's offset until an error, or until the server ends the response.
    pub async fn read(self, client: &mut Client) -> Result<(), WireError> {
        let never = |never: Infallible| match never {};
        match (self, client.target.dialect) {
            (Self::LongPoll(hold), Dialect::SocketIo) => {
                return socket_io::read_polling(client, hold).await.map(never);
            }
            (Self::WebSocket(_), Dialect::SocketIo) => return socket_io::read_websocket(client).await,
            (Self::LongPoll(hold), Dialect::Redis) => return redis::read(client, hold).await.map(never),
            (Self::WebSocket(_), Dialect::Nats) => return nats::read(client).await,
            _ => {}
        }
        match self {
            Self::ShortPoll(interval) => short_poll::read(client, interval).await.map(never),
            Self::LongPoll(hold) => long_poll::read(client, hold).await.map(never),
            Self::Sse(heartbeat) => live::read(client, LiveForm::Sse, heartbeat).await,
            Self::Ndjson(heartbeat) => live::read(client, LiveForm::Ndjson, heartbeat).await,
            Self::WebSocket(heartbeat) => websocket::read(client, heartbeat).await,
            Self::Mqtt(heartbeat) => mqtt::read(client, heartbeat).await.map(never),
            Self::XmppWebSocket => xmpp::read_websocket(client).await,
            Self::XmppBosh => xmpp::read_bosh(client).await.map(never),
            Self::Wake(provider) => asleep::read(client, provider).await.map(never),
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ShortPoll(interval) => write!(f, "short-poll:{}", Setting(*interval)),
            Self::LongPoll(hold) => write!(f, "long-poll:{}", Setting(*hold)),
            Self::Sse(heartbeat) => write_live(f, "sse", *heartbeat),
            Self::Ndjson(heartbeat) => write_live(f, "ndjson", *heartbeat),
            Self::WebSocket(heartbeat) => write_live(f, "websocket", *heartbeat),
            Self::Mqtt(heartbeat) => write_live(f, "mqtt", *heartbeat),
            Self::XmppWebSocket => f.write_str("xmpp:websocket"),
            Self::XmppBosh => f.write_str("xmpp:bosh"),
            Self::Wake(provider) => provider.fmt(f),
        }
    }
}

fn write_live(f: &mut fmt::Formatter<'_>, form: &str, heartbeat: Heartbeat) -> fmt::Result {
    match heartbeat {
        Some(heartbeat) => write!(f, "{form}:{}", Setting(heartbeat)),
        None => f.write_str(form),
    }
}

impl FromStr for Strategy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (form, setting) =
            text.split_once(':').map_or((text, None), |(form, setting)| (form, Some(setting)));
        match (form, setting) {
            ("short-poll", Some(interval)) => Ok(Self::ShortPoll(positive(interval)?)),
            ("long-poll", Some(hold)) => whole_seconds(hold).map(Self::LongPoll),
            ("sse", heartbeat) => heartbeat.map(whole_seconds).transpose().map(Self::Sse),
            ("ndjson", heartbeat) => heartbeat.map(whole_seconds).transpose().map(Self::Ndjson),
            ("websocket", heartbeat) => heartbeat.map(whole_seconds).transpose().map(Self::WebSocket),
            ("mqtt", heartbeat) => heartbeat.map(whole_seconds).transpose().map(Self::Mqtt),
            ("xmpp", Some("websocket")) => Ok(Self::XmppWebSocket),
            ("xmpp", Some("bosh")) => Ok(Self::XmppBosh),
            ("push", Some("fcm")) => Ok(Self::Wake(Provider::Fcm)),
            ("push", Some("web")) => Ok(Self::Wake(Provider::WebPush)),
            ("sms", None) => Ok(Self::Wake(Provider::Sms)),
            _ => Err("want short-poll:INTERVAL, long-poll:HOLD, sse, ndjson, websocket or mqtt, each of the last four with or \
                      without :HEARTBEAT, xmpp:websocket, xmpp:bosh, push:fcm, push:web or sms"
                .to_owned()),
        }
    }
}

/// Parses a duration above zero, such as `250ms`.
pub fn positive(text: &str) -> Result<Duration, String> {
    let span: SignedDuration = text.parse().map_err(|error| format!("{text:?} is no duration: {error}"))?;
    let span = Duration::try_from(span).ok().filter(|span| !span.is_zero());
    span.ok_or_else(|| format!("{text:?} is not above zero"))
}

/// Parses a duration of whole seconds above zero, as holds and heartbeats are on the wire.
pub fn whole_seconds(text: &str) -> Result<Duration, String> {
    let span = positive(text)?;
    (span.subsec_nanos() == 0).then_some(span).ok_or_else(|| format!("{text:?} is not in whole seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strategies_parse_and_print_the_same_text() {
        for text in [
            "short-poll:1s",
            "short-poll:250ms",
            "long-poll:55s",
            "sse",
            "sse:45s",
            "ndjson:200s",
            "websocket",
            "websocket:45s",
            "mqtt:200s",
            "xmpp:websocket",
            "xmpp:bosh",
            "push:fcm",
            "push:web",
            "sms",
        ] {
            assert_eq!(text.parse::<Strategy>().map(|strategy| strategy.to_string()), Ok(text.to_owned()));
        }
        for text in [
            "",
            "short-poll",
            "short-poll:0s",
            "long-poll:-1s",
            "long-poll:1500ms",
            "sse:0s",
            "websocket:1500ms",
            "push",
            "xmpp",
            "sms:1s",
            "carrier-pigeon",
        ] {
            assert!(text.parse::<Strategy>().is_err(), "{text:?}");
        }
    }
}
