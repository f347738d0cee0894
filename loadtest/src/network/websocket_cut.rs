//! A proxy that lets a WebSocket through, and kills it soon after.

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep;

use super::hop::Clock;
use super::relay::relay;

/// See the module.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct WebsocketCut {
    /// From the upgrade.
    pub after: Clock,
}

impl WebsocketCut {
    /// Carries a WebSocket for so long; `fault` is told of its end.
    pub(super) async fn carry(
        &self,
        mut near: impl AsyncRead + AsyncWrite + Unpin,
        mut far: impl AsyncRead + AsyncWrite + Unpin,
        fault: impl Fn(),
    ) {
        tokio::select! {
            // Either end has gone; so does the other with this.
            _gone = relay(&mut near, &mut far, |_| ()) => {}
            () = sleep(self.after.0) => fault(),
        }
    }
}
