//! [`Provider`]: a server for what the gateway itself sends, such as a push service. It keeps the requests, and answers as the
//! scenario says.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::PATIENCE;

/// A request that the provider has received.
pub struct Received {
    pub path: String,
    pub headers: hyper::HeaderMap,
    pub body: Bytes,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("visible characters"))
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }
}

/// A server on a free port; a drop ends it.
pub struct Provider {
    pub address: SocketAddr,
    received: mpsc::UnboundedReceiver<Received>,
    statuses: Arc<Mutex<VecDeque<u16>>>,
    _tasks: JoinSet<()>,
}

impl Provider {
    /// Starts a provider that answers each request with 201 unless the scenario says otherwise.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (sender, received) = mpsc::unbounded_channel();
        let statuses = Arc::new(Mutex::new(VecDeque::new()));
        let mut tasks = JoinSet::new();
        let answers = statuses.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (sender, answers) = (sender.clone(), answers.clone());
                let service = service_fn(move |request| answer(request, sender.clone(), answers.clone()));
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, received, statuses, _tasks: tasks }
    }

    /// The statuses of the next answers.
    pub fn answer(&self, statuses: &[u16]) {
        self.statuses.lock().expect("no panic").extend(statuses);
    }

    /// Waits for the next request.
    pub async fn next(&mut self) -> Received {
        timeout(PATIENCE, self.received.recv()).await.expect("a request in time").expect("the provider runs")
    }

    /// Returns a request that has arrived.
    pub fn try_next(&mut self) -> Option<Received> {
        self.received.try_recv().ok()
    }
}

async fn answer(
    request: Request<Incoming>,
    sender: mpsc::UnboundedSender<Received>,
    statuses: Arc<Mutex<VecDeque<u16>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let _gone = sender.send(Received { path: head.uri.path().to_owned(), headers: head.headers, body });
    let status = statuses.lock().expect("no panic").pop_front().unwrap_or(201);
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    Ok(response)
}
