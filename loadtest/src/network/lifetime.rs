//! A load balancer that closes each connection at some age, whatever goes over it.

use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::hop::Clock;
use super::relay::{relay, reset};

/// See the module.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Lifetime {
    /// The age.
    pub after: Clock,
}

impl Lifetime {
    /// Carries a connection; `fault` is told when it ends it.
    pub(super) async fn carry(&self, mut near: TcpStream, mut far: TcpStream, fault: impl Fn()) {
        tokio::select! {
            relayed = relay(&mut near, &mut far, |_| ()) => {
                if relayed.is_err() {
                    reset([near, far]);
                }
            }
            () = sleep(self.after.0) => fault(),
        }
    }
}
