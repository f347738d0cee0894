//! The sweep, and the list of all streams. Both visit all partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use redis::{Value, cmd};
use tokio::time::{Instant, sleep};

use super::argument::{GATEWAYS, PARTITIONS, millis, partition};
use super::functions::EngineCall;
use super::reply::{EngineReply, StreamHead, items, text};
use super::shared::SharedStore;
use super::shares::{AccountHolder, EngineAccount};
use crate::stream::{Failure, Offset, PAGE_STREAMS_MAX, StreamName, StreamPage};

/// Names that one call lists. A page of all partitions is merged from such parts.
const LISTED_AT_ONCE: u64 = 16;

/// Only the gateway with the lease sweeps; another one takes over soon after it was killed.
const LEASE: Duration = Duration::from_millis(2500);

/// How often a gateway says that it is alive while its sweep takes longer than that.
const ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// The time of the engine is not used if its answer took longer: the moment at which it was told is not known well enough.
const CLOCK_ANSWER_MAX: Duration = Duration::from_millis(500);

/// The streams of one partition, as far as they have been listed.
#[derive(Default)]
struct Listed {
    /// The least name of the next part; `None` if there is no further one.
    next: Option<String>,
    /// The last name of the listed part, up to which the partition is known.
    known_to: Option<String>,
}

impl SharedStore {
    pub(super) async fn sweep(&self, now: SystemTime) -> Result<Vec<StreamName>, Failure> {
        if self.follows_engine_clock {
            self.compare_clocks(now).await?;
        }
        self.say_alive(now).await?;
        tokio::select! {
            swept = self.sweep_now(now) => swept?,
            never = self.stay_alive(now) => match never {},
        }
        Ok(std::mem::take(&mut *self.ended.lock()))
    }

    /// Says again and again that this run is alive, while a sweep waits for a server of the engine that does not answer.
    async fn stay_alive(&self, now: SystemTime) -> Infallible {
        let begun = Instant::now();
        loop {
            sleep(ALIVE_INTERVAL).await;
            if let Err(error) = self.say_alive(now + begun.elapsed()).await {
                tracing::debug!(%error, "cannot say that this gateway is alive");
            }
        }
    }

    /// A server that does not answer holds up nothing that concerns the others.
    async fn sweep_now(&self, now: SystemTime) -> Result<(), Failure> {
        if let Err(error) = self.tell_waiters(now).await {
            tracing::debug!(%error, "cannot tell which streams have readers here");
        }
        self.repeat_releases().await;
        self.tell_unanswered();
        if let Some(lease) = self.lease().await? {
            self.sweep_all(now, &lease).await?;
            self.find_orphans(now, &lease).await?;
        }
        Ok(())
    }

    /// Compares the clock of the engine with the one that `now` is of, unless the answer comes too late to tell.
    async fn compare_clocks(&self, now: SystemTime) -> Result<(), Failure> {
        let asked_at = Instant::now();
        let answer = items(self.engine.command(GATEWAYS, &cmd("TIME")).await?).ok_or(Failure::Unreadable)?;
        if asked_at.elapsed() > CLOCK_ANSWER_MAX {
            return Ok(());
        }
        let numbers: Option<Vec<u64>> = answer.into_iter().map(|number| text(number)?.parse().ok()).collect();
        let [seconds, micros] =
            numbers.and_then(|numbers| numbers.try_into().ok()).ok_or(Failure::Unreadable)?;
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros);
        self.engine_ahead.follow(now, time);
        Ok(())
    }

    /// Takes or keeps the lease of the gateway that sweeps, and returns its number, by which the engine knows an earlier holder. `None`:
    /// another gateway has it, or this one has [retired](Self::retire).
    async fn lease(&self) -> Result<Option<String>, Failure> {
        let has_retired = self.has_retired.load(Ordering::Relaxed);
        let millis = if has_retired { 0 } else { LEASE.as_millis() as u64 };
        let call = EngineCall::of("lease", GATEWAYS).with(&*self.run).with(&self.gateway).number(millis);
        let number = text(self.engine.call(&call).await?).ok_or(Failure::Unreadable)?;
        Ok((number != "0").then_some(number))
    }

    /// Leaves to other gateways what only one of them does.
    pub(super) fn retire(&self) {
        self.has_retired.store(true, Ordering::Relaxed);
    }

    async fn sweep_all(&self, now: SystemTime, lease: &str) -> Result<(), Failure> {
        let (now, wall) = self.moment(now);
        let call = |number| {
            let call = EngineCall::of("sweep", &partition(number)).number(millis(now)).number(millis(wall));
            self.shares.add_to(call.with(lease), lease)
        };
        let calls: Vec<EngineCall> = (0..PARTITIONS).map(call).collect();
        let (mut streams, mut holders) = (0, BTreeSet::new());
        for answer in self.engine.call_each(&calls).await {
            // The other servers of a cluster are swept while one does not answer.
            let Ok(answer) = answer else { continue };
            let answer = items(answer).ok_or(Failure::Unreadable)?;
            if answer.is_empty() {
                // The lease has passed to another gateway.
                return Err(Failure::Superseded);
            }
            let [count, names, found]: [Value; 3] = answer.try_into().map_err(|_| Failure::Unreadable)?;
            for (account, found) in EngineAccount::ALL.into_iter().zip(items(found).unwrap_or_default()) {
                let found = items(found).unwrap_or_default().into_iter().filter_map(text);
                holders.extend(found.map(|holder| (account, holder)));
            }
            streams += text(count).and_then(|count| count.parse::<usize>().ok()).unwrap_or_default();
            let mut names = items(names).ok_or(Failure::Unreadable)?.into_iter().filter_map(text);
            while let Some((name, source)) = names.next().zip(names.next()) {
                let Ok(name) = StreamName::stored(&name) else { continue };
                self.content_types.invalidate(&name);
                self.ended.lock().push(name.clone());
                self.release(name, source).await;
            }
        }
        self.streams.store(streams, Ordering::Relaxed);
        self.add_up(streams, &holders, lease).await;
        Ok(())
    }

    /// Adds up what principals and tenants have in all partitions.
    async fn add_up(&self, streams: usize, holders: &BTreeSet<AccountHolder>, lease: &str) {
        let call = |number| {
            let call = EngineCall::of("usage", &partition(number));
            holders.iter().fold(call, |call, (account, holder)| call.with(account.as_str()).with(holder))
        };
        let calls: Vec<EngineCall> =
            if holders.is_empty() { Vec::new() } else { (0..PARTITIONS).map(call).collect() };
        let mut sums: BTreeMap<AccountHolder, u64> = BTreeMap::new();
        // A server that does not answer does not count.
        for answer in self.engine.call_each(&calls).await.into_iter().flatten() {
            let number = |value| text(value).and_then(|text| text.parse().ok()).unwrap_or(0);
            let numbers = items(answer).unwrap_or_default().into_iter().map(number);
            for (holder, number) in holders.iter().zip(numbers) {
                *sums.entry(holder.clone()).or_default() += number;
            }
        }
        self.shares.note(lease, streams, sums);
    }

    /// Finds the sessions that some gateway has to look at, and tells them to this one.
    async fn find_orphans(&self, now: SystemTime, lease: &str) -> Result<(), Failure> {
        let runs = self.ended_runs(now).await?;
        let call = |number| {
            let call = EngineCall::of("orphans", &partition(number)).number(millis(self.moment(now).0));
            runs.iter().fold(call, EngineCall::with)
        };
        let calls: Vec<EngineCall> = (0..PARTITIONS).map(call).collect();
        let mut may_be_owners = false;
        for answer in self.engine.call_each(&calls).await {
            let Ok(answer) = answer else {
                may_be_owners = true;
                continue;
            };
            let [found, owned]: [Value; 2] =
                items(answer).and_then(|parts| parts.try_into().ok()).ok_or(Failure::Unreadable)?;
            may_be_owners |= text(owned).is_none_or(|count| count != "0");
            let found = items(found).ok_or(Failure::Unreadable)?.into_iter().filter_map(text);
            if let Some(listener) = self.listener.get() {
                found.for_each(|session| listener.orphaned(&session));
            }
        }
        if runs.is_empty() || may_be_owners { Ok(()) } else { self.forget_runs(&runs, lease, now).await }
    }

    /// Merges the names of all partitions, part by part, until a page is full.
    pub(super) async fn page(
        &self,
        prefix: &str,
        after: Option<&StreamName>,
        now: SystemTime,
    ) -> Result<StreamPage, Failure> {
        let from = after.map_or_else(|| format!("[{prefix}"), |after| format!("({after}"));
        let begin = |_| Listed { next: Some(from.clone()), known_to: None };
        let mut partitions: Vec<Listed> = (0..PARTITIONS).map(begin).collect();
        let mut names: BTreeMap<StreamName, Option<Offset>> = BTreeMap::new();
        loop {
            self.list_further(prefix, &mut partitions, &mut names, now).await?;
            // Up to this name, every partition is known. `None`: all of them are known to their ends.
            let unfinished = partitions.iter().filter(|listed| listed.next.is_some());
            let known_to = unfinished.filter_map(|listed| listed.known_to.as_deref()).min();
            let known =
                names.keys().take_while(|name| known_to.is_none_or(|end| name.as_str() <= end)).count();
            if known >= PAGE_STREAMS_MAX || known_to.is_none() {
                let is_full = known >= PAGE_STREAMS_MAX;
                let page: Vec<_> = names.into_iter().take(PAGE_STREAMS_MAX).collect();
                let next = page.last().filter(|_| is_full).map(|(name, _)| name.clone());
                let streams = page.into_iter().filter_map(|(name, tail)| Some((name, tail?)));
                return Ok(StreamPage { streams: streams.collect(), next });
            }
        }
    }

    /// Lists the next part of each partition that is not known to its end.
    async fn list_further(
        &self,
        prefix: &str,
        partitions: &mut [Listed],
        names: &mut BTreeMap<StreamName, Option<Offset>>,
        now: SystemTime,
    ) -> Result<(), Failure> {
        let (now, wall) = self.moment(now);
        let least = partitions.iter().filter(|listed| listed.next.is_some());
        let least = least.map(|listed| listed.known_to.clone()).min().flatten();
        let (mut calls, mut asked) = (Vec::new(), Vec::new());
        for (number, listed) in (0..).zip(partitions.iter_mut()) {
            // Only the partitions that hold up the others.
            if listed.known_to != least && listed.known_to.is_some() {
                continue;
            }
            if let Some(from) = &listed.next {
                let call =
                    EngineCall::of("list", &partition(number)).with(from).with(prefix).number(LISTED_AT_ONCE);
                calls.push(call.number(millis(now)).number(millis(wall)));
                asked.push(listed);
            }
        }
        for (listed, answer) in asked.into_iter().zip(self.engine.call_all(&calls).await?) {
            let [found, last]: [Value; 2] =
                items(answer).and_then(|parts| parts.try_into().ok()).ok_or(Failure::Unreadable)?;
            for one in items(found).ok_or(Failure::Unreadable)? {
                let mut one = EngineReply::of(one).ok_or(Failure::Unreadable)?;
                let tail = one.take(0).and_then(StreamHead::of).map(|head| head.tail_offset());
                if let Ok(name) = StreamName::stored(&one.verdict) {
                    names.insert(name, tail);
                }
            }
            let last = text(last).unwrap_or_default();
            listed.next = (!last.is_empty()).then(|| format!("({last}"));
            listed.known_to = (!last.is_empty()).then_some(last);
        }
        Ok(())
    }
}
