//! Measures the memory of the store on disk per small message, and its speed to append, read and reopen: with all messages in
//! one stream, and spread over 1 000 streams. In process: no sockets, no HTTP.
//!
//! `cargo bench --bench index`; about five minutes, and 400 MB of disk. 64 tasks append messages of one byte without sync, so
//! that the disk is not measured. `running` is the allocated memory per message after all appends, including the cache of the
//! newest messages (64 MiB). `opened` is the same after the store is reopened, with an empty cache; `opening` is the peak
//! during the reopening. `cold` is messages per second when one task reads everything from the files in batches of 64 KiB;
//! `newest` is reads per second of the last message of a stream. A single row can be selected: `cargo bench --bench index --
//! 10000000 1`. Fails if 10^7 messages take more than 24 bytes each.
//!
//! Each round is a separate process. The figures are medians.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::expect_used, reason = "a bench may panic")]

#[path = "../src/allocator.rs"]
mod allocator;
mod rounds;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use pollgate::store::{Disk, DiskOptions};
use pollgate::stream::{
    Append, ContentType, Create, Payload, ReadLimit, Start, Store, StreamName, SyncPolicy,
};
use tikv_jemalloc_ctl::{Access, AsName, epoch, stats};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use rounds::medians;

/// Messages, streams, and rounds.
const ROWS: [(usize, usize, usize); 4] =
    [(1_000_000, 1, 5), (1_000_000, 1_000, 5), (10_000_000, 1, 1), (10_000_000, 1_000, 1)];

/// From `MANY` messages on, each may take at most `BYTES_MAX` bytes, including the cache and the store's buffers.
const MANY: usize = 10_000_000;
const BYTES_MAX: f64 = 24.0;

const TASKS: usize = 64;
const READ: ReadLimit = ReadLimit { bytes_max: 64 * 1024 };
const NEWEST_READS: usize = 200_000;
const PAUSE: Duration = Duration::from_millis(2);

/// The argument that makes this program run one round instead of the bench.
const ROUND: &str = "round";

/// Figures of one round: appends per second, bytes per message, seconds to open, bytes per message at the peak of the opening
/// and after it, cold messages per second, and newest reads per second.
type Figures = [f64; 7];

fn main() {
    allocator::return_freed_memory().unwrap();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<usize> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    if arguments.first().is_some_and(|first| first == ROUND) {
        let figures = round(numbers[0], numbers[1]);
        println!("{}", figures.map(|figure| figure.to_string()).join(" "));
    } else if arguments.iter().any(|argument| argument == "--bench") {
        println!(
            "  messages   streams  appends/s  running   opened in  opening   opened     cold/s   newest/s"
        );
        match numbers.as_slice() {
            [messages, streams, ..] => row(*messages, *streams, numbers.get(2).copied().unwrap_or(1)),
            _ => ROWS.into_iter().for_each(|(messages, streams, rounds)| row(messages, streams, rounds)),
        }
    }
    // `cargo test --all-targets` passes no argument, so nothing is measured there.
}

fn row(messages: usize, streams: usize, rounds: usize) {
    let [appends, running, took, opening, opened, cold, newest] =
        medians(&[ROUND, &messages.to_string(), &streams.to_string()], rounds);
    println!(
        "{messages:10} {streams:9} {appends:10.0} {running:6.1} B {:>11} {opening:6.1} B {opened:6.1} B {cold:10.0} \
         {newest:10.0}",
        format!("{:.2?}", Duration::from_secs_f64(took)),
    );
    assert!(
        messages < MANY || running.max(opening).max(opened) <= BYTES_MAX,
        "more than {BYTES_MAX} bytes a message"
    );
}

fn round(messages: usize, streams: usize) -> Figures {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let runtime = Runtime::new().unwrap();
    let each = messages as f64;

    let store = Arc::new(open(directory.path()));
    let bare = allocated();
    let since = Instant::now();
    runtime.block_on(append_all(store.clone(), messages, streams));
    let appends = each / since.elapsed().as_secs_f64();
    let running = (allocated() - bare) / each;
    runtime.block_on(store.close());
    drop(store);

    let bare = allocated();
    let (stop, most) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let watch = std::thread::spawn({
        let (stop, most) = (stop.clone(), most.clone());
        move || {
            while !stop.load(Ordering::Relaxed) {
                most.fetch_max(allocated() as usize, Ordering::Relaxed);
                std::thread::sleep(PAUSE);
            }
        }
    });
    let since = Instant::now();
    let store = Arc::new(open(directory.path()));
    let took = since.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    watch.join().unwrap();
    let opening = (most.load(Ordering::Relaxed) as f64 - bare) / each;
    let opened = (allocated() - bare) / each;

    let since = Instant::now();
    let read = runtime.block_on(read_all(store.clone(), streams));
    assert_eq!(read, messages);
    let cold = each / since.elapsed().as_secs_f64();
    let newest = runtime.block_on(read_newest(store.clone(), streams));
    [appends, running, took, opening, opened, cold, newest]
}

fn open(directory: &Path) -> Disk {
    let options = DiskOptions::new(SyncPolicy::Never);
    Disk::open(directory, options, Arc::new(()), now()).unwrap().0
}

async fn append_all(store: Arc<Disk>, messages: usize, streams: usize) {
    for stream in 0..streams {
        store.create(&name(stream), Create::open(ContentType::octet_stream()), now()).await.unwrap();
    }
    let next = Arc::<AtomicUsize>::default();
    let tasks = (0..TASKS).map(|_| {
        let (store, next) = (store.clone(), next.clone());
        tokio::spawn(async move {
            loop {
                let message = next.fetch_add(1, Ordering::Relaxed);
                if message >= messages {
                    return;
                }
                store.append(&name(message % streams), append().into(), now()).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

async fn read_all(store: Arc<Disk>, streams: usize) -> usize {
    let mut read = 0;
    for stream in 0..streams {
        let mut start = Start::Earliest;
        loop {
            let batch = store.read(&name(stream), start, READ, now()).await.unwrap();
            read += batch.messages as usize;
            start = Start::At(batch.next);
            if batch.up_to_date {
                break;
            }
        }
    }
    read
}

/// Appends one message to each stream, so that it is in the cache, and reads these messages. Returns reads per second.
async fn read_newest(store: Arc<Disk>, streams: usize) -> f64 {
    let mut starts = Vec::new();
    for stream in 0..streams {
        let tail = store.describe(&name(stream), now()).await.unwrap().tail;
        store.append(&name(stream), append().into(), now()).await.unwrap();
        starts.push((name(stream), Start::At(tail)));
    }
    let since = Instant::now();
    for read in 0..NEWEST_READS {
        let (name, start) = &starts[read % streams];
        assert_eq!(store.read(name, *start, READ, now()).await.unwrap().messages, 1);
    }
    NEWEST_READS as f64 / since.elapsed().as_secs_f64()
}

fn name(stream: usize) -> StreamName {
    StreamName::parse(&format!("room/{stream}")).unwrap()
}

fn append() -> Append {
    Append::of(ContentType::octet_stream(), Payload::raw(Bytes::from_static(b"7")))
}

/// Returns a fixed date plus the time since the first call.
fn now() -> SystemTime {
    static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + BEGIN.elapsed()
}

/// Returns the allocated bytes without the threads' caches of free memory; 4096 means all arenas.
fn allocated() -> f64 {
    // jemalloc updates its figures only when the epoch advances.
    epoch::advance().unwrap();
    let ready: usize = b"stats.arenas.4096.tcache_bytes\0"[..].name().read().unwrap();
    (stats::allocated::read().unwrap() - ready) as f64
}
