//! Faults at random: short scenarios in which the gateway is killed, its store fails, and connections are cut, each drawn from a seed. Every message
//! that was acknowledged must arrive once and in order at every reader, and readers that wait must be woken.
//!
//! `world` has the gateway with its crashes, `store` and `link` fail, `publisher`, `reader` and `plain` are the clients, and `truth` is the judge.

mod link;
mod plain;
mod publisher;
mod reader;
mod scenario;
mod store;
#[cfg(test)]
mod tests;
mod truth;
mod world;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use http_body_util::Full;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::SimulationError;
use crate::servers::Scratch;
use crate::wire::Connection;
use link::Link;
use publisher::Publisher;
use reader::{Reader, pass_by};
use scenario::{Scenario, StreamPlan};
use world::World;

/// How long publishers and readers may take until they have caught up, after nothing fails any more.
const RECOVERY: Duration = Duration::from_secs(240);

/// How long readers may take until they wait at the tail.
const REST: Duration = Duration::from_secs(10);

/// Messages of the end, each of which has to wake its readers.
const LAST_MESSAGES: u32 = 3;

/// Folder in memory for the files of the store. A scenario takes three times as long with files on disk.
const MEMORY_FOLDER: &str = "/dev/shm";

/// A range of seeds.
#[derive(Debug, Clone, Copy)]
pub struct Fuzz {
    /// The first seed.
    pub first: u64,
    /// Number of seeds.
    pub count: u64,
    /// Whether the trace is kept as text.
    pub keeps_trace: bool,
}

/// What came of one seed, or of all.
#[derive(Debug, Default, Clone)]
pub struct Verdict {
    /// The seed.
    pub seed: u64,
    /// What is wrong; empty if nothing is.
    pub wrong: Vec<String>,
    /// Digest of what happened.
    pub digest: u64,
    /// What happened, if it was kept.
    pub trace: String,
}

impl Fuzz {
    /// Plays the scenarios on all processors, until one goes wrong. Returns it; or else the digest of all.
    pub fn run(&self) -> Result<Verdict, SimulationError> {
        let (next, end) = (AtomicU64::new(self.first), AtomicU64::new(self.first.saturating_add(self.count)));
        let worst = Mutex::new(Verdict::default());
        let digest = AtomicU64::new(0);
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= end.load(Ordering::Relaxed) {
                    return Ok::<(), SimulationError>(());
                }
                let verdict = play(seed, self.keeps_trace)?;
                digest.fetch_xor(Rng::with_seed(verdict.digest ^ seed).u64(..), Ordering::Relaxed);
                if !verdict.wrong.is_empty() || self.count == 1 {
                    // Only seeds before this one are still of interest.
                    end.fetch_min(seed, Ordering::Relaxed);
                    let mut worst = worst.lock();
                    if worst.wrong.is_empty() || seed < worst.seed {
                        *worst = verdict;
                    }
                }
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let panicked = |_| std::io::Error::other("a scenario has panicked");
            running.into_iter().try_for_each(|thread| thread.join().map_err(panicked)?)
        })?;
        let mut verdict = worst.into_inner();
        if verdict.wrong.is_empty() && self.count != 1 {
            verdict.digest = digest.into_inner();
        }
        Ok(verdict)
    }
}

/// Plays the scenario of a seed.
fn play(seed: u64, keeps_trace: bool) -> Result<Verdict, SimulationError> {
    let folder = Path::new(MEMORY_FOLDER);
    let folder = if folder.is_dir() { folder.to_owned() } else { std::env::temp_dir() };
    let directory = Scratch::within(&folder, "fuzz").map_err(std::io::Error::other)?;
    let mut random = Rng::with_seed(seed);
    // What gateway and clients draw at random, they draw from the generator of the thread.
    fastrand::seed(random.u64(..));
    let scenario = Scenario::draw(&mut random);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    let played = runtime.block_on(async {
        let world = Arc::new(World::new(scenario, directory, random, keeps_trace));
        let wrong = through(&world).await?;
        world.end();
        Ok(Verdict { seed, wrong, digest: world.trace.digest(), trace: world.trace.text() })
    });
    runtime.shutdown_background();
    played
}

/// Goes through a scenario. Returns what was wrong.
async fn through(world: &Arc<World>) -> Result<Vec<String>, SimulationError> {
    world.start().await?;
    let suffering = tokio::spawn({
        let world = world.clone();
        async move { world.suffer().await }
    });
    let mut numbers = 1..;
    let mut number = || numbers.next().unwrap_or_default();
    let mut publishing = Vec::new();
    for plan in &world.scenario.streams {
        create(world, plan).await;
        for _ in 0..plan.publishers {
            let publisher = Publisher::new(world.clone(), plan.clone(), number())?;
            publishing.push((plan.name.clone(), tokio::spawn(publisher.publish())));
        }
    }
    let readers = world.scenario.readers.iter();
    let readers = readers.map(|plan| Reader::start(world, plan.clone(), number()));
    let mut readers = readers.collect::<Result<Vec<_>, _>>()?;
    suffering.await.map_err(std::io::Error::other)??;
    let mut publishers = Vec::new();
    for (stream, publishing) in publishing {
        let Ok(publisher) = timeout(RECOVERY, publishing).await else {
            return Ok(vec![format!("{stream}: a publisher never came to its end")]);
        };
        publishers.push((stream, publisher.map_err(std::io::Error::other)?));
    }
    let passing = world.scenario.has_passersby.then(|| {
        let stream = world.scenario.streams.first().map(|plan| plan.name.clone()).unwrap_or_default();
        tokio::spawn(pass_by(world.clone(), stream))
    });
    let mut wrong = recover(world, &mut publishers, &mut readers).await;
    if wrong.is_empty() {
        wrong.extend(wake(world, &mut publishers, &mut readers).await);
    }
    if wrong.is_empty() {
        wrong.extend(close(world, &mut readers).await);
    }
    passing.iter().for_each(tokio::task::JoinHandle::abort);
    wrong.extend(judge(world, &publishers, &readers));
    Ok(wrong)
}

/// Creates a stream that keeps only so many messages, or leaves that to its publishers.
async fn create(world: &Arc<World>, plan: &StreamPlan) {
    let Some(kept) = plan.kept else { return };
    let fields = [("stream-max-messages", kept.to_string())];
    while !send(world, hyper::Method::PUT, plan, &fields).await {
        sleep(REST / 10).await;
    }
}

/// Sends a request by a way of its own. Returns whether it was answered with a success.
async fn send(
    world: &Arc<World>,
    method: hyper::Method,
    plan: &StreamPlan,
    fields: &[(&str, String)],
) -> bool {
    let sent = async {
        let socket =
            Arc::new(Link::new(world.clone(), world::GATEWAY, world.random())).connect().await.ok()?;
        let mut connection = Connection::over(socket).await.ok()?;
        let mut request = hyper::Request::builder().method(method).uri(format!("/v1/stream/{}", plan.name));
        request = request.header("host", "localhost").header("content-type", plan.content_type);
        for (name, value) in fields {
            request = request.header(*name, value);
        }
        let answer = connection.exchange(request.body(Full::<Bytes>::default()).ok()?).await.ok()?;
        Some(answer.status().is_success())
    };
    timeout(REST, sent).await.ok().flatten().unwrap_or(false)
}

/// Publishes one message more to each stream, and waits until all readers have it.
async fn recover(
    world: &Arc<World>,
    publishers: &mut [(String, Publisher)],
    readers: &mut [Reader],
) -> Vec<String> {
    for (stream, publisher) in publishers {
        publisher.enqueue();
        if timeout(RECOVERY, publisher.settle()).await.is_err() {
            return vec![format!("{stream}: a message was not acknowledged in {RECOVERY:?}")];
        }
    }
    let deadline = Instant::now() + RECOVERY;
    for reader in readers {
        for stream in reader.streams(world) {
            let Some(last) = world.truth.lock().last(&stream) else { continue };
            if !reader.until(deadline, |log| log.has(&stream, last)).await {
                return vec![format!(
                    "reader {}: {stream}: not caught up {RECOVERY:?} after nothing fails any more",
                    reader.number
                )];
            }
        }
    }
    sleep(REST).await;
    Vec::new()
}

/// Publishes messages one by one, each of which has to wake the readers that wait.
async fn wake(
    world: &Arc<World>,
    publishers: &mut [(String, Publisher)],
    readers: &mut [Reader],
) -> Vec<String> {
    let mut random = world.random();
    for _ in 0..LAST_MESSAGES {
        sleep(Duration::from_millis(random.u64(0..8000))).await;
        let Some((stream, publisher)) = random.choice(&mut *publishers) else { return Vec::new() };
        let began = Instant::now();
        let text = publisher.enqueue();
        publisher.settle().await;
        for reader in &mut *readers {
            let reads = reader.streams(world).contains(stream);
            let patience = reader.patience();
            if reads && !reader.until(began + patience, |log| log.has(stream, text)).await {
                return vec![format!(
                    "reader {}: {stream}: not woken in {patience:?} by {text:?}",
                    reader.number
                )];
            }
        }
    }
    Vec::new()
}

/// Closes the streams, which has to wake the readers, too.
async fn close(world: &Arc<World>, readers: &mut [Reader]) -> Vec<String> {
    for plan in &world.scenario.streams {
        let fields = [("stream-closed", "true".to_owned())];
        if !send(world, hyper::Method::POST, plan, &fields).await {
            return vec![format!("{}: cannot be closed", plan.name)];
        }
        let began = Instant::now();
        for reader in &mut *readers {
            let reads = reader.streams(world).contains(&plan.name);
            let patience = reader.patience();
            if reads && !reader.until(began + patience, |log| log.closed.contains(&plan.name)).await {
                return vec![format!(
                    "reader {}: {}: not told of the close in {patience:?}",
                    reader.number, plan.name
                )];
            }
        }
    }
    Vec::new()
}

/// What is wrong with what publishers and readers know of the streams.
fn judge(world: &World, publishers: &[(String, Publisher)], readers: &[Reader]) -> Vec<String> {
    let truth = world.truth.lock();
    let mut wrong: Vec<_> = publishers.iter().flat_map(|(_, publisher)| publisher.wrong.clone()).collect();
    wrong.extend(world.scenario.streams.iter().flat_map(|plan| truth.judge(&plan.name)));
    for reader in readers {
        let log = reader.log();
        let told = log.wrong.iter().cloned();
        let read = world.scenario.streams.iter().filter(|plan| reader.streams(world).contains(&plan.name));
        let judged = read.flat_map(|plan| {
            let handled = log.streams.get(&plan.name).map(Vec::as_slice).unwrap_or_default();
            truth.judge_reader(&plan.name, handled, plan.kept.is_some())
        });
        wrong.extend(told.chain(judged).map(|what| format!("reader {}: {what}", reader.number)));
    }
    wrong
}
