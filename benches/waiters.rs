//! Measures the memory of a waiter and the cost of waking it, for 1 to 1 000 000 held polls (`Hub::poll`): all on one stream,
//! and each on its own stream. In process: no sockets, no HTTP. The task of a poll is included, its stream is not.
//!
//! `cargo bench --bench waiters`; two minutes, and up to 2.3 GiB. Per waiter: `allocated` is the memory that the allocator has
//! handed out (tables grow by doubling, so it does not fall steadily), `Pss` the memory of the process, and `processor` the CPU
//! time of all threads from the first append to the last answer. Every stream gets one append: `publish` is the time until it
//! returns, `last answer` the time until every poll has its messages. With one stream per waiter, the CPU time of a waiter
//! therefore includes one append. `stream` is the allocated memory of an empty stream.
//!
//! Each round is a separate process, so that none inherits memory from an earlier one. The figures are medians.

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

/// The published message.
const MESSAGE: &[u8] =
    br#"{"from":"ada","text":"a message of about one hundred bytes, as many are that people send"}"#;

/// The gateway's default limit on the nesting of JSON.
const JSON_DEPTH_MAX: usize = 64;

/// Numbers of waiters, and of rounds with each.
const ROWS: [(usize, usize); 5] = [(1, 51), (1_000, 51), (10_000, 25), (100_000, 5), (1_000_000, 3)];

/// With fewer waiters `Pss` is meaningless, since they fit into pages that the process already has.
const PSS_WAITERS_MIN: usize = 10_000;

/// Hold time, longer than any round.
const HOLD: Duration = Duration::from_secs(3600);

const PAUSE: Duration = Duration::from_millis(10);

/// The argument that makes this program run one round instead of the bench.
const ROUND: &str = "round";

/// Figures of one round: allocated bytes and Pss per waiter, allocated bytes per stream; seconds per publish, until the last
/// answer, and of CPU time per waiter.
type Figures = [f64; 6];

fn main() {
    allocator::return_freed_memory().unwrap();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, waiters, streams] = arguments.as_slice()
        && first == ROUND
    {
        let (waiters, streams) = (waiters.parse().unwrap(), streams.parse().unwrap());
        let figures = Runtime::new().unwrap().block_on(async move {
            // The first round warms up. Both run in a task, like all publishers of a gateway.
            tokio::spawn(round(1_000, 1)).await.unwrap();
            tokio::spawn(round(waiters, streams)).await.unwrap()
        });
        println!("{}", figures.map(|figure| figure.to_string()).join(" "));
    } else if arguments.iter().any(|argument| argument == "--bench") {
        table();
    }
    // `cargo test --all-targets` passes no argument, so nothing is measured there.
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

/// Creates streams, polls that wait on them, and one append to each stream.
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
            // As after a request, the poll owns its stream's name.
            let reader = hub.stream_reader(&name(waiter % streams), Start::Tail);
            let poll =
                hub.poll(reader, PollSettings { hold: HOLD, client: None, credentials: None, open: None });
            let messages = poll.await.unwrap().batch.messages;
            answered.fetch_add(usize::try_from(messages).unwrap(), Ordering::Relaxed);
            drop(waits);
        });
    }
    drop(waits);
    while hub.counts().waiters < waiters {
        sleep(PAUSE).await;
    }
    // A waiter is counted shortly before its task sleeps.
    sleep(PAUSE).await;
    let (held, pss_held) = (allocated(), pss());

    let (since, processor_before) = (Instant::now(), processor_time());
    for stream in 0..streams {
        hub.publish(&name(stream), append()).await.unwrap();
    }
    let published = since.elapsed();
    // The channel closes when the last sender is dropped, even if a poll failed.
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

/// Returns the allocated bytes without the threads' caches of free memory; 4096 means all arenas.
fn allocated() -> f64 {
    // jemalloc updates its figures only when the epoch advances.
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
