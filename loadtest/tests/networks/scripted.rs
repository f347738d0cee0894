//! An HTTP server that sends scripted responses byte by byte, and keeps the requests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use loadtest::network::{Middlebox, Profile};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::ends::{ANY, HANGS};

/// One step of a response.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    Says(&'static str),
    Waits(Duration),
    /// Sends back all further bytes, until the client disconnects.
    Echoes,
    Closes,
}

pub(crate) struct Scripted {
    pub(crate) middlebox: Middlebox,
    pub(crate) address: SocketAddr,
    /// The requests, each with its head and body.
    pub(crate) heard: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Scripted {
    /// Starts a server with this script for each request, behind a network.
    pub(crate) async fn behind(profile: &Profile, script: &'static [Part]) -> Self {
        let listener = TcpListener::bind(ANY).await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hearing = heard.clone();
        let serving = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(client, script, hearing.clone()));
            }
        });
        let middlebox = Middlebox::start(profile, ANY, address).unwrap();
        Self { middlebox, address, heard, serving }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.middlebox.address()).await.unwrap()
    }

    /// Sends a request on a new connection; returns all bytes until the end of the connection, or until a second without bytes.
    pub(crate) async fn ask(&self, request: &str) -> String {
        let mut client = self.connect().await;
        client.write_all(request.as_bytes()).await.unwrap();
        until_quiet(&mut client, Duration::from_secs(1)).await
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Returns the bytes until the end of the connection, or until nothing arrives for `quiet`.
pub(crate) async fn until_quiet(client: &mut TcpStream, quiet: Duration) -> String {
    let (mut all, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    while let Ok(Ok(count @ 1..)) = timeout(quiet, client.read(&mut buffer)).await {
        all.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8(all).unwrap()
}

/// Returns the bytes until they end with `ending`, or until the end of the connection.
pub(crate) async fn until_it_ends_with(client: &mut TcpStream, ending: &str) -> String {
    let (mut all, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    while !all.ends_with(ending.as_bytes()) {
        match timeout(HANGS, client.read(&mut buffer)).await.expect("nothing came in a minute") {
            Ok(count @ 1..) => all.extend_from_slice(&buffer[..count]),
            _ => break,
        }
    }
    String::from_utf8(all).unwrap()
}

async fn serve(mut client: TcpStream, script: &'static [Part], heard: Arc<Mutex<Vec<String>>>) {
    while let Some(request) = request(&mut client).await {
        heard.lock().push(request);
        for part in script {
            match part {
                Part::Says(text) if client.write_all(text.as_bytes()).await.is_err() => return,
                Part::Says(_) => {}
                Part::Waits(time) => sleep(*time).await,
                Part::Echoes => {
                    let (mut from, mut to) = client.split();
                    drop(tokio::io::copy(&mut from, &mut to).await);
                    return;
                }
                Part::Closes => return,
            }
        }
    }
}

/// Reads a head, and a body of the length in the head.
async fn request(client: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(client.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&text).to_lowercase();
    if let Some((_, length)) = head.split_once("content-length: ") {
        let mut body = vec![0; length.split("\r\n").next()?.parse().ok()?];
        client.read_exact(&mut body).await.ok()?;
        text.extend_from_slice(&body);
    }
    String::from_utf8(text).ok()
}
