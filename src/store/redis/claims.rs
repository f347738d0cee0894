//! The claims of gateways on sessions (see [`SessionClaims`]). The hash `owners` of a partition has the owner of each session: the run of
//! a gateway, and a number that no other claim of the partition has. A change carries the owner by which it is made, and the engine
//! refuses it if there is another one.
//!
//! Each run of a gateway stores the current time once a second. The gateway that sweeps looks for runs whose time is too old, and reports
//! their sessions to its own listener, which claims them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use redis::cmd;

use super::argument::{GATEWAYS, millis, namespace_of, session_partition};
use super::functions::EngineCall;
use super::own_claims::{OwnClaim, gateway_of};
use super::reply::{self, EngineReply, items, text};
use super::shared::SharedStore;
use crate::stream::{ClaimFrom, Failure, NewsListener, SessionClaim, SessionClaims, Work};

/// The runs of gateways, each with the time at which it was last alive; one of the keys of [`GATEWAYS`].
const RUNS: &str = "pollgate:{gateways}:runs";

/// A client that comes to another gateway takes its session from a gateway that was silent for this time.
const SILENT_AFTER: Duration = Duration::from_millis(2500);

/// After this time of silence, all sessions of a gateway are taken from it.
const ENDED_AFTER: Duration = Duration::from_secs(10);

/// Sessions in one pipeline of calls.
const CALLS_MAX: usize = 256;

impl SharedStore {
    /// Says that this run is alive. The first time, it says that earlier runs of this gateway are not.
    pub(super) async fn say_alive(&self, now: SystemTime) -> Result<(), Failure> {
        let mut alive = cmd("ZADD");
        alive.arg(RUNS).arg(millis(self.moment(now).0)).arg(&*self.run);
        if !self.is_known.load(Ordering::Relaxed) {
            let runs = self.engine.command(RUNS, cmd("ZRANGE").arg(RUNS).arg(0).arg(-1)).await?;
            let earlier = items(runs).unwrap_or_default().into_iter().filter_map(text);
            for run in earlier.filter(|run| gateway_of(run) == self.gateway && *run != *self.run) {
                alive.arg(0).arg(run);
            }
        }
        self.engine.command(RUNS, &alive).await?;
        self.is_known.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The runs that have ended, as the gateway that sweeps needs them.
    pub(super) async fn ended_runs(&self, now: SystemTime) -> Result<Vec<String>, Failure> {
        let mut silent = cmd("ZRANGEBYSCORE");
        silent.arg(RUNS).arg("-inf").arg(self.ended_before(now));
        let runs = items(self.engine.command(RUNS, &silent).await?).ok_or(Failure::Unreadable)?;
        Ok(runs.into_iter().filter_map(text).filter(|run| *run != *self.run).collect())
    }

    /// Forgets runs whose sessions all have other owners, as the gateway with the sweeper's `lease`.
    pub(super) async fn forget_runs(
        &self,
        ended: &[String],
        lease: &str,
        now: SystemTime,
    ) -> Result<(), Failure> {
        let call = EngineCall::of("forget_runs", GATEWAYS).with(lease).number(self.ended_before(now));
        self.engine.call(&ended.iter().fold(call, EngineCall::with)).await.map(drop)
    }

    /// A run that was last alive at this time, or before, has ended.
    fn ended_before(&self, now: SystemTime) -> u64 {
        millis(self.moment(now).0).saturating_sub(ENDED_AFTER.as_millis() as u64)
    }

    async fn is_silent(&self, run: &str, now: SystemTime) -> Result<bool, Failure> {
        let score = self.engine.command(RUNS, cmd("ZSCORE").arg(RUNS).arg(run)).await?;
        let alive_at: Option<f64> = text(score).and_then(|score| score.parse().ok());
        let since = millis(self.moment(now).0).saturating_sub(SILENT_AFTER.as_millis() as u64);
        Ok(alive_at.is_none_or(|at| at < since as f64))
    }

    async fn claim_from(
        &self,
        name: &Arc<str>,
        from: ClaimFrom,
        ended: &[String],
    ) -> Result<Result<Vec<(Bytes, Bytes)>, String>, Failure> {
        let from = match from {
            ClaimFrom::AskedOwner => "asked",
            ClaimFrom::Anyone => "anyone",
            ClaimFrom::Nobody => "nobody",
        };
        let call = EngineCall::of("claim", &namespace_of(name)).with(&**name).with(&*self.run);
        let call = ended.iter().fold(call.with(from), EngineCall::with);
        let answer = self.engine.call(&call).await;
        match answer {
            Err(Failure::Unreachable) => self.claims.note_unanswered(name),
            _ => self.claims.note_answered(name),
        }
        let mut reply = EngineReply::of(answer?).ok_or(Failure::Unreadable)?;
        let owner = reply.text(0);
        if reply.verdict == "held" {
            return Ok(Err(owner));
        }
        self.claims.add(name, owner);
        Ok(Ok(reply.take(1).and_then(reply::entries).ok_or(Failure::Unreadable)?))
    }

    async fn claim_session(
        &self,
        name: &Arc<str>,
        from: ClaimFrom,
        now: SystemTime,
    ) -> Result<SessionClaim, Failure> {
        let holder = match self.claim_from(name, from, &[]).await? {
            Ok(entries) => return Ok(SessionClaim::Granted(entries)),
            Err(holder) => holder,
        };
        let has_ended = match from {
            ClaimFrom::AskedOwner => self.is_silent(&holder, now).await?,
            ClaimFrom::Nobody => self.ended_runs(now).await?.contains(&holder),
            ClaimFrom::Anyone => false,
        };
        if has_ended && let Ok(entries) = self.claim_from(name, from, &[holder]).await? {
            return Ok(SessionClaim::Granted(entries));
        }
        Ok(SessionClaim::Held)
    }

    async fn release_session(&self, name: &Arc<str>, due: Option<SystemTime>) {
        let Some(owner) = self.claims.note_release(name, due) else { return };
        if self.engine.call(&self.release_call(name, &owner, due)).await.is_ok() {
            self.claims.forget(name, &owner);
        }
    }

    fn release_call(&self, name: &str, owner: &str, due: Option<SystemTime>) -> EngineCall {
        let due = due.map(|due| millis(self.moment(due).0).to_string()).unwrap_or_default();
        EngineCall::of("release", &namespace_of(name)).with(name).with(owner).with(due)
    }

    /// Repeats the releases that the engine was not told.
    pub(super) async fn repeat_releases(&self) {
        for part in self.claims.all(|claim| claim.released.is_some()).chunks(CALLS_MAX) {
            let call = |(name, claim): &(Arc<str>, OwnClaim)| {
                self.release_call(name, &claim.owner, claim.released.flatten())
            };
            let answers = self.engine.call_each(&part.iter().map(call).collect::<Vec<_>>()).await;
            for ((name, claim), _told) in part.iter().zip(answers).filter(|(_, answer)| answer.is_ok()) {
                self.claims.forget(name, &claim.owner);
            }
        }
    }

    /// Reports each session as orphaned whose claim got no answer: this gateway may own it in the engine without knowing it. The
    /// listener claims such a session again.
    pub(super) fn tell_unanswered(&self) {
        if let Some(listener) = self.listener.get() {
            self.claims.unanswered().iter().for_each(|session| listener.orphaned(session));
        }
    }

    /// Tells of the sessions of some partitions that have another owner by now, in case that news was lost. Returns the partitions of
    /// which the engine has told all owners.
    pub(super) async fn tell_lost_claims(
        &self,
        partitions: &BTreeSet<u64>,
        listener: &dyn NewsListener,
    ) -> BTreeSet<u64> {
        let mut told = partitions.clone();
        let mut claims = self.claims.all(|claim| claim.released.is_none());
        claims.retain(|(name, _)| partitions.contains(&session_partition(name)));
        for part in claims.chunks(CALLS_MAX) {
            let call =
                |(name, _): &(Arc<str>, OwnClaim)| EngineCall::of("owner", &namespace_of(name)).with(&**name);
            let calls: Vec<EngineCall> = part.iter().map(call).collect();
            for ((name, claim), owner) in part.iter().zip(self.engine.call_each(&calls).await) {
                let Ok(owner) = owner else {
                    told.remove(&session_partition(name));
                    continue;
                };
                // A later claim of this run may have come meanwhile.
                if text(owner).as_deref() != Some(&*claim.owner) && self.claims.owner(name) == claim.owner {
                    listener.wanted(name);
                }
            }
        }
        told
    }
}

impl SessionClaims for SharedStore {
    fn claim<'a>(
        &'a self,
        name: &'a Arc<str>,
        from: ClaimFrom,
        now: SystemTime,
    ) -> Work<'a, Result<SessionClaim, Failure>> {
        Box::pin(self.claim_session(name, from, now))
    }

    fn release<'a>(&'a self, name: &'a Arc<str>, due: Option<SystemTime>) -> Work<'a, ()> {
        Box::pin(self.release_session(name, due))
    }

    fn tell<'a>(&'a self, name: &'a str, note: &'a str) -> Work<'a, Result<(), Failure>> {
        Box::pin(async move {
            let call = EngineCall::of("tell", &namespace_of(name)).with(name).with(note);
            self.engine.call(&call).await.map(drop)
        })
    }

    fn entries<'a>(&'a self, name: &'a str) -> Work<'a, Result<Vec<(Bytes, Bytes)>, Failure>> {
        Box::pin(async move {
            let call = EngineCall::of("entries", &namespace_of(name)).with(name);
            reply::entries(self.engine.call(&call).await?).ok_or(Failure::Unreadable)
        })
    }
}
