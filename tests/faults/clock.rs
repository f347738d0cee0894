//! The wall clock is set while the gateway runs, and between two runs: expiry times follow it, and ages do not.
//!
//! faketime sets the wall clock for this process only. It leaves the kernel's other clocks unchanged, as a real step does.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::world::command::run;
use crate::world::{Gateway, Request, Stopwatch, get, head, put, until};

const DAY: u64 = 24 * 3600;
const LIFETIME: Duration = Duration::from_secs(4);

/// A gateway whose wall clock is set by a file.
pub(crate) struct World {
    pub(crate) gateway: Gateway,
    // Dropped after the gateway.
    directory: tempfile::TempDir,
    _leftovers: Leftovers,
    arguments: Vec<String>,
}

/// What faketime leaves behind of a killed process: two shared objects that are named like it.
struct Leftovers(u32);

impl Drop for Leftovers {
    fn drop(&mut self) {
        for name in ["sem.faketime_sem", "faketime_shm"] {
            // A process that was not killed has removed them.
            let _ = std::fs::remove_file(format!("/dev/shm/{name}_{}", self.0));
        }
    }
}

impl World {
    async fn start() -> Self {
        Self::start_with(Vec::new()).await
    }

    /// Starts a gateway with additional arguments.
    pub(crate) async fn start_with(arguments: Vec<String>) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        set(directory.path(), "+0");
        let gateway = start(directory.path(), &arguments).await;
        Self { _leftovers: Leftovers(gateway.id()), directory, arguments, gateway }
    }

    /// Sets the offset of the wall clock from the true time, for example `-400d`.
    pub(crate) fn set(&self, offset: &str) {
        set(self.directory.path(), offset);
    }

    pub(crate) async fn restart(self) -> Self {
        let Self { gateway, directory, arguments, _leftovers } = self;
        gateway.kill().await;
        let gateway = start(directory.path(), &arguments).await;
        Self { _leftovers: Leftovers(gateway.id()), directory, arguments, gateway }
    }

    /// Returns the date that the gateway sends to its clients.
    pub(crate) async fn date(&self) -> jiff::Timestamp {
        let date = self.gateway.send(get("/v1/stream/none")).await.header("date").to_owned();
        httpdate::parse_http_date(&date).unwrap().try_into().unwrap()
    }

    /// Creates a stream with one message and an expiry field.
    async fn create(&self, stream: &str, field: &str, value: impl ToString) {
        let create = put(path(stream)).json("[1]").header(field, value);
        self.gateway.send(create).await.expect(201);
    }

    async fn status(&self, request: Request) -> u16 {
        self.gateway.send(request).await.status.as_u16()
    }
}

fn path(stream: &str) -> String {
    format!("/v1/stream/{stream}")
}

fn set(directory: &Path, offset: &str) {
    // In one step, so that the gateway never reads a partial file.
    let (new, file) = (directory.join("offset.new"), directory.join("offset"));
    std::fs::write(&new, offset).unwrap();
    std::fs::rename(new, file).unwrap();
}

async fn start(directory: &Path, arguments: &[String]) -> Gateway {
    // The library without -m is for processes of one thread: in others it shows the true time now and then.
    let preload = run("faketime", &["-m", "-f", "+0", "printenv", "LD_PRELOAD"]);
    let (file, store) = (directory.join("offset"), directory.join("store"));
    let variables = [
        ("LD_PRELOAD", preload.trim()),
        ("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let arguments =
        ["--store", store.to_str().unwrap()].into_iter().chain(arguments.iter().map(String::as_str));
    Gateway::start_with(&arguments.collect::<Vec<_>>(), &variables).await
}

/// Returns the offset of the gateway's wall clock from the true time, in days.
async fn days_ahead(world: &World) -> i64 {
    let true_time = pollgate::clock::Clock::start().wall();
    let true_time = jiff::Timestamp::try_from(true_time).unwrap();
    let seconds = world.date().await.as_second() - true_time.as_second();
    (seconds as f64 / DAY as f64).round() as i64
}

#[tokio::test]
async fn expiry_times_follow_the_wall_clock_and_ages_do_not() {
    let mut world = World::start().await;
    assert_eq!(days_ahead(&world).await, 0);
    let in_a_month = world.date().await + jiff::SignedDuration::from_hours(30 * 24);
    let in_a_month = pollgate::clock::rfc3339(in_a_month.into());
    world.create("month", "stream-expires-at", &in_a_month).await;
    world.create("aged", "stream-max-age", 3600).await;
    world.create("idle", "stream-ttl", 3600).await;
    for (offset, days) in [("-400d", -400), ("+0", 0), ("-20000d", -20000), ("+29d", 29)] {
        world.set(offset);
        world = if days < 0 { world } else { world.restart().await };
        assert_eq!(days_ahead(&world).await, days);
        // Longer than the interval of the sweep.
        let seconds_later = Instant::now() + Duration::from_millis(2500);
        sleep_until(seconds_later).await;
        assert_eq!(world.gateway.send(get(path("aged"))).await.expect(200).text(), "[1]", "{offset}");
        for stream in ["month", "idle"] {
            assert_eq!(world.status(head(path(stream))).await, 200, "{stream} at {offset}");
        }
        assert_eq!(world.gateway.send(head(path("month"))).await.header("stream-expires-at"), in_a_month);
    }
    // A waiting reader is told of the end as soon as the date is reached.
    let mut connection = world.gateway.connect().await;
    let poll = get(format!("{}?live=long-poll&offset=now&timeout=55", path("month")));
    let poll = tokio::spawn(async move { connection.send(poll).await });
    world.gateway.until_held(1).await;
    world.set("+31d");
    let since = Stopwatch::start();
    poll.await.unwrap().expect(404);
    let took = since.took();
    println!("a reader that waited heard of an end that a step of the clock brought after {took:?}");
    assert!(took.is_below(Duration::from_millis(1500)), "{took:?}");
    for offset in ["+400d", "-400d"] {
        world.set(offset);
        world = world.restart().await;
        assert_eq!(world.gateway.send(get(path("aged"))).await.expect(200).text(), "[1]", "{offset}");
    }
}

/// Short lifetimes are accurate to a second while the wall clock jumps.
#[tokio::test]
async fn short_lifetimes_are_accurate_to_a_second_while_the_wall_clock_jumps() {
    let world = World::start().await;
    let began = Instant::now();
    world.create("aged", "stream-max-age", LIFETIME.as_secs()).await;
    let since = Stopwatch::start();
    world.create("idle", "stream-ttl", LIFETIME.as_secs()).await;
    let mut offsets = ["-400d", "+400d", "+0"].into_iter().cycle();
    while began.elapsed() < Duration::from_millis(3500) {
        world.set(offsets.next().unwrap());
        let (aged, idle) =
            (world.gateway.send(get(path("aged"))).await, world.status(head(path("idle"))).await);
        // Both requests were answered before the end of the lifetime.
        if began.elapsed() < LIFETIME {
            assert_eq!((aged.text().as_str(), idle), ("[1]", 200));
        }
    }
    until("both are over", async || {
        let aged = world.gateway.send(get(path("aged"))).await.text();
        aged == "[]" && world.status(head(path("idle"))).await == 404
    })
    .await;
    let took = since.took();
    println!("lifetimes of {LIFETIME:?} were over after {took:?}");
    assert!(took.is_within(&(LIFETIME..LIFETIME + Duration::from_secs(1))), "{took:?}");
}
