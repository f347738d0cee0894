//! Renews the rights of an open WebSocket: sends the next token in a frame before the one that opened the socket expires.

use std::future::pending;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::credentials::Credentials;
use crate::refusal::Refusal;

/// The shortest time between two renewals, whatever the tokens say.
const PAUSE: Duration = Duration::from_secs(1);

/// What begins a frame with which the gateway accepts a token.
const ACCEPTED: &[u8] = b"{\"authorized\":";

/// The renewal of one socket. A token that cannot be fetched ends the socket when the last one expires, and the next attempt tells why.
pub(super) struct Renewal {
    credentials: Credentials,
    /// Version of the token that the gateway has.
    sent: u64,
    /// Not before this time.
    earliest: Instant,
    /// The task that fetches a token, which outlives a dropped `next`.
    fetching: JoinSet<Result<(), Refusal>>,
}

impl Renewal {
    /// For a socket whose handshake carried the token of these credentials.
    pub(super) fn of(credentials: &Credentials) -> Self {
        let (credentials, sent) = (credentials.clone(), credentials.version());
        Self { credentials, sent, earliest: Instant::now(), fetching: JoinSet::new() }
    }

    /// Waits for the next frame to send, and returns it with the version of its token. Cancel safe.
    pub(super) async fn next(&mut self) -> (String, u64) {
        loop {
            if self.fetching.is_empty() {
                let Some(at) = self.credentials.renewal_at(self.sent) else { return pending().await };
                sleep_until(at.max(self.earliest)).await;
                self.earliest = Instant::now() + PAUSE;
                let credentials = self.credentials.clone();
                self.fetching.spawn(async move { credentials.ready().await });
            }
            let Some(Ok(Ok(()))) = self.fetching.join_next().await else { return pending().await };
            let (token, version) = self.credentials.token();
            if let Some(token) = token.filter(|_| version != self.sent) {
                return (json!({ "auth": token }).to_string(), version);
            }
        }
    }

    /// Records that the gateway is sent the token of this version.
    pub(super) fn is_sent(&mut self, version: u64) {
        self.sent = version;
    }
}

/// Whether the gateway accepts a token by this frame.
pub(super) fn is_acceptance(frame: &[u8]) -> bool {
    frame.starts_with(ACCEPTED)
}
