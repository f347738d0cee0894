//! Which form to use: a form that fails is given up for a while, and the best of the others is used.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use crate::attempt::Form;
use crate::settings::Settings;

/// Connections in a row that were cut early, after which a form is given up.
const CUTS_MAX: u8 = 3;

/// Silent connections in a row after which a form is given up, if no heartbeat arrived in between.
const MUTES_MAX: u8 = 3;

/// The allowed delivery forms, best first, each with its failures so far and the time at which it is tried again.
#[derive(Debug, Clone)]
pub(crate) struct Fallback {
    candidates: Vec<Candidate>,
    reprobe_after: Duration,
    reprobe_max: Duration,
    /// Whether a form was given up and none has worked since. Until then, worse forms are tried before better ones.
    descending: bool,
}

#[derive(Debug, Clone)]
struct Candidate {
    form: Form,
    cuts: u8,
    mutes: u8,
    /// Whether it has worked, so that it has a second try: the failure may be a restart of the gateway.
    trusted: bool,
    /// Whether it was silent before, so that it has more time for its first envelope.
    was_mute: bool,
    /// Given up until then.
    away_until: Option<Instant>,
    /// How long it is given up the next time.
    away_for: Duration,
}

impl Fallback {
    pub(crate) fn new(settings: &Settings) -> Self {
        let forms = if settings.forms.is_empty() { &Form::ALL[..] } else { &settings.forms };
        let (reprobe_after, reprobe_max) = (settings.reprobe_after, settings.reprobe_max);
        let candidate = |form: &Form| Candidate {
            form: *form,
            cuts: 0,
            mutes: 0,
            trusted: false,
            was_mute: false,
            away_until: None,
            away_for: reprobe_after,
        };
        Self {
            candidates: forms.iter().map(candidate).collect(),
            reprobe_after,
            reprobe_max,
            descending: false,
        }
    }

    /// How many forms may be used.
    pub(crate) fn len(&self) -> usize {
        self.candidates.len()
    }

    /// Whether a form is among those that may be used.
    pub(crate) fn has(&self, form: Form) -> bool {
        self.candidates.iter().any(|candidate| candidate.form == form)
    }

    /// The best form that is not given up, or whose time is over while another one works. The last one, if all are given
    /// up.
    pub(crate) fn best(&self, now: Instant) -> Form {
        let untried = |candidate: &&Candidate| candidate.away_until.is_none();
        let due = |candidate: &&Candidate| candidate.away_until.is_none_or(|until| until <= now);
        let untried = self.candidates.iter().find(untried).filter(|_| self.descending);
        let best = untried.or_else(|| self.candidates.iter().find(due)).or(self.candidates.last());
        best.map_or(Form::ShortPoll, |candidate| candidate.form)
    }

    /// When a form that is better than `form` is tried again, if one works meanwhile.
    pub(crate) fn better_at(&self, form: Form) -> Option<Instant> {
        let better = self.candidates.iter().take_while(|candidate| candidate.form != form);
        better.filter_map(|candidate| candidate.away_until).min().filter(|_| !self.descending)
    }

    /// Starts with `form`; better ones are tried later.
    pub(crate) fn begin_with(&mut self, form: Form, now: Instant, rng: &mut Rng) {
        if self.has(form) {
            let better: Vec<_> = self
                .candidates
                .iter()
                .map(|candidate| candidate.form)
                .take_while(|other| *other != form)
                .collect();
            for form in better {
                self.give_up(form, now, rng);
            }
        }
    }

    /// Gives up a form, each time for twice as long.
    pub(crate) fn give_up(&mut self, form: Form, now: Instant, rng: &mut Rng) {
        let most = self.reprobe_max;
        self.descending = true;
        if let Some(candidate) = self.candidate(form) {
            candidate.away_until = Some(now + candidate.away_for.mul_f64(0.9 + rng.f64() / 5.0));
            candidate.away_for = (candidate.away_for * 2).min(most);
            candidate.cuts = 0;
        }
    }

    /// A form works: its failures are forgotten, except for silent connections, which only a heartbeat disproves.
    pub(crate) fn worked(&mut self, form: Form) {
        let again = self.reprobe_after;
        self.descending = false;
        if let Some(candidate) = self.candidate(form) {
            (candidate.cuts, candidate.away_until, candidate.trusted) = (0, None, true);
            if candidate.mutes == 0 {
                (candidate.away_for, candidate.was_mute) = (again, false);
            }
        }
    }

    /// Whether a form has a second try, which it has once after it has worked.
    pub(crate) fn take_second_try(&mut self, form: Form) -> bool {
        self.candidate(form).is_some_and(|candidate| std::mem::take(&mut candidate.trusted))
    }

    /// A heartbeat has arrived in this form.
    pub(crate) fn heartbeat_passed(&mut self, form: Form) {
        if let Some(candidate) = self.candidate(form) {
            candidate.mutes = 0;
        }
        self.worked(form);
    }

    /// A connection of this form was cut early. Returns whether that was once too often.
    pub(crate) fn cut(&mut self, form: Form) -> bool {
        self.candidate(form).is_some_and(|candidate| {
            candidate.cuts += 1;
            candidate.trusted &= candidate.cuts < CUTS_MAX;
            candidate.cuts >= CUTS_MAX
        })
    }

    /// A connection of this form was silent for too long. Returns whether that was once too often.
    pub(crate) fn mute(&mut self, form: Form, brought_something: bool) -> bool {
        self.candidate(form).is_some_and(|candidate| {
            candidate.was_mute = true;
            candidate.mutes = if brought_something { candidate.mutes.saturating_add(1) } else { MUTES_MAX };
            candidate.trusted &= candidate.mutes < MUTES_MAX;
            candidate.mutes >= MUTES_MAX
        })
    }

    pub(crate) fn was_mute(&self, form: Form) -> bool {
        self.candidates.iter().any(|candidate| candidate.form == form && candidate.was_mute)
    }

    fn candidate(&mut self, form: Form) -> Option<&mut Candidate> {
        self.candidates.iter_mut().find(|candidate| candidate.form == form)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> Fallback {
        Fallback::new(&Settings::default())
    }

    #[test]
    fn a_second_try_survives_two_cuts_and_not_the_third() {
        for cuts in 1..=CUTS_MAX {
            let mut fallback = fresh();
            fallback.worked(Form::Sse);
            let given_up: Vec<_> = (0..cuts).map(|_| fallback.cut(Form::Sse)).collect();
            assert_eq!(given_up.last(), Some(&(cuts == CUTS_MAX)));
            assert_eq!(fallback.take_second_try(Form::Sse), cuts < CUTS_MAX, "{cuts} cuts");
            assert!(!fallback.take_second_try(Form::Sse), "once");
        }
    }

    #[test]
    fn the_silence_of_one_form_is_not_that_of_another() {
        let mut fallback = fresh();
        fallback.mute(Form::Sse, true);
        assert_eq!([Form::Sse, Form::Ndjson].map(|form| fallback.was_mute(form)), [true, false]);
    }
}
