//! Publishers that continue through failures of the gateway. Each is an idempotent producer that repeats a message until it is
//! acknowledged, on a stream of its own and on a stream that all share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::home::Home;
use crate::ledger::Ledger;
use crate::message::Message;
use crate::world::{Connection, Gateway, PATIENCE, Stopwatch, post, put};

/// Pause of a refused publisher before it repeats the message.
const PAUSE: Duration = Duration::from_millis(5);

/// Returns the number of text bytes of a publisher's message, by its counter.
pub(crate) type Size = fn(u64) -> usize;

/// A stream and its publishers.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    pub(crate) path: String,
    pub(crate) publishers: Vec<usize>,
}

/// Running publishers. A drop ends them at once.
pub(crate) struct Crew {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) streams: Vec<Stream>,
    tasks: JoinSet<()>,
    is_over: Arc<AtomicBool>,
}

struct Publisher {
    number: usize,
    size: Size,
    home: Home,
    connection: Option<Connection>,
    ledger: Arc<Ledger>,
}

impl Stream {
    fn own(publisher: usize) -> Self {
        Self { path: format!("/v1/stream/own/{publisher}"), publishers: vec![publisher] }
    }

    fn shared(publishers: usize) -> Self {
        Self { path: "/v1/stream/shared".into(), publishers: (0..publishers).collect() }
    }

    /// Returns the streams of a crew of `publishers`, the shared one first.
    pub(crate) fn of(publishers: usize) -> Vec<Self> {
        let own = (0..publishers).map(Self::own);
        std::iter::once(Self::shared(publishers)).chain(own).collect()
    }

    pub(crate) async fn create(&self, gateway: &Gateway) {
        gateway.send(put(&self.path).json("")).await.expect(201);
    }
}

impl Crew {
    /// Starts `publishers` publishers. Their streams must exist.
    pub(crate) fn start(home: &Home, publishers: usize, size: Size) -> Self {
        let (ledger, is_over) = <(Arc<Ledger>, Arc<AtomicBool>)>::default();
        let mut tasks = JoinSet::new();
        for number in 0..publishers {
            let (home, ledger) = (home.clone(), ledger.clone());
            let publisher = Publisher { number, size, home, connection: None, ledger };
            tasks.spawn(publisher.work(is_over.clone()));
        }
        Self { ledger, streams: Stream::of(publishers), tasks, is_over }
    }

    /// Waits until the crew has `messages` more acknowledgements, and returns how long that took.
    pub(crate) async fn more(&mut self, messages: u64) -> Duration {
        let (since, goal) = (Instant::now(), self.ledger.total() + messages);
        while self.ledger.total() < goal {
            assert!(since.elapsed() < PATIENCE, "{messages} more acknowledgements do not come");
            self.check();
            sleep(PAUSE).await;
        }
        since.elapsed()
    }

    /// Waits until each publisher has another acknowledgement.
    pub(crate) async fn each_goes_on(&mut self) {
        for publisher in 0..self.tasks.len() {
            let (since, before) = (Instant::now(), self.ledger.of(publisher));
            while self.ledger.of(publisher) == before {
                assert!(since.elapsed() < PATIENCE, "publisher {publisher} gets no acknowledgement any more");
                self.check();
                sleep(PAUSE).await;
            }
        }
    }

    /// Panics if a publisher failed.
    pub(crate) fn check(&mut self) {
        if let Some(ended) = self.tasks.try_join_next() {
            ended.expect("a publisher is told nothing that it does not expect");
        }
    }

    /// Waits until each publisher's last message is acknowledged, and ends them.
    pub(crate) async fn finish(mut self) -> Arc<Ledger> {
        self.is_over.store(true, Ordering::Relaxed);
        let all = timeout(PATIENCE, std::mem::take(&mut self.tasks).join_all());
        all.await.expect("each last message is acknowledged in time");
        self.ledger
    }

    /// Ends the publishers at once.
    pub(crate) async fn stop(mut self) -> Arc<Ledger> {
        self.check();
        self.tasks.shutdown().await;
        self.ledger
    }
}

impl Publisher {
    async fn work(mut self, is_over: Arc<AtomicBool>) {
        let streams = [Stream::own(self.number).path, Stream::shared(0).path];
        for counter in 0.. {
            for stream in &streams {
                self.append(stream, counter).await;
                self.ledger.acknowledge(stream, self.number);
            }
            if is_over.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// Repeats a message until it is acknowledged. Panics on an answer that is neither an acknowledgement nor a server error.
    async fn append(&mut self, stream: &str, counter: u64) {
        let message = Message { publisher: self.number, counter, size: (self.size)(counter) };
        let append = post(stream)
            .header("producer-id", format!("publisher-{}", self.number))
            .header("producer-epoch", 0)
            .header("producer-seq", counter)
            .json(message);
        loop {
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => self.home.connect().await,
            };
            let since = Stopwatch::start();
            let Some(answer) = self.home.send(&mut connection, append.clone()).await else { continue };
            match answer.status.as_u16() {
                200 | 204 => {
                    self.connection = Some(connection);
                    return;
                }
                500.. => self.ledger.refuse(self.number, &answer, since.took()),
                _ => panic!("publisher {} on {stream}, message {counter}: {answer:?}", self.number),
            }
            self.connection = Some(connection);
            sleep(PAUSE).await;
        }
    }
}
