//! Measures a server while wrk repeats one request.

use std::time::Duration;

use tokio::time::Instant;

use super::Scene;
use crate::cost::processor_time_of_children;
use crate::figures::Pace;
use crate::wire::Request;
use crate::wrk::{Wrk, WrkError};

/// Sends the requests of a closed loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generator {
    /// This program, on one thread.
    Own,
    /// wrk, on this number of threads.
    Wrk(u32),
}

impl Generator {
    /// Checks that the generator can run the load; the error says why not.
    pub(super) fn allows(self, streams: u32, seconds: f64) -> Result<(), WrkError> {
        match self {
            Self::Own => Ok(()),
            Self::Wrk(_) if streams > 1 => Err(WrkError::Streams(streams)),
            Self::Wrk(_) if seconds.fract() != 0.0 => Err(WrkError::Seconds(seconds)),
            Self::Wrk(_) => Wrk::installed(),
        }
    }
}

/// Runs wrk with `request`: first for the warm-up, whose figures are discarded, then for the measured time.
pub(super) async fn by_wrk(scene: &Scene, wrk: Wrk, request: &Request) -> Result<Pace, WrkError> {
    let address = scene.target.address;
    let (warm_up, measured) = scene.tally.spans();
    // wrk takes whole seconds.
    let warm_up = warm_up.as_secs_f64().ceil();
    if warm_up > 0.0 {
        wrk.send(address, request, Duration::from_secs_f64(warm_up)).await?;
    }
    let now = || (scene.server_processor(), processor_time_of_children().as_secs_f64());
    let ((server_before, wrk_before), begun) = (now(), Instant::now());
    let counted = wrk.send(address, request, measured).await?;
    let took = begun.elapsed();
    let (server, own) = now();
    let server = server.zip(server_before).map(|(after, before)| after - before);
    Ok(Pace {
        rate: counted.rate,
        p50: counted.p50,
        p99: counted.p99,
        server_processor: server.map(|seconds| seconds * 1e6 / counted.requests as f64),
        generator_cores: (own - wrk_before) / took.as_secs_f64(),
        generator_threads: wrk.threads,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_that_wrk_cannot_run_are_refused() {
        let refused = |streams, seconds| Generator::Wrk(2).allows(streams, seconds).unwrap_err();
        assert!(matches!(refused(2, 1.0), WrkError::Streams(2)));
        assert!(matches!(refused(1, 1.5), WrkError::Seconds(_)));
        assert!(Generator::Own.allows(2, 1.5).is_ok());
    }
}
