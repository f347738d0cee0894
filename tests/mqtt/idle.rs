//! Memory per client of ten thousand idle MQTT clients, compared with mosquitto in the same run.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tokio::net::TcpStream;

use crate::world::mqtt::{Hello, Mqtt};
use crate::world::{Gateway, reserved_port, until};

const CLIENTS: usize = 10_000;

#[tokio::test]
async fn ten_thousand_idle_clients_cost_what_is_documented_beside_mosquitto() {
    let gateway = Gateway::start(&["--limit", "connections_per_second_max=100000"]).await;
    let ours = cost(gateway.mqtt, gateway.id()).await;
    gateway.until_mqtt_clients(0).await;
    assert_eq!(gateway.metric("pollgate_subscribers").await, 0.0);
    let mosquitto = Mosquitto::start().await;
    let theirs = cost(mosquitto.address, mosquitto.child.id()).await;
    println!(
        "{CLIENTS} idle MQTT connections, one subscription each: {ours} bytes a connection; mosquitto {theirs}"
    );
    // docs/benchmarks.md, "What a wake costs, and what is left".
    assert!(ours < 1900, "{ours}");
}

/// Returns the user memory per client in bytes.
async fn cost(address: SocketAddr, process: u32) -> u64 {
    // The first client causes one-time allocations, which are not counted.
    Mqtt::connect(address, &Hello { version: 4, ..Hello::new("warm") }).await.subscribe("warm", 1).await;
    let before = memory_bytes(process);
    let mut clients = Vec::with_capacity(CLIENTS);
    for index in 0..CLIENTS {
        let mut client =
            Mqtt::connect(address, &Hello { version: 4, ..Hello::new(&format!("idle-{index}")) }).await;
        client.subscribe(&format!("devices/{index}"), 1).await;
        clients.push(client);
    }
    // The last client's responses have arrived, so nothing is in flight.
    clients.last_mut().unwrap().ping().await;
    (memory_bytes(process) - before) / CLIENTS as u64
}

fn memory_bytes(process: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).expect("smaps_rollup");
    let line = text.lines().find_map(|line| line.strip_prefix("Pss_Anon:")).expect("Pss_Anon");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// The broker of Debian's package, on a port of its own.
pub(crate) struct Mosquitto {
    pub(crate) address: SocketAddr,
    child: Child,
}

impl Mosquitto {
    pub(crate) async fn start() -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], reserved_port()));
        let settings =
            std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("mosquitto-{}.conf", free.port()));
        let text = format!("listener {} 127.0.0.1\nallow_anonymous true\nmax_connections -1\n", free.port());
        std::fs::write(&settings, text).unwrap();
        let child = Command::new("mosquitto").arg("-c").arg(&settings).stderr(Stdio::null()).spawn();
        let child = child.expect("mosquitto is installed (Debian package mosquitto)");
        until("mosquitto listens", async || TcpStream::connect(free).await.is_ok()).await;
        std::fs::remove_file(settings).unwrap();
        Self { address: free, child }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }
}
