//! Publishers and a reader that move between two gateways, while gateways, the engine and their connections fail: every acknowledged
//! message is delivered once and in order.
//!
//! `ENGINE_RUNS=200` runs each kind of failure that often; by default once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pollgate_client::{Client, Item, Start};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::deployment::Cluster;
use crate::server::Engine;
use crate::world::{Gateway, PATIENCE};

const PUBLISHERS: usize = 2;
const MESSAGES: usize = 60;

/// A run ends on a busy machine, too: there, each message may take as long as the pause between two failures.
const FAILURES_MAX: usize = 20;

/// The partition of the stream `s`.
const NEWS_PARTITION: u64 = 34;

/// What fails during a run, again and again.
#[derive(Debug, Clone, Copy)]
enum Failure {
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
    /// The hash slots of a cluster move to other nodes.
    Slots,
    /// Replicas of a cluster take over, at the request of an operator.
    Handover,
}

/// The servers of a run.
enum Servers {
    One(Engine),
    Cluster(Cluster),
}

impl Servers {
    async fn gateway(&self, name: &str) -> Gateway {
        match self {
            Self::One(engine) => engine.gateway(name).await,
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

    fn client(&self) -> Client {
        Client::new(&format!("http://{}", self.address)).unwrap()
    }
}

async fn publish(client: Client, publisher: usize) {
    let producer = client.producer("s", "application/json");
    for number in 0..MESSAGES {
        producer.publish(format!("[{publisher},{number}]")).await.unwrap();
    }
}

/// Reads until everything has come, and checks that nothing comes twice or out of order.
async fn read(client: Client) {
    let mut subscription = client.subscribe(["s"], Start::earliest());
    let mut next = [0; PUBLISHERS];
    while next.iter().any(|count| *count < MESSAGES) {
        match subscription.next().await.expect("the subscription goes on") {
            Item::Message(message) => {
                let [publisher, number]: [usize; 2] = serde_json::from_slice(message.data.bytes()).unwrap();
                assert_eq!(number, next[publisher], "of publisher {publisher}; {next:?}");
                next[publisher] += 1;
            }
            Item::Gap { reason, .. } => panic!("a gap: {reason}"),
            _ => {}
        }
    }
}

async fn fail(failure: Failure, servers: &mut Servers, gateways: &mut [Gateway; 2], switch: &Switch) {
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
        (Failure::Slots, Servers::Cluster(cluster)) => {
            for partition in [NEWS_PARTITION, fastrand::u64(..128)] {
                cluster.move_slot(&format!("pollgate:{{{partition}}}:")).await;
            }
        }
        (Failure::Handover, Servers::Cluster(cluster)) => {
            let replica = (0..cluster.nodes.len())
                .filter(|node| cluster.nodes[*node].info("INFO replication", "role") == "slave")
                .nth(fastrand::usize(..3))
                .expect("three replicas");
            let _done: String = cluster.nodes[replica].ask("CLUSTER FAILOVER");
            cluster.is_whole().await;
        }
        (failure, _) => panic!("{failure:?} of other servers"),
    }
}

async fn run(failure: Failure) {
    let mut servers = match failure {
        Failure::Slots => Servers::Cluster(Cluster::start(3, 0).await),
        Failure::Handover => Servers::Cluster(Cluster::of_six().await),
        _ => Servers::One(Engine::durable().await),
    };
    let mut gateways = [servers.gateway("one").await, servers.gateway("other").await];
    let switch = Switch::open(gateways.iter().map(|gateway| gateway.address).collect()).await;
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        publishers.spawn(publish(switch.client(), publisher));
    }
    let mut reader = tokio::spawn(read(switch.client()));
    let mut failures = 0;
    while !reader.is_finished() && !publishers.is_empty() && failures < FAILURES_MAX {
        fail(failure, &mut servers, &mut gateways, &switch).await;
        failures += 1;
        tokio::select! {
            Some(published) = publishers.join_next() => published.unwrap(),
            () = sleep(Duration::from_millis(fastrand::u64(200..600))) => {}
        }
    }
    let read = timeout(PATIENCE, &mut reader).await;
    read.unwrap_or_else(|_| panic!("{failure:?}: the reader waits in vain after {failures} failures"))
        .unwrap();
}

/// Makes a run as often as `ENGINE_RUNS` says.
pub async fn runs<F: Future<Output = ()>>(what: &str, run: impl Fn() -> F) {
    let runs: usize = std::env::var("ENGINE_RUNS").map_or(1, |runs| runs.parse().unwrap());
    for number in 0..runs {
        timeout(3 * PATIENCE, run()).await.unwrap_or_else(|_| panic!("{what}: run {number} hangs"));
    }
    println!("{what}: {runs} runs, each acknowledged message once and in order, or a gap was told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_gateways_lose_nothing() {
    runs("Gateway", || run(Failure::Gateway)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_an_engine_that_syncs_lose_nothing() {
    runs("Engine", || run(Failure::Engine)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_connections_for_news_lose_nothing() {
    runs("News", || run(Failure::News)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_pauses_loses_nothing() {
    runs("Pause", || run(Failure::Pause)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_for_news_that_are_cut_as_too_slow_lose_nothing() {
    runs("Buffer", || run(Failure::Buffer)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_of_slots_lose_nothing() {
    runs("Slots", || run(Failure::Slots)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handovers_to_replicas_of_a_cluster_lose_nothing() {
    runs("Handover", || run(Failure::Handover)).await;
}
