//! Load: many held polls or idle readers on one server, or spread over its instances. Measures what memory and processor time each one takes,
//! and the time until the server holds all of them when they connect at once.

use std::sync::Arc;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::crowd::Crowd;
use super::poller::{Poller, at_the_tails};
use super::{HOLD, Load, Scene, ThreadError, on_a_thread};
use crate::cost::processor_time;
use crate::figures::{Column, Figures};
use crate::sockets::{connects_dropped, socket_bytes};
use crate::strategies::Strategy;
use crate::table::time;
use crate::wire::WireError;

pub use super::crowd::Form;

/// A load of held requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// Number of connections.
    pub clients: u32,
    /// Number of streams; client `c` reads stream `c % streams`.
    pub streams: u32,
    /// Connects per batch.
    pub at_once: u32,
    /// The request that is held.
    pub form: Form,
}

/// Figures of the load. Memory is in bytes, and `None` for a server that this program did not start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Held {
    /// Number of held requests.
    pub clients: u32,
    /// Memory of the server before the first connect.
    pub memory_before: Option<u64>,
    /// Memory of the server while it holds all requests.
    pub memory: Option<u64>,
    /// Memory of the kernel for the server's sockets.
    pub kernel_memory: Option<u64>,
    /// From the first connect until all were held, in microseconds.
    pub all_held: f64,
    /// Processor time of the server for each request that it holds, as a share of one core.
    pub idle_processor: Option<f64>,
    /// Connects that the kernel dropped in that time, on the whole machine.
    pub connects_dropped: Option<u64>,
    /// Processor time of the generator in that time, as a share of one core.
    pub generator_cores: f64,
}

impl Load for Hold {
    type Figures = Held;

    const COUNTS: &'static str = "clients";

    fn streams(&self) -> u32 {
        self.streams
    }

    fn strategy(&self) -> Strategy {
        match self.form {
            Form::LongPoll => Strategy::LongPoll(HOLD),
            Form::Sse => Strategy::Sse(None),
            Form::WebSocket => Strategy::WebSocket(None),
            Form::Mqtt => Strategy::Mqtt(None),
        }
    }

    async fn put(&self, scene: Arc<Scene>) -> Result<Option<Held>, ThreadError> {
        on_a_thread(scene.tally.deadline() + HOLD, hold(*self, scene)).await
    }
}

/// Runs the load. The warm-up is the idle time before the server's memory is read first; the measured time passes before it is
/// read again.
async fn hold(load: Hold, scene: Arc<Scene>) -> Option<Held> {
    let (left_alone, held) = scene.tally.spans();
    let pollers = match load.form {
        Form::LongPoll => scene.tally.troubles.unless(at_the_tails(&scene, load.streams).await)?,
        // The streams are empty, so a reader at the beginning is at the tail.
        Form::Sse | Form::WebSocket | Form::Mqtt => {
            (0..load.streams).map(|stream| Poller::new(scene.clone(), stream)).collect()
        }
    };
    sleep(left_alone).await;
    let memory = || scene.server_memory();
    let own_processor = || processor_time(std::process::id());
    let (memory_before, dropped_before, processor_before) = (memory(), connects_dropped(), own_processor());
    let begun = Instant::now();
    let mut crowd = Crowd::gather(&scene, &pollers, load.clients, load.at_once, load.form).await?;
    let all_held = begun.elapsed();
    let generator = own_processor().saturating_sub(processor_before);
    let connects_dropped = connects_dropped().zip(dropped_before).map(|(after, before)| after - before);
    let server_before = scene.server_processor();
    sleep(held).await;
    let server = scene.server_processor().zip(server_before).map(|(after, before)| after - before);
    let instances = scene.instances.clone();
    let kernel_memory = spawn_blocking(move || socket_bytes(&instances)).await.ok().flatten();
    let memory = memory();
    if crowd.answers.try_recv().is_ok() {
        scene.tally.troubles.note(format!("polling: {}", WireError::NotHeld));
    }
    Some(Held {
        clients: load.clients,
        memory_before,
        memory,
        kernel_memory,
        all_held: all_held.as_secs_f64() * 1e6,
        idle_processor: server.map(|seconds| seconds / held.as_secs_f64() / f64::from(load.clients)),
        connects_dropped,
        generator_cores: generator.as_secs_f64() / all_held.as_secs_f64(),
    })
}

impl Held {
    /// Returns the additional memory of the server per client, in bytes.
    pub fn memory_a_client(&self) -> Option<f64> {
        Some((self.memory? as f64 - self.memory_before? as f64) / f64::from(self.clients))
    }
}

impl Figures for Held {
    const COLUMNS: &'static [Column<Self>] = &[
        Column { header: "KiB a client", pick: Self::memory_a_client, write: kib },
        Column { header: "MiB before", pick: |held| Some(held.memory_before? as f64), write: mib },
        Column { header: "MiB after", pick: |held| Some(held.memory? as f64), write: mib },
        Column {
            header: "KiB kernel",
            pick: |held| Some(held.kernel_memory? as f64 / f64::from(held.clients)),
            write: kib,
        },
        Column { header: "all held", pick: |held| Some(held.all_held), write: time },
        Column {
            header: "idle CPU",
            pick: |held| held.idle_processor,
            write: |share| format!("{:.2} ppm", share * 1e6),
        },
        Column {
            header: "SYNs dropped",
            pick: |held| Some(held.connects_dropped? as f64),
            write: |count| format!("{count:.0}"),
        },
        Column {
            header: "generator cores",
            pick: |held| Some(held.generator_cores),
            write: |cores| format!("{cores:.2}"),
        },
    ];

    fn generator_cores(&self) -> f64 {
        self.generator_cores
    }
}

fn kib(bytes: f64) -> String {
    format!("{:.2}", bytes / 1024.0)
}

fn mib(bytes: f64) -> String {
    format!("{:.1}", bytes / 1024.0 / 1024.0)
}
