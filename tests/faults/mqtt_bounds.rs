//! One hostile MQTT client against all others: it cannot delay another client's GET, and the memory that it takes is bounded
//! and released when it disconnects.
//!
//! The counts are those of known attacks; some are lower in builds without optimization, which would need minutes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;

use crate::measure::mib;
use crate::world::mqtt::{Hello, Mqtt, SUBSCRIBE, filters_bytes, publish_bytes};
use crate::world::{Connection, Gateway, Stopwatch, Took, alone, get, is_release_build, on_time, put, until};

/// Maximum additional delay of another client's GET.
const WAIT_MAX: Duration = Duration::from_millis(100);

const MIB: u64 = 1 << 20;

/// Allowed rest of a client's memory: free pages of an unused arena.
const LEFT_BYTES: u64 = 2 * MIB;

/// Another client, on a thread of its own, that sends GETs all the time; and a control that does the same on a gateway without
/// an attack, since GETs are also delayed on a busy machine.
struct Bystander {
    ends: Arc<AtomicBool>,
    threads: [JoinHandle<Took>; 2],
    _control: Gateway,
}

/// The longest delay of a GET.
#[derive(Debug)]
struct Waited {
    attacked: Took,
    control: Took,
}

impl Bystander {
    async fn beside(gateway: &Gateway) -> Self {
        let control = Gateway::start(&[]).await;
        let ends = Arc::new(AtomicBool::new(false));
        for one in [gateway, &control] {
            one.send(put("/v1/stream/bystander").json("1")).await.expect(201);
        }
        let threads = [gateway.address, control.address].map(|address| {
            let ended = ends.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(longest_wait(address, &ended))
            })
        });
        Self { ends, threads, _control: control }
    }

    fn end(self) -> Waited {
        self.ends.store(true, Ordering::Relaxed);
        let [attacked, control] = self.threads.map(|thread| thread.join().expect("it got its answers"));
        Waited { attacked, control }
    }
}

impl Waited {
    /// Whether the hostile client did not delay the other one's GET.
    fn is_short(&self) -> bool {
        self.attacked.is_below(WAIT_MAX + self.control.own())
    }
}

async fn longest_wait(address: SocketAddr, ends: &AtomicBool) -> Took {
    let (mut connection, mut longest) = (Connection::open(address).await, Took::default());
    while !ends.load(Ordering::Relaxed) {
        let since = Stopwatch::start();
        connection.send(get("/v1/stream/bystander")).await.expect(200);
        longest = longest.max(since.took());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    longest
}

/// Runs a scenario on a gateway with a store in memory, and on one with a store on disk.
async fn each_store(arguments: &[&str], mut scenario: impl AsyncFnMut(&str, Gateway, Option<TempDir>)) {
    scenario("memory", Gateway::start(arguments).await, None).await;
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let store = ["--store", directory.path().to_str().expect("UTF-8"), "--sync", "interval:100ms"];
    let gateway = Gateway::start(&[&store[..], arguments].concat()).await;
    scenario("disk", gateway, Some(directory)).await;
}

/// Publishes a message to each of many streams, `s/0` and so on.
async fn fill(gateway: &Gateway, streams: usize, retain: bool) {
    let mut publisher = Mqtt::connect(gateway.mqtt, &Hello::new("publisher")).await;
    for chunk in (0..streams).collect::<Vec<_>>().chunks(500) {
        let bytes = chunk.iter().flat_map(|stream| {
            publish_bytes(5, &format!("s/{stream}"), b"x", 0, 0, (false, retain), Vec::new())
        });
        publisher.send(&bytes.collect::<Vec<_>>()).await;
        publisher.ping().await;
    }
    publisher.disconnect(0).await;
}

/// Returns 1000 filters in 21 KB, each of which matches one stream in a hundred.
fn thousand_filters() -> Vec<String> {
    (0..1000).map(|number| format!("+/{number}/#")).collect()
}

fn size_of(directory: &TempDir) -> u64 {
    let files = std::fs::read_dir(directory.path()).expect("a directory");
    files.map(|file| file.expect("a file").metadata().expect("a size").len()).sum()
}

#[tokio::test]
async fn a_filter_repeated_5000_times_costs_as_much_as_one() {
    let _turn = alone().await;
    on_time(async || {
        each_store(&[], async |store, gateway, directory| {
            fill(&gateway, 1000, true).await;
            let bystander = Bystander::beside(&gateway).await;
            let (before, written) = (gateway.memory_bytes(), directory.as_ref().map_or(0, size_of));
            let mut hostile = Mqtt::connect(gateway.mqtt, &Hello::lasting("hostile")).await;
            hostile.send(&filters_bytes(SUBSCRIBE, 1, &vec!["#".into(); 5000])).await;
            // The hostile client reads nothing. An answer to a later client shows that the first one was served.
            let mut other = Mqtt::connect(gateway.mqtt, &Hello::lasting("other")).await;
            other.subscribe_all(&vec!["#".into(); 5000]).await;
            let taken = gateway.memory_bytes().saturating_sub(before);
            let written = directory.as_ref().map_or(0, size_of) - written;
            drop((hostile, other));
            gateway.until_mqtt_clients(0).await;
            let waited = bystander.end();
            println!("{store}: 5000 x # over 1000 retained: {:.1} MiB, {written} bytes on disk, GET waited {waited:?}", mib(taken));
            assert!(taken < 8 * MIB, "{taken}");
            assert!(written < MIB, "{written}");
            assert!(waited.is_short(), "a GET waited {waited:?}");
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn unsubscribing_1000_filters_delays_no_other_client() {
    let _turn = alone().await;
    on_time(async || {
        each_store(&[], async |store, gateway, _directory| {
            fill(&gateway, 200, true).await;
            let bystander = Bystander::beside(&gateway).await;
            let mut hostile = Mqtt::connect(gateway.mqtt, &Hello::new("hostile")).await;
            let filters = thousand_filters();
            assert_eq!(hostile.subscribe_all(&filters).await, [0; 1000]);
            assert_eq!(hostile.unsubscribe_all(&filters).await, [0; 1000]);
            // All of these match all streams.
            let filters: Vec<_> = (0..1000).map(|number| format!("{}#", "+/".repeat(number % 2))).collect();
            hostile.subscribe_all(&filters).await;
            hostile.unsubscribe_all(&filters).await;
            let waited = bystander.end();
            println!("{store}: 1000 filters unsubscribed over 200 streams: GET waited {waited:?}");
            assert!(waited.is_short(), "a GET waited {waited:?}");
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn resuming_a_session_of_1000_filters_over_many_streams_delays_no_other_client() {
    let _turn = alone().await;
    let streams = if is_release_build() { 20_000 } else { 5_000 };
    on_time(async || {
        each_store(&[], async |store, gateway, _directory| {
            fill(&gateway, streams, false).await;
            let mut filters = thousand_filters();
            filters.push("#".into());
            let hello = Hello::lasting("hostile");
            let mut hostile = Mqtt::connect(gateway.mqtt, &hello).await;
            let bystander = Bystander::beside(&gateway).await;
            hostile.subscribe_all(&filters[1..]).await;
            for _ in 0..10 {
                drop(hostile);
                // A takeover of a client that is still connected would be delayed.
                gateway.until_mqtt_clients(0).await;
                hostile = Mqtt::connect(gateway.mqtt, &hello).await;
                assert!(hostile.connack.0, "the session is present");
                hostile.ping().await;
            }
            let waited = bystander.end();
            println!("{store}: a session of 1000 filters over {streams} streams resumed 10 times: GET waited {waited:?}");
            assert!(waited.is_short(), "a GET waited {waited:?}");
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn small_messages_do_not_keep_large_packets_alive() {
    let _turn = alone().await;
    const ROUNDS: u64 = 50;
    each_store(&[], async |store, gateway, _directory| {
        gateway.send(put("/v1/stream/json").json("")).await.expect(201);
        let mut hostile = Mqtt::connect(gateway.mqtt, &Hello::new("hostile")).await;
        let refused =
            publish_bytes(5, "json", &vec![b'!'; MIB as usize - 100], 1, 1, (false, false), Vec::new());
        let kept = publish_bytes(5, "kept", b"x", 1, 2, (false, false), Vec::new());
        let both = [refused, kept].concat();
        let before = gateway.memory_bytes();
        for _ in 0..ROUNDS {
            hostile.send(&both).await;
            assert_eq!(hostile.receive_ack(4, 1).await, 0x99);
            assert_eq!(hostile.receive_ack(4, 2).await, 0);
        }
        drop(hostile);
        gateway.until_mqtt_clients(0).await;
        until("the memory is back", async || gateway.memory_bytes() < before + 8 * MIB).await;
        println!(
            "{store}: {ROUNDS} x (1 MiB refused, 1 byte kept): {:.1} MiB",
            mib(gateway.memory_bytes().saturating_sub(before))
        );
    })
    .await;
}

#[tokio::test]
async fn incomplete_connects_share_one_memory_limit() {
    let _turn = alone().await;
    let gateway = Gateway::start(&["--limit", "mqtt_connect_timeout=60s"]).await;
    let before = gateway.memory_bytes();
    let mut unfinished = Vec::new();
    for announced in [60 * 1024, 1024 * 1024].repeat(300) {
        let mut client = Mqtt::open(gateway.mqtt, 5).await;
        let mut bytes =
            vec![0x10, announced as u8 | 0x80, (announced >> 7) as u8 | 0x80, (announced >> 14) as u8];
        bytes.extend_from_slice(b"\0\x04MQTT\x05\x02\0\x3c\0\xff\xff");
        bytes.resize(announced.min(60 * 1024), b'x');
        // The gateway may have closed the connection already.
        let _sent = client.try_send(&bytes).await;
        unfinished.push(client);
    }
    let taken = gateway.memory_bytes().saturating_sub(before);
    // A client that completes its CONNECT is served meanwhile.
    let mut honest = Mqtt::connect(gateway.mqtt, &Hello::new("honest")).await;
    honest.ping().await;
    drop((unfinished, honest));
    gateway.until_mqtt_clients(0).await;
    let since = Stopwatch::start();
    until("the memory is back", async || gateway.memory_bytes() < before + LEFT_BYTES + 6 * MIB).await;
    println!("600 unfinished CONNECTs: {:.1} MiB, back after {:?}", mib(taken), since.took());
    // 16 MiB for all of them, and 4 KiB for each in addition to the connection itself.
    assert!(taken < 32 * MIB, "{taken}");
}
