//! The options of the commands that are clients of a gateway: `pub`, `sub`, `follow`, `ls`, `stat`, `rm` and `bench`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use pollgate::config::NamePattern;
use pollgate::limits::Span;
use pollgate_client::Offset;

/// Which gateway, and with which credentials.
#[derive(Debug, Args)]
pub(crate) struct GatewayArgs {
    /// URL of the gateway, or of the proxy before it; `pub` and `sub` also take one of MQTT: mqtt://, mqtts://, or wss:// with a
    /// path that ends in /mqtt
    #[arg(long, value_name = "URL", env = "POLLGATE_URL", default_value = "http://127.0.0.1:4437")]
    pub(crate) url: String,
    /// File with the token that the gateway requires, read again when the gateway refuses it; `POLLGATE_TOKEN` may have the token
    /// itself. An MQTT URL may have user and password instead [default: none]
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// PEM file with authorities that are trusted besides those of the operating system [default: none]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// How long to wait for a gateway that does not answer
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub(crate) timeout: Span,
}

/// The options of `pub`.
#[derive(Debug, Args)]
pub(crate) struct PublishCommand {
    /// Stream to publish to. If it does not exist, it is created
    pub(crate) stream: String,
    /// Message, or `-` for each line of standard input as a message [default: -]
    pub(crate) message: Option<String>,
    /// Content type of the stream if it does not exist yet [default: application/json]
    #[arg(long, value_name = "TYPE")]
    pub(crate) content_type: Option<String>,
    /// Publish all of standard input as one message
    #[arg(long, conflicts_with = "message")]
    pub(crate) whole: bool,
    /// In a JSON stream, publish the text as a string, also if it is JSON. Without this option only text that does not begin like
    /// JSON is
    #[arg(long)]
    pub(crate) string: bool,
    /// Which gateway.
    #[command(flatten)]
    pub(crate) gateway: GatewayArgs,
}

/// The options of `sub` and of `follow`.
#[derive(Debug, Args)]
pub(crate) struct SubscribeCommand {
    /// Streams to read; those that do not exist are waited for
    #[arg(required = true, num_args = 1..=1000)]
    pub(crate) streams: Vec<String>,
    /// Where to begin: `earliest`, `now`, `last:20` messages of each stream, or an offset of a single stream [default: now; for
    /// `follow`, last:10]
    #[arg(long, value_name = "WHERE")]
    pub(crate) from: Option<Beginning>,
    /// File that remembers what was read, so that the next start with it goes on there; it takes precedence over --from. A message counts as
    /// read when it is printed, or when the command of --exec has succeeded [default: none]
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    /// Delivery form to use (repeatable, best first) [default: any that the network lets through]
    #[arg(long, value_name = "FORM")]
    pub(crate) form: Vec<FormName>,
    /// Print a line of JSON for each message: stream, offset, time and data; for gaps and ends of streams, too
    #[arg(long)]
    pub(crate) json: bool,
    /// Shell command to run for each message, one at a time, with the message as its standard input and its stream and offset in
    /// POLLGATE_STREAM and POLLGATE_OFFSET. If it fails, `pollgate` ends, too [default: print messages]
    #[arg(long, value_name = "COMMAND", conflicts_with = "json")]
    pub(crate) exec: Option<String>,
    /// End after this many messages [default: when all streams are closed]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) count: Option<u64>,
    /// Say nothing of changes of the delivery form and of lost connections
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Which gateway.
    #[command(flatten)]
    pub(crate) gateway: GatewayArgs,
}

/// The options of `ls`.
#[derive(Debug, Args)]
pub(crate) struct ListCommand {
    /// Streams to list: `+` stands for one level of the name, a last `#` for any number of levels [default: #]
    pub(crate) pattern: Option<NamePattern>,
    /// Also print content type, size and retention, with one request for each stream
    #[arg(long, short)]
    pub(crate) long: bool,
    /// Which gateway.
    #[command(flatten)]
    pub(crate) gateway: GatewayArgs,
}

/// The options of `stat`.
#[derive(Debug, Args)]
pub(crate) struct StatCommand {
    /// Streams to describe
    #[arg(required = true)]
    pub(crate) streams: Vec<String>,
    /// Which gateway.
    #[command(flatten)]
    pub(crate) gateway: GatewayArgs,
}

/// The options of `rm`.
#[derive(Debug, Args)]
pub(crate) struct RemoveCommand {
    /// Streams to delete with their messages
    #[arg(required = true)]
    pub(crate) streams: Vec<String>,
    /// A stream that does not exist is no error
    #[arg(long, short)]
    pub(crate) force: bool,
    /// Which gateway.
    #[command(flatten)]
    pub(crate) gateway: GatewayArgs,
}

/// The options of `bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchCommand {
    /// Stream for the messages of the measurement; it is created, and deleted in the end [default: bench/ and a random name]
    #[arg(long, value_name = "STREAM")]
    pub(crate) stream: Option<String>,
    /// How long connections are left idle at most, to find out what the path bears
    #[arg(long, value_name = "DURATION", default_value = "55s")]
    pub(crate) idle: Span,
    /// Print one document of JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Which gateway.
    #[command(flatten)]
    pub(crate) gateway: GatewayArgs,
}

/// Where a subscription begins in its streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// With the earliest message that is kept.
    Earliest,
    /// With the next message.
    Now,
    /// With this many last messages.
    Last(u64),
    /// With the message after this offset.
    At(Offset),
}

impl FromStr for Beginning {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let last = text.strip_prefix("last:").and_then(|count| count.parse().ok());
        match (text, last) {
            ("earliest", _) => Ok(Self::Earliest),
            ("now", _) => Ok(Self::Now),
            (_, Some(count)) => Ok(Self::Last(count)),
            _ => text
                .parse()
                .map(Self::At)
                .map_err(|_| "use earliest, now, last:NUMBER or an offset".to_owned()),
        }
    }
}

/// A delivery form of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormName {
    #[value(name = "websocket")]
    WebSocket,
    Sse,
    Ndjson,
    LongPoll,
    ShortPoll,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_begins_where_it_is_told() {
        let offset = "31e1cc947a056239_000000000000000c";
        for (text, expected) in [
            ("earliest", Some(Beginning::Earliest)),
            ("now", Some(Beginning::Now)),
            ("last:20", Some(Beginning::Last(20))),
            (offset, Some(Beginning::At(offset.parse().unwrap()))),
            ("last:", None),
            ("last:-1", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
    }
}
