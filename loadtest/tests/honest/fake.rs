//! A server of the test that speaks just enough of the protocol for long polls, and has the faults that it is
//! told. It delivers each append of each stream in order, but for the faults, which it counts.

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

/// What goes wrong, by the number of an append to its stream (from 0). Each hits one append in so many; 0:
/// none.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) lose_every: u32,
    pub(crate) double_every: u32,
    pub(crate) swap_every: u32,
    /// Each append of these streams whose number is a multiple waits so long before it is seen.
    pub(crate) stall_every: u32,
    pub(crate) stall: Duration,
    /// Answered 500, and not kept.
    pub(crate) refuse_every: u32,
    /// From one accept to the next.
    pub(crate) accept_pause: Duration,
    /// From when a poll could be answered until it is.
    pub(crate) answer_pause: Duration,
    /// Polls are held so long and no longer, whatever they ask for.
    pub(crate) hold_max: Option<Duration>,
    /// Whether a message is lost, by its stream and its number in it, as the message says them itself.
    pub(crate) loses: Option<fn(u32, u32) -> bool>,
    /// Polls get all messages, whatever their offset.
    pub(crate) forgets_offsets: bool,
}

#[derive(Default)]
struct Log {
    appended: u32,
    messages: Vec<Bytes>,
    /// A message that waits for the next one to go first.
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

/// A number that a message says of itself.
fn part(message: &Bytes, index: usize) -> u32 {
    let text = std::str::from_utf8(message).unwrap();
    u32::from_str_radix(text.split('.').nth(index).unwrap(), 16).unwrap()
}

fn status(status: StatusCode, offset: usize, body: Bytes) -> Response<Full<Bytes>> {
    Response::builder().status(status).header("stream-next-offset", offset).body(Full::new(body)).unwrap()
}
