//! A proxy that accepts a WebSocket and ends it soon after.

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep;

use super::hop::Clock;
use super::relay::relay;

/// Ends WebSockets by age.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct WebsocketCut {
    /// Time after the upgrade.
    pub after: Clock,
}

impl WebsocketCut {
    /// Relays a WebSocket until its time is over; then calls `fault`.
    pub(super) async fn carry(
        &self,
        mut near: impl AsyncRead + AsyncWrite + Unpin,
        mut far: impl AsyncRead + AsyncWrite + Unpin,
        fault: impl Fn(),
    ) {
        tokio::select! {
            // If one end is gone, the other is closed too.
            _gone = relay(&mut near, &mut far, |_, _| ()) => {}
            () = sleep(self.after.0) => fault(),
        }
    }
}
