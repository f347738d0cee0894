//! A phone that reads its stream over a WebSocket and sends the heartbeats itself, as pings, by Mars's rule.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::Uri;
use pollgate::server::Running;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};

use super::Rule;
use crate::simulate::link::Link;
use crate::wire::WireError;

/// Time limit for a connection, and for the answer to a heartbeat.
const PATIENCE: Duration = Duration::from_secs(8);

/// Pause before a new connection.
const PAUSE: Duration = Duration::from_millis(200);

/// Pause after a failure to connect.
const LONG_PAUSE: Duration = Duration::from_secs(5);

/// An envelope, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    #[serde(default)]
    batches: Vec<Batch>,
    resume: Option<String>,
    resume_delta: Option<String>,
}

#[derive(Deserialize)]
struct Batch {
    #[serde(default)]
    data: Vec<Box<RawValue>>,
}

/// What a phone knows from one connection to the next.
struct State {
    rule: Rule,
    token: Option<String>,
    messages: mpsc::UnboundedSender<Bytes>,
}

/// Reads the stream, and hands its messages over, until the task is aborted.
pub(in crate::simulate) async fn read(
    link: Arc<Link>,
    gateway: Arc<Running>,
    stream: String,
    messages: mpsc::UnboundedSender<Bytes>,
) {
    let mut state = State { rule: Rule::new(), token: None, messages };
    loop {
        let opened = timeout(PATIENCE, open(&link, &gateway, &stream, state.token.as_deref())).await;
        let Ok(Ok(socket)) = opened else {
            sleep(LONG_PAUSE).await;
            continue;
        };
        // Any end of a connection is answered by the next one.
        let _ended = state.follow(socket).await;
        sleep(PAUSE).await;
    }
}

async fn open(
    link: &Arc<Link>,
    gateway: &Arc<Running>,
    stream: &str,
    token: Option<&str>,
) -> Result<WebSocketStream<TcpStream>, WireError> {
    let from = token.map_or_else(|| "from=earliest".to_owned(), |token| format!("resume={token}"));
    let uri = format!("ws://localhost/v1/streams?live=websocket&stream={stream}&{from}");
    let uri: Uri = uri.parse().map_err(hyper::http::Error::from)?;
    let socket = link.clone().connect(gateway.clone()).await?;
    Ok(ClientBuilder::from_uri(uri).connect_on(socket).await?.0)
}

impl State {
    /// Reads and sends heartbeats until the connection has ended or is silent. The first heartbeat is sent at once.
    async fn follow(&mut self, mut socket: WebSocketStream<TcpStream>) -> Result<(), WireError> {
        self.rule.connected();
        let (mut until, mut awaits_answer) = (Instant::now(), false);
        loop {
            tokio::select! {
                biased;
                message = socket.next() => {
                    let Some(Ok(message)) = message else {
                        if awaits_answer {
                            self.rule.failed();
                        }
                        return Err(WireError::Closed);
                    };
                    if message.is_pong() && awaits_answer {
                        awaits_answer = false;
                        self.rule.answered();
                        until += self.rule.next().saturating_sub(PATIENCE);
                    } else if message.is_text() {
                        self.take(message.as_payload());
                    }
                    // Answers a ping of the gateway.
                    socket.flush().await?;
                }
                () = sleep_until(until) => {
                    if awaits_answer {
                        self.rule.failed();
                        return Err(WireError::Mute);
                    }
                    socket.send(Message::ping(Bytes::new())).await?;
                    (until, awaits_answer) = (Instant::now() + PATIENCE, true);
                }
            }
        }
    }

    fn take(&mut self, frame: &[u8]) {
        let Ok(envelope) = serde_json::from_slice::<Envelope>(frame) else { return };
        for text in envelope.batches.iter().flat_map(|batch| &batch.data) {
            // The phone is gone when its simulation ends.
            let _gone = self.messages.send(Bytes::copy_from_slice(text.get().as_bytes()));
        }
        match (envelope.resume, envelope.resume_delta, &mut self.token) {
            (Some(whole), _, token) => *token = Some(whole),
            (None, Some(part), Some(token)) => token.push_str(&format!(".{part}")),
            _ => {}
        }
    }
}
