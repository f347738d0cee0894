//! A hostile network: a TCP relay in front of the gateway that reads heads and breaks what its rule says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// A fault of the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// None: everything passes.
    Open,
    /// Answers 400 to an upgrade.
    RefuseUpgrades,
    /// Answers 403 to an upgrade.
    ForbidUpgrades,
    /// Answers 401 to requests without this bearer token.
    NeedToken(&'static str),
    /// Closes an upgraded connection when the scenario says so.
    CutUpgraded,
    /// Never passes on responses of event and line streams and of WebSockets.
    SwallowLive,
    /// Closes the connection in place of every `n`th answer, and sends every `2 n`th request twice.
    LoseAnswers(usize),
    /// Answers everything with a page.
    Captive,
}

/// A running relay; gone when dropped.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    way: Arc<Way>,
    task: JoinHandle<()>,
}

struct Way {
    gateway: Mutex<SocketAddr>,
    rule: Mutex<Rule>,
    upgrades: AtomicUsize,
    answers: AtomicUsize,
    connections: AtomicUsize,
    /// The heads of all requests, in lower case.
    requests: Mutex<Vec<String>>,
    /// Connections with lower numbers are silently dead.
    forgotten: AtomicUsize,
    cut: Notify,
}

impl Relay {
    pub(crate) async fn start(gateway: SocketAddr, rule: Rule) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), gateway, rule).await
    }

    /// Starts a relay on an address that clients already use.
    pub(crate) async fn start_at(address: SocketAddr, gateway: SocketAddr, rule: Rule) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let way = Arc::new(Way {
            gateway: Mutex::new(gateway),
            rule: Mutex::new(rule),
            upgrades: AtomicUsize::new(0),
            answers: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            requests: Mutex::new(Vec::new()),
            forgotten: AtomicUsize::new(0),
            cut: Notify::new(),
        });
        let accepting = way.clone();
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let way = accepting.clone();
                tokio::spawn(async move { drop(way.carry(client).await) });
            }
        });
        Self { address, way, task }
    }

    /// Sets the rule. Connections that were cut or silenced before stay so.
    pub(crate) fn set(&self, rule: Rule) {
        *self.way.rule.lock() = rule;
    }

    /// Silently kills all connections, as when a device gets another address.
    pub(crate) fn forget_connections(&self) {
        self.way.forgotten.store(self.way.connections.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Cuts the connections that were upgraded under [`Rule::CutUpgraded`].
    pub(crate) fn cut_upgraded(&self) {
        self.way.cut.notify_waiters();
    }

    /// Sets another address of the gateway.
    pub(crate) fn lead_to(&self, gateway: SocketAddr) {
        *self.way.gateway.lock() = gateway;
    }

    /// The heads of all requests so far, in lower case.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.way.requests.lock().clone()
    }

    /// Returns the number of requested upgrades.
    pub(crate) fn upgrades(&self) -> usize {
        self.way.upgrades.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Way {
    async fn carry(self: Arc<Self>, client: TcpStream) -> std::io::Result<()> {
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        let gateway = *self.gateway.lock();
        let server = TcpStream::connect(gateway).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let ((from_client, mut to_client), (from_server, to_server)) =
            (client.into_split(), server.into_split());
        let heads = Arc::new(Mutex::new(Vec::new()));
        let requests = self.clone().requests(number, from_client, to_server, heads.clone());
        let mut requests = tokio::spawn(requests);
        tokio::select! {
            refused = &mut requests => match refused {
                Ok(Some(answer)) => {
                    to_client.write_all(answer).await?;
                    to_client.shutdown().await
                }
                _ => Ok(()),
            },
            done = self.answers(number, from_server, &mut to_client, heads) => {
                requests.abort();
                done
            }
        }
    }

    /// Relays requests until the client closes, or sends the relay's own response instead.
    async fn requests(
        self: Arc<Self>,
        number: usize,
        mut client: OwnedReadHalf,
        mut server: OwnedWriteHalf,
        heads: Arc<Mutex<Vec<u8>>>,
    ) -> Option<&'static [u8]> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = client.read(&mut buffer).await.ok().filter(|length| *length > 0)?;
            let bytes = &buffer[..length];
            if self.is_forgotten(number) {
                continue;
            }
            let is_head = bytes.starts_with(b"GET ") || bytes.starts_with(b"POST ");
            if is_head {
                *heads.lock() = bytes.to_ascii_lowercase();
                self.requests.lock().push(String::from_utf8_lossy(&heads.lock()).into_owned());
                let upgrade = contains(&heads.lock(), b"upgrade: websocket");
                self.upgrades.fetch_add(usize::from(upgrade), Ordering::Relaxed);
                let rule = *self.rule.lock();
                match rule {
                    Rule::RefuseUpgrades if upgrade => {
                        return Some(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
                    }
                    Rule::ForbidUpgrades if upgrade => {
                        return Some(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
                    }
                    Rule::NeedToken(token) if !contains(&heads.lock(), bearer(token).as_bytes()) => {
                        return Some(
                            b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Length: 0\r\n\r\n",
                        );
                    }
                    Rule::Captive => {
                        return Some(
                            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
                        );
                    }
                    _ => {}
                }
            }
            server.write_all(bytes).await.ok()?;
            let doubled = |n: usize| self.answers.load(Ordering::Relaxed).is_multiple_of(2 * n);
            if is_head && matches!(*self.rule.lock(), Rule::LoseAnswers(n) if doubled(n)) {
                let (gateway, bytes) = (*self.gateway.lock(), bytes.to_vec());
                tokio::spawn(async move {
                    let mut again = TcpStream::connect(gateway).await.unwrap();
                    again.write_all(&bytes).await.unwrap();
                    drop(again.read(&mut [0; 1024]).await);
                });
            }
        }
    }

    fn is_forgotten(&self, number: usize) -> bool {
        number < self.forgotten.load(Ordering::Relaxed)
    }

    /// Counts an answer.
    fn is_one_in(&self, n: usize) -> bool {
        self.answers.fetch_add(1, Ordering::Relaxed) % n == n - 1
    }

    async fn answers(
        &self,
        number: usize,
        mut server: OwnedReadHalf,
        client: &mut OwnedWriteHalf,
        heads: Arc<Mutex<Vec<u8>>>,
    ) -> std::io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = server.read(&mut buffer).await?;
            if self.is_forgotten(number) {
                return std::future::pending().await;
            }
            if length == 0 {
                return client.shutdown().await;
            }
            let bytes = &buffer[..length];
            let live = [&b"live=sse"[..], b"live=ndjson", b"live=websocket"];
            let live = live.iter().any(|form| contains(&heads.lock(), form));
            let rule = *self.rule.lock();
            match rule {
                Rule::SwallowLive if live => continue,
                Rule::CutUpgraded if bytes.starts_with(b"HTTP/1.1 101") => {
                    let cut = self.cut.notified();
                    client.write_all(bytes).await?;
                    let rest = async { tokio::io::copy(&mut server, client).await };
                    tokio::select! { _ = rest => {}, () = cut => {} }
                    return Ok(());
                }
                Rule::LoseAnswers(n) if bytes.starts_with(b"HTTP/1.1") && self.is_one_in(n) => return Ok(()),
                _ => {}
            }
            client.write_all(bytes).await?;
        }
    }
}

/// The field of a request with a token, in lower case.
pub(crate) fn bearer(token: &str) -> String {
    format!("\r\nauthorization: bearer {token}\r\n")
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}
