//! A client whose address changes: a new lease, or from Wi-Fi to a cellular network. All its connections are dead without
//! a word; new ones work.

use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::hop::Clock;
use super::relay::{relay, reset, silence};

/// See the module.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AddressChange {
    /// Counted from the start of the middlebox.
    pub every: Clock,
}

impl AddressChange {
    /// Carries a connection until the next change; `fault` is told of it.
    pub(super) async fn carry(
        &self,
        mut near: TcpStream,
        mut far: TcpStream,
        started: Instant,
        fault: impl Fn(),
    ) {
        tokio::select! {
            relayed = relay(&mut near, &mut far, |_| ()) => {
                if relayed.is_err() {
                    reset([near, far]);
                }
            }
            () = sleep_until(self.next(started)) => {
                fault();
                silence(near, far).await;
            }
        }
    }

    fn next(&self, started: Instant) -> Instant {
        let every = self.every.0;
        let changes = (started.elapsed().as_secs_f64() / every.as_secs_f64()).floor();
        started + every.mul_f64(changes + 1.0)
    }
}
