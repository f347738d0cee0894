//! Memory of the store on disk per message: the index, which holds the location of each message. `cargo bench --bench index`
//! measures 10^7 messages.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pollgate::store::{Disk, DiskOptions};
use pollgate::stream::{Create, SyncPolicy};
use tikv_jemalloc_ctl::{Access, AsName, epoch, stats};

use crate::directory::directory;
use crate::suite::*;

/// If this variable is set, `measure` runs a measurement for a test in a separate process.
const ROUND: &str = "INDEX_ROUND";

const MESSAGES: usize = 25_600;

/// Number of appends in flight.
const TOGETHER: usize = 256;

/// Bytes per message: while the store runs, at the peak of its reopening, and after it.
#[derive(Debug)]
struct Figures {
    running: f64,
    opening: f64,
    opened: f64,
}

/// Runs a separate process that appends `messages` messages to `streams` streams and reopens the store, so that nothing else
/// allocates there.
fn figures(kind: &str, messages: usize, streams: usize) -> Figures {
    let round = format!("{kind} {messages} {streams}");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["index::measure", "--exact", "--nocapture"]).env(ROUND, &round);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.split_once("figures ")).unwrap().1;
    let numbers: Vec<f64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
    let figures = Figures { running: numbers[0], opening: numbers[1], opened: numbers[2] };
    println!("{round}: {figures:.1?} bytes for each message");
    figures
}

/// Each bound is less than twice the actual value. A stream holds up to 64 messages of about 130 bytes each.
#[test]
fn a_small_message_takes_a_few_bytes_of_memory() {
    for (kind, streams, allowed) in [("bytes", 1, 14.0), ("bytes", 10, 16.0), ("said", 1, 16.0)] {
        let Figures { running, opening, opened } = figures(kind, MESSAGES, streams);
        let (least, most) = (running.min(opening).min(opened), running.max(opened));
        assert!(least > 1.0 && most <= allowed, "{kind} in {streams} streams: {least} to {most}");
        // Files are read one by one.
        assert!(opening <= allowed + 10.0 * 1024.0 * 1024.0 / MESSAGES as f64, "{kind}: {opening}");
    }
}

/// Not a test: the part of the tests above that runs in a separate process.
#[test]
fn measure() {
    let Ok(round) = std::env::var(ROUND) else { return };
    let mut words = round.split(' ');
    let kind = words.next().unwrap();
    let mut numbers = words.map(|word| word.parse().unwrap());
    let (messages, streams): (usize, usize) = (numbers.next().unwrap(), numbers.next().unwrap());
    let directory = directory();
    let open = |directory: &Path| {
        let options = DiskOptions { cache_bytes: 0, ..DiskOptions::new(SyncPolicy::Never) };
        Disk::open(directory, options, Arc::new(()), noon()).unwrap().0
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let each = messages as f64;

    let mut world = World::with(Box::new(open(directory.path())));
    let bare = settled();
    runtime.block_on(fill(&mut world, kind, messages, streams));
    let running = (settled() - bare) / each;
    runtime.block_on(world.store.close());
    drop(world);

    let other = crate::directory::directory();
    let empty = open(other.path());
    // Memory of an empty store.
    let bare = settled();
    drop(empty);
    let (stop, most) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let watch = std::thread::spawn({
        let (stop, most) = (stop.clone(), most.clone());
        move || {
            while !stop.load(Ordering::Relaxed) {
                most.fetch_max(allocated() as usize, Ordering::Relaxed);
                std::thread::yield_now();
            }
        }
    });
    let store = open(directory.path());
    stop.store(true, Ordering::Relaxed);
    watch.join().unwrap();
    let opened = (settled() - bare) / each;
    let opening = (most.load(Ordering::Relaxed) as f64 - bare) / each;
    drop(store);
    println!("figures {running} {opening} {opened}");
}

async fn fill(world: &mut World, kind: &str, messages: usize, streams: usize) {
    let content_type = if kind == "bytes" { text() } else { json() };
    let names: Vec<_> = (0..streams).map(|stream| stream.to_string()).collect();
    for name in &names {
        world.create(name, Create::open(content_type.clone())).await.unwrap();
    }
    for group in 0..messages / TOGETHER {
        let appends = (0..TOGETHER).map(|n| {
            let message = match kind {
                "bytes" => append(text(), raw(b"7")),
                "json" => append(json(), numbers([7])),
                _ => annotated(numbers([7]), "a client with a name", true),
            };
            world.append(&names[(group * TOGETHER + n) % streams], message)
        });
        for appended in futures_util::future::join_all(appends).await {
            appended.unwrap();
        }
        world.now += Duration::from_millis(3);
    }
}

/// Returns the allocated bytes after background work, such as the preparation of the next file, has ended.
fn settled() -> f64 {
    let (mut before, mut same) = (allocated(), 0);
    while same < 20 {
        std::thread::sleep(Duration::from_millis(1));
        let now = allocated();
        same = if now == before { same + 1 } else { 0 };
        before = now;
    }
    before
}

/// Returns the allocated bytes without the threads' caches of free memory; 4096 means all arenas.
fn allocated() -> f64 {
    // jemalloc updates its figures only when the epoch advances.
    epoch::advance().unwrap();
    let ready: usize = b"stats.arenas.4096.tcache_bytes\0"[..].name().read().unwrap();
    (stats::allocated::read().unwrap() - ready) as f64
}
