//! A load balancer that closes each connection at a certain age, regardless of its traffic.

use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::hop::Clock;
use super::relay::{relay, reset};

/// Ends connections by age.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Lifetime {
    /// The maximum age.
    pub after: Clock,
}

impl Lifetime {
    /// Relays a connection until it is too old; then calls `fault`.
    pub(super) async fn carry(&self, mut near: TcpStream, mut far: TcpStream, fault: impl Fn()) {
        tokio::select! {
            relayed = relay(&mut near, &mut far, |_, _| ()) => {
                if relayed.is_err() {
                    reset([near, far]);
                }
            }
            () = sleep(self.after.0) => fault(),
        }
    }
}
