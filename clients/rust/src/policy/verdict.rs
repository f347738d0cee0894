//! What the end of an attempt says about its form, the network and the gateway.

use std::time::Duration;

use tokio::time::Instant;

use super::{End, Event, Form, Policy, Reason};
use crate::refusal::is_about_credentials;

/// At the most so long a reader waits that comes again at once, so that a crowd does not come in one moment.
const AT_ONCE: Duration = Duration::from_millis(100);

/// Excuses in a row after which a short poll shows whether they are true.
const EXCUSES_MAX: u32 = 3;

impl Policy {
    /// Whether a refusal with this status ends the subscription: the credentials are not accepted in any form. A form
    /// that is refused because something on the path does not let it through is told from that by the short poll that
    /// follows.
    pub(crate) fn is_final(&self, status: u16) -> bool {
        is_about_credentials(status) && !self.may_poll_besides(self.attempt.form)
    }

    /// The attempt is over.
    pub(crate) fn ended(&mut self, end: End, now: Instant) {
        self.learned = true;
        match end {
            End::Left => {}
            End::Restart(after) => self.restart(after, Some(Reason::Refused(503)), now),
            End::Unreachable => self.restart(None, None, now),
            End::NotGateway => {
                self.events.push(Event::NotGateway);
                self.back_off(now);
                self.excuse(Reason::NoEnvelope);
            }
            _ if self.accused.is_some() => self.hearing(end, now),
            _ if self.attempt.form.is_live() => self.live_ended(end, now),
            _ => self.poll_ended(end, now),
        }
    }

    /// The short poll behind a failure.
    fn hearing(&mut self, end: End, now: Instant) {
        let Some((form, reason)) = self.accused.take() else { return };
        if end == End::Clean {
            // Excuses may have ended just now: the form has one more try.
            if self.excuses != EXCUSES_MAX && !self.fallback.pardon(form) {
                self.excuses = 0;
                self.fallback.give_up(form, now, &mut self.chance);
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
            // The next heartbeat will tell; the form is only doubted where the network was not asked for much.
            End::Mute if self.attempt.heartbeat > self.heartbeat.min() => self.died(None),
            End::Mute => {
                self.died(None);
                if self.fallback.mute(form, self.attempt.envelopes > 1) {
                    self.accuse(form, Reason::Mute, now);
                }
            }
            _ if self.attempt.envelopes == 0 => self.accuse(form, why(end), now),
            _ if self.attempt.held_up => self.at_once(now),
            End::Cut if now - self.attempt.last_byte >= self.heartbeat.min() => {
                self.died(Some(now - self.attempt.last_byte));
                self.at_once(now);
            }
            _ if stable => self.at_once(now),
            _ if self.fallback.cut(form) => self.accuse(form, Reason::Cut, now),
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
                // Nobody knows when it was that a silent connection died.
                let after = if end == End::Mute { after.min(self.attempt.hold) } else { after };
                self.back_off(now);
                if self.hold.cut(after) {
                    self.accuse(form, Reason::Cut, now);
                }
            }
            (Form::LongPoll, End::Refused(_)) => self.accuse(form, why(end), now),
            _ => {
                self.unanswered += 1;
                self.back_off(now);
            }
        }
    }

    /// The gateway is away for a moment. Whatever ended just before ended by that.
    fn restart(&mut self, after: Option<Duration>, doubt: Option<Reason>, now: Instant) {
        let wait = match after {
            Some(after) => after.min(self.settings.reprobe_max),
            None => self.backoff.wait(&mut self.chance),
        };
        self.wait_until = Some(now + wait);
        self.hold.excuse();
        self.heartbeat.excuse();
        self.events.push(Event::Restart { wait });
        match doubt {
            Some(reason) => self.excuse(reason),
            None => self.accused = None,
        }
    }

    /// What is no failure of a form may still be the way in which something on the way refuses just this form.
    fn excuse(&mut self, reason: Reason) {
        if self.accused.take().is_some() {
            self.excuses = 0;
        } else if self.attempt.envelopes == 0 {
            self.excuses += 1;
            let form = self.attempt.form;
            if self.excuses >= EXCUSES_MAX && self.may_poll_besides(form) {
                self.accused = Some((form, reason));
            }
        }
    }

    fn accuse(&mut self, form: Form, reason: Reason, now: Instant) {
        if self.may_poll_besides(form) {
            self.accused = Some((form, reason));
        } else {
            self.fallback.give_up(form, now, &mut self.chance);
            self.reason = reason;
            self.back_off(now);
        }
    }

    fn may_poll_besides(&self, form: Form) -> bool {
        form != Form::ShortPoll && self.fallback.has(Form::ShortPoll)
    }

    /// The connection did not bear its heartbeat.
    fn died(&mut self, cut_after: Option<Duration>) {
        if self.attempt.form == Form::WebSocket {
            self.heartbeat.died(self.attempt.heartbeat, cut_after);
        }
    }

    fn back_off(&mut self, now: Instant) {
        self.wait_until = Some(now + self.backoff.wait(&mut self.chance));
    }

    fn at_once(&mut self, now: Instant) {
        self.wait_until = Some(now + AT_ONCE.mul_f64(self.chance.f64()));
    }
}

/// Why a live form has failed that ended so before its first envelope.
fn why(end: End) -> Reason {
    match end {
        End::NotUpgraded => Reason::NotUpgraded,
        End::Refused(status) => Reason::Refused(status),
        End::NoEnvelope => Reason::NoEnvelope,
        _ => Reason::Cut,
    }
}
