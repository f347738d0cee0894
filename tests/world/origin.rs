//! [`Origin`]: an HTTP server of a scenario, from which the gateway fills streams. It answers what the scenario says at the moment.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::until;

/// What an origin does with a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// A response of this media type, with its digest as entity tag; 304 if the request knows it.
    Body(&'static str, String),
    /// A status and header fields, without a body.
    Status(u16, &'static str),
    /// Bytes that are written as they are.
    Bytes(&'static str),
    /// Nothing: the connection stays open.
    Nothing,
    /// A body that never ends.
    Endless,
}

/// A request that an origin has received.
#[derive(Debug, Clone)]
pub struct Received {
    pub at: Instant,
    pub head: String,
}

/// A running origin. A drop ends it.
pub struct Origin {
    pub address: SocketAddr,
    shared: Arc<Mutex<(Reply, Vec<Received>)>>,
    task: JoinHandle<()>,
}

impl Origin {
    /// Starts an origin that answers with a JSON text.
    pub async fn start(json: impl ToString) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Mutex::new((Self::json(json), Vec::new())));
        let state = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, state.clone()));
            }
        });
        Self { address, shared, task }
    }

    fn json(json: impl ToString) -> Reply {
        Reply::Body("application/json", json.to_string())
    }

    /// The URL of the origin.
    pub fn url(&self) -> String {
        format!("http://{}/feed?key=secret", self.address)
    }

    /// Changes its JSON text.
    pub fn has(&self, json: impl ToString) {
        self.replies(Self::json(json));
    }

    /// Changes what it does.
    pub fn replies(&self, reply: Reply) {
        self.shared.lock().expect("no panic").0 = reply;
    }

    /// The requests so far.
    pub fn received(&self) -> Vec<Received> {
        self.shared.lock().expect("no panic").1.clone()
    }

    /// Waits until it has received this many requests more.
    pub async fn until_asked(&self, more: usize) {
        let count = self.received().len() + more;
        until("requests to the origin", async || self.received().len() >= count).await;
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers the one request of a connection.
async fn serve(mut stream: TcpStream, shared: Arc<Mutex<(Reply, Vec<Received>)>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).expect("a head is text").to_ascii_lowercase();
    let reply = {
        let mut shared = shared.lock().expect("no panic");
        shared.1.push(Received { at: Instant::now(), head: head.clone() });
        shared.0.clone()
    };
    let text = match reply {
        Reply::Body(media_type, body) => {
            let tag = format!("\"{:08x}\"", crc32c::crc32c(body.as_bytes()));
            if head.contains(&format!("if-none-match: {tag}\r\n")) {
                format!("HTTP/1.1 304 Not Modified\r\netag: {tag}\r\nconnection: close\r\n\r\n")
            } else {
                let length = body.len();
                format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: {media_type}\r\netag: {tag}\r\ncontent-length: {length}\r\n\
                     connection: close\r\n\r\n{body}"
                )
            }
        }
        Reply::Status(status, fields) => {
            format!("HTTP/1.1 {status} It\r\n{fields}content-length: 0\r\nconnection: close\r\n\r\n")
        }
        Reply::Bytes(bytes) => bytes.to_owned(),
        Reply::Nothing => {
            // Until the client leaves.
            let _end = stream.read_u8().await;
            return;
        }
        Reply::Endless => {
            let head =
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000000\r\n\r\n[";
            let mut outcome = stream.write_all(head.as_bytes()).await;
            while outcome.is_ok() {
                outcome = stream.write_all(&[b' '; 4096]).await;
            }
            return;
        }
    };
    // The client may have left.
    let _sent = stream.write_all(text.as_bytes()).await;
    let _shut = stream.shutdown().await;
}
