//! [`Hop`]: the kinds of hops of a network.

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

/// One hop with its settings, as in `profiles.toml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hop {
    /// Forgets idle connections.
    NatIdle(NatIdle),
    /// All connections go silent at the same time, periodically.
    AddressChange(AddressChange),
    /// Ends each connection at a certain age.
    Lifetime(Lifetime),
    /// Limits bandwidth and adds delay.
    Slow(Slow),
    /// A proxy that changes nothing.
    PlainProxy {},
    /// A proxy that times out slow responses.
    ProxyCut(ProxyCut),
    /// A proxy that buffers responses.
    ProxyBuffer(ProxyBuffer),
    /// A proxy that blocks WebSockets.
    NoWebsocket(NoWebsocket),
    /// A proxy that accepts a WebSocket and ends it soon after.
    WebsocketCut(WebsocketCut),
    /// A proxy that blocks streaming responses.
    NoStreaming(NoStreaming),
    /// A proxy that speaks HTTP/1.0, one request per connection.
    Http10(Http10),
    /// A captive portal, which answers every request itself.
    Captive(Captive),
    /// A proxy that loses responses and repeats requests.
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
        time.map(Self).ok_or_else(|| format!("{seconds} is not a time above zero"))
    }
}

impl Hop {
    /// Returns the hop's times; the first is the one that `NAME:TIME` sets.
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

    /// Whether the hop is an HTTP proxy, which passes only HTTP.
    pub(super) fn is_proxy(&self) -> bool {
        !matches!(self, Self::NatIdle(_) | Self::AddressChange(_) | Self::Lifetime(_) | Self::Slow(_))
    }
}
