//! A NAT or load balancer that forgets a connection after some time without a packet.

use serde::Deserialize;
use tokio::net::TcpStream;

use super::hop::Clock;
use super::relay::{LastActivity, relay, reset, silence};

/// Forgets idle connections.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NatIdle {
    /// Time without a byte in either direction.
    pub after: Clock,
    /// How a forgotten connection ends.
    #[serde(default)]
    pub ending: Ending,
}

/// How a forgotten connection ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Without a signal: neither end is told, and all further bytes are dropped.
    #[default]
    Silence,
    /// Both ends receive a reset.
    Reset,
}

impl NatIdle {
    /// Relays a connection until it is idle for too long; then calls `fault`.
    pub(super) async fn carry(&self, mut near: TcpStream, mut far: TcpStream, fault: impl Fn()) {
        let packet = LastActivity::now();
        tokio::select! {
            relayed = relay(&mut near, &mut far, |_, _| packet.again()) => {
                if relayed.is_err() {
                    reset([near, far]);
                }
                return;
            }
            () = packet.not_for(self.after.0) => fault(),
        }
        match self.ending {
            Ending::Silence => silence(near, far).await,
            Ending::Reset => reset([near, far]),
        }
    }
}
