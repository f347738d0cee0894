//! What to do next: the decisions of a reader without its sockets. It is told what happened and when, and says which
//! request to make in which form, or how long to wait.
//!
//! A form that failed before its first envelope is only accused: a short poll follows, which brings what is there at
//! once. When that is answered the network works and the form does not, so it is given up for a while; when it fails
//! as well nothing is known of the form.

mod verdict;

use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use crate::attempt::Form;
use crate::attempt::{Attempt, End};
use crate::event::{Event, Reason};
use crate::fallback::Fallback;
use crate::heartbeat::Heartbeat;
use crate::hold_time::HoldTime;
use crate::memory::{Known, seconds};
use crate::settings::Backoff;
use crate::settings::Settings;

/// The share of a heartbeat that has to be silent for the next envelope to prove something.
const SILENCE: f64 = 0.9;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing, until then.
    Wait(Instant),
    /// Make the request of [`Policy::attempt`].
    Read,
}

/// The decisions of one reader.
#[derive(Debug)]
pub(crate) struct Policy {
    settings: Settings,
    chance: Rng,
    known: Known,
    fallback: Fallback,
    hold: HoldTime,
    heartbeat: Heartbeat,
    backoff: Backoff,
    /// The form in use.
    form: Option<Form>,
    /// Why the form in use is left.
    reason: Reason,
    /// A form that failed, until a short poll says what of.
    accused: Option<(Form, Reason)>,
    /// Attempts in a row that ended without an envelope and without a word about their form.
    excuses: u32,
    /// Polls in a row that were not answered.
    unanswered: u32,
    round_trip: Duration,
    wait_until: Option<Instant>,
    attempt: Attempt,
    events: Vec<Event>,
    /// Whether something was learned since it was last asked.
    learned: bool,
}

impl Policy {
    /// The decisions on a network of which this is known.
    pub(crate) fn new(settings: Settings, known: Known, mut chance: Rng, now: Instant) -> Self {
        let mut fallback = Fallback::new(&settings);
        if let Some(form) = known.form {
            fallback.begin_with(form, now, &mut chance);
        }
        Self {
            hold: HoldTime::new(&settings, &known),
            heartbeat: Heartbeat::new(&settings, &known),
            backoff: Backoff::new(&settings),
            fallback,
            form: None,
            reason: Reason::Start,
            accused: None,
            excuses: 0,
            unanswered: 0,
            round_trip: Duration::ZERO,
            wait_until: None,
            attempt: Attempt::new(Form::ShortPoll, Duration::ZERO, now),
            events: Vec::new(),
            learned: true,
            settings,
            chance,
            known,
        }
    }

    /// The network is another one. On the same one again, everything is tried again.
    pub(crate) fn network_changed(&mut self, known: Known, now: Instant) {
        let again = known.label == self.known.label;
        let known = if again { Known { form: None, ..known } } else { known };
        let chance = self.chance.fork();
        let (form, events) = (self.form, std::mem::take(&mut self.events));
        *self = Self::new(self.settings.clone(), known, chance, now);
        (self.form, self.events, self.reason) = (form, events, Reason::NetworkChanged);
    }

    /// What to do now, when nothing is under way.
    pub(crate) fn next(&mut self, now: Instant) -> Step {
        if let Some(until) = self.wait_until.filter(|until| *until > now) {
            return Step::Wait(until);
        }
        self.wait_until = None;
        self.attempt = match self.accused {
            Some(_) => Attempt::new(Form::ShortPoll, self.answer_patience(), now),
            None => self.best_attempt(now),
        };
        Step::Read
    }

    /// The request under way.
    pub(crate) fn attempt(&self) -> &Attempt {
        &self.attempt
    }

    /// There is a connection, old or new.
    pub(crate) fn connected(&mut self, now: Instant) {
        self.attempt.connected = Some(now);
        self.attempt.last_byte = now;
    }

    /// The head of the answer is there.
    pub(crate) fn answered(&mut self, now: Instant) {
        if let Some(connected) = self.attempt.connected.filter(|_| self.attempt.form != Form::LongPoll) {
            self.round_trip = now - connected;
        }
        self.alive(now);
    }

    /// Bytes came.
    pub(crate) fn alive(&mut self, now: Instant) {
        self.attempt.first_byte.get_or_insert(now);
        self.attempt.last_byte = now;
    }

    /// An envelope came.
    pub(crate) fn envelope(&mut self, up_to_date: bool, now: Instant) {
        let silence = now - self.attempt.last_envelope;
        self.alive(now);
        self.attempt.envelopes += 1;
        self.attempt.last_envelope = now;
        self.attempt.up_to_date = up_to_date;
        self.unanswered = 0;
        if self.accused.is_none() {
            self.excuses = 0;
        }
        self.backoff.reset();
        if !self.attempt.form.is_live() {
            return;
        }
        if self.attempt.lived(now) >= self.settings.stable_after {
            self.works();
        }
        if self.attempt.envelopes > 1 && silence >= self.attempt.heartbeat.mul_f64(SILENCE) {
            self.beat(now);
        }
    }

    /// Whoever takes the messages was busy since `since`; silence counts from now.
    pub(crate) fn handed_over(&mut self, since: Instant, now: Instant) {
        self.attempt.held_up |= now - since >= self.settings.stable_after;
        self.attempt.last_byte = now;
        self.attempt.last_envelope = now;
    }

    /// What was learned of the network, if there is news.
    pub(crate) fn take_learned(&mut self) -> Option<Known> {
        std::mem::take(&mut self.learned).then(|| self.known())
    }

    fn known(&self) -> Known {
        Known {
            hold: seconds(self.hold.current()),
            hold_proven: seconds(self.hold.proven()),
            heartbeat_lo: self.heartbeat.proven().and_then(seconds),
            heartbeat_hi: self.heartbeat.failed_at().and_then(seconds),
            ..self.known.clone()
        }
    }

    /// What happened since it was last asked.
    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn best_attempt(&mut self, now: Instant) -> Attempt {
        let form = self.fallback.best(now);
        if self.form != Some(form) {
            self.events.push(Event::Form { from: self.form, to: form, reason: self.reason });
        }
        (self.form, self.reason) = (Some(form), Reason::Better);
        let patience = if form.is_live() { self.envelope_patience(form) } else { self.answer_patience() };
        let mut attempt = Attempt::new(form, patience, now);
        let heartbeat = if form == Form::WebSocket { self.heartbeat.next() } else { self.heartbeat.min() };
        attempt.heartbeat = heartbeat;
        attempt.mute_after = heartbeat.mul_f64(1.5) + self.round_trip;
        attempt.hold = if form == Form::LongPoll { self.hold.current() } else { Duration::ZERO };
        attempt.leave_at = self.fallback.better_at(form);
        attempt
    }

    /// How long a live form may take for its first envelope.
    fn envelope_patience(&self, form: Form) -> Duration {
        let patience = self.settings.envelope_timeout.max(4 * self.round_trip);
        let most = self.settings.envelope_timeout_max;
        if self.fallback.was_mute(form) { patience.max((2 * patience).min(most)) } else { patience }
    }

    /// How long the answer to a poll may take. It grows while none comes: perhaps the network is just slow.
    fn answer_patience(&self) -> Duration {
        let patience = self.settings.answer_timeout.max(3 * self.round_trip);
        let most = patience.max(self.settings.backoff_max);
        (patience * (1 << self.unanswered.min(6))).min(most)
    }

    /// The form of the attempt is one that works here.
    fn works(&mut self) {
        let form = self.attempt.form;
        self.fallback.worked(form);
        self.attempt.leave_at = self.attempt.leave_at.or(self.fallback.better_at(form));
        self.learned |= self.known.form.replace(form) != Some(form);
    }

    /// The connection bore the silence of a heartbeat.
    fn beat(&mut self, now: Instant) {
        self.fallback.beat(self.attempt.form);
        self.learned = true;
        if self.attempt.form == Form::WebSocket && self.heartbeat.survived(self.attempt.heartbeat) {
            self.attempt.leave_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests;
