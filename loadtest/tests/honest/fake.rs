//! A server with the long polls of the protocol and with configured faults. It delivers the appends of each stream in order,
//! except for the faults.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// Faults, selected by the number of an append in its stream (from 0). `*_every: n` hits one append in `n`; 0 disables the
/// fault.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) lose_every: u32,
    pub(crate) double_every: u32,
    pub(crate) swap_every: u32,
    /// The selected appends of each stream are delayed by `stall` before readers see them.
    pub(crate) stall_every: u32,
    pub(crate) stall: Duration,
    /// The selected appends are answered with 500 and discarded.
    pub(crate) refuse_every: u32,
    /// Time between two accepts.
    pub(crate) accept_pause: Duration,
    /// Delay of every response to a poll.
    pub(crate) answer_pause: Duration,
    /// Maximum hold time of a poll, regardless of its request.
    pub(crate) hold_max: Option<Duration>,
    /// Whether a message is lost, by its stream and sequence number, which are read from the message.
    pub(crate) loses: Option<fn(u32, u32) -> bool>,
    /// Polls return all messages, regardless of their offset.
    pub(crate) forgets_offsets: bool,
}

#[derive(Default)]
struct Log {
    appended: u32,
    messages: Vec<Bytes>,
    /// A message that is delivered after the next one.
    swapped: Option<Bytes>,
}

pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    logs: Mutex<HashMap<String, Log>>,
    changed: Notify,
    faults: Faults,
}

impl Fake {
    pub(crate) async fn start(faults: Faults) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let fake = Arc::new(Self { address, logs: Mutex::default(), changed: Notify::new(), faults });
        let server = fake.clone();
        tokio::spawn(async move {
            loop {
                sleep(faults.accept_pause).await;
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let server = server.clone();
                let service = service_fn(move |request| server.clone().answer(request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        fake
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let stream = request.uri().path().to_owned();
        Ok(match *request.method() {
            Method::PUT => status(StatusCode::CREATED, 0, Bytes::new()),
            Method::POST => {
                let message = request.into_body().collect().await.unwrap().to_bytes();
                status(self.append(stream, message).await, 0, Bytes::new())
            }
            _ => {
                let query = request.uri().query().unwrap_or_default();
                let value = |name: &str| {
                    query
                        .split('&')
                        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse::<i64>().ok())
                };
                let offset = usize::try_from(value("offset").unwrap()).unwrap_or(0);
                let hold = Duration::from_secs(value("timeout").unwrap_or(0) as u64);
                let hold = self.faults.hold_max.map_or(hold, |max| hold.min(max));
                self.read(&stream, if self.faults.forgets_offsets { 0 } else { offset }, hold).await
            }
        })
    }

    async fn append(&self, stream: String, message: Bytes) -> StatusCode {
        let number = {
            let mut logs = self.logs.lock();
            let log = logs.entry(stream.clone()).or_default();
            log.appended += 1;
            log.appended - 1
        };
        let hits = |every: u32| every > 0 && number % every == every - 1;
        if hits(self.faults.stall_every) {
            sleep(self.faults.stall).await;
        }
        if self.faults.loses.is_some_and(|loses| loses(part(&message, 1), part(&message, 2))) {
            return StatusCode::NO_CONTENT;
        }
        if hits(self.faults.refuse_every) {
            return StatusCode::INTERNAL_SERVER_ERROR;
        }
        {
            let mut logs = self.logs.lock();
            let log = logs.get_mut(&stream).unwrap();
            if hits(self.faults.lose_every) {
            } else if hits(self.faults.swap_every) {
                log.swapped = Some(message);
            } else {
                log.messages.push(message.clone());
                if hits(self.faults.double_every) {
                    log.messages.push(message);
                }
                let swapped = log.swapped.take();
                log.messages.extend(swapped);
            }
        }
        self.changed.notify_waiters();
        StatusCode::NO_CONTENT
    }

    async fn read(&self, stream: &str, offset: usize, hold: Duration) -> Response<Full<Bytes>> {
        let there = || {
            let logs = self.logs.lock();
            let messages = logs.get(stream).map_or(&[][..], |log| &log.messages);
            let new = messages.get(offset..).unwrap_or_default();
            (
                messages.len(),
                new.iter().map(|message| String::from_utf8_lossy(message).into_owned()).collect::<Vec<_>>(),
            )
        };
        let some = async {
            loop {
                let changed = self.changed.notified();
                let (tail, new) = there();
                if !new.is_empty() {
                    return (tail, new);
                }
                changed.await;
            }
        };
        let read = timeout(hold, some).await;
        sleep(self.faults.answer_pause).await;
        match read {
            Ok((tail, new)) => status(StatusCode::OK, tail, format!("[{}]", new.join(",")).into()),
            Err(_) => status(StatusCode::NO_CONTENT, there().0, Bytes::new()),
        }
    }
}

/// Returns a number of the message's mark.
fn part(message: &Bytes, index: usize) -> u32 {
    let text = std::str::from_utf8(message).unwrap();
    u32::from_str_radix(text.split('.').nth(index).unwrap(), 16).unwrap()
}

fn status(status: StatusCode, offset: usize, body: Bytes) -> Response<Full<Bytes>> {
    Response::builder().status(status).header("stream-next-offset", offset).body(Full::new(body)).unwrap()
}
