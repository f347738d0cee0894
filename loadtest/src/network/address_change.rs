//! A client whose address changes, by a new lease or from Wi-Fi to a cellular network. All its connections go silent without a
//! reset; new ones work.

use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::hop::Clock;
use super::relay::{relay, reset, silence};

/// Silences all connections at fixed times.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AddressChange {
    /// Interval between two changes, counted from the start of the middlebox.
    pub every: Clock,
}

impl AddressChange {
    /// Relays a connection until the next change, which it reports to `fault`.
    pub(super) async fn carry(
        &self,
        mut near: TcpStream,
        mut far: TcpStream,
        started: Instant,
        fault: impl Fn(),
    ) {
        tokio::select! {
            relayed = relay(&mut near, &mut far, |_, _| ()) => {
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
