//! [`WebhookServer`]: receives the requests to a webhook, and answers as a test says.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use super::PATIENCE;

/// A response, complete from its status line on; an empty one closes the connection instead.
type Response = String;

/// A server of webhooks.
pub struct WebhookServer {
    pub address: SocketAddr,
    received: UnboundedReceiver<Webhook>,
    /// The next responses; the last one is repeated.
    answers: Arc<Mutex<VecDeque<Response>>>,
}

/// A request to a webhook.
#[derive(Debug, Clone)]
pub struct Webhook {
    pub head: String,
    pub body: Vec<u8>,
}

/// Returns a response with a body of JSON.
fn response(status: &str, body: &str) -> Response {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

impl WebhookServer {
    /// Starts a server that answers 200 and `{}`.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (sender, received) = unbounded_channel();
        let answers = Arc::new(Mutex::new(VecDeque::from([response("200 OK", "{}")])));
        let next = answers.clone();
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                tokio::spawn(serve(stream, sender.clone(), next.clone()));
            }
        });
        Self { address, received, answers }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Sets the next responses, each a status line and a body; the last one is repeated.
    pub fn answer(&self, answers: &[(&str, &str)]) {
        *self.answers.lock() = answers.iter().map(|(status, body)| response(status, body)).collect();
    }

    /// Sets a response with header fields, each of which ends with CRLF.
    pub fn answer_with(&self, status: &str, fields: &str) {
        let response = format!("HTTP/1.1 {status}\r\n{fields}content-length: 0\r\nconnection: close\r\n\r\n");
        *self.answers.lock() = VecDeque::from([response]);
    }

    /// Waits for the next request.
    pub async fn next(&mut self) -> Webhook {
        timeout(PATIENCE, self.received.recv()).await.expect("a request in time").expect("the server runs")
    }

    /// The next request, if one has arrived.
    pub fn try_next(&mut self) -> Option<Webhook> {
        self.received.try_recv().ok()
    }
}

impl Webhook {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a body of JSON")
    }

    /// The value of a header field.
    pub fn header(&self, name: &str) -> &str {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut values =
            fields.filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim());
        values.next().unwrap_or_default()
    }
}

async fn serve(
    mut stream: TcpStream,
    received: UnboundedSender<Webhook>,
    answers: Arc<Mutex<VecDeque<Response>>>,
) {
    let mut bytes = Vec::new();
    let head_bytes = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_bytes]).into_owned();
    let mut webhook = Webhook { head, body: Vec::new() };
    let length: usize = webhook.header("content-length").parse().unwrap_or(0);
    while bytes.len() < head_bytes + length {
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    }
    webhook.body = bytes[head_bytes..].to_vec();
    let _over = received.send(webhook);
    let answer = {
        let mut answers = answers.lock();
        if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }
    };
    let _gone = stream.write_all(answer.unwrap_or_default().as_bytes()).await;
}
