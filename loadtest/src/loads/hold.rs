//! Many held polls, or idle readers, on one server: the memory that each one takes, and how soon the server has all of
//! them when they come at once.

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

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// Connections.
    pub clients: u32,
    /// Streams; client `c` asks for stream `c % streams`.
    pub streams: u32,
    /// Connects at a time.
    pub at_once: u32,
    /// What is held.
    pub form: Form,
}

/// What it came to. Memory is in bytes; `None` of a server that somebody else has started.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Held {
    /// How many were held.
    pub clients: u32,
    /// Of the server before anyone came.
    pub memory_before: Option<u64>,
    /// Of the server with all of them.
    pub memory: Option<u64>,
    /// Of the kernel, for the server's sockets.
    pub kernel_memory: Option<u64>,
    /// From the first connect until all were held, in microseconds.
    pub all_held: f64,
    /// Connects that the kernel has dropped in that time, of the whole machine.
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
        }
    }

    async fn put(&self, scene: Arc<Scene>) -> Result<Option<Held>, ThreadError> {
        on_a_thread(scene.tally.deadline() + HOLD, hold(*self, scene)).await
    }
}

/// The warm-up is how long the server is left alone before the first look at its memory, the measured time how long
/// before the second one.
async fn hold(load: Hold, scene: Arc<Scene>) -> Option<Held> {
    let (left_alone, held) = scene.tally.spans();
    let pollers = match load.form {
        Form::LongPoll => scene.tally.troubles.unless(at_the_tails(&scene, load.streams).await)?,
        // Nothing is in the streams, so all are at their ends.
        Form::Sse => (0..load.streams).map(|stream| Poller::new(scene.clone(), stream)).collect(),
    };
    sleep(left_alone).await;
    let memory = || scene.server.map(|server| server.memory_bytes());
    let own_processor = || processor_time(std::process::id());
    let (memory_before, dropped_before, processor_before) = (memory(), connects_dropped(), own_processor());
    let begun = Instant::now();
    let mut crowd = Crowd::gather(&scene, &pollers, load.clients, load.at_once, load.form).await?;
    let all_held = begun.elapsed();
    let generator = own_processor().saturating_sub(processor_before);
    let connects_dropped = connects_dropped().zip(dropped_before).map(|(after, before)| after - before);
    sleep(held).await;
    let address = scene.target.address;
    let kernel_memory = spawn_blocking(move || socket_bytes(address)).await.ok().flatten();
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
        connects_dropped,
        generator_cores: generator.as_secs_f64() / all_held.as_secs_f64(),
    })
}

impl Held {
    /// What the server has more than before, a client, in bytes.
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
