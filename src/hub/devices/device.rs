//! One device: what it reads, how it can be woken, and the wake that is outstanding. Pure: time comes as an argument, and what to
//! do comes back as a [`DeviceStep`].

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::app::{Credential, Suppressed};
use super::channel::{Channel, ChannelUse, QuietHours, Surroundings};
use super::interest::{FilterInterest, Interest, ReadUpTo};
use super::readers::{ReadTarget, Readers};
use crate::clock::Backoff;
use crate::hub::ClientId;
use crate::stream::{Filter, Position, Principal, Start, StreamName, Tenant};

/// A device that has just disconnected may come back without being woken.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// How often a wake is sent to a provider that fails.
const TRIES_MAX: u32 = 6;

/// The bounds of the pauses before a wake is sent again to a provider that fails.
const BACKOFF: Backoff = Backoff { first: Duration::from_secs(10), max: Duration::from_secs(10 * 60) };

/// The pauses after wakes over all channels without a poll: the first, doubling, up to the last.
const SILENCE_MIN: Duration = Duration::from_secs(60);
const SILENCE: Backoff = Backoff { first: SILENCE_MIN, max: Duration::from_secs(24 * 3600) };

/// What a client registers.
#[derive(Debug, Clone)]
pub struct DeviceSpec {
    /// The id of the client in its polls.
    pub id: ClientId,
    /// Who is charged for it.
    pub principal: Principal,
    /// Streams, and the offset that the device has read up to. `None`: the tail.
    pub streams: Vec<(StreamName, Option<Start>)>,
    /// Filters with wildcards. The device has read what their streams have now.
    pub filters: Vec<Filter>,
    /// Names of apps with the credentials of the device, in the order in which they are tried.
    pub channels: Vec<(Arc<str>, Credential)>,
    /// When the device is not woken.
    pub quiet: Option<QuietHours>,
    /// How long after a wake without a poll the next channel is tried. Zero: never.
    pub escalate_after: Duration,
    /// How long the registration lasts.
    pub life: Duration,
    /// Identifies the credentials of the client, as the front that has checked them keeps it. `None`: it had none.
    pub credentials: Option<Box<[u8]>>,
}

impl DeviceSpec {
    /// How long a registration lasts, unless the client says otherwise.
    pub const LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

    /// The time before the next channel is tried, unless the client says otherwise.
    pub const ESCALATE_AFTER: Duration = Duration::from_secs(60);
}

/// A wake to send.
#[derive(Debug, Clone)]
pub struct WakeOrder {
    /// The device.
    pub device: ClientId,
    /// Identifies the wake. A retry has the same number.
    pub wake: u64,
    /// The name of the app.
    pub app: Arc<str>,
    /// Where the device receives it.
    pub credential: Credential,
    /// A stream with something new for the device, and its tail, for traces.
    pub news: Option<(StreamName, Position)>,
}

/// A registered device.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Device {
    pub(super) id: ClientId,
    pub(super) principal: Principal,
    pub(super) interests: Vec<Interest>,
    pub(super) filters: Vec<FilterInterest>,
    pub(super) channels: Vec<Channel>,
    pub(super) quiet: Option<QuietHours>,
    pub(super) escalate_after: Duration,
    pub(super) expires_at: SystemTime,
    pub(super) outstanding: Option<Outstanding>,
    pub(super) silence: Silence,
    /// See [`DeviceSpec::credentials`].
    pub(super) credentials: Option<Box<[u8]>>,
    /// Connections in live delivery forms. Not stored, as they end with the process.
    pub(super) connections: usize,
    /// When the device was last seen.
    pub(super) seen_at: Option<SystemTime>,
    /// Bytes that count against the limits.
    pub(super) charged: usize,
    /// A client has asked for a wake, although nothing may lie behind an offset.
    pub(super) asked_for: bool,
}

/// A wake that no poll has confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Outstanding {
    pub(super) wake: u64,
    /// Index of the channel.
    pub(super) channel: usize,
    pub(super) tries: u32,
    /// Some provider has accepted it.
    pub(super) is_accepted: bool,
    pub(super) state: WakeState,
    /// When it was ordered.
    pub(super) since: SystemTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum WakeState {
    /// The order is with the sender. After a restart it is sent again.
    Ordered,
    /// The provider accepted it at this time.
    Sent(SystemTime),
    /// It is sent again at this time.
    Again(SystemTime),
    /// The channel does not work; the next one is tried.
    Failed,
}

/// How often the device has ignored wakes over all its channels, and what follows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Silence {
    pub(super) rounds: u32,
    pub(super) until: Option<SystemTime>,
    /// Another wake needs another append.
    pub(super) awaits_append: bool,
}

/// What to do about a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeviceStep {
    /// Nothing until something happens, or until a time.
    Wait(Suppressed, Option<SystemTime>),
    /// Order the wake that is outstanding now.
    Order,
}

/// What a device costs besides its texts.
const DEVICE_BYTES: usize = 512;
const INTEREST_BYTES: usize = 256;
/// With the streams that are remembered for it.
const FILTER_BYTES: usize = 2048;
const CHANNEL_BYTES: usize = 256;

impl Device {
    /// The registration of the device as it is at `now`.
    pub(super) fn to_spec(&self, now: SystemTime) -> DeviceSpec {
        let channels = self.channels.iter().map(|channel| (channel.app.clone(), channel.credential.clone()));
        DeviceSpec {
            id: self.id.clone(),
            principal: self.principal,
            streams: self.interests.iter().map(|interest| (interest.stream.clone(), None)).collect(),
            filters: self.filters.iter().map(|interest| interest.filter.clone()).collect(),
            channels: channels.collect(),
            quiet: self.quiet,
            escalate_after: self.escalate_after,
            life: self.expires_at.duration_since(now).unwrap_or_default().max(Duration::from_secs(1)),
            credentials: self.credentials.clone(),
        }
    }

    /// What the device costs in memory, at most.
    pub(super) fn bytes(&self) -> usize {
        let interests = self.interests.iter().map(|interest| INTEREST_BYTES + interest.stream.as_str().len());
        // Each level of a filter may be a node of a tree.
        let filters = self.filters.iter().map(|interest| FILTER_BYTES + 16 * interest.filter.as_str().len());
        let channels = self.channels.iter().map(|channel| CHANNEL_BYTES + channel.credential.bytes());
        let targets = interests.sum::<usize>() + filters.sum::<usize>();
        DEVICE_BYTES + self.id.as_str().len() + targets + channels.sum::<usize>()
    }

    /// What the device reads.
    pub(super) fn targets(&self) -> impl Iterator<Item = ReadTarget> {
        let streams = self.interests.iter().map(|interest| ReadTarget::Stream(interest.stream.clone()));
        streams.chain(self.filters.iter().map(|interest| ReadTarget::Filter(interest.filter.clone())))
    }

    pub(super) fn tenant(&self) -> Tenant {
        self.targets().next().map(|target| target.tenant()).unwrap_or_default()
    }

    pub(super) fn is_pending(&self) -> bool {
        self.interests.iter().any(Interest::is_pending) || self.filters.iter().any(FilterInterest::is_pending)
    }

    /// A stream has another tail, or one of the streams of a filter. Returns whether the device reads it, and has not read all of it.
    pub(super) fn moved(&mut self, target: &ReadTarget, readers: &Readers) -> bool {
        let (has_news, is_pending) = match target {
            ReadTarget::Stream(stream) => {
                let Some(interest) = self.interests.iter_mut().find(|interest| interest.stream == *stream)
                else {
                    return false;
                };
                (interest.follow(readers), interest.is_pending())
            }
            ReadTarget::Filter(filter) => {
                let Some(interest) = self.filters.iter_mut().find(|interest| interest.filter == *filter)
                else {
                    return false;
                };
                (interest.follow(readers), interest.is_pending())
            }
        };
        self.silence.awaits_append &= !has_news;
        is_pending
    }

    /// Brings the tails up to date, which an append does not do for devices that are pending already.
    pub(super) fn refresh(&mut self, readers: &Readers) {
        let of_streams = self.interests.iter_mut().map(|interest| interest.follow(readers));
        let of_filters = self.filters.iter_mut().map(|interest| interest.follow(readers));
        let has_news = of_streams.chain(of_filters).fold(false, |has_news, one| has_news | one);
        self.silence.awaits_append &= !has_news;
    }

    /// The device has polled streams, each from a position. Returns whether it has read something that it had not read before.
    pub(super) fn has_read<'a>(&mut self, reads: impl Iterator<Item = (&'a StreamName, Start)>) -> bool {
        let mut is_changed = false;
        for (stream, start) in reads {
            if let Some(interest) = self.interests.iter_mut().find(|interest| interest.stream == *stream) {
                is_changed |= interest.polled(start);
            }
            for interest in self.filters.iter_mut().filter(|interest| interest.filter.matches(stream)) {
                is_changed |= interest.is_read();
            }
        }
        is_changed
    }

    /// The device reads all streams of its filters. Returns whether one of them had something new.
    pub(super) fn has_read_filters(&mut self) -> bool {
        self.filters.iter_mut().map(FilterInterest::is_read).fold(false, |is_changed, one| is_changed | one)
    }

    /// The session of the device has ended with these offsets. Messages that it did not get are unread, as far as their streams are
    /// remembered; what came before those is read. Returns whether that is another state than before.
    pub(super) fn session_ended(&mut self, readers: &Readers, read_up_to: ReadUpTo<'_>) -> bool {
        let mut is_changed = false;
        for interest in &mut self.interests {
            if let Some(start) = read_up_to(&interest.stream) {
                is_changed |= interest.polled(start);
            }
        }
        for interest in &mut self.filters {
            is_changed |= interest.session_ended(readers, read_up_to);
        }
        is_changed
    }

    /// The device has polled, which confirms an outstanding wake. Returns the index of the channel that it was sent over, and how
    /// long it took.
    pub(super) fn seen(&mut self, now: SystemTime) -> Option<(usize, Duration)> {
        self.seen_at = Some(now);
        self.asked_for = false;
        self.silence = Silence::default();
        let outstanding = self.outstanding.take()?;
        let sent_at = match outstanding.state {
            WakeState::Sent(at) => {
                let channel = self.channels.get_mut(outstanding.channel);
                channel.into_iter().for_each(|channel| channel.undelivered = 0);
                at
            }
            WakeState::Ordered => outstanding.since,
            WakeState::Again(_) | WakeState::Failed if outstanding.is_accepted => outstanding.since,
            WakeState::Again(_) | WakeState::Failed => return None,
        };
        Some((outstanding.channel, now.duration_since(sent_at).unwrap_or_default()))
    }

    /// Decides what to do. `wall` is the time of day; `wake` is the number that a new wake gets.
    pub(super) fn step(
        &mut self,
        now: SystemTime,
        wall: SystemTime,
        wake: u64,
        around: &mut dyn Surroundings,
    ) -> DeviceStep {
        if self.connections > 0 {
            return DeviceStep::Wait(Suppressed::Connected, None);
        }
        if !self.is_pending() && !self.asked_for {
            self.outstanding = None;
            return DeviceStep::Wait(Suppressed::NothingNew, None);
        }
        if let Some(until) = self.seen_at.map(|seen| seen + GRACE).filter(|until| *until > now) {
            return DeviceStep::Wait(Suppressed::Grace, Some(until));
        }
        if let Some(left) = self.quiet.and_then(|quiet| quiet.left(wall)) {
            return DeviceStep::Wait(Suppressed::Quiet, Some(now + left));
        }
        let after = match &mut self.outstanding {
            None => {
                if self.silence.awaits_append {
                    return DeviceStep::Wait(Suppressed::Silent, None);
                }
                if let Some(until) = self.silence.until.filter(|until| *until > now) {
                    return DeviceStep::Wait(Suppressed::Silent, Some(until));
                }
                None
            }
            Some(outstanding) => match outstanding.state {
                WakeState::Ordered => return DeviceStep::Wait(Suppressed::Outstanding, None),
                WakeState::Again(at) if at > now => {
                    return DeviceStep::Wait(Suppressed::Outstanding, Some(at));
                }
                WakeState::Again(_) => {
                    let channel = self.channels.get(outstanding.channel);
                    match channel.map_or(ChannelUse::Never, |channel| around.admit(channel, now)) {
                        ChannelUse::Now => {
                            outstanding.state = WakeState::Ordered;
                            return DeviceStep::Order;
                        }
                        ChannelUse::Later(why, until) => return DeviceStep::Wait(why, Some(until)),
                        ChannelUse::Never => Some(outstanding.channel),
                    }
                }
                WakeState::Failed => Some(outstanding.channel),
                WakeState::Sent(at) => {
                    let ttl = self
                        .channels
                        .get(outstanding.channel)
                        .map_or(SILENCE_MIN, |channel| around.ttl(channel));
                    let patience = if self.escalate_after.is_zero() { ttl } else { self.escalate_after };
                    if at + patience > now {
                        return DeviceStep::Wait(Suppressed::Outstanding, Some(at + patience));
                    }
                    // Without escalation, no other channel follows.
                    Some(if self.escalate_after.is_zero() {
                        self.channels.len()
                    } else {
                        outstanding.channel
                    })
                }
            },
        };
        let first = after.map_or(0, |channel| channel + 1);
        self.start(first, now, wake, around)
    }

    /// Orders a wake over the first channel from `first` on that may be used.
    fn start(
        &mut self,
        first: usize,
        now: SystemTime,
        wake: u64,
        around: &mut dyn Surroundings,
    ) -> DeviceStep {
        let tenant = self.tenant();
        for (index, channel) in self.channels.iter_mut().enumerate().skip(first) {
            if channel.is_gone {
                continue;
            }
            match around.admit(channel, now) {
                ChannelUse::Never => {}
                ChannelUse::Later(why, until) => return DeviceStep::Wait(why, Some(until)),
                ChannelUse::Now => {
                    if let Err((why, until)) = channel.pay(around.budget(channel), now) {
                        return DeviceStep::Wait(why, Some(until));
                    }
                    if let Err(until) = around.count(&tenant, channel, now) {
                        return DeviceStep::Wait(Suppressed::Quota, Some(until));
                    }
                    let since = self.outstanding.as_ref().map_or(now, |outstanding| outstanding.since);
                    let is_accepted =
                        self.outstanding.as_ref().is_some_and(|outstanding| outstanding.is_accepted);
                    let state = WakeState::Ordered;
                    self.outstanding =
                        Some(Outstanding { wake, channel: index, tries: 0, is_accepted, state, since });
                    return DeviceStep::Order;
                }
            }
        }
        match self.outstanding.take() {
            Some(outstanding) => {
                // The device has answered over no channel.
                self.asked_for = false;
                let until = self.fall_silent(now);
                self.silence.awaits_append = outstanding.is_accepted;
                DeviceStep::Wait(Suppressed::Silent, (!outstanding.is_accepted).then_some(until))
            }
            None => {
                // All channels are gone or their apps are misconfigured, which may change.
                let usable = self.channels.iter().any(|channel| !channel.is_gone);
                DeviceStep::Wait(Suppressed::NoChannel, usable.then_some(now + SILENCE_MIN))
            }
        }
    }

    /// The order for the outstanding wake.
    pub(super) fn order(&self) -> Option<WakeOrder> {
        let outstanding = self.outstanding.as_ref()?;
        let channel = self.channels.get(outstanding.channel)?;
        Some(WakeOrder {
            device: self.id.clone(),
            wake: outstanding.wake,
            app: channel.app.clone(),
            credential: channel.credential.clone(),
            news: self.interests.iter().find_map(Interest::news),
        })
    }

    /// The provider has accepted the wake.
    pub(super) fn accepted(&mut self, wake: u64, now: SystemTime) {
        if let Some(outstanding) = self.outstanding_mut(wake) {
            (outstanding.state, outstanding.is_accepted) = (WakeState::Sent(now), true);
        }
    }

    /// The wake is sent again after `pause` at least, unless that was tried too often. `random` is below 1.
    pub(super) fn try_again(&mut self, wake: u64, pause: Duration, now: SystemTime, random: f64) {
        if let Some(outstanding) = self.outstanding_mut(wake) {
            outstanding.tries += 1;
            let at = now + pause + BACKOFF.full_jitter(outstanding.tries, random);
            let may_retry = outstanding.tries < TRIES_MAX;
            outstanding.state = if may_retry { WakeState::Again(at) } else { WakeState::Failed };
        }
    }

    /// The channel does not work for this wake.
    pub(super) fn failed(&mut self, wake: u64) {
        if let Some(outstanding) = self.outstanding_mut(wake) {
            outstanding.state = WakeState::Failed;
        }
    }

    /// Whether a wake over a channel is with the sender.
    pub(super) fn has_ordered(&self, channel: usize) -> bool {
        let outstanding = self.outstanding.as_ref();
        outstanding.is_some_and(|wake| wake.channel == channel && wake.state == WakeState::Ordered)
    }

    /// The wake over a channel, if one is outstanding, has not arrived, and another one over the same channel would not either.
    pub(super) fn undelivered(&mut self, channel: usize) {
        if let Some(outstanding) = self.outstanding.as_mut().filter(|wake| wake.channel == channel) {
            outstanding.state = WakeState::Failed;
        }
    }

    /// The wake over a channel has not arrived in its time. Another one follows without another append, after the pause of a device
    /// that is silent, and as the budget allows.
    pub(super) fn expired(&mut self, channel: usize, now: SystemTime) {
        if self.outstanding.as_ref().is_some_and(|wake| wake.channel == channel) {
            self.outstanding = None;
            self.fall_silent(now);
        }
        self.silence.awaits_append = false;
    }

    /// Makes the pause before the next wake longer. Returns when it is over.
    fn fall_silent(&mut self, now: SystemTime) -> SystemTime {
        self.silence.rounds = self.silence.rounds.saturating_add(1);
        *self.silence.until.insert(now + SILENCE.bound(self.silence.rounds))
    }

    fn outstanding_mut(&mut self, wake: u64) -> Option<&mut Outstanding> {
        self.outstanding.as_mut().filter(|outstanding| outstanding.wake == wake)
    }
}
