//! What the end of an attempt says about its form, the network and the gateway, and what follows from it.

use std::time::Duration;

use tokio::time::Instant;

use super::{End, Event, Form, Policy, Reason};
use crate::refusal::is_about_credentials;

/// Longest delay of a reader that reconnects at once: many readers must not reconnect in the same moment.
const AT_ONCE: Duration = Duration::from_millis(100);

/// Inconclusive attempts in a row after which a short poll shows whether it is the form that fails.
const INCONCLUSIVE_MAX: u32 = 3;

impl Policy {
    /// The attempt was refused with this status. Returns whether that is final, because the credentials are not accepted.
    /// Something on the path may refuse a single form with the same status, so a short poll has to be refused too, or
    /// all forms if short polls may not be used.
    pub(crate) fn is_final(&mut self, status: u16) -> bool {
        if !is_about_credentials(status) {
            return false;
        }
        self.refusals += 1;
        let form = self.attempt.form;
        form == Form::ShortPoll || !self.may_poll_besides(form) && self.refusals >= self.fallback.len()
    }

    /// The attempt has ended.
    pub(crate) fn ended(&mut self, end: End, now: Instant) {
        self.learned = true;
        match end {
            End::Left => {}
            End::Restart(after) => self.restart(after, Some(Reason::Refused(503)), now),
            End::Unreachable => self.restart(None, None, now),
            End::NotGateway => {
                self.events.push(Event::NotGateway);
                self.back_off(now);
                self.note_inconclusive(Reason::NoEnvelope);
            }
            _ if self.suspect.is_some() => self.probe_ended(end, now),
            _ if self.attempt.form.is_live() => self.live_ended(end, now),
            _ => self.poll_ended(end, now),
        }
    }

    /// The short poll that followed the failure of a form has ended.
    fn probe_ended(&mut self, end: End, now: Instant) {
        let Some((form, reason)) = self.suspect.take() else { return };
        if end == End::Clean {
            // The network may have come back just now: then the form has a second try.
            if self.inconclusive != INCONCLUSIVE_MAX && !self.fallback.take_second_try(form) {
                self.inconclusive = 0;
                self.fallback.give_up(form, now, &mut self.rng);
                self.hold.forget_cuts();
                self.reason = reason;
            }
        } else {
            self.unanswered += 1;
            self.back_off(now);
        }
    }

    fn live_ended(&mut self, end: End, now: Instant) {
        let form = self.attempt.form;
        let stable = self.attempt.lived(now) >= self.settings.stable_after;
        if stable && self.attempt.envelopes > 0 {
            self.works();
        }
        match end {
            // The heartbeat may have been too long. Only silence at the shortest one says something about the form.
            End::Mute if self.attempt.heartbeat > self.heartbeat.min() => self.died(None),
            End::Mute => {
                self.died(None);
                if self.fallback.mute(form, self.attempt.envelopes > 1) {
                    self.suspect_form(form, Reason::Mute, now);
                }
            }
            _ if self.attempt.envelopes == 0 => self.suspect_form(form, reason_of(end), now),
            _ if self.attempt.held_up => self.at_once(now),
            End::Cut if now - self.attempt.last_byte >= self.heartbeat.min() => {
                self.died(Some(now - self.attempt.last_byte));
                self.at_once(now);
            }
            _ if stable => self.at_once(now),
            _ if self.fallback.cut(form) => self.suspect_form(form, Reason::Cut, now),
            _ => self.back_off(now),
        }
    }

    fn poll_ended(&mut self, end: End, now: Instant) {
        let form = self.attempt.form;
        let after = self.attempt.first_byte.unwrap_or(now) - self.attempt.began;
        match (form, end) {
            (Form::LongPoll, End::Clean) => {
                self.hold.answered(after);
                self.works();
            }
            (_, End::Clean) => {
                self.works();
                if self.attempt.up_to_date {
                    let next = now + self.settings.interval;
                    self.wait_until = Some(self.attempt.leave_at.map_or(next, |better| better.min(next)));
                }
            }
            (Form::LongPoll, End::Cut | End::Mute | End::Refused(502 | 504 | 408))
                if self.attempt.first_byte.is_none() =>
            {
                // It is not known when a silent connection has died.
                let after = if end == End::Mute { after.min(self.attempt.hold) } else { after };
                self.back_off(now);
                if self.hold.cut(after) {
                    self.suspect_form(form, Reason::Cut, now);
                }
            }
            (Form::LongPoll, End::Refused(_)) => self.suspect_form(form, reason_of(end), now),
            _ => {
                self.unanswered += 1;
                self.back_off(now);
            }
        }
    }

    /// The gateway is unreachable or restarts, which also explains the failure before.
    fn restart(&mut self, after: Option<Duration>, doubt: Option<Reason>, now: Instant) {
        let wait = match after {
            Some(after) => after.min(self.settings.reprobe_max),
            None => self.backoff.wait(&mut self.rng),
        };
        self.wait_until = Some(now + wait);
        self.hold.retract_failure();
        self.heartbeat.retract_failure();
        self.events.push(Event::Restart { wait });
        match doubt {
            Some(reason) => self.note_inconclusive(reason),
            None => self.suspect = None,
        }
    }

    /// The attempt failed in a way that does not point to its form. After several of them in a row the form is suspect
    /// nevertheless: something on the path may refuse it in this way.
    fn note_inconclusive(&mut self, reason: Reason) {
        if self.suspect.take().is_some() {
            self.inconclusive = 0;
        } else if self.attempt.envelopes == 0 {
            self.inconclusive += 1;
            let form = self.attempt.form;
            if self.inconclusive >= INCONCLUSIVE_MAX && self.may_poll_besides(form) {
                self.suspect = Some((form, reason));
            }
        }
    }

    fn suspect_form(&mut self, form: Form, reason: Reason, now: Instant) {
        if self.may_poll_besides(form) {
            self.suspect = Some((form, reason));
        } else {
            self.fallback.give_up(form, now, &mut self.rng);
            self.reason = reason;
            self.back_off(now);
        }
    }

    fn may_poll_besides(&self, form: Form) -> bool {
        form != Form::ShortPoll && self.fallback.has(Form::ShortPoll)
    }

    /// The connection has died within its heartbeat.
    fn died(&mut self, cut_after: Option<Duration>) {
        if self.attempt.form == Form::WebSocket {
            self.heartbeat.died(self.attempt.heartbeat, cut_after);
        }
    }

    fn back_off(&mut self, now: Instant) {
        self.wait_until = Some(now + self.backoff.wait(&mut self.rng));
    }

    fn at_once(&mut self, now: Instant) {
        self.wait_until = Some(now + AT_ONCE.mul_f64(self.rng.f64()));
    }
}

/// Why a live form has failed if it ended like this before its first envelope.
fn reason_of(end: End) -> Reason {
    match end {
        End::NotUpgraded => Reason::NotUpgraded,
        End::Refused(status) => Reason::Refused(status),
        End::NoEnvelope => Reason::NoEnvelope,
        _ => Reason::Cut,
    }
}
