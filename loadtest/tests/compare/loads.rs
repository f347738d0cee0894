//! The loads on real servers, and the combinations that are refused because they would be unfair.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::ports::reserved_port;
use crate::world::{Ended, Loadtest, alone};

const SHORT: [&str; 6] = ["--rounds", "1", "--seconds", "1", "--warm-up", "0.5"];

async fn load(arguments: &[&str]) -> Ended {
    Loadtest::new_without_output(&[arguments, &SHORT].concat()).run().await
}

/// Returns the numbers in the table's line that begins with `name`.
fn line(ended: &Ended, name: &str) -> Vec<f64> {
    let line = ended.said.lines().find(|line| line.trim_start().starts_with(name)).expect(name);
    let words = line.trim_start().trim_start_matches(name).split([' ', '(', ')']);
    words.filter_map(|word| word.parse().ok()).collect()
}

/// A command, the header that its table must have, the number of columns, and the index of a column with the lower limit of its
/// figures.
type Case<'a> = (&'a [&'a str], &'a str, usize, (usize, f64));

const CASES: [Case<'_>; 10] = [
    (&["appends"], "appends/s", 5, (0, 500.0)),
    (&["wake"], "wakes/s", 5, (0, 15.0)),
    (&["wake", "--closed-loop", "--held", "3"], "wakes/s", 5, (0, 50.0)),
    (&["short-polls", "--connections", "8"], "polls/s", 5, (0, 500.0)),
    (&["appends", "--generator", "wrk"], "appends/s", 5, (3, 1.0)),
    (&["short-polls", "--generator", "wrk", "--threads", "1"], "polls/s", 5, (4, 0.1)),
    (&["fan-out", "--clients", "50"], "publisher's answer", 6, (4, 1.0)),
    (&["hold", "--clients", "200"], "KiB a client", 8, (0, 0.1)),
    (&["hold", "--clients", "200", "--streams", "1", "--form", "sse"], "KiB a client", 8, (0, 0.1)),
    (&["hold", "--clients", "200", "--form", "websocket"], "KiB a client", 8, (0, 0.1)),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_and_a_rival_take_turns() {
    let _turn = alone().await;
    for (command, header, columns, (column, least)) in CASES {
        let ended = load(&[command, &["--rival", "nchan"]].concat()).await;
        assert_eq!(ended.code, Some(0));
        assert!(ended.said.contains(header) && ended.said.contains("messages in memory"), "{}", ended.said);
        let (own, rival) = (line(&ended, "pollgate  "), line(&ended, "nchan  "));
        // Median, least and greatest of each column are equal after one round.
        assert!(own.len() == 3 * columns && own[0] == own[1] && own[1] == own[2], "{own:?}");
        let (own, rival) = (own[3 * column], rival[3 * column]);
        assert!(own > least && rival > least, "{command:?}: {own} {rival}");
        let ratio = line(&ended, "pollgate : nchan  ")[3 * column];
        assert!((own / rival - ratio).abs() < 0.01 + 0.02 * ratio, "{command:?}: {own} {rival} {ratio}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_connections_are_held_beside_mosquitto() {
    let _turn = alone().await;
    let ended = load(&["hold", "--clients", "200", "--form", "mqtt", "--rival", "mosquitto"]).await;
    assert_eq!(ended.code, Some(0));
    for server in ["pollgate  ", "mosquitto  "] {
        let figures = line(&ended, server);
        assert!(figures.len() == 3 * 8 && figures[0] > 0.1, "{server}: {figures:?}");
    }
}

/// A command for two instances of each server on one Redis, the header that its table must have, the number of columns, and the index of a
/// column with the lower limit of its figures. The figures of `wake` and `fan-out` are those of messages that have all arrived.
const SHARED: [Case<'_>; 4] = [
    (&["appends", "--connections", "4", "--rival", "engine"], "appends/s", 5, (0, 50.0)),
    (&["wake", "--rival", "memory"], "wakes/s", 5, (0, 15.0)),
    (&["fan-out", "--clients", "50", "--rival", "memory"], "publisher's answer", 6, (4, 1.0)),
    (&["hold", "--clients", "200"], "KiB a client", 8, (0, 0.1)),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_of_each_server_share_a_redis() {
    let _turn = alone().await;
    let redis = Redis::start().await;
    for (command, header, columns, (column, least)) in SHARED {
        let both = ["--gateways", "2", "--store", &redis.url, "--rival", "nchan"];
        let ended = load(&[command, &both].concat()).await;
        assert_eq!(ended.code, Some(0));
        let shared = "messages in an engine that 2 of each server share";
        assert!(ended.said.contains(header) && ended.said.contains(shared), "{}", ended.said);
        for server in ["pollgate  ", "nchan  "] {
            let figures = line(&ended, server);
            assert!(figures.len() == 3 * columns && figures[3 * column] > least, "{command:?}: {figures:?}");
        }
        let further = command.iter().skip_while(|option| **option != "--rival").nth(1);
        assert!(
            further.is_none_or(|rival| !line(&ended, &format!("{rival}  ")).is_empty()),
            "{}",
            ended.said
        );
    }
}

/// A Redis that keeps nothing. A drop kills it.
struct Redis {
    url: String,
    server: Child,
}

impl Redis {
    async fn start() -> Self {
        let port = reserved_port();
        let server = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"])
            .arg(port.to_string())
            .stdout(Stdio::null())
            .spawn()
            .expect("apt-get install redis-server");
        let listens = async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(60), listens).await.expect("redis-server listens");
        Self { url: format!("redis://127.0.0.1:{port}"), server }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.server.kill();
        let _status = self.server.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfair_comparisons_are_refused() {
    let _turn = alone().await;
    let here = env!("CARGO_TARGET_TMPDIR");
    for (arguments, why) in [
        (&["--rival", "nchan", "--store", here][..], "nchan cannot keep messages in --store"),
        (
            &["--rival", "mosquitto", "--store", "valkey://localhost"],
            "mosquitto cannot keep messages in --store",
        ),
        (&["--gateways", "2"], "--gateways needs --store"),
        (&["--rival", "engine"], "--rival engine needs --store"),
        (&["--rival", "engine", "--store", "redis://localhost", "--generator", "wrk"], "appends without wrk"),
        (&["--rival", "memory", "--target", "http://127.0.0.1:1"], "remove --target"),
        (&["--store", "/dev/shm"], "tmpfs is no disk"),
        (&["--rival", "mosquitto"], "mosquitto has no long-poll"),
        (&["--generator", "wrk", "--streams", "2"], "remove --streams 2 or --generator wrk"),
        (&["--rival", "durable-streams=/no/such/program"], "durable-streams is not installed"),
        (&["--rival", "pollgate=/no/such/program"], "other build is not installed"),
    ] {
        let ended = load(&[&["appends"], arguments].concat()).await;
        assert_eq!(ended.code, Some(2), "{arguments:?}");
        assert!(ended.said.contains(why), "{}", ended.said);
    }
}
