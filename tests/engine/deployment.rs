//! Engines of several servers: a primary and a replica that a sentinel watches, and clusters.

use std::fmt::Write as _;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::server::{Engine, start_gateway};
use crate::world::{Gateway, reserved_port, until};

/// Starts a server that listens on a port, too.
async fn server(port: u16, arguments: &[&str]) -> Engine {
    let port = port.to_string();
    Engine::start(&[&["--bind", "127.0.0.1", "--port", port.as_str()], arguments].concat()).await
}

/// Waits until a replica has what its primary had when this began. (`WAIT` knows only the writes of its own connection.)
async fn has_received(replica: &Engine, primary: &Engine) {
    let offset = |engine: &Engine| -> u64 {
        engine.info("INFO replication", "master_repl_offset").parse().unwrap_or_default()
    };
    let sent = offset(primary);
    until("the replica has it", async || offset(replica) >= sent).await;
}

/// Starts two servers that do not know each other, and returns their ports, too.
pub async fn two_servers() -> ([Engine; 2], [u16; 2]) {
    let ports = [reserved_port(), reserved_port()];
    let arguments = ["--repl-diskless-sync-delay", "0", "--save", ""];
    ([server(ports[0], &arguments).await, server(ports[1], &arguments).await], ports)
}

/// Makes a server a replica of the one at a port, and waits until it has what that one has.
pub async fn follow(replica: &Engine, port: u16) {
    let _done: String = replica.ask(&format!("REPLICAOF 127.0.0.1 {port}"));
    let follows = async || replica.info("INFO replication", "master_link_status") == "up";
    until("the replica follows", follows).await;
}

/// Makes the user of the gateways.
const GATEWAY_USER: &str = "ACL SETUSER gate on >secret allkeys allchannels +@all";

/// A primary, a replica, and a sentinel.
pub struct Watched {
    pub servers: [Engine; 2],
    ports: [u16; 2],
    sentinel: Child,
    sentinel_port: u16,
    _directory: TempDir,
}

impl Watched {
    /// Starts the servers with additional arguments.
    pub async fn start(arguments: &[&str]) -> Self {
        let ports = [reserved_port(), reserved_port()];
        let arguments = [&["--repl-diskless-sync-delay", "0", "--save", ""], arguments].concat();
        let primary = server(ports[0], &arguments).await;
        let of_primary = format!("127.0.0.1 {}", ports[0]);
        let replica = server(ports[1], &[&arguments[..], &["--replicaof", &of_primary]].concat()).await;
        let sentinel_port = reserved_port();
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut settings = format!("port {sentinel_port}\nbind 127.0.0.1\n");
        writeln!(settings, "sentinel monitor main 127.0.0.1 {} 1", ports[0]).unwrap();
        settings.push_str("sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 1500\n");
        let file = directory.path().join("sentinel.conf");
        std::fs::write(&file, settings).unwrap();
        let binary = std::env::var("ENGINE_BINARY").unwrap_or_else(|_| "redis-server".to_owned());
        let mut sentinel = Command::new(binary);
        sentinel.arg(&file).arg("--sentinel").current_dir(directory.path()).stdout(Stdio::null());
        let sentinel = sentinel.spawn().unwrap();
        // The gateways have a user of their own, so that a server can refuse the sentinel and the replica alone.
        for server in [&primary, &replica] {
            let _done: String = server.ask(GATEWAY_USER);
        }
        let watched =
            Self { servers: [primary, replica], ports, sentinel, sentinel_port, _directory: directory };
        until("the replica follows", async || {
            watched.servers[1].info("INFO replication", "master_link_status") == "up"
        })
        .await;
        until("the sentinel knows the replica", async || watched.ask(&["SENTINEL", "REPLICAS", "main"]) > 0)
            .await;
        watched
    }

    /// The first address leads nowhere.
    pub fn url(&self) -> String {
        format!("redis+sentinel://gate:secret@127.0.0.1:1,127.0.0.1:{}/main", self.sentinel_port)
    }

    pub async fn gateway(&self, name: &str) -> Gateway {
        start_gateway(&self.url(), name, &[]).await
    }

    /// Asks the sentinel, and returns how many items its answer has.
    fn ask(&self, command: &[&str]) -> usize {
        let answer = self.ask_for::<Vec<redis::Value>>(command);
        answer.map_or(0, |items| items.len())
    }

    fn ask_for<T: redis::FromRedisValue>(&self, command: &[&str]) -> redis::RedisResult<T> {
        let mut connection = redis::Client::open(("127.0.0.1", self.sentinel_port))?.get_connection()?;
        redis::cmd(command[0]).arg(&command[1..]).query(&mut connection)
    }

    /// Which of the servers is the primary, as the sentinel says.
    pub fn primary(&self) -> usize {
        let (_, port): (String, u16) =
            self.ask_for(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"]).unwrap();
        self.ports.iter().position(|own| *own == port).expect("one of the servers")
    }

    /// Waits until this server has been promoted.
    pub async fn promotes(&self, server: usize) {
        let is_primary = async || self.servers[server].info("INFO replication", "role") == "master";
        until("the replica is promoted", is_primary).await;
    }

    /// Waits until the replica has what the primary had when this began.
    pub async fn is_replicated(&self) {
        let primary = self.primary();
        has_received(&self.servers[1 - primary], &self.servers[primary]).await;
    }

    /// Ends the replication of a server, which a replica then cannot begin again.
    pub fn stop_replication(&self, server: usize) {
        let _done: String = self.servers[server].ask("ACL SETUSER default -psync -sync");
        let _cut: u64 = self.servers[server].ask("CLIENT KILL TYPE replica");
    }

    /// Makes a server refuse the sentinel and the replica, as if the network between them were cut.
    pub fn isolate(&self, server: usize) {
        let _done: String =
            self.servers[server].ask("ACL SETUSER default -ping -psync -sync -slaveof -replicaof");
        let _cut: u64 = self.servers[server].ask("CLIENT KILL TYPE replica");
    }

    /// Ends what [`isolate`](Self::isolate) began, and makes the server a replica, as Sentinel would after ten seconds.
    pub async fn reconnect(&self, server: usize) {
        let _done: String = self.servers[server].ask("ACL SETUSER default +@all");
        self.follow(server).await;
    }

    /// Makes a server that was started again follow the other one, as Sentinel would after ten seconds.
    pub async fn follow(&self, server: usize) {
        let _done: String = self.servers[server].ask(GATEWAY_USER);
        let command = format!("REPLICAOF 127.0.0.1 {}", self.ports[1 - server]);
        until("it follows", async || self.servers[server].try_ask::<String>(&command).is_ok()).await;
    }

    /// Waits until the other server follows the primary again, and the sentinel knows it.
    pub async fn is_whole(&self) {
        until("the replica follows", async || {
            let replica = 1 - self.primary();
            self.servers[replica].info("INFO replication", "master_link_status") == "up"
                && self.servers[1 - replica].info("INFO replication", "role") == "master"
        })
        .await;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ended = self.sentinel.kill();
        let _status = self.sentinel.wait();
    }
}

/// A cluster of primaries, each with a replica or without.
pub struct Cluster {
    pub nodes: Vec<Engine>,
    ports: Vec<u16>,
    primaries: usize,
}

impl Cluster {
    /// Starts three primaries with a replica each.
    pub async fn of_six() -> Self {
        Self::start(3, 3).await
    }

    /// Starts primaries and replicas, which replicate the primaries in turn.
    pub async fn start(primaries: usize, replicas: usize) -> Self {
        let (mut nodes, mut ports) = (Vec::new(), Vec::new());
        for _ in 0..primaries + replicas {
            let port = reserved_port();
            let bus = reserved_port().to_string();
            let arguments = [
                ["--cluster-enabled", "yes"],
                ["--cluster-port", &bus],
                ["--cluster-node-timeout", "1000"],
                ["--save", ""],
                ["--repl-diskless-sync-delay", "0"],
            ];
            nodes.push(server(port, arguments.as_flattened()).await);
            let (first, own_bus) = (ports.first().copied().unwrap_or(port), bus);
            if let Some(node) = nodes.first().filter(|_| first != port) {
                let met: String = node.ask(&format!("CLUSTER MEET 127.0.0.1 {port} {own_bus}"));
                assert_eq!(met, "OK");
            }
            ports.push(port);
        }
        let cluster = Self { nodes, ports, primaries };
        let part = 16_384 / primaries;
        for (index, node) in cluster.nodes.iter().take(primaries).enumerate() {
            let last = if index + 1 == primaries { 16_383 } else { (index + 1) * part - 1 };
            let _done: String = node.ask(&format!("CLUSTER ADDSLOTSRANGE {} {last}", index * part));
        }
        let knows_all = |node: &Engine| {
            node.info("CLUSTER INFO", "cluster_known_nodes") == (primaries + replicas).to_string()
        };
        until("the nodes know each other", async || cluster.nodes.iter().all(knows_all)).await;
        for (index, node) in cluster.nodes.iter().enumerate().skip(primaries) {
            let primary = cluster.id(index % primaries);
            let _done: String = node.ask(&format!("CLUSTER REPLICATE {primary}"));
        }
        cluster.is_whole().await;
        cluster
    }

    /// Waits until all slots are served, and each replica follows its primary.
    pub async fn is_whole(&self) {
        let is_up = |node: &Engine| {
            node.info("CLUSTER INFO", "cluster_state") == "ok"
                && node.info("CLUSTER INFO", "cluster_slots_ok") == "16384"
                && (node.info("INFO replication", "role") == "master"
                    || node.info("INFO replication", "master_link_status") == "up")
        };
        until("the cluster is whole", async || self.nodes.iter().all(is_up)).await;
    }

    /// Waits until the replicas have what their primaries had when this began.
    pub async fn is_replicated(&self) {
        for replica in &self.nodes[self.primaries..] {
            let port = replica.info("INFO replication", "master_port");
            let primary = self.ports.iter().position(|own| own.to_string() == port).expect("a primary");
            has_received(replica, &self.nodes[primary]).await;
        }
    }

    /// The identity of a node.
    pub fn id(&self, node: usize) -> String {
        self.nodes[node].ask("CLUSTER MYID")
    }

    pub fn url(&self) -> String {
        format!("redis+cluster://127.0.0.1:1,127.0.0.1:{}", self.ports[1])
    }

    pub async fn gateway(&self, name: &str) -> Gateway {
        start_gateway(&self.url(), name, &[]).await
    }

    /// The node that has the slot of a key, and the slot.
    pub fn owner(&self, key: &str) -> (usize, u16) {
        let slot: u16 = self.nodes[0].ask(&format!("CLUSTER KEYSLOT {key}"));
        let ranges: Vec<Vec<redis::Value>> = self.nodes[0].ask("CLUSTER SLOTS");
        let number = |value: &redis::Value| -> u16 { redis::from_redis_value(value.clone()).unwrap() };
        let has_slot = |range: &&Vec<redis::Value>| (number(&range[0])..=number(&range[1])).contains(&slot);
        let range = ranges.iter().find(has_slot).expect("some node has it");
        let redis::Value::Array(primary) = &range[2] else { panic!("{range:?}") };
        let port = number(&primary[1]);
        (self.ports.iter().position(|own| *own == port).unwrap(), slot)
    }

    /// Moves the slot of a key to another primary, as `redis-cli --cluster reshard` does, key by key.
    pub async fn move_slot(&self, key: &str) {
        let (from, slot) = self.owner(key);
        // On a busy machine, a replica may have taken over.
        let is_primary = |node: &usize| self.nodes[*node].info("INFO replication", "role") == "master";
        let others: Vec<_> = (0..self.nodes.len()).filter(|node| *node != from).filter(is_primary).collect();
        let to = others[fastrand::usize(..others.len())];
        self.begin_move(slot, from, to);
        self.finish_move(slot, from, to).await;
    }

    /// Lets two nodes know that a slot moves from one to the other.
    pub fn begin_move(&self, slot: u16, from: usize, to: usize) {
        let _done: String =
            self.nodes[to].ask(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", self.id(from)));
        let _done: String =
            self.nodes[from].ask(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", self.id(to)));
    }

    /// Moves one key.
    pub fn move_key(&self, key: &str, from: usize, to: usize) {
        let moved: String =
            self.nodes[from].ask(&format!("MIGRATE 127.0.0.1 {} {key} 0 5000", self.ports[to]));
        assert_eq!(moved, "OK");
    }

    /// Moves the remaining keys of a slot, and the slot.
    pub async fn finish_move(&self, slot: u16, from: usize, to: usize) {
        loop {
            let keys: Vec<String> = self.nodes[from].ask(&format!("CLUSTER GETKEYSINSLOT {slot} 1"));
            let Some(key) = keys.first() else { break };
            self.move_key(key, from, to);
            tokio::task::yield_now().await;
        }
        for node in [to, from] {
            let _done: String = self.nodes[node].ask(&format!("CLUSTER SETSLOT {slot} NODE {}", self.id(to)));
        }
    }
}
