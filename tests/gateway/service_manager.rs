//! What a service manager such as systemd hands over and is told.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::select;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::world::{Connection, Gateway, PATIENCE, get, program, reserved_port, send_signal, until};

/// The socket on which a service manager listens.
struct Manager {
    folder: TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { folder, socket }
    }

    /// Starts a gateway that has to show in time that it is alive.
    async fn start(&self, silence: Duration) -> Gateway {
        let path = self.folder.path().join("notify");
        let variables =
            [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", &silence.as_micros().to_string())];
        Gateway::start_with(&[], &variables).await
    }

    /// The next thing that it is told.
    async fn told(&self) -> String {
        let socket = self.socket.try_clone().unwrap();
        let received = spawn_blocking(move || {
            let mut message = [0; 256];
            let length = socket.recv(&mut message).expect("it is told something within a minute");
            String::from_utf8_lossy(&message[..length]).trim().to_owned()
        });
        received.await.unwrap()
    }
}

#[tokio::test]
async fn a_service_manager_is_told_that_the_gateway_is_ready_alive_and_stopping() {
    let manager = Manager::new();
    let mut gateway = manager.start(Duration::from_millis(300)).await;
    assert_eq!(manager.told().await, "READY=1");
    for _ in 0..3 {
        assert_eq!(manager.told().await, "WATCHDOG=1");
    }
    gateway.signal("TERM");
    let mut told = manager.told().await;
    while told == "WATCHDOG=1" {
        told = manager.told().await;
    }
    assert_eq!(told, "STOPPING=1");
    assert!(gateway.ended(PATIENCE).await.success());
}

/// Starts `systemd-socket-activate`, which listens, and at the first connection becomes a gateway with its sockets.
fn activate(addresses: &[&str], names: &str) -> Child {
    let mut manager = Command::new("systemd-socket-activate");
    for address in addresses {
        manager.args(["--listen", address]);
    }
    manager.args(["--fdname", names, &program(), "--store", "memory", "--mqtt", "off"]);
    manager.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    manager.stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
}

#[tokio::test]
async fn a_gateway_serves_on_sockets_that_it_has_not_opened() {
    let [http, admin] =
        [reserved_port(), reserved_port()].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let mut manager = activate(&[&http.to_string(), &admin.to_string()], "http:admin");
    let is_served = async |address: SocketAddr, path: &str| match Connection::try_open(address).await {
        Ok(mut connection) => connection.send(get(path)).await.status == 200,
        Err(_) => false,
    };
    until("it listens", || is_served(http, "/v1/names")).await;
    until("it listens", || is_served(admin, "/ready")).await;
    send_signal(manager.id().unwrap(), Signal::TERM);
    let ended = timeout(PATIENCE, manager.wait()).await.expect("it hangs").unwrap();
    assert!(ended.success(), "{ended}");
}

/// The addresses of the sockets count, not those of the settings.
#[tokio::test]
async fn a_socket_that_other_machines_reach_needs_what_such_an_address_needs() {
    let port = reserved_port();
    let manager = activate(&[&format!("0.0.0.0:{port}")], "http");
    let mut ended = pin!(timeout(PATIENCE, manager.wait_with_output()));
    let output = loop {
        select! {
            output = &mut ended => break output.expect("it hangs").unwrap(),
            () = sleep(Duration::from_millis(5)) => drop(TcpStream::connect(("127.0.0.1", port)).await),
        }
    };
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && complaint.contains("--open"), "{complaint}");
}
