//! Publishers and creators against a small memory budget, without end: the gateway stays within it, readers continue, and all
//! acknowledged messages can be read, also after a restart.
//!
//! `FILL_SECONDS=60 cargo test --test faults fill -- --nocapture` is the long form with a budget of 256 MiB, of which `tests/run`
//! takes 24 seconds; the short form has 64 MiB. A store is filled until it refuses, however long that takes. A store on disk keeps little of
//! a message in memory, so it is filled with many streams of small messages. The latency of readers is compared with that of the
//! same run while as many publishers fill nothing, since on a machine with few processors the publishers alone delay readers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

use crate::measure::mib;
use crate::world::{Connection, Gateway, Request, Stopwatch, alone, get, post, put};

const PUBLISHERS: usize = 8;
const SECONDS: u64 = 5;

/// Number of connections that create streams. One sync serves all of those that wait.
const CREATORS_IN_MEMORY: usize = 2;
const CREATORS_ON_DISK: usize = 24;

/// Number of messages in one stream on disk: a store on disk keeps most memory for the newest ones of each stream.
const STREAM_MESSAGES_ON_DISK: usize = 64;

/// Number of turns that the filling and its control take.
const TURNS: u32 = 6;

/// Hang detector: far longer than needed to fill the budget.
const FULL_WITHIN: Duration = Duration::from_secs(240);

/// A store counts as full after this number of refusals.
const REFUSALS: u64 = 100;

/// Number of streams that exist before, and messages of each.
const EXISTING: usize = 16;
const EXISTING_MESSAGES: usize = 20;

/// Bytes appended to one stream, less than the default limit of a stream in memory.
const STREAM_BYTES: usize = 2 << 20;

/// Allowed increase of a p99, which is within the noise of a busy machine.
const NOISE: Duration = Duration::from_millis(5);

/// Pause of a refused publisher, far shorter than `Retry-After`.
const AGAIN: Duration = Duration::from_millis(2);

/// Acknowledged messages and bytes of one stream of a publisher.
#[derive(Debug, Clone, Copy, Default)]
struct Acknowledged {
    messages: usize,
    bytes: usize,
}

/// Counts of the publishers and creators.
#[derive(Default)]
struct Counters {
    accepted: AtomicU64,
    refused: AtomicU64,
    created: AtomicU64,
    stop: AtomicBool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_in_memory_that_is_filled_endlessly_stays_within_the_budget() {
    let _turn = alone().await;
    let (_, memory_max) = budget();
    let gateway = Gateway::start(&arguments("memory", memory_max)).await;
    let filled = fill(&gateway, false).await;
    filled.can_be_read(&gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_on_disk_that_is_filled_endlessly_stays_within_the_budget_and_reopens() {
    let _turn = alone().await;
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (budget, memory_max) = budget();
    let arguments = arguments(directory.path().to_str().unwrap(), memory_max);
    let gateway = Gateway::start(&arguments).await;
    let filled = fill(&gateway, true).await;
    filled.can_be_read(&gateway).await;
    gateway.kill().await;

    let gateway = Gateway::start(&arguments).await;
    println!("opened again: {:.1} MiB", mib(gateway.memory_bytes()));
    assert!(is_within(gateway.memory_bytes(), budget));
    filled.can_be_read(&gateway).await;
}

/// Returns the minimum duration of the long form from the environment.
fn seconds() -> Option<u64> {
    std::env::var("FILL_SECONDS").ok().map(|text| text.parse().expect("a number"))
}

fn budget() -> (u64, &'static str) {
    if seconds().is_some_and(|seconds| seconds > SECONDS) { (256 << 20, "256M") } else { (64 << 20, "64M") }
}

fn arguments<'a>(store: &'a str, memory_max: &'a str) -> [&'a str; 8] {
    // All clients of this test come from one address.
    let share = "principal_share_percent=100";
    [
        "--store",
        store,
        "--memory-max",
        memory_max,
        "--limit",
        share,
        "--limit",
        "connections_per_second_max=9999",
    ]
}

/// The guarantee: resident memory stays below 1.15 times the budget.
fn is_within(resident: u64, budget: u64) -> bool {
    resident < budget / 100 * 115
}

/// The acknowledged messages, by stream.
struct Filled {
    streams: Vec<(String, Acknowledged)>,
}

/// Fills the store for some time, and until it has refused [`REFUSALS`] times.
async fn fill(gateway: &Gateway, on_disk: bool) -> Filled {
    let seconds = seconds().unwrap_or(SECONDS);
    let (budget, memory_max) = budget();
    create_existing(gateway).await;
    // Control: the same number of messages is published to another gateway, which keeps almost none. The two take turns, so
    // that other load on the machine slows down both.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = if on_disk { directory.path().to_str().unwrap() } else { "memory" };
    let control = Gateway::start(&arguments(store, memory_max)).await;
    create_existing(&control).await;
    let (mut baseline, mut filling) = (TurnResult::default(), TurnResult::default());
    let turn = Duration::from_secs(seconds) / TURNS;
    for number in 0..TURNS {
        let load = TurnLoad { turn: number, on_disk, keeps_little: true };
        baseline.add(load.run(&control, turn / 4, budget, 0).await);
        let missing = REFUSALS.saturating_sub(filling.refused).div_ceil(u64::from(TURNS - number));
        filling.add(TurnLoad { keeps_little: false, ..load }.run(gateway, turn, budget, missing).await);
    }
    println!(
        "budget {:.0} MiB: at most {:.1} MiB resident; {} appends and {} new streams, {} refused; \
         p99 of {} reads {:.1?}, of {} while nothing filled up {:.1?}",
        mib(budget),
        mib(filling.resident_max),
        filling.accepted,
        filling.created,
        filling.refused,
        filling.reads.len(),
        p99(&filling.reads),
        baseline.reads.len(),
        p99(&baseline.reads),
    );
    for account in ["messages", "streams", "connections", "buffers"] {
        let held = gateway.metric(&format!("pollgate_memory_held_bytes{{account=\"{account}\"}}")).await;
        println!("  {account}: {:.1} MiB", held / f64::from(1 << 20));
    }
    assert!(is_within(filling.resident_max, budget), "{} bytes resident", filling.resident_max);
    assert!(p99(&filling.reads) <= 2 * p99(&baseline.reads) + NOISE, "readers wait longer");
    Filled { streams: filling.streams }
}

/// Creates the streams that the readers poll.
async fn create_existing(gateway: &Gateway) {
    for n in 0..EXISTING {
        let create = put(format!("/v1/stream/existing/{n}")).json("");
        gateway.send(create).await.expect(201);
        for _ in 0..EXISTING_MESSAGES {
            gateway.send(post(format!("/v1/stream/existing/{n}")).json(r#"{"n":1}"#)).await.expect(204);
        }
    }
}

/// Results of one or several turns.
#[derive(Default)]
struct TurnResult {
    streams: Vec<(String, Acknowledged)>,
    reads: Vec<Duration>,
    resident_max: u64,
    accepted: u64,
    refused: u64,
    created: u64,
}

impl TurnResult {
    fn add(&mut self, turn: Self) {
        self.streams.extend(turn.streams);
        self.reads.extend(turn.reads);
        self.resident_max = self.resident_max.max(turn.resident_max);
        self.accepted += turn.accepted;
        self.refused += turn.refused;
        self.created += turn.created;
    }
}

/// What the publishers do in one turn.
#[derive(Debug, Clone, Copy)]
struct TurnLoad {
    turn: u32,
    on_disk: bool,
    /// The store keeps almost nothing of what they publish, and no streams are created without end.
    keeps_little: bool,
}

impl TurnLoad {
    /// Runs publishers, creators and a reader for some time and until the gateway has refused `refusals` times, on streams of
    /// this turn.
    async fn run(self, gateway: &Gateway, time: Duration, budget: u64, refusals: u64) -> TurnResult {
        let (counters, address) = (Arc::<Counters>::default(), gateway.address);
        let creators = if self.on_disk { CREATORS_ON_DISK } else { CREATORS_IN_MEMORY };
        let (mut publishing, mut creating) = (JoinSet::new(), JoinSet::new());
        for creator in 0..creators {
            if self.keeps_little {
                publishing.spawn(publish(address, self, PUBLISHERS + creator, counters.clone()));
            } else {
                creating.spawn(create(address, self.turn, creator, counters.clone()));
            }
        }
        for publisher in 0..PUBLISHERS {
            publishing.spawn(publish(address, self, publisher, counters.clone()));
        }
        let reader: JoinHandle<_> = tokio::spawn(read(address, counters.clone()));
        let (since, mut resident_max) = (Instant::now(), 0);
        while since.elapsed() < time || counters.refused.load(Ordering::Relaxed) < refusals {
            assert!(since.elapsed() < FULL_WITHIN, "the budget is not reached");
            resident_max = resident_max.max(gateway.memory_bytes());
            assert!(is_within(resident_max, budget), "{resident_max} bytes resident");
            sleep(Duration::from_millis(50)).await;
        }
        counters.stop.store(true, Ordering::Relaxed);
        let streams = publishing.join_all().await.into_iter().flatten().collect();
        creating.join_all().await;
        let reads = reader.await.unwrap();
        let [accepted, refused, created] = [&counters.accepted, &counters.refused, &counters.created]
            .map(|count| count.load(Ordering::Relaxed));
        TurnResult { streams, reads, resident_max, accepted, refused, created }
    }

    /// Bytes of the next message of a stream.
    fn size(self, messages: usize) -> usize {
        match messages % 16 {
            0..6 if !self.on_disk => 60_000,
            6..10 if !self.on_disk => 5_000,
            _ => 100,
        }
    }

    /// Whether a publisher continues with another stream.
    fn is_full(self, acknowledged: Acknowledged) -> bool {
        acknowledged.bytes >= STREAM_BYTES
            || (self.on_disk && !self.keeps_little && acknowledged.messages >= STREAM_MESSAGES_ON_DISK)
    }
}

/// Appends messages of several sizes to one stream after the other. Returns the acknowledged messages.
async fn publish(
    address: SocketAddr,
    load: TurnLoad,
    publisher: usize,
    counters: Arc<Counters>,
) -> Vec<(String, Acknowledged)> {
    let TurnLoad { turn, keeps_little, .. } = load;
    let mut connection = Connection::open(address).await;
    let mut streams = Vec::new();
    while !counters.stop.load(Ordering::Relaxed) {
        let stream = format!("/v1/stream/fill/{publisher}/{turn}/{}/{keeps_little}", streams.len());
        let mut acknowledged = Acknowledged::default();
        if keeps_little {
            let create = || put(&stream).header("stream-max-messages", 4).text("");
            let mut created = false;
            while !created && !counters.stop.load(Ordering::Relaxed) {
                created = is_accepted(&mut connection, create(), &counters).await;
            }
        }
        while !load.is_full(acknowledged) && !counters.stop.load(Ordering::Relaxed) {
            let size = load.size(acknowledged.messages);
            let append = post(format!("{stream}?create=1")).text(vec![b'a' + publisher as u8 % 26; size]);
            if is_accepted(&mut connection, append, &counters).await {
                acknowledged.messages += 1;
                acknowledged.bytes += size;
            }
        }
        streams.push((stream, acknowledged));
    }
    streams
}

/// Creates streams without end.
async fn create(address: SocketAddr, turn: u32, creator: usize, counters: Arc<Counters>) {
    let mut connection = Connection::open(address).await;
    for n in 0.. {
        if counters.stop.load(Ordering::Relaxed) {
            return;
        }
        let append = post(format!("/v1/stream/created/{creator}/{turn}/{n}?create=1")).text("x");
        if is_accepted(&mut connection, append, &counters).await {
            counters.created.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Returns whether an append or a new stream was accepted. A refusal must have its reason and a `Retry-After`.
async fn is_accepted(connection: &mut Connection, request: Request, counters: &Counters) -> bool {
    let answer = connection.send(request).await;
    if matches!(answer.status.as_u16(), 201 | 204) {
        counters.accepted.fetch_add(1, Ordering::Relaxed);
        return true;
    }
    assert!(matches!(answer.status.as_u16(), 503 | 507), "{answer:?}");
    assert!(matches!(answer.problem().as_str(), "memory-full" | "memory-short"), "{answer:?}");
    assert!(!answer.header("retry-after").is_empty());
    counters.refused.fetch_add(1, Ordering::Relaxed);
    if answer.says_close() {
        *connection = connection.again().await;
    }
    sleep(AGAIN).await;
    false
}

/// Sends short polls to the existing streams in turn, and returns the duration of each.
async fn read(address: SocketAddr, counters: Arc<Counters>) -> Vec<Duration> {
    let mut connection = Connection::open(address).await;
    let mut reads = Vec::new();
    while !counters.stop.load(Ordering::Relaxed) {
        let stream = format!("/v1/stream/existing/{}?offset=-1", reads.len() % EXISTING);
        let since = Stopwatch::start();
        let answer = connection.send(get(stream)).await.expect(200);
        reads.push(since.took().own());
        assert_eq!(answer.json().as_array().map(Vec::len), Some(EXISTING_MESSAGES));
        sleep(Duration::from_millis(2)).await;
    }
    reads
}

fn p99(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

impl Filled {
    /// Every stream has every acknowledged byte, in the order of its publisher.
    async fn can_be_read(&self, gateway: &Gateway) {
        let mut connection = gateway.connect().await;
        for (stream, acknowledged) in
            self.streams.iter().filter(|(_, acknowledged)| acknowledged.messages > 0)
        {
            let (mut offset, mut bytes) = ("-1".to_owned(), 0);
            loop {
                let answer = connection.send(get(format!("{stream}?offset={offset}"))).await.expect(200);
                bytes += answer.body.len();
                offset = answer.next_offset();
                if answer.header("stream-up-to-date") == "true" {
                    break;
                }
            }
            assert_eq!(bytes, acknowledged.bytes, "{stream}");
        }
    }
}
