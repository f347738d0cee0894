//! One request and what came of it so far: how long it may still be silent.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use serde::{Deserialize, Serialize};

use crate::error::{CertificateError, ConnectError};
use crate::refusal::Refusal;

/// A way to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// One envelope a frame.
    #[serde(rename = "websocket")]
    WebSocket,
    /// Server-sent events.
    Sse,
    /// One envelope a line.
    Ndjson,
    /// A request that the gateway holds until there is something.
    LongPoll,
    /// A request that is answered at once.
    ShortPoll,
}

impl Form {
    /// All of them, in order of preference.
    pub const ALL: [Self; 5] = [Self::WebSocket, Self::Sse, Self::Ndjson, Self::LongPoll, Self::ShortPoll];

    /// Whether one answer brings many envelopes.
    pub fn is_live(self) -> bool {
        matches!(self, Self::WebSocket | Self::Sse | Self::Ndjson)
    }

    /// Its name, as `live` in a query has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Sse => "sse",
            Self::Ndjson => "ndjson",
            Self::LongPoll => "long-poll",
            Self::ShortPoll => "short-poll",
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By rule: a poll with its answer, a live form with its last byte, a WebSocket with 1000 or 1001.
    Clean,
    /// In the middle of something.
    Cut,
    /// Open, and silent for too long.
    Mute,
    /// No first envelope in time.
    NoEnvelope,
    /// No connection.
    Unreachable,
    /// The answer to a handshake was no WebSocket.
    NotUpgraded,
    /// Another status than the form has.
    Refused(u16),
    /// An answer that the gateway does not give.
    NotGateway,
    /// The gateway asks to come again, after so long if it says so.
    Restart(Option<Duration>),
    /// By us, for another form, heartbeat or network.
    Left,
}

/// What to ask for, and the attempt's life so far.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    /// In which form.
    pub(crate) form: Form,
    /// `heartbeat` of the request.
    pub(crate) heartbeat: Duration,
    /// `timeout` of the request: zero but for a long poll.
    pub(crate) hold: Duration,
    /// For the first envelope of a live form, and for what a poll takes without its hold.
    pub(crate) patience: Duration,
    /// How long a live form may be silent.
    pub(crate) mute_after: Duration,
    /// When to leave it, while it works.
    pub(crate) leave_at: Option<Instant>,
    pub(crate) began: Instant,
    pub(crate) connected: Option<Instant>,
    pub(crate) first_byte: Option<Instant>,
    pub(crate) last_byte: Instant,
    pub(crate) last_envelope: Instant,
    pub(crate) envelopes: u32,
    /// Whether the last envelope said that there is nothing more.
    pub(crate) up_to_date: bool,
    /// Whether whoever takes the messages was so slow that the gateway may have lost its patience.
    pub(crate) held_up: bool,
}

impl Attempt {
    pub(crate) fn new(form: Form, patience: Duration, now: Instant) -> Self {
        Self {
            form,
            heartbeat: Duration::ZERO,
            hold: Duration::ZERO,
            patience,
            mute_after: Duration::ZERO,
            leave_at: None,
            began: now,
            connected: None,
            first_byte: None,
            last_byte: now,
            last_envelope: now,
            envelopes: 0,
            up_to_date: false,
            held_up: false,
        }
    }

    /// Until when something has to happen.
    pub(crate) fn deadline(&self) -> Instant {
        let silence = self.silence_until();
        self.leave_at().map_or(silence, |leave| leave.min(silence))
    }

    /// How it ends when nothing has happened until its deadline.
    pub(crate) fn expired(&self, now: Instant) -> End {
        match self.connected {
            _ if self.leave_at().is_some_and(|leave| leave <= now) => End::Left,
            None => End::Unreachable,
            Some(_) if self.form.is_live() && self.envelopes == 0 => End::NoEnvelope,
            Some(_) => End::Mute,
        }
    }

    /// How long the answer to a poll took, or a live form has shown envelopes.
    pub(crate) fn lived(&self, now: Instant) -> Duration {
        now - self.began
    }

    fn silence_until(&self) -> Instant {
        match self.form {
            _ if self.connected.is_none() => self.began + self.patience,
            form if form.is_live() && self.envelopes > 0 => self.last_byte + self.mute_after,
            form if form.is_live() => self.began + self.patience,
            _ if self.first_byte.is_some() => self.last_byte + self.patience,
            _ => self.began + self.hold + self.patience,
        }
    }

    /// A live form is left only once it works; a poll has worked before.
    fn leave_at(&self) -> Option<Instant> {
        self.leave_at.filter(|_| !self.form.is_live() || self.envelopes > 0)
    }
}

/// Why nothing more comes.
#[derive(Debug)]
pub(crate) enum Ended {
    /// In this attempt.
    Attempt(End),
    /// At all: the gateway does not take the request.
    ForGood(Refusal),
    /// In this attempt: something shows a certificate that is not trusted, where the gateway has shown one that was.
    Intercepted(CertificateError),
    /// At all: the certificate is not trusted.
    Untrusted(CertificateError),
}

impl Ended {
    /// The status of the answer, if it refused the request.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Attempt(End::Refused(status)) => Some(*status),
            Self::Attempt(_) | Self::Intercepted(_) | Self::Untrusted(_) => None,
            Self::ForGood(refusal) => Some(refusal.status),
        }
    }
}

impl From<ConnectError> for Ended {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Unreachable => End::Unreachable.into(),
            ConnectError::Intercepted(error) => Self::Intercepted(error),
            ConnectError::Untrusted(error) => Self::Untrusted(error),
        }
    }
}

impl From<End> for Ended {
    fn from(end: End) -> Self {
        Self::Attempt(end)
    }
}
