//! The scenario of a seed: streams, publishers, readers, and the faults that they meet.

use std::time::Duration;

use fastrand::Rng;
use pollgate_client::{Form, Settings};

/// What is drawn from a seed.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub(super) streams: Vec<StreamPlan>,
    pub(super) readers: Vec<ReaderPlan>,
    /// Time after which nothing fails any more.
    pub(super) faults_last: Duration,
    /// What happens to the gateway, in order of time.
    pub(super) blows: Vec<(Duration, Blow)>,
    pub(super) store: StorePlan,
    pub(super) links: LinkPlan,
    /// Bytes of one response, small enough that readers which catch up need several.
    pub(super) read_bytes_max: usize,
    /// Whether readers of the first stream come and go while the others wait.
    pub(super) has_passersby: bool,
}

/// A stream and what is published to it.
#[derive(Debug, Clone)]
pub(super) struct StreamPlan {
    pub(super) name: String,
    pub(super) content_type: &'static str,
    /// Messages that the stream keeps. `None`: all.
    pub(super) kept: Option<u64>,
    pub(super) publishers: u32,
    /// Messages of each publisher while things fail.
    pub(super) messages: u64,
    /// Longest time between two calls of a publisher.
    pub(super) pause: Duration,
    /// Most bytes by which messages are longer than they need be.
    pub(super) padding: usize,
    /// Whether publishers end and start again.
    pub(super) publishers_restart: bool,
}

/// How a reader reads.
#[derive(Debug, Clone)]
pub(super) enum ReaderPlan {
    /// The client, with one form or with all of them.
    Client {
        settings: Box<Settings>,
        streams: Vec<usize>,
        /// Chance of a crash of its program at each message, before the message counts as handled.
        crashes: f64,
        /// Longest time for the handling of a message.
        handling: Duration,
    },
    /// A browser's `EventSource`, which knows of the offset only as its last event's id.
    EventSource { stream: usize },
    /// A client of the protocol alone, which catches up page by page and then polls.
    Poller { stream: usize },
}

/// What happens to the gateway.
#[derive(Debug, Clone, Copy)]
pub(super) enum Blow {
    /// The process is killed, and started again after this time.
    Kill(Duration),
    /// The process is drained, and started again after this time.
    Drain(Duration),
    /// The time of day is stepped by milliseconds.
    Step(i64),
    /// The storage is full for this time.
    Full(Duration),
}

/// How the store fails.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StorePlan {
    /// Share of operations that take long, before or after they are done.
    pub(super) slow: f64,
    /// Share of appends that fail without effect.
    pub(super) fails: f64,
    /// Share of appends at which the process is killed: before it, or when it is written and not acknowledged.
    pub(super) kills: f64,
    /// Share of appends after which the store accepts nothing more.
    pub(super) breaks: f64,
}

/// Shares of connections with each fault.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LinkPlan {
    pub(super) refused: f64,
    pub(super) cut: f64,
    pub(super) silent: f64,
    pub(super) buffered: f64,
    /// Longest time one way.
    pub(super) delay: Duration,
}

const JSON: &str = "application/json";
const BINARY: &str = "application/octet-stream";

impl Scenario {
    pub(super) fn draw(random: &mut Rng) -> Self {
        let faults_last = seconds(random, 5, 40);
        let streams: Vec<_> =
            (0..random.usize(1..=2)).map(|number| StreamPlan::draw(random, number, faults_last)).collect();
        let readers = (0..random.usize(2..=4)).map(|_| ReaderPlan::draw(random, &streams)).collect();
        Self {
            readers,
            blows: draw_blows(random, faults_last),
            store: StorePlan::draw(random),
            links: LinkPlan::draw(random),
            read_bytes_max: if random.bool() { random.usize(100..2000) } else { 1 << 20 },
            has_passersby: random.bool(),
            streams,
            faults_last,
        }
    }
}

impl StreamPlan {
    fn draw(random: &mut Rng, number: usize, faults_last: Duration) -> Self {
        let messages = random.u64(3..=12);
        let content_type = match random.u8(0..10) {
            0 | 1 => "text/plain",
            2 => BINARY,
            _ => JSON,
        };
        Self {
            name: format!("streams/{number}"),
            content_type,
            kept: (content_type == JSON && random.f64() < 0.25).then(|| random.u64(2..=8)),
            publishers: random.u32(1..=2),
            messages,
            pause: 2 * faults_last / u32::try_from(messages).unwrap_or(1),
            padding: if random.bool() { random.usize(0..600) } else { 0 },
            publishers_restart: random.bool(),
        }
    }
}

impl ReaderPlan {
    fn draw(random: &mut Rng, streams: &[StreamPlan]) -> Self {
        let stream = random.usize(..streams.len());
        let is_plain = |plan: &StreamPlan| plan.kept.is_none() && plan.content_type != BINARY;
        let is_whole = streams.get(stream).is_some_and(is_plain);
        match random.u8(0..8) {
            0 if is_whole => Self::EventSource { stream },
            1 if is_whole => Self::Poller { stream },
            _ => {
                let form = random.choice(Form::ALL).filter(|_| random.f64() < 0.7);
                let several = streams.len() > 1 && random.bool();
                Self::Client {
                    settings: Box::new(settings(random, form)),
                    streams: if several { (0..streams.len()).collect() } else { vec![stream] },
                    crashes: if random.bool() { 0.08 } else { 0.0 },
                    handling: Duration::from_millis(if random.bool() { random.u64(1..3000) } else { 0 }),
                }
            }
        }
    }
}

/// Settings that make the client notice within a minute what the defaults notice within five.
fn settings(random: &mut Rng, form: Option<Form>) -> Settings {
    Settings {
        forms: form.map_or(Form::ALL.to_vec(), |form| vec![form]),
        hold: seconds(random, 10, 30),
        interval: seconds(random, 1, 4),
        backoff_max: Duration::from_secs(4),
        reprobe_after: seconds(random, 2, 30),
        reprobe_max: Duration::from_secs(60),
        heartbeat_min: Duration::from_secs(5),
        heartbeat_max: seconds(random, 5, 30),
        ..Settings::default()
    }
}

impl StorePlan {
    fn draw(random: &mut Rng) -> Self {
        Self {
            slow: share(random, 0.3),
            fails: share(random, 0.2),
            kills: share(random, 0.1),
            breaks: share(random, 0.03),
        }
    }
}

impl LinkPlan {
    fn draw(random: &mut Rng) -> Self {
        Self {
            refused: share(random, 0.2),
            cut: share(random, 0.5),
            silent: share(random, 0.3),
            buffered: share(random, 0.3),
            delay: Duration::from_millis(if random.bool() { random.u64(1..2000) } else { 0 }),
        }
    }
}

/// Half of the scenarios do not have a fault at all, so that the others are not hidden behind it.
fn share(random: &mut Rng, most: f64) -> f64 {
    if random.bool() { most * random.f64() } else { 0.0 }
}

fn draw_blows(random: &mut Rng, faults_last: Duration) -> Vec<(Duration, Blow)> {
    let kinds: Vec<u8> = (0..4).filter(|_| random.bool()).collect();
    let mut blows: Vec<_> = (0..random.usize(0..=3))
        .filter_map(|_| {
            let down = Duration::from_millis(random.u64(0..5000));
            let blow = match random.choice(&kinds)? {
                0 => Blow::Kill(down),
                1 => Blow::Drain(down),
                2 => Blow::Step(random.i64(-7_200_000..7_200_000)),
                _ => Blow::Full(seconds(random, 1, 6)),
            };
            Some((faults_last.mul_f64(random.f64()), blow))
        })
        .collect();
    blows.sort_by_key(|(at, _)| *at);
    blows
}

fn seconds(random: &mut Rng, from: u64, to: u64) -> Duration {
    Duration::from_secs(random.u64(from..=to))
}
