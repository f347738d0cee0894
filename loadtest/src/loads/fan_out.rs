//! Load: all polls are held on one stream, one message is published, and all are answered, again and again.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::crowd::{Crowd, Form};
use super::poller::at_the_tails;
use super::{HOLD, Load, Scene, ThreadError, on_a_thread, on_an_unhurried_thread};
use crate::cost::processor_time;
use crate::figures::{Column, Figures};
use crate::medians::median_of;
use crate::table::time;
use crate::tally::PATIENCE;
use crate::wire::{WireError, accepted};
use crate::workload::MessageId;

/// A load of one message to many held polls.
#[derive(Debug, Clone, Copy)]
pub struct FanOut {
    /// Number of held polls.
    pub clients: u32,
}

/// Figures of one message, or medians over several. Times are in microseconds since the publish was written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FannedOut {
    /// Until the first answer was read.
    pub first: f64,
    /// Until half of them were read.
    pub median: f64,
    /// Until the last one was read.
    pub last: f64,
    /// Until the publisher had its own answer.
    pub publisher: f64,
    /// Processor time of the server per delivery; `None` for a server that this program did not start.
    pub server_processor: Option<f64>,
    /// Processor time of the generator until the last answer, as a share of one core.
    pub generator_cores: f64,
}

/// A message to publish, and the sender for the times when it was sent and answered.
type Publish = (MessageId, oneshot::Sender<(Instant, Instant)>);

/// Connects per batch, within every server's accept queue; connecting is not measured here.
const AT_ONCE: u32 = 100;

/// Number of the only stream.
const STREAM: u32 = 0;

impl Load for FanOut {
    type Figures = FannedOut;

    const COUNTS: &'static str = "messages";

    fn streams(&self) -> u32 {
        1
    }

    async fn put(&self, scene: Arc<Scene>) -> Result<Option<FannedOut>, ThreadError> {
        let deadline = scene.tally.deadline() + HOLD;
        let (publishes, wanted) = mpsc::channel(1);
        // The publisher has a thread of its own, so that it reads its answer without delay.
        let publisher = on_a_thread(deadline, publish_all(scene.clone(), wanted));
        let readers = on_an_unhurried_thread(deadline, fan_out(scene, self.clients, publishes));
        let (fanned_out, published) = tokio::join!(readers, publisher);
        published?;
        Ok(fanned_out?.and_then(|messages| FannedOut::medians(&messages)))
    }
}

/// Returns the figures of each message of the measured time; `None` if it fails, with the cause in the troubles.
async fn fan_out(
    scene: Arc<Scene>,
    clients: u32,
    publishes: mpsc::Sender<Publish>,
) -> Option<Vec<FannedOut>> {
    let (warm_up, measured) = scene.tally.spans();
    let tail = scene.tally.troubles.unless(at_the_tails(&scene, 1).await)?;
    let mut crowd = Crowd::gather(&scene, &tail, clients, AT_ONCE, Form::LongPoll).await?;
    let (ready, mut messages) = (Instant::now(), Vec::new());
    // Message 0 was published by `at_the_tails`.
    for sequence in 1.. {
        let since = crowd.all_held().await? - ready;
        if since >= warm_up + measured {
            break;
        }
        let message = deliver(&scene, &mut crowd, clients, sequence, &publishes).await?;
        if since >= warm_up {
            messages.push(message);
        }
        crowd.poll_again();
    }
    Some(messages)
}

/// Publishes a message and waits until every member has received it.
async fn deliver(
    scene: &Scene,
    crowd: &mut Crowd,
    clients: u32,
    sequence: u32,
    publishes: &mpsc::Sender<Publish>,
) -> Option<FannedOut> {
    let message = MessageId { stream: STREAM, sequence };
    let own_processor = || processor_time(std::process::id()).as_secs_f64();
    let (server_before, generator_before) = (scene.server_processor(), own_processor());
    let (say, published) = oneshot::channel();
    publishes.send((message, say)).await.ok()?;
    let (sent, answered) = published.await.ok()?;
    let mut read = Vec::with_capacity(clients as usize);
    for _ in 0..clients {
        let answered = timeout(PATIENCE, crowd.answers.recv()).await.map_err(|_| ThreadError::NoAnswer);
        let answer = scene.tally.troubles.unless(answered)??;
        if answer.messages != [message] {
            scene.tally.troubles.note(format!("polling: {}", WireError::NotTheMessage));
            return None;
        }
        read.push(answer.at);
    }
    let (server, generator) = (scene.server_processor(), own_processor() - generator_before);
    let since = |at: Instant| at.saturating_duration_since(sent).as_secs_f64() * 1e6;
    read.sort_unstable();
    let last = since(*read.last()?);
    Some(FannedOut {
        first: since(*read.first()?),
        median: since(*read.get(read.len() / 2)?),
        last,
        publisher: since(answered),
        server_processor: server
            .zip(server_before)
            .map(|(after, before)| (after - before) * 1e6 / f64::from(clients)),
        generator_cores: generator * 1e6 / last,
    })
}

/// Publishes the requested messages one by one.
async fn publish_all(scene: Arc<Scene>, mut wanted: mpsc::Receiver<Publish>) {
    if let Err(error) = publish(&scene, &mut wanted).await {
        scene.tally.troubles.note(format!("publishing: {error}"));
    }
}

async fn publish(scene: &Scene, wanted: &mut mpsc::Receiver<Publish>) -> Result<(), WireError> {
    let mut connection = None;
    let stream = scene.stream(STREAM);
    while let Some((message, say)) = wanted.recv().await {
        let request = scene.publish(&stream, message)?;
        // Opened with the first message: until then every connection of the server must be a reader.
        let connection = match &mut connection {
            Some(connection) => connection,
            none => none.insert(scene.connect().await?),
        };
        let sent = Instant::now();
        accepted(&connection.exchange(request).await?)?;
        // The receiver is gone if the fan-out failed.
        let _gone = say.send((sent, Instant::now()));
    }
    Ok(())
}

impl FannedOut {
    fn medians(messages: &[Self]) -> Option<Self> {
        let median = |pick: fn(&Self) -> f64| median_of(messages.iter().map(pick).collect());
        Some(Self {
            first: median(|message| message.first)?,
            median: median(|message| message.median)?,
            last: median(|message| message.last)?,
            publisher: median(|message| message.publisher)?,
            server_processor: median_of(
                messages.iter().filter_map(|message| message.server_processor).collect(),
            ),
            generator_cores: median(|message| message.generator_cores)?,
        })
    }
}

impl Figures for FannedOut {
    const COLUMNS: &'static [Column<Self>] = &[
        Column { header: "last", pick: |message| Some(message.last), write: time },
        Column { header: "median", pick: |message| Some(message.median), write: time },
        Column { header: "first", pick: |message| Some(message.first), write: time },
        Column { header: "publisher's answer", pick: |message| Some(message.publisher), write: time },
        Column {
            header: "server CPU",
            pick: |message| message.server_processor,
            write: |micros| format!("{micros:.1} us"),
        },
        Column {
            header: "generator cores",
            pick: |message| Some(message.generator_cores),
            write: |cores| format!("{cores:.2}"),
        },
    ];

    fn generator_cores(&self) -> f64 {
        self.generator_cores
    }
}
