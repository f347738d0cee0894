//! What one hop of a network does.

use std::time::Duration;

use serde::Deserialize;

use super::address_change::AddressChange;
use super::captive::Captive;
use super::http10::Http10;
use super::lifetime::Lifetime;
use super::lossy_answers::LossyAnswers;
use super::nat_idle::NatIdle;
use super::no_streaming::NoStreaming;
use super::no_websocket::NoWebsocket;
use super::proxy_buffer::ProxyBuffer;
use super::proxy_cut::ProxyCut;
use super::slow::Slow;
use super::websocket_cut::WebsocketCut;

/// One behaviour with its settings, as in `profiles.toml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hop {
    /// Forgets quiet connections.
    NatIdle(NatIdle),
    /// All connections die at once, again and again.
    AddressChange(AddressChange),
    /// Ends each connection at some age.
    Lifetime(Lifetime),
    /// Little bandwidth, long ways.
    Slow(Slow),
    /// Has nothing against anything.
    PlainProxy {},
    /// Gives up answers that do not come.
    ProxyCut(ProxyCut),
    /// Holds answers back.
    ProxyBuffer(ProxyBuffer),
    /// Lets no WebSocket through.
    NoWebsocket(NoWebsocket),
    /// Lets a WebSocket through and kills it.
    WebsocketCut(WebsocketCut),
    /// Lets no answer through that goes on.
    NoStreaming(NoStreaming),
    /// HTTP/1.0, one request a connection.
    Http10(Http10),
    /// Answers everything itself.
    Captive(Captive),
    /// Answers that get lost, requests that arrive twice.
    LossyAnswers(LossyAnswers),
}

/// A time in a profile, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "f64")]
pub struct Clock(pub Duration);

impl TryFrom<f64> for Clock {
    type Error = String;

    fn try_from(seconds: f64) -> Result<Self, String> {
        let time = Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero());
        time.map(Self).ok_or_else(|| format!("{seconds} is no time above zero"))
    }
}

impl Hop {
    /// Its times, the one that it is known for first.
    pub(super) fn clocks(&mut self) -> Vec<&mut Clock> {
        match self {
            Self::NatIdle(hop) => vec![&mut hop.after],
            Self::AddressChange(hop) => vec![&mut hop.every],
            Self::Lifetime(hop) => vec![&mut hop.after],
            Self::Slow(hop) => vec![&mut hop.delay],
            Self::ProxyCut(hop) => hop.first_byte.iter_mut().chain(&mut hop.next_byte).collect(),
            Self::WebsocketCut(hop) => vec![&mut hop.after],
            Self::NoStreaming(hop) => vec![&mut hop.gives_up_after],
            Self::PlainProxy {}
            | Self::ProxyBuffer(_)
            | Self::NoWebsocket(_)
            | Self::Http10(_)
            | Self::Captive(_)
            | Self::LossyAnswers(_) => Vec::new(),
        }
    }

    /// Whether it understands HTTP, and hence nothing else.
    pub(super) fn is_proxy(&self) -> bool {
        !matches!(self, Self::NatIdle(_) | Self::AddressChange(_) | Self::Lifetime(_) | Self::Slow(_))
    }
}
