//! Tests how many store operations a publish takes, and its outcome.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use super::*;
use crate::clock::Clock;
use crate::hub::{Creation, Hub};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::store::Memory;
use crate::stream::{
    Appended, Batch, ChangeError, Create, CreateError, Created, Description, Epoch, Message, MessageLimit,
    Messages, Principal, ReadError, ReadLimit, SessionNames, SessionPage, Snapshot, Start, Store, StreamPage,
    Work,
};

/// A memory store that counts its operations.
#[derive(Default)]
struct Counting {
    memory: Memory,
    calls: AtomicUsize,
}

impl Counting {
    fn counted(&self) -> &Memory {
        self.calls.fetch_add(1, Ordering::Relaxed);
        &self.memory
    }
}

impl Store for Counting {
    fn create<'a>(
        &'a self,
        name: &'a StreamName,
        create: Create,
        now: SystemTime,
    ) -> Work<'a, Result<Created, CreateError>> {
        self.counted().create(name, create, now)
    }

    fn append<'a>(
        &'a self,
        name: &'a StreamName,
        append: Box<Append>,
        now: SystemTime,
    ) -> Work<'a, Result<Appended, AppendError>> {
        self.counted().append(name, append, now)
    }

    fn read<'a>(
        &'a self,
        name: &'a StreamName,
        start: Start,
        limit: ReadLimit,
        now: SystemTime,
    ) -> Work<'a, Result<Batch, ReadError>> {
        self.counted().read(name, start, limit, now)
    }

    fn messages<'a>(
        &'a self,
        name: &'a StreamName,
        start: Start,
        limit: MessageLimit,
        now: SystemTime,
    ) -> Work<'a, Result<Messages, ReadError>> {
        self.counted().messages(name, start, limit, now)
    }

    fn peek<'a>(
        &'a self,
        name: &'a StreamName,
        start: Start,
        limit: MessageLimit,
        now: SystemTime,
    ) -> Work<'a, Result<Messages, ReadError>> {
        self.counted().peek(name, start, limit, now)
    }

    fn retained<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<Option<Message>, ReadError>> {
        self.counted().retained(name, now)
    }

    fn clear_retained<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<(), ChangeError>> {
        self.counted().clear_retained(name, now)
    }

    fn describe<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<Description, ChangeError>> {
        self.counted().describe(name, now)
    }

    fn snapshot<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<Snapshot, ReadError>> {
        self.counted().snapshot(name, now)
    }

    fn delete<'a>(&'a self, name: &'a StreamName, now: SystemTime) -> Work<'a, Result<(), ChangeError>> {
        self.counted().delete(name, now)
    }

    fn change_session(&self, change: SessionChange) -> Work<'_, Result<(), Failure>> {
        self.counted().change_session(change)
    }

    fn session_page<'a>(
        &'a self,
        names: SessionNames<'a>,
        after: Option<&'a str>,
    ) -> Work<'a, Result<SessionPage, Failure>> {
        self.memory.session_page(names, after)
    }

    fn outlives_process(&self) -> bool {
        self.memory.outlives_process()
    }

    fn attach(&self, name: &StreamName) -> Option<Epoch> {
        self.counted().attach(name)
    }

    fn detach(&self, name: &StreamName, epoch: Epoch, now: SystemTime) {
        self.counted().detach(name, epoch, now);
    }

    fn follow_wall(&self, now: SystemTime, wall: SystemTime) {
        self.memory.follow_wall(now, wall);
    }

    fn sweep(&self, now: SystemTime) -> Work<'_, Result<Vec<StreamName>, Failure>> {
        self.memory.sweep(now)
    }

    fn page<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a StreamName>,
        now: SystemTime,
    ) -> Work<'a, Result<StreamPage, Failure>> {
        self.counted().page(prefix, after, now)
    }

    fn streams(&self) -> usize {
        self.memory.streams()
    }

    fn is_damaged(&self) -> bool {
        self.memory.is_damaged()
    }

    fn has_failed(&self) -> bool {
        self.memory.has_failed()
    }

    fn close<'a>(&'a self) -> Work<'a, ()> {
        self.memory.close()
    }
}

fn name(text: &str) -> StreamName {
    StreamName::parse(text).unwrap()
}

fn publication(payload: &'static str, content_type: Option<&str>) -> Publication {
    let properties =
        MessageProperties { content_type: content_type.map(Into::into), ..MessageProperties::default() };
    let payload = payload.into();
    Publication {
        payload,
        qos: QoS::AtLeastOnce,
        retain: false,
        properties,
        principal: Principal::GATEWAY,
        may_create: true,
        stored_with_it: None,
    }
}

#[tokio::test]
async fn a_publish_is_one_store_operation() {
    let (store, limits) = (Arc::new(Counting::default()), Arc::new(Limits::default()));
    let (metrics, clock) = (Arc::new(Metrics::new()), Clock::start());
    let hub = Arc::new(Hub::new(store.clone(), limits.clone(), metrics.clone(), clock));
    for (stream, content_type) in [("json", "application/json"), ("text", "text/plain")] {
        let content_type = ContentType::parse(content_type).ok();
        hub.create(&name(stream), Creation { content_type, ..Creation::default() }).await.unwrap();
    }
    let broker = Broker::new(hub.clone(), limits, &metrics, clock);
    for (stream, payload, offered, outcome, tail) in [
        ("json", "[1, 2]", None, Ok(()), 2),
        ("json", "{", None, Err(Refusal::lasting(Reason::PayloadFormatInvalid)), 2),
        ("json", "[]", None, Err(Refusal::lasting(Reason::PayloadFormatInvalid)), 2),
        ("text", "{", Some("application/json"), Ok(()), 1),
        ("missing", "{", Some("application/json"), Err(Refusal::lasting(Reason::PayloadFormatInvalid)), 0),
        ("missing", "[1, 2, 3]", Some("application/json"), Ok(()), 3),
        ("missing", "4", None, Ok(()), 4),
        ("octets", "[1, 2, 3]", None, Ok(()), 9),
    ] {
        let before = store.calls.load(Ordering::Relaxed);
        let published = broker.append("ada", &name(stream), publication(payload, offered)).await;
        let operations = store.calls.load(Ordering::Relaxed) - before;
        assert_eq!((published.map(drop), operations), (outcome, 1), "{payload} to {stream}");
        let now = hub.describe(&name(stream)).await.map_or(0, |described| described.tail.position.0);
        assert_eq!(now, tail, "{payload} to {stream}");
    }
}
