//! Publishers and a reader that move between two gateways, while gateways, the engine and their connections fail: every acknowledged
//! message is delivered once and in order.
//!
//! `ENGINE_RUNS=200` runs each kind of failure that often, each time on a stream of its own; by default once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pollgate_client::{Client, Item, Settings, Start};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use crate::deployment::Cluster;
use crate::partition::Site;
use crate::server::{Engine, start_gateway};
use crate::world::{Gateway, PATIENCE, until};

const PUBLISHERS: usize = 2;

/// Messages that each publisher publishes at least.
const MESSAGES: i64 = 10;

/// Failures of a run.
const FAILURES: usize = 3;

/// The number of a publisher's last message.
const LAST: i64 = -1;

/// What fails during a run, again and again.
#[derive(Debug, Clone, Copy)]
pub enum Failure {
    /// A gateway is killed and started again.
    Gateway,
    /// The engine is killed and started again on its log.
    Engine,
    /// The connections for news are cut.
    News,
    /// The engine answers nobody for a while.
    Pause,
    /// The engine cuts connections for news, because too much waits for them.
    Buffer,
    /// The links of one or both gateways to the engine let nothing through for a while.
    Partition,
    /// The hash slots of a cluster move to other nodes.
    Slots,
    /// Replicas of a cluster take over, at the request of an operator.
    Handover,
}

/// The servers of a run.
enum Servers {
    One(Engine),
    /// Keeps the engine and its site.
    Remote {
        site: Site,
        _engine: Engine,
    },
    Cluster(Cluster),
}

impl Servers {
    async fn gateway(&self, name: &str) -> Gateway {
        match self {
            Self::One(engine) => engine.gateway(name).await,
            Self::Remote { site, .. } => {
                start_gateway(&site.url(usize::from(name != "one")), name, &[]).await
            }
            Self::Cluster(cluster) => cluster.gateway(name).await,
        }
    }
}

/// An address whose connections lead to the gateways in turn, each for a short time.
struct Switch {
    address: SocketAddr,
    gateways: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Switch {
    async fn open(gateways: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gateways = Arc::new(Mutex::new(gateways));
        let (targets, next) = (gateways.clone(), AtomicUsize::new(0));
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let target = {
                    let targets = targets.lock();
                    targets[next.fetch_add(1, Ordering::Relaxed) % targets.len()]
                };
                let lives_for = Duration::from_millis(fastrand::u64(50..500));
                tokio::spawn(async move {
                    if let Ok(mut gateway) = TcpStream::connect(target).await {
                        // The end of its life cuts the connection.
                        let _cut = timeout(lives_for, copy_bidirectional(&mut client, &mut gateway)).await;
                    }
                });
            }
        });
        Self { address, gateways }
    }

    /// A client that does not wait long after the end of a connection, which is all that happens here.
    fn client(&self) -> Client {
        let settings = Settings {
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_millis(100),
            stable_after: Duration::from_millis(10),
            interval: Duration::from_millis(100),
            reprobe_after: Duration::from_secs(1),
            ..Settings::default()
        };
        Client::builder(&format!("http://{}", self.address)).settings(settings).build().unwrap()
    }
}

/// Publishes until it is told to stop, and then the last message. Returns how many came before that.
async fn publish(client: Client, stream: String, publisher: usize, stop: Arc<AtomicBool>) -> i64 {
    let producer = client.producer(&stream, "application/json");
    let mut number = 0;
    while number < MESSAGES || !stop.load(Ordering::Relaxed) {
        producer.publish(format!("[{publisher},{number}]")).await.unwrap();
        number += 1;
        sleep(Duration::from_millis(10)).await;
    }
    producer.publish(format!("[{publisher},{LAST}]")).await.unwrap();
    number
}

/// Reads until the last message of each publisher has come, and checks that nothing comes twice or out of order. Returns how many came of
/// each.
async fn read(client: Client, stream: String) -> [i64; PUBLISHERS] {
    let mut subscription = client.subscribe([stream.as_str()], Start::earliest());
    let (mut next, mut has_ended) = ([0; PUBLISHERS], [false; PUBLISHERS]);
    while has_ended.contains(&false) {
        match subscription.next().await.expect("the subscription goes on") {
            Item::Message(message) => {
                let (publisher, number): (usize, i64) = serde_json::from_slice(message.data.bytes()).unwrap();
                assert!(!has_ended[publisher], "{number} of publisher {publisher} after the last message");
                if number == LAST {
                    has_ended[publisher] = true;
                } else {
                    assert_eq!(number, next[publisher], "of publisher {publisher}; {next:?}");
                    next[publisher] += 1;
                }
            }
            Item::Gap { reason, .. } => panic!("a gap: {reason}"),
            _ => {}
        }
    }
    next
}

async fn fail(failure: Failure, scene: &mut Scene, stream: &str) {
    let Scene { servers, gateways, switch } = scene;
    match (failure, &mut *servers) {
        (Failure::Gateway, servers) => {
            let (index, name) = if fastrand::bool() { (0, "one") } else { (1, "other") };
            let started = servers.gateway(name).await;
            switch.gateways.lock()[index] = started.address;
            std::mem::replace(&mut gateways[index], started).kill().await;
        }
        (Failure::Engine, Servers::One(engine)) => {
            engine.kill();
            sleep(Duration::from_millis(fastrand::u64(..100))).await;
            engine.restart().await;
        }
        (Failure::News, Servers::One(engine)) => drop(engine.command("CLIENT KILL TYPE pubsub")),
        (Failure::Pause, Servers::One(engine)) => drop(engine.command("CLIENT PAUSE 300 ALL")),
        (Failure::Buffer, Servers::One(engine)) => {
            engine.command("CONFIG SET client-output-buffer-limit \"pubsub 1 0 0\"");
            engine.flood("pollgate:{0}:news");
        }
        (Failure::Partition, Servers::Remote { site, .. }) => {
            let cut = [&[0][..], &[1], &[0, 1]][fastrand::usize(..3)];
            cut.iter().for_each(|gateway| site.set(*gateway, "down"));
            // Now and then for so long that calls time out, which takes five seconds.
            let lasts = if fastrand::u8(..8) == 0 { 6000 } else { fastrand::u64(100..1000) };
            sleep(Duration::from_millis(lasts)).await;
            cut.iter().for_each(|gateway| site.set(*gateway, "up"));
        }
        (Failure::Slots, Servers::Cluster(cluster)) => {
            for partition in [partition_of(stream), fastrand::u64(..128)] {
                cluster.move_slot(&format!("pollgate:{{{partition}}}:")).await;
            }
        }
        (Failure::Handover, Servers::Cluster(cluster)) => {
            // The primary of an earlier handover becomes a replica a moment later, and on a busy machine a replica takes over by itself.
            let hands_over = async || {
                let is_replica = |node: &&Engine| node.info("INFO replication", "role") == "slave";
                let replicas: Vec<&Engine> = cluster.nodes.iter().filter(is_replica).collect();
                let may_begin = replicas.len() == 3;
                may_begin && replicas[fastrand::usize(..3)].try_ask::<String>("CLUSTER FAILOVER").is_ok()
            };
            until("a replica is told to take over", hands_over).await;
            cluster.is_whole().await;
        }
        (failure, _) => panic!("{failure:?} of other servers"),
    }
}

/// The servers, and what leads to them.
struct Scene {
    servers: Servers,
    gateways: [Gateway; 2],
    switch: Switch,
}

impl Scene {
    async fn of(failure: Failure) -> Self {
        let servers = match failure {
            Failure::Partition => {
                let site = Site::new();
                Servers::Remote { _engine: Engine::durable_at(&site).await, site }
            }
            Failure::Slots | Failure::Handover => Servers::Cluster(Cluster::of_six().await),
            _ => Servers::One(Engine::durable().await),
        };
        let gateways = [servers.gateway("one").await, servers.gateway("other").await];
        let switch = Switch::open(gateways.iter().map(|gateway| gateway.address).collect()).await;
        Self { servers, gateways, switch }
    }
}

/// The partition of a stream, by the FNV-1a hash of its name.
fn partition_of(stream: &str) -> u64 {
    let hash = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    stream.bytes().fold(0xcbf2_9ce4_8422_2325, hash) % 128
}

async fn run(failure: Failure, scene: &mut Scene, stream: &str) {
    let stop = Arc::new(AtomicBool::new(false));
    let publishers = (0..PUBLISHERS).map(|publisher| {
        tokio::spawn(publish(scene.switch.client(), stream.to_owned(), publisher, stop.clone()))
    });
    let publishers: Vec<_> = publishers.collect();
    let reader = tokio::spawn(read(scene.switch.client(), stream.to_owned()));
    for _ in 0..FAILURES {
        sleep(Duration::from_millis(fastrand::u64(..200))).await;
        fail(failure, scene, stream).await;
    }
    sleep(Duration::from_millis(fastrand::u64(..200))).await;
    stop.store(true, Ordering::Relaxed);
    let mut published = Vec::new();
    for publisher in publishers {
        published.push(publisher.await.unwrap());
    }
    let read = timeout(PATIENCE, reader).await;
    let read = read.unwrap_or_else(|_| panic!("{failure:?}: the reader waits in vain for {published:?}"));
    assert_eq!(read.unwrap().as_slice(), published);
}

/// Makes a run as often as `ENGINE_RUNS` says. It gets the name of its stream.
pub async fn runs(what: &str, mut run: impl AsyncFnMut(&str)) {
    let runs: usize = std::env::var("ENGINE_RUNS").map_or(1, |runs| runs.parse().unwrap());
    for number in 1..=runs {
        let stream = format!("s{number}");
        timeout(3 * PATIENCE, run(&stream)).await.unwrap_or_else(|_| panic!("{what}: run {number} hangs"));
        println!(
            "{what}: {number} of {runs} runs, each acknowledged message once and in order, or a gap was told"
        );
    }
}

/// Runs the history of a kind of failure.
pub async fn history(failure: Failure) {
    let mut scene = Scene::of(failure).await;
    runs(&format!("{failure:?}"), async |stream| run(failure, &mut scene, stream).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_gateways_lose_nothing() {
    history(Failure::Gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_an_engine_that_syncs_lose_nothing() {
    history(Failure::Engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_connections_for_news_lose_nothing() {
    history(Failure::News).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_pauses_loses_nothing() {
    history(Failure::Pause).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_for_news_that_are_cut_as_too_slow_lose_nothing() {
    history(Failure::Buffer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_of_slots_lose_nothing() {
    history(Failure::Slots).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handovers_to_replicas_of_a_cluster_lose_nothing() {
    history(Failure::Handover).await;
}
