//! [`SharedStore`]: the state of a store in an engine, and the steps that are one call.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::address::EngineError;
use super::append_queue::AppendQueue;
use super::argument::{millis, namespace_of, partition_of};
use super::attached::AttachedStreams;
use super::engine::{Engine, RedisOptions};
use super::functions::EngineCall;
use super::own_claims::{OwnClaims, new_run};
use super::reply::{EngineReply, text};
use super::shares::EngineShares;
use crate::budget::{Account, Budget, Charge, Owner};
use crate::store::entry::ClockDifference;
use crate::stream::{
    ChangeError, ContentType, Description, Failure, Missing, NewsListener, Principal, SessionChange,
    StreamName, Tenant,
};

/// Number of streams whose content type is remembered, so that an append of any type is split before the call.
const CONTENT_TYPES_MAX: u64 = 100_000;

/// Where the answer of `describe` says whether the stream has an origin, see [`EngineReply::text`].
const DESCRIBED_ORIGIN: usize = 8;

/// The state that the tasks of a store share.
pub(super) struct SharedStore {
    pub(super) engine: Engine,
    pub(super) gateway: String,
    /// Identifies this run of the gateway.
    pub(super) run: Arc<str>,
    /// Whether the engine knows of this run.
    pub(super) is_known: AtomicBool,
    pub(super) claims: OwnClaims,
    pub(super) shares: EngineShares,
    /// This gateway does not sweep any more.
    pub(super) has_retired: AtomicBool,
    pub(super) follows_engine_clock: bool,
    /// Is told what other gateways change.
    pub(super) listener: OnceLock<Arc<dyn NewsListener>>,
    /// From the clock of this machine to that of the engine.
    pub(super) engine_ahead: ClockDifference,
    /// From the time that measures ages to the time of day.
    pub(super) wall_ahead: ClockDifference,
    /// The number of the next call that appends, unique among the runs of this gateway.
    pub(super) calls: AtomicU64,
    pub(super) appends: AppendQueue,
    pub(super) content_types: Cache<StreamName, ContentType>,
    /// Streams with readers here.
    pub(super) attached: AttachedStreams,
    /// Streams that ended by themselves and that no sweep has returned yet.
    pub(super) ended: Mutex<Vec<StreamName>>,
    /// Number of all streams; only the gateway that sweeps knows it.
    pub(super) streams: AtomicUsize,
    /// Charged for messages that wait for a call.
    pub(super) budget: Arc<Budget>,
    /// Memory that a read takes for a moment is charged to nobody.
    pub(super) owner: Arc<Owner>,
}

impl fmt::Debug for SharedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedStore")
            .field("engine", &self.engine)
            .field("gateway", &self.gateway)
            .finish_non_exhaustive()
    }
}

impl SharedStore {
    /// The state of a store that connects when it is first used.
    pub(super) fn new(
        options: RedisOptions,
        budget: Arc<Budget>,
        runtime: Handle,
    ) -> Result<Self, EngineError> {
        let engine = Engine::new(&options, runtime)?;
        let RedisOptions { gateway, follows_engine_clock, news_room, .. } = options;
        let owner = budget.owner_in(Tenant::default(), Principal::GATEWAY);
        let attached = AttachedStreams::new(news_room, Charge::new(&owner, Account::Buffers, 0));
        Ok(Self {
            engine,
            run: new_run(&gateway),
            is_known: AtomicBool::new(false),
            claims: OwnClaims::default(),
            shares: EngineShares::new(budget.clone()),
            has_retired: AtomicBool::new(false),
            listener: OnceLock::new(),
            gateway,
            follows_engine_clock,
            engine_ahead: ClockDifference::default(),
            wall_ahead: ClockDifference::default(),
            calls: AtomicU64::new(fastrand::u64(1 << 32..1 << 52)),
            appends: AppendQueue::default(),
            content_types: Cache::new(CONTENT_TYPES_MAX),
            attached,
            ended: Mutex::default(),
            streams: AtomicUsize::new(0),
            budget,
            owner: Budget::unlimited().owner_in(Tenant::default(), Principal::GATEWAY),
        })
    }

    pub(super) fn next_call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// The time that measures ages, and the time of day, by the clock that all gateways share.
    pub(super) fn moment(&self, now: SystemTime) -> (SystemTime, SystemTime) {
        let now = self.engine_ahead.convert(now);
        (now, self.wall_ahead.convert(now))
    }

    /// Begins a call on a stream with its name and the time.
    pub(super) fn call(&self, function: &'static str, name: &StreamName, now: SystemTime) -> EngineCall {
        let (now, wall) = self.moment(now);
        let call = EngineCall::of(function, &partition_of(name)).with(name.as_str());
        call.number(millis(now)).number(millis(wall))
    }

    /// Makes a call on a live stream. The answer has the verdict `found`, or one that the caller handles.
    pub(super) async fn ask(&self, name: &StreamName, call: &EngineCall) -> Result<EngineReply, ChangeError> {
        self.tell_left(name).await?;
        let mut reply = EngineReply::of(self.engine.call(call).await?).ok_or(Failure::Unreadable)?;
        match &*reply.verdict {
            "missing" => {
                self.has_gone(name, &mut reply).await;
                Err(Missing::NotFound.into())
            }
            "deleted" => Err(Missing::Deleted.into()),
            _ => Ok(reply),
        }
    }

    /// Notes that a stream is missing, and that the call has found it expired if the answer says so.
    pub(super) async fn has_gone(&self, name: &StreamName, reply: &mut EngineReply) {
        self.attached.note_news(name, None);
        self.content_types.invalidate(name);
        let (source, ended) = (reply.text(0), reply.text(1));
        self.has_ended(name, source, &ended).await;
    }

    /// Notes that a call has found a stream expired, if `ended` says so, and releases its `source` if it was a fork.
    pub(super) async fn has_ended(&self, name: &StreamName, source: String, ended: &str) {
        if ended == "ended" {
            self.ended.lock().push(name.clone());
        }
        self.release(name.clone(), source).await;
    }

    pub(super) async fn describe(
        &self,
        name: &StreamName,
        now: SystemTime,
    ) -> Result<Description, ChangeError> {
        let mut reply = self.ask(name, &self.call("describe", name, now).with("0")).await?;
        let head = reply.head().ok_or(Failure::Unreadable)?;
        Ok(Description { has_origin: reply.text(DESCRIBED_ORIGIN) == "1", ..head.description() })
    }

    pub(super) async fn delete(&self, name: &StreamName, now: SystemTime) -> Result<(), ChangeError> {
        let mut reply = self.ask(name, &self.call("delete", name, now)).await?;
        self.content_types.invalidate(name);
        self.attached.note_news(name, None);
        let source = reply.text(0);
        self.release(name.clone(), source).await;
        Ok(())
    }

    pub(super) async fn change_session(&self, change: SessionChange) -> Result<(), Failure> {
        let call = EngineCall::of("change_session", &namespace_of(&change.client));
        let call = call.session(&change, &self.claims.owner(&change.client));
        match text(self.engine.call(&call).await?).as_deref() {
            Some("changed") => Ok(()),
            Some("superseded") => Err(Failure::Superseded),
            _ => Err(Failure::Unreadable),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::metrics::EngineMetrics;
    use crate::store::redis::NewsRoom;

    /// The state of a store that reaches no engine.
    pub(in crate::store::redis) fn unconnected() -> Arc<SharedStore> {
        let options = RedisOptions {
            url: "redis://127.0.0.1:1".to_owned(),
            ca_file: None,
            password_file: None,
            gateway: "one".to_owned(),
            follows_engine_clock: false,
            news_room: NewsRoom { bytes_max: 1 << 20, stream_bytes_max: 1 << 20 },
            metrics: EngineMetrics::default(),
        };
        Arc::new(SharedStore::new(options, Budget::unlimited(), Handle::current()).unwrap())
    }
}
