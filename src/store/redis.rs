//! The store in Redis or Valkey, which several gateways share (docs/scaling.md).
//!
//! Each step of the contract is one function of `library.lua`, which the engine runs as a whole: it decides, writes, and publishes the
//! news. The gateway keeps nothing of a stream but a guess of its content type. All keys of a stream begin with its partition,
//! `pollgate:{NUMBER}:`, and so are in one hash slot:
//!
//! | key | |
//! |---|---|
//! | `meta:NAME` | a hash: epoch and earlier epochs, tail, earliest position, settings, producers `p:ID`, last call of a gateway `g:ID` |
//! | `log:NAME` | a Redis stream: one entry an append, whose id is `0-` and its position plus one |
//! | `retained:NAME` | the retained message |
//! | `forks:NAME` | a set: forks for which the name stays taken |
//! | `waiters:NAME` | a hash: until when each gateway has readers, which stops an idle lifetime |
//! | `names`, `due`, `dated` | sorted sets of the partition: all streams, and when the sweep has to visit them |
//! | `streams`, `bytes` | sorted sets of the partition: what each principal has |
//! | `tenant_streams`, `tenant_bytes` | the same of each tenant |
//! | `over` | a set of the partition: who has used up a [share or quota](shares) |
//! | `moves:BUCKET` | sharded pub/sub channels for changes with their messages. A stream's bucket is the first byte of the SHA-1 hash of its name. A gateway subscribes to the buckets of the streams that it has readers of |
//! | `every` | the channel for the changes of all streams of the partition, for gateways with subscribers by wildcard |
//! | `news` | the channel for news of sessions, and of streams that have ended |
//! | `moves`, `buckets` | channels with which gateways of earlier versions hear changes: all of them in `moves`, or without messages in `news`. They do not subscribe to `buckets` |
//!
//! Sessions are in the partition of their name:
//!
//! | key | |
//! |---|---|
//! | `session:NAME` | a hash: the entries of the session |
//! | `sessions` | a sorted set: the names of all sessions of the partition |
//! | `owners`, `claims` | a hash: the [owner](claims) of each session that has one; a counter of claims |
//! | `awaited` | a sorted set: when a gateway has to look at sessions without an owner |
//!
//! The origin of a stream is a session in the partition of the stream, and ends with it. `pollgate:{gateways}:` has the `runs` of gateways, with
//! the time at which each was last alive, and which one has the `lease` to sweep. A sweep carries the number of its lease, and each partition
//! refuses one that is lower than the last `lease` there.
//!
//! A promoted replica may lack the last appends. Its replication id differs from that in the metadata, so the next append continues in a
//! new epoch, and offsets that were lost are refused for ever.

mod address;
mod append_queue;
mod appends;
mod argument;
mod attached;
mod claims;
mod continued;
mod engine;
mod forks;
mod functions;
mod heard;
mod hot;
mod inspect;
mod interest;
mod news;
mod news_queue;
mod nodes;
mod own_claims;
mod promise;
mod reads;
mod reply;
mod shared;
mod shares;
mod slots;
mod subscribers;
mod sweep;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use tokio::runtime::Handle;

use crate::budget::Budget;
use crate::stream::{
    Append, AppendError, Appended, Batch, ChangeError, Create, CreateError, Created, Description, Epoch,
    Failure, Filter, Message, MessageLimit, Messages, NewsListener, ReadError, ReadLimit, SessionChange,
    SessionClaims, SessionNames, SessionPage, Snapshot, Start, Store, StreamName, StreamPage, Work,
};
use shared::SharedStore;

pub use address::EngineError;
pub use attached::NewsRoom;
pub use engine::RedisOptions;
pub use inspect::{EngineFinding, Severity};
pub use promise::EnginePromise;

/// A store in an engine that other gateways use, too.
#[derive(Debug)]
pub struct Redis {
    shared: Arc<SharedStore>,
}

impl Redis {
    /// A store that connects when it is first used. What waits for the engine is charged to `budget`; its tasks run on `runtime`.
    pub fn new(options: RedisOptions, budget: Arc<Budget>, runtime: Handle) -> Result<Self, EngineError> {
        Ok(Self { shared: Arc::new(SharedStore::new(options, budget, runtime)?) })
    }

    /// Connects, and checks the settings of all servers of the engine. Fails if one may delete streams by itself. Returns what they
    /// promise, servers that promise the same only once.
    pub async fn check(&self) -> Result<Vec<EnginePromise>, EngineError> {
        let nodes = &self.shared.engine.nodes;
        let (mut promises, mut memory_max) = (Vec::new(), 0);
        for node in nodes.all().await.map_err(EngineError::Unusable)? {
            let mut connected = nodes.connected(&node).await.map_err(EngineError::Unusable)?;
            let promise =
                EnginePromise::read(&mut connected.connection).await.map_err(EngineError::Unusable)?;
            memory_max += promise.memory_max();
            if let Some(policy) = promise.eviction() {
                return Err(EngineError::Evicts(policy.to_owned()));
            }
            if !promises.contains(&promise) {
                promises.push(promise);
            }
        }
        self.shared.shares.set_memory(memory_max);
        Ok(promises)
    }

    /// Checks the settings of all servers, and says what to do about each.
    pub async fn inspect(&self) -> Result<Vec<EngineFinding>, EngineError> {
        inspect::check(&self.shared.engine).await
    }

    /// Describes the servers, their calls, and the sizes of the partitions, as lines for operators.
    pub async fn stats(&self) -> Result<Vec<String>, EngineError> {
        inspect::stats(&self.shared.engine).await
    }
}

impl Store for Redis {
    fn create<'a>(
        &'a self,
        name: &'a StreamName,
        create: Create,
        now: SystemTime,
    ) -> Work<'a, Result<Created, CreateError>> {
        Box::pin(self.shared.create(name, create, now))
    }

    fn append<'a>(
        &'a self,
        name: &'a StreamName,
        append: Box<Append>,
        now: SystemTime,
    ) -> Work<'a, Result<Appended, AppendError>> {
        Box::pin(self.shared.append_split(name, append, now))
    }

    fn read<'a>(
        &'a self,
        name: &'a StreamName,
        start: Start,
        limit: ReadLimit,
        now: SystemTime,
    ) -> Work<'a, Result<Batch, ReadError>> {
        Box::pin(self.shared.read(name, start, limit, now))
    }

    fn known(&self, name: &StreamName, start: Start, limit: ReadLimit, now: SystemTime) -> Option<Batch> {
        self.shared.known(name, start, limit, now)
    }

    fn messages<'a>(
        &'a self,
        name: &'a StreamName,
        start: Start,
        limit: MessageLimit,
        now: SystemTime,
    ) -> Work<'a, Result<Messages, ReadError>> {
        Box::pin(self.shared.messages(name, start, limit, now, true))
    }

    fn peek<'a>(
        &'a self,
        name: &'a StreamName,
        start: Start,
        limit: MessageLimit,
        now: SystemTime,
    ) -> Work<'a, Result<Messages, ReadError>> {
        Box::pin(self.shared.messages(name, start, limit, now, false))
    }

    fn retained<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<Option<Message>, ReadError>> {
        Box::pin(self.shared.retained(name, now))
    }

    fn clear_retained<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<(), ChangeError>> {
        Box::pin(async move {
            self.shared.ask(name, &self.shared.call("retained", name, now).with("1")).await.map(drop)
        })
    }

    fn describe<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<Description, ChangeError>> {
        Box::pin(self.shared.describe(name, now))
    }

    fn snapshot<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<Snapshot, ReadError>> {
        Box::pin(self.shared.snapshot(name, now))
    }

    fn delete<'a>(&'a self, name: &'a StreamName, now: SystemTime) -> Work<'a, Result<(), ChangeError>> {
        Box::pin(self.shared.delete(name, now))
    }

    fn change_session(&self, change: SessionChange) -> Work<'_, Result<(), Failure>> {
        Box::pin(self.shared.change_session(change))
    }

    fn session_page<'a>(
        &'a self,
        names: SessionNames<'a>,
        after: Option<&'a str>,
    ) -> Work<'a, Result<SessionPage, Failure>> {
        Box::pin(self.shared.session_page(names, after))
    }

    fn claims(&self) -> Option<&dyn SessionClaims> {
        Some(&*self.shared)
    }

    fn outlives_process(&self) -> bool {
        true
    }

    fn attach(&self, name: &StreamName) -> Option<Epoch> {
        Some(self.shared.attached.attach(name))
    }

    fn detach(&self, name: &StreamName, epoch: Epoch, now: SystemTime) {
        self.shared.attached.detach(name, epoch, now);
    }

    fn attach_all(&self, _filter: &Filter) {
        self.shared.attached.interest.wildcard_begins();
    }

    fn detach_all(&self, _filter: &Filter) {
        self.shared.attached.interest.wildcard_ends();
    }

    fn follow_wall(&self, now: SystemTime, wall: SystemTime) {
        self.shared.wall_ahead.follow(now, wall);
    }

    fn sweep(&self, now: SystemTime) -> Work<'_, Result<Vec<StreamName>, Failure>> {
        Box::pin(self.shared.sweep(now))
    }

    fn retire(&self) {
        self.shared.retire();
    }

    fn page<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a StreamName>,
        now: SystemTime,
    ) -> Work<'a, Result<StreamPage, Failure>> {
        Box::pin(self.shared.page(prefix, after, now))
    }

    fn streams(&self) -> usize {
        self.shared.streams.load(Ordering::Relaxed)
    }

    fn tell(&self, listener: Arc<dyn NewsListener>) {
        let _is_the_only_one = self.shared.listener.set(listener.clone());
        self.shared.engine.runtime().spawn(subscribers::follow(Arc::downgrade(&self.shared), listener));
    }

    fn has_failed(&self) -> bool {
        false
    }

    fn is_damaged(&self) -> bool {
        false
    }

    fn close<'a>(&'a self) -> Work<'a, ()> {
        // What was acknowledged is in the engine.
        Box::pin(std::future::ready(()))
    }
}
