//! The decisions of a reader, without IO: it is told what happened and when, and says which request to make in which form,
//! or how long to wait.
//!
//! A form that fails before its first envelope is *suspect*, and a short poll follows. If that is answered, the network
//! works and the form does not, so the form is given up for a while. If it fails too, nothing is known of the form.

mod outcome;

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

/// Share of a heartbeat that has to be silent so that the next envelope proves the heartbeat.
const SILENCE: f64 = 0.9;

/// What the reader does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Wait until then.
    Wait(Instant),
    /// Make the request of [`Policy::attempt`].
    Read,
}

/// State of the decisions of one reader.
#[derive(Debug)]
pub(crate) struct Policy {
    settings: Settings,
    rng: Rng,
    known: Known,
    fallback: Fallback,
    hold: HoldTime,
    heartbeat: Heartbeat,
    backoff: Backoff,
    /// Form in use.
    form: Option<Form>,
    /// Why the form in use will be left.
    reason: Reason,
    /// Form that has failed, and why, until a short poll shows whether the network works.
    suspect: Option<(Form, Reason)>,
    /// Attempts in a row that ended without an envelope, and not because of their form.
    inconclusive: u32,
    /// Attempts in a row that were refused because of their credentials, or perhaps of their form.
    refusals: usize,
    /// Polls in a row without a response.
    unanswered: u32,
    round_trip: Duration,
    wait_until: Option<Instant>,
    attempt: Attempt,
    events: Vec<Event>,
    /// Whether something was learned since the last `take_learned`.
    learned: bool,
}

impl Policy {
    /// Starts on a network of which this is known.
    pub(crate) fn new(settings: Settings, known: Known, mut rng: Rng, now: Instant) -> Self {
        let mut fallback = Fallback::new(&settings);
        if let Some(form) = known.form {
            fallback.begin_with(form, now, &mut rng);
        }
        Self {
            hold: HoldTime::new(&settings, &known),
            heartbeat: Heartbeat::new(&settings, &known),
            backoff: Backoff::new(&settings),
            fallback,
            form: None,
            reason: Reason::Start,
            suspect: None,
            inconclusive: 0,
            refusals: 0,
            unanswered: 0,
            round_trip: Duration::ZERO,
            wait_until: None,
            attempt: Attempt::new(Form::ShortPoll, Duration::ZERO, now),
            events: Vec::new(),
            learned: true,
            settings,
            rng,
            known,
        }
    }

    /// The network has changed. If it is the same one, all forms are tried again.
    pub(crate) fn network_changed(&mut self, known: Known, now: Instant) {
        let again = known.label == self.known.label;
        let known = if again { Known { form: None, ..known } } else { known };
        let rng = self.rng.fork();
        let (form, events) = (self.form, std::mem::take(&mut self.events));
        *self = Self::new(self.settings.clone(), known, rng, now);
        (self.form, self.events, self.reason) = (form, events, Reason::NetworkChanged);
    }

    /// What to do now. Called between attempts.
    pub(crate) fn next(&mut self, now: Instant) -> Step {
        if let Some(until) = self.wait_until.filter(|until| *until > now) {
            return Step::Wait(until);
        }
        self.wait_until = None;
        self.attempt = match self.suspect {
            Some(_) => Attempt::new(Form::ShortPoll, self.answer_patience(), now),
            None => self.best_attempt(now),
        };
        Step::Read
    }

    /// The attempt begins, perhaps some time after it was decided.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.attempt.begin(now);
    }

    /// The attempt that is to be made, or under way.
    pub(crate) fn attempt(&self) -> &Attempt {
        &self.attempt
    }

    /// The attempt has a connection, old or new.
    pub(crate) fn connected(&mut self, now: Instant) {
        let attempt = &mut self.attempt;
        attempt.connected = Some(now);
        attempt.last_byte = now;
        if attempt.form.is_live() {
            // Opening a connection takes a round trip.
            let slow = 4 * (now - attempt.began);
            attempt.patience = attempt.patience.max(slow.min(self.settings.envelope_timeout_max));
        }
    }

    /// The head of the response has arrived.
    pub(crate) fn answered(&mut self, now: Instant) {
        if let Some(connected) = self.attempt.connected.filter(|_| self.attempt.form != Form::LongPoll) {
            self.round_trip = now - connected;
        }
        self.alive(now);
    }

    /// Bytes have arrived.
    pub(crate) fn alive(&mut self, now: Instant) {
        self.attempt.first_byte.get_or_insert(now);
        self.attempt.last_byte = now;
    }

    /// An envelope has arrived.
    pub(crate) fn envelope(&mut self, up_to_date: bool, now: Instant) {
        let silence = now - self.attempt.last_envelope;
        self.alive(now);
        self.attempt.envelopes += 1;
        self.attempt.last_envelope = now;
        self.attempt.up_to_date = up_to_date;
        (self.unanswered, self.refusals) = (0, 0);
        if self.suspect.is_none() {
            self.inconclusive = 0;
        }
        self.backoff.reset();
        if !self.attempt.form.is_live() {
            return;
        }
        if self.attempt.lived(now) >= self.settings.stable_after {
            self.works();
        }
        if self.attempt.envelopes > 1 && silence >= self.attempt.heartbeat.mul_f64(SILENCE) {
            self.heartbeat_passed(now);
        }
    }

    /// The user was busy since `since` and has taken a message now. Silence counts from now.
    pub(crate) fn handed_over(&mut self, since: Instant, now: Instant) {
        self.attempt.held_up |= now - since >= self.settings.stable_after;
        self.attempt.last_byte = now;
        self.attempt.last_envelope = now;
    }

    /// What was learned about the network, if something changed since the last call.
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

    /// Events since the last call.
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
        attempt.connect_patience = self.answer_patience();
        let heartbeat = if form == Form::WebSocket { self.heartbeat.next() } else { self.heartbeat.min() };
        attempt.heartbeat = heartbeat;
        attempt.mute_after = heartbeat.mul_f64(1.5) + self.round_trip;
        attempt.hold = if form == Form::LongPoll { self.hold.current() } else { Duration::ZERO };
        attempt.leave_at = self.fallback.better_at(form);
        attempt
    }

    /// Time limit for the first envelope of a live form.
    fn envelope_patience(&self, form: Form) -> Duration {
        let patience = self.settings.envelope_timeout.max(4 * self.round_trip);
        let most = self.settings.envelope_timeout_max;
        if self.fallback.was_mute(form) { patience.max((2 * patience).min(most)) } else { patience }
    }

    /// Time limit for the response to a poll. It grows while there is none, as the network may just be slow.
    fn answer_patience(&self) -> Duration {
        let patience = self.settings.answer_timeout.max(3 * self.round_trip);
        let most = patience.max(self.settings.backoff_max);
        (patience * (1 << self.unanswered.min(6))).min(most)
    }

    /// The form of the attempt works on this network.
    fn works(&mut self) {
        let form = self.attempt.form;
        self.fallback.worked(form);
        self.attempt.leave_at = self.attempt.leave_at.or(self.fallback.better_at(form));
        self.learned |= self.known.form.replace(form) != Some(form);
    }

    /// The connection has survived the silence of a heartbeat.
    fn heartbeat_passed(&mut self, now: Instant) {
        self.fallback.heartbeat_passed(self.attempt.form);
        self.learned = true;
        if self.attempt.form == Form::WebSocket && self.heartbeat.survived(self.attempt.heartbeat) {
            self.attempt.leave_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests;
