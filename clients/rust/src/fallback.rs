//! Which forms are in the running: what failed is given up for a while, and the best of the others is used.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use crate::attempt::Form;
use crate::settings::Settings;

/// Short lives in a row after which a form is given up.
const CUTS_MAX: u8 = 3;

/// Silences in a row after which a form is given up, when no heartbeat came through in between.
const MUTES_MAX: u8 = 3;

/// The forms that may be used, best first.
#[derive(Debug, Clone)]
pub(crate) struct Fallback {
    candidates: Vec<Candidate>,
    reprobe_after: Duration,
    reprobe_max: Duration,
    /// Whether one was given up and none has worked since: then the way goes down only.
    descending: bool,
}

#[derive(Debug, Clone)]
struct Candidate {
    form: Form,
    cuts: u8,
    mutes: u8,
    /// It has worked, and what fails once may have been the gateway's restart.
    trusted: bool,
    /// It had gone mute, so it is given more time for its first envelope.
    was_mute: bool,
    /// Until when it is given up.
    away_until: Option<Instant>,
    /// For how long the next time.
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

    /// Whether a form may be used at all.
    pub(crate) fn has(&self, form: Form) -> bool {
        self.candidates.iter().any(|candidate| candidate.form == form)
    }

    /// The best form that is not given up; while one works, also those whose time has come. The last one, if all are.
    pub(crate) fn best(&self, now: Instant) -> Form {
        let untried = |candidate: &&Candidate| candidate.away_until.is_none();
        let due = |candidate: &&Candidate| candidate.away_until.is_none_or(|until| until <= now);
        let untried = self.candidates.iter().find(untried).filter(|_| self.descending);
        let best = untried.or_else(|| self.candidates.iter().find(due)).or(self.candidates.last());
        best.map_or(Form::ShortPoll, |candidate| candidate.form)
    }

    /// When one that is better than `form` is to be tried again, if there is one that works meanwhile.
    pub(crate) fn better_at(&self, form: Form) -> Option<Instant> {
        let better = self.candidates.iter().take_while(|candidate| candidate.form != form);
        better.filter_map(|candidate| candidate.away_until).min().filter(|_| !self.descending)
    }

    /// Begins with `form`, and with a better one later.
    pub(crate) fn begin_with(&mut self, form: Form, now: Instant, chance: &mut Rng) {
        if self.has(form) {
            let better: Vec<_> = self
                .candidates
                .iter()
                .map(|candidate| candidate.form)
                .take_while(|other| *other != form)
                .collect();
            for form in better {
                self.give_up(form, now, chance);
            }
        }
    }

    /// Gives a form up, each time for twice as long.
    pub(crate) fn give_up(&mut self, form: Form, now: Instant, chance: &mut Rng) {
        let most = self.reprobe_max;
        self.descending = true;
        if let Some(candidate) = self.candidate(form) {
            candidate.away_until = Some(now + candidate.away_for.mul_f64(0.9 + chance.f64() / 5.0));
            candidate.away_for = (candidate.away_for * 2).min(most);
            candidate.cuts = 0;
        }
    }

    /// A form has lived long enough: what it failed at is forgotten, but for silence, which says so only later.
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

    /// Whether a form has one more try: once after it has worked.
    pub(crate) fn pardon(&mut self, form: Form) -> bool {
        self.candidate(form).is_some_and(|candidate| std::mem::take(&mut candidate.trusted))
    }

    /// A heartbeat came through it.
    pub(crate) fn beat(&mut self, form: Form) {
        if let Some(candidate) = self.candidate(form) {
            candidate.mutes = 0;
        }
        self.worked(form);
    }

    /// It lived only for a moment. Returns whether that was once too often.
    pub(crate) fn cut(&mut self, form: Form) -> bool {
        self.candidate(form).is_some_and(|candidate| {
            candidate.cuts += 1;
            candidate.trusted &= candidate.cuts < CUTS_MAX;
            candidate.cuts >= CUTS_MAX
        })
    }

    /// It went mute, having brought something before or not. Returns whether that was once too often.
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
