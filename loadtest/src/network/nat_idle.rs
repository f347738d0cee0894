//! A NAT or a load balancer that forgets a connection when no packet has gone over it for some time.

use serde::Deserialize;
use tokio::net::TcpStream;

use super::hop::Clock;
use super::relay::{Seen, relay, reset, silence};

/// See the module.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NatIdle {
    /// Without a byte either way.
    pub after: Clock,
    /// How the connection ends then.
    #[serde(default)]
    pub ending: Ending,
}

/// What becomes of a connection that was forgotten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Nobody is told, and what is sent goes nowhere.
    #[default]
    Silence,
    /// Both ends get a reset.
    Reset,
}

impl NatIdle {
    /// Carries a connection; `fault` is told when it forgets it.
    pub(super) async fn carry(&self, mut near: TcpStream, mut far: TcpStream, fault: impl Fn()) {
        let packet = Seen::now();
        tokio::select! {
            relayed = relay(&mut near, &mut far, |_| packet.again()) => {
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
