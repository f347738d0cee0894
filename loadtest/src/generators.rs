//! The load generators of a run: this process, or several child processes if the clients need more descriptors than one process
//! has.

use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::generator::{GeneratorError, Job, Lead, generate, generate_elsewhere};
use crate::measured::Measured;
use crate::model::radio::Radios;
use crate::network::Profile;
use crate::strategies::Strategy;
use crate::target::Target;
use crate::wire::Transport;
use crate::workload::Plan;

/// The task that the generators of a run share.
#[derive(Debug, Clone)]
pub struct Task {
    /// Plan of the messages.
    pub plan: Plan,
    /// Strategy of the readers.
    pub strategy: Strategy,
    /// What carries the requests.
    pub transport: Transport,
    /// Radio profiles for the energy of the readers' packets.
    pub radios: Radios,
    /// A send counts as late after this.
    pub late_after: Duration,
    /// Clients, and streams, per process.
    pub clients_a_process: u32,
    /// Network between readers and server.
    pub network: Option<Profile>,
}

impl Task {
    fn share(&self, target: &Target, reading: &Target, part: u32, parts: u32) -> Job {
        let Self { plan, strategy, radios, late_after, network, .. } = self.clone();
        let (target, reading, is_hostile) = (target.clone(), reading.clone(), network.is_some());
        Job { plan, target, reading, is_hostile, strategy, radios, late_after, part, parts }
    }
}

/// Generators that are connected and wait for the start.
pub struct Generators {
    running: Vec<Generator>,
}

struct Generator {
    is_ready: oneshot::Receiver<()>,
    start: oneshot::Sender<Instant>,
    result: AbortOnDrop,
}

/// Task of a generator. A drop aborts it, which drops its clients or kills its process.
struct AbortOnDrop(JoinHandle<Result<Measured, GeneratorError>>);

impl Generator {
    fn start(job: Job, stop: watch::Receiver<bool>) -> Self {
        let (ready, is_ready) = oneshot::channel();
        let (start, told) = oneshot::channel();
        let lead = Lead { ready, start: told, stop };
        let result = match job.parts {
            1 => tokio::spawn(generate(job, lead)),
            _ => tokio::spawn(generate_elsewhere(job, lead)),
        };
        Self { is_ready, start, result: AbortOnDrop(result) }
    }

    async fn ready(&mut self) -> Result<(), GeneratorError> {
        match (&mut self.is_ready).await {
            Ok(()) => Ok(()),
            // The generator ended early; its result holds the reason.
            Err(_) => self.result.end().await.map(drop),
        }
    }
}

impl AbortOnDrop {
    async fn end(&mut self) -> Result<Measured, GeneratorError> {
        (&mut self.0).await.unwrap_or(Err(GeneratorError::Stopped))
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Generators {
    /// Starts generators with at most `clients_a_process` clients each, and waits until all clients are connected. Readers
    /// connect to `reading`, publishers to `target`.
    pub async fn ready(
        target: &Target,
        reading: &Target,
        task: &Task,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, GeneratorError> {
        let Plan { clients, streams, .. } = task.plan;
        let parts = clients.max(streams).div_ceil(task.clients_a_process.max(1)).max(1);
        let mut running = Vec::new();
        for part in 0..parts {
            running.push(Generator::start(task.share(target, reading, part, parts), stop.clone()));
        }
        for generator in &mut running {
            generator.ready().await?;
        }
        Ok(Self { running })
    }

    /// Starts the run and returns the merged measurements of all generators.
    pub async fn begin(self, start: Instant) -> Result<Measured, GeneratorError> {
        let mut results = Vec::new();
        for generator in self.running {
            // A generator that is gone left an error as its result.
            let _heard = generator.start.send(start);
            results.push(generator.result);
        }
        let mut all: Option<Measured> = None;
        for mut result in results {
            let measured = result.end().await?;
            all = Some(match all {
                Some(others) => others.and(measured),
                None => measured,
            });
        }
        all.ok_or(GeneratorError::Stopped)
    }
}
