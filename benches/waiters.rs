//! What a waiter takes of memory and what it costs to wake it, for 1 to 1 000 000 held polls (`Hub::poll`): all on one
//! stream, and each on a stream of its own. In process: no sockets, no HTTP. The task of a poll counts, its stream does
//! not.
//!
//! `cargo bench --bench waiters`; two minutes, and up to 2.3 GiB. For each waiter: `allocated` is what the allocator
//! has given out (tables grow by doubling, so it does not fall steadily), `Pss` what the system has given the process,
//! and `processor` the time of all threads from the first append until the last answer. Every stream gets one append:
//! `publish` is what its publisher waits, `last answer` is how long it takes until every poll has its messages. So with
//! a stream each, a waiter's processor time has an append in it. `stream` is what an empty stream has allocated.
//!
//! Each round is a process of its own, so that none finds memory which another has left. The figures are medians.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench may panic")]

#[path = "../src/allocator.rs"]
mod allocator;
mod rounds;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use pollgate::clock::Clock;
use pollgate::hub::{Creation, Hub, PollSettings};
use pollgate::limits::Limits;
use pollgate::store::Memory;
use pollgate::stream::{Append, ContentType, Payload, Start, StreamName};
use rustix::time::{ClockId, clock_gettime};
use tikv_jemalloc_ctl::{Access, AsName, epoch, stats};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use rounds::medians;

/// What is published.
const MESSAGE: &[u8] =
    br#"{"from":"ada","text":"a message of about one hundred bytes, as many are that people send"}"#;

/// As deep as a gateway lets JSON nest if it is not told otherwise.
const JSON_DEPTH_MAX: usize = 64;

/// Waiters, and rounds with so many.
const ROWS: [(usize, usize); 5] = [(1, 51), (1_000, 51), (10_000, 25), (100_000, 5), (1_000_000, 3)];

/// For fewer waiters `Pss` says nothing: there are pages that wait for use.
const PSS_WAITERS_MIN: usize = 10_000;

/// Longer than any round.
const HOLD: Duration = Duration::from_secs(3600);

const PAUSE: Duration = Duration::from_millis(10);

/// The argument with which this program is a round instead of the bench.
const ROUND: &str = "round";

/// Of one round: bytes allocated and Pss for a waiter, bytes allocated for a stream; seconds of a publish, until the
/// last answer, and of processor time for a waiter.
type Figures = [f64; 6];

fn main() {
    allocator::return_freed_memory().unwrap();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, waiters, streams] = arguments.as_slice()
        && first == ROUND
    {
        let (waiters, streams) = (waiters.parse().unwrap(), streams.parse().unwrap());
        let figures = Runtime::new().unwrap().block_on(async move {
            // What runs for the first time is slow. Both are in a task, as all publishers of a gateway are.
            tokio::spawn(round(1_000, 1)).await.unwrap();
            tokio::spawn(round(waiters, streams)).await.unwrap()
        });
        println!("{}", figures.map(|figure| figure.to_string()).join(" "));
    } else if arguments.iter().any(|argument| argument == "--bench") {
        table();
    }
    // `cargo test --all-targets` gives no argument and has nothing to learn here.
}

fn table() {
    println!("  waiters   streams  allocated       Pss    publish  last answer  processor     stream");
    let mut arithmetic = Vec::new();
    for (form, stream_each) in [("on one stream", false), ("a stream each", true)] {
        let mut pss_of_most = f64::NAN;
        for (waiters, rounds) in ROWS {
            let streams = if stream_each { waiters } else { 1 };
            let [allocated, pss, stream, publish, last, processor] =
                medians(&[ROUND, &waiters.to_string(), &streams.to_string()], rounds);
            println!(
                "{waiters:9} {streams:9} {:>10} {:>9} {:>10} {:>12} {:>10} {:>10}",
                bytes(allocated),
                if waiters < PSS_WAITERS_MIN { "-".into() } else { bytes(pss) },
                time(publish),
                time(last),
                time(processor),
                bytes(stream),
            );
            pss_of_most = pss;
        }
        let millions = 24.0 * f64::from(1 << 30) / pss_of_most / 1e6;
        arithmetic.push(format!("{form}: 24 GiB / {pss_of_most:.0} bytes = {millions:.1} million"));
    }
    for line in arithmetic {
        println!("waiters alone, {line}");
    }
}

fn bytes(each: f64) -> String {
    format!("{each:.0} B")
}

fn time(seconds: f64) -> String {
    format!("{:.2?}", Duration::from_secs_f64(seconds))
}

/// Streams, polls that wait for them, and one append to each stream.
async fn round(waiters: usize, streams: usize) -> Figures {
    let (store, limits) = (Arc::new(Memory::new()), Arc::new(Limits::default()));
    let hub = Arc::new(Hub::new(store, limits, Arc::default(), Clock::start()));
    let (waits, mut all) = mpsc::channel::<Infallible>(1);
    let answered = Arc::<AtomicUsize>::default();
    let bare = allocated();
    for stream in 0..streams {
        hub.create(&name(stream), creation()).await.unwrap();
    }
    let (with_streams, pss_with_streams) = (allocated(), pss());
    for waiter in 0..waiters {
        let (hub, answered, waits) = (hub.clone(), answered.clone(), waits.clone());
        tokio::spawn(async move {
            // As after a request, the name is the poll's own.
            let reader = hub.stream_reader(&name(waiter % streams), Start::Tail);
            let poll = hub.poll(reader, PollSettings { hold: HOLD, client: None });
            let messages = poll.await.unwrap().batch.messages;
            answered.fetch_add(usize::try_from(messages).unwrap(), Ordering::Relaxed);
            drop(waits);
        });
    }
    drop(waits);
    while hub.counts().waiters < waiters {
        sleep(PAUSE).await;
    }
    // The last one is counted a moment before it sleeps.
    sleep(PAUSE).await;
    let (held, pss_held) = (allocated(), pss());

    let (since, processor_before) = (Instant::now(), processor_time());
    for stream in 0..streams {
        hub.publish(&name(stream), append()).await.unwrap();
    }
    let published = since.elapsed();
    // Ends when the last sender is gone, even if a poll has failed.
    assert_eq!(all.recv().await, None);
    let (last, processor) = (since.elapsed(), processor_time() - processor_before);
    assert_eq!(answered.load(Ordering::Relaxed), waiters);

    let (waiters, streams) = (waiters as f64, streams as f64);
    [
        (held - with_streams) / waiters,
        (pss_held - pss_with_streams) / waiters,
        (with_streams - bare) / streams,
        published.as_secs_f64() / streams,
        last.as_secs_f64(),
        processor.as_secs_f64() / waiters,
    ]
}

fn name(stream: usize) -> StreamName {
    StreamName::parse(&format!("room/{stream}")).unwrap()
}

fn json() -> ContentType {
    ContentType::parse("application/json").unwrap()
}

fn creation() -> Creation {
    Creation { content_type: Some(json()), ..Creation::default() }
}

fn append() -> Append {
    let append = Append::of(json(), Payload::default());
    append.with_body(Bytes::from_static(MESSAGE), JSON_DEPTH_MAX).unwrap()
}

/// Without what the allocator keeps ready for each thread; 4096 stands for all of its arenas.
fn allocated() -> f64 {
    // The figures of jemalloc stand still until they are asked to move.
    epoch::advance().unwrap();
    let ready: usize = b"stats.arenas.4096.tcache_bytes\0"[..].name().read().unwrap();
    (stats::allocated::read().unwrap() - ready) as f64
}

fn pss() -> f64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
}

fn processor_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap()
}
