//! One attempt to read: the request to make, how far it has come, and until when it may be silent.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::error::{CertificateError, ConnectError};
use crate::refusal::Refusal;

/// A delivery form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// WebSocket, one envelope per frame.
    #[serde(rename = "websocket")]
    WebSocket,
    /// Server-sent events.
    Sse,
    /// Newline-delimited JSON, one envelope per line.
    Ndjson,
    /// Requests that the gateway holds until there are messages.
    LongPoll,
    /// Requests that are answered at once, at an interval.
    ShortPoll,
}

impl Form {
    /// All forms, in order of preference.
    pub const ALL: [Self; 5] = [Self::WebSocket, Self::Sse, Self::Ndjson, Self::LongPoll, Self::ShortPoll];

    /// Whether one response delivers many envelopes.
    pub fn is_live(self) -> bool {
        matches!(self, Self::WebSocket | Self::Sse | Self::Ndjson)
    }

    /// The name of the form, which is the value of `live` in a query.
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

/// How an attempt has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// As specified: a poll with its response, a live form with its last byte, a WebSocket with close code 1000 or 1001.
    Clean,
    /// In the middle of a response, or before it.
    Cut,
    /// The connection is open and was silent for too long.
    Mute,
    /// The first envelope did not arrive in time.
    NoEnvelope,
    /// There is no connection.
    Unreachable,
    /// The response to the handshake was not that of a WebSocket server.
    NotUpgraded,
    /// The response had this status, which is not the status of the form.
    Refused(u16),
    /// The response was not one of the gateway.
    NotGateway,
    /// The gateway asks to retry later, after this delay if it says one.
    Restart(Option<Duration>),
    /// The client left it for another form, heartbeat or network.
    Left,
}

/// What the attempt asks for, and what has happened in it so far.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    /// Form of the request.
    pub(crate) form: Form,
    /// Parameter `heartbeat` of the request.
    pub(crate) heartbeat: Duration,
    /// Parameter `timeout` of the request; zero unless it is a long poll.
    pub(crate) hold: Duration,
    /// Time limit for the connection.
    pub(crate) connect_patience: Duration,
    /// Time limit for the first envelope of a live form, or for a poll without its hold.
    pub(crate) patience: Duration,
    /// Time limit for silence of a live form.
    pub(crate) mute_after: Duration,
    /// When to leave the form although it works, for a better one.
    pub(crate) leave_at: Option<Instant>,
    pub(crate) began: Instant,
    pub(crate) connected: Option<Instant>,
    pub(crate) first_byte: Option<Instant>,
    pub(crate) last_byte: Instant,
    pub(crate) last_envelope: Instant,
    pub(crate) envelopes: u32,
    /// Whether the last envelope said that it ends at the tail.
    pub(crate) up_to_date: bool,
    /// Whether the user took so long for a message that the gateway may have closed the connection.
    pub(crate) held_up: bool,
}

impl Attempt {
    pub(crate) fn new(form: Form, patience: Duration, now: Instant) -> Self {
        Self {
            form,
            heartbeat: Duration::ZERO,
            hold: Duration::ZERO,
            connect_patience: patience,
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

    pub(crate) fn begin(&mut self, now: Instant) {
        (self.began, self.last_byte, self.last_envelope) = (now, now, now);
    }

    /// When the attempt ends unless something happens before.
    pub(crate) fn deadline(&self) -> Instant {
        let silence = self.silence_until();
        self.leave_at().map_or(silence, |leave| leave.min(silence))
    }

    /// How the attempt ends when nothing has happened until its deadline.
    pub(crate) fn expired(&self, now: Instant) -> End {
        match self.connected {
            _ if self.leave_at().is_some_and(|leave| leave <= now) => End::Left,
            None => End::Unreachable,
            Some(_) if self.form.is_live() && self.envelopes == 0 => End::NoEnvelope,
            Some(_) => End::Mute,
        }
    }

    /// Time since the attempt began.
    pub(crate) fn lived(&self, now: Instant) -> Duration {
        now - self.began
    }

    fn silence_until(&self) -> Instant {
        let Some(connected) = self.connected else { return self.began + self.connect_patience };
        match self.form {
            form if form.is_live() && self.envelopes > 0 => self.last_byte + self.mute_after,
            form if form.is_live() => connected + self.patience,
            _ if self.first_byte.is_some() => self.last_byte + self.patience,
            _ => self.began + self.hold + self.patience,
        }
    }

    /// A live form is left only after its first envelope; a poll has worked before.
    fn leave_at(&self) -> Option<Instant> {
        self.leave_at.filter(|_| !self.form.is_live() || self.envelopes > 0)
    }
}

/// Why an attempt delivers nothing more.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The attempt has ended; another one may follow.
    Attempt(End),
    /// The gateway refuses the request; another attempt would be refused too.
    ForGood(Refusal),
    /// A certificate is not trusted, after one that was. Another attempt may succeed.
    Intercepted(CertificateError),
    /// The certificate is not trusted; another attempt would not change that.
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
