//! Publishers and a reader that take two gateways in turn, while the engine loses what it had acknowledged: a loss is never silent.
//!
//! Each acknowledged append is in the log in the end, or its offset is refused with 410. No position of one epoch has two contents, and
//! a reader that got a message that was lost got a 410 afterwards. `ENGINE_RUNS=200` runs each kind of failure that often, each
//! time on a stream of its own; by default once.

use rustix::process::Signal;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::deployment::Watched;
use crate::history::runs;
use crate::server::Engine;
use crate::world::{Answer, Connection, Gateway, PATIENCE, Request, get, post, until};

const PUBLISHERS: usize = 2;

/// Appends that each publisher makes at least.
const APPENDS: usize = 10;

/// What loses appends during a run.
#[derive(Debug, Clone, Copy)]
enum Loss {
    /// The primary is killed, and Sentinel promotes the replica.
    Kill,
    /// The primary hangs until the replica is promoted, and then goes on.
    Hang,
    /// The sentinel and the replica no longer reach the primary, but the gateways do, until they hear of the promotion.
    Split,
    /// The replica no longer gets what is appended, and is promoted after the primary is killed.
    Behind,
    /// The engine keeps nothing, and is killed and started again.
    Restart,
}

enum Servers {
    One(Engine),
    Watched(Watched),
}

/// What was seen: the content at each position of each epoch.
#[derive(Default)]
struct Seen(HashMap<(String, u64), String>);

impl Seen {
    fn insert(&mut self, epoch: &str, position: u64, content: &str) {
        let before = self.0.insert((epoch.to_owned(), position), content.to_owned());
        assert!(before.is_none_or(|before| before == content), "two contents at {epoch}_{position}");
    }
}

/// Both gateways in turn.
#[derive(Clone)]
struct Alternating {
    addresses: [SocketAddr; 2],
    next: usize,
}

impl Alternating {
    async fn send(&mut self, request: Request) -> Answer {
        self.next += 1;
        Connection::open(self.addresses[self.next % 2]).await.send(request).await
    }

    /// Reads a path, again while the engine is not used again after the loss.
    async fn read(&mut self, path: &str) -> Answer {
        loop {
            let answer = self.send(get(path)).await;
            if answer.status != 503 {
                return answer;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Epoch and position of an offset.
fn parts(offset: &str) -> (String, u64) {
    let (epoch, position) = offset.split_once('_').expect("an offset");
    (epoch.to_owned(), u64::from_str_radix(position, 16).or(position.parse()).unwrap())
}

fn contents(answer: &Answer) -> Vec<String> {
    answer.json().as_array().expect("an array").iter().map(ToString::to_string).collect()
}

/// Appends numbers, and returns the offset behind each that was acknowledged.
async fn publish(
    mut gateways: Alternating,
    stream: String,
    publisher: usize,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
) -> Vec<(String, String)> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        if acknowledged.len() >= APPENDS && stop.load(Ordering::Relaxed) {
            break;
        }
        let content = format!("[{publisher},{number}]");
        let answer =
            gateways.send(post(format!("/v1/stream/{stream}?create=1")).json(format!("[{content}]"))).await;
        match answer.status.as_u16() {
            200 | 201 | 204 => {
                let offset = answer.next_offset();
                let (epoch, position) = parts(&offset);
                seen.lock().insert(&epoch, position - 1, &content);
                acknowledged.push((offset, content));
            }
            503 => {}
            status => panic!("{status}: {}", answer.text()),
        }
        sleep(Duration::from_millis(20)).await;
    }
    acknowledged
}

/// Reads until the last message comes. Returns what it had read and how many gaps it was told.
async fn read(mut gateways: Alternating, stream: String, seen: Arc<Mutex<Seen>>) -> (Vec<String>, usize) {
    let (mut offset, mut all, mut gaps) = ("-1".to_owned(), Vec::new(), 0);
    loop {
        let answer =
            gateways.send(get(format!("/v1/stream/{stream}?offset={offset}&live=long-poll&timeout=1"))).await;
        match answer.status.as_u16() {
            200 => {
                let (epoch, next) = parts(&answer.next_offset());
                let contents = contents(&answer);
                let first = next - contents.len() as u64;
                for (position, content) in (first..).zip(&contents) {
                    seen.lock().insert(&epoch, position, content);
                }
                let is_last = contents.iter().any(|content| content == "\"last\"");
                all.extend(contents);
                if is_last {
                    return (all, gaps);
                }
                offset = answer.next_offset();
            }
            204 => offset = answer.next_offset(),
            // A stream that is gone is a loss that was told.
            404 | 410 => {
                gaps += 1;
                offset = "-1".to_owned();
                sleep(Duration::from_millis(20)).await;
            }
            503 => sleep(Duration::from_millis(20)).await,
            status => panic!("{status}: {}", answer.text()),
        }
    }
}

async fn lose(loss: Loss, servers: &mut Servers, seen: &Mutex<Seen>) {
    match servers {
        Servers::One(engine) => {
            engine.kill();
            sleep(Duration::from_millis(fastrand::u64(..100))).await;
            engine.restart().await;
        }
        Servers::Watched(watched) => {
            let primary = watched.primary();
            match loss {
                Loss::Hang => watched.servers[primary].signal(Signal::STOP),
                Loss::Split => watched.isolate(primary),
                Loss::Behind => {
                    watched.stop_replication(primary);
                    let before = seen.lock().0.len();
                    until("appends that the replica lacks", async || seen.lock().0.len() > before + 3).await;
                    watched.servers[primary].kill();
                }
                Loss::Kill | Loss::Restart => watched.servers[primary].kill(),
            }
            watched.promotes(1 - primary).await;
            match loss {
                // Sentinel takes ten seconds to make it a replica.
                Loss::Hang => {
                    watched.servers[primary].signal(Signal::CONT);
                    sleep(Duration::from_millis(fastrand::u64(..1500))).await;
                    watched.follow(primary).await;
                }
                Loss::Split => {
                    // Some appends go to the former primary.
                    sleep(Duration::from_millis(fastrand::u64(..1500))).await;
                    watched.reconnect(primary).await;
                }
                Loss::Kill | Loss::Behind | Loss::Restart => {
                    watched.servers[primary].restart().await;
                    watched.follow(primary).await;
                }
            }
            watched.is_whole().await;
        }
    }
}

async fn history(what: &str, loss: Loss) {
    let mut servers = match loss {
        Loss::Restart => Servers::One(Engine::volatile().await),
        Loss::Kill | Loss::Hang | Loss::Split | Loss::Behind => Servers::Watched(Watched::start(&[]).await),
    };
    let (one, other) = match &servers {
        Servers::One(engine) => (engine.gateway("one").await, engine.gateway("other").await),
        Servers::Watched(watched) => (watched.gateway("one").await, watched.gateway("other").await),
    };
    let addresses = [&one, &other].map(|gateway: &Gateway| gateway.address);
    runs(what, async |stream| run(loss, &mut servers, addresses, stream).await).await;
}

async fn run(loss: Loss, servers: &mut Servers, addresses: [SocketAddr; 2], stream: &str) {
    let mut gateways = Alternating { addresses, next: 0 };
    let (seen, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let seen = Arc::clone(&seen);
        publishers.spawn(publish(gateways.clone(), stream.to_owned(), publisher, seen, stop.clone()));
    }
    let reader = tokio::spawn(read(gateways.clone(), stream.to_owned(), Arc::clone(&seen)));
    sleep(Duration::from_millis(fastrand::u64(100..300))).await;
    lose(loss, servers, &seen).await;
    stop.store(true, Ordering::Relaxed);
    let acknowledged: Vec<_> = publishers.join_all().await.into_iter().flatten().collect();
    until("the last message is appended", async || {
        let answer =
            gateways.clone().send(post(format!("/v1/stream/{stream}?create=1")).json("[\"last\"]")).await;
        matches!(answer.status.as_u16(), 200 | 201 | 204)
    })
    .await;
    let (read, gaps) = timeout(PATIENCE, reader).await.expect("the reader gets the last message").unwrap();
    let whole = gateways.read(&format!("/v1/stream/{stream}")).await.expect(200);
    let first = parts(&whole.next_offset()).1 - contents(&whole).len() as u64;
    let log: HashMap<u64, String> = (first..).zip(contents(&whole)).collect();
    let mut lost = 0;
    for (offset, content) in &acknowledged {
        if log.get(&(parts(offset).1 - 1)) != Some(content) {
            gateways.read(&format!("/v1/stream/{stream}?offset={offset}")).await.expect(410);
            lost += 1;
        }
    }
    let in_log: Vec<&String> = log.values().collect();
    let is_lost = |content: &String| !in_log.contains(&content);
    assert!(gaps > 0 || !read.iter().any(is_lost), "a reader was not told of a loss");
    assert!(lost > 0 || !matches!(loss, Loss::Behind), "the replica had everything");
    println!(
        "{loss:?}: {} acknowledged, {lost} lost, the reader was told of {gaps} losses",
        acknowledged.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_primary_loses_is_told() {
    history("kills of a primary", Loss::Kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_primary_loses_that_hung_is_told() {
    history("a primary hangs", Loss::Hang).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_primary_loses_that_was_cut_off_is_told() {
    history("a primary is cut off", Loss::Split).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_promoted_replica_lacks_is_told() {
    history("a replica that is behind is promoted", Loss::Behind).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_engine_without_persistence_loses_is_told() {
    history("restarts without persistence", Loss::Restart).await;
}
