//! Which forms are in the running: what failed is given up for a while, and the best of the others is used.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use super::attempt::Form;
use super::settings::Settings;

/// Short lives in a row after which a form is given up.
const CUTS_MAX: u8 = 3;

/// Silences in a row after which a form is given up, when no heartbeat came through in between.
const MUTES_MAX: u8 = 3;

/// The forms that may be used, best first.
#[derive(Debug, Clone)]
pub(super) struct Ladder {
    rungs: Vec<Rung>,
    reprobe_after: Duration,
    reprobe_max: Duration,
    /// Whether one was given up and none has worked since: then the way goes down only.
    descending: bool,
}

#[derive(Debug, Clone)]
struct Rung {
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

impl Ladder {
    pub(super) fn new(settings: &Settings) -> Self {
        let forms = if settings.forms.is_empty() { &Form::ALL[..] } else { &settings.forms };
        let (reprobe_after, reprobe_max) = (settings.reprobe_after, settings.reprobe_max);
        let rung = |form: &Form| Rung {
            form: *form,
            cuts: 0,
            mutes: 0,
            trusted: false,
            was_mute: false,
            away_until: None,
            away_for: reprobe_after,
        };
        Self { rungs: forms.iter().map(rung).collect(), reprobe_after, reprobe_max, descending: false }
    }

    /// Whether a form may be used at all.
    pub(super) fn has(&self, form: Form) -> bool {
        self.rungs.iter().any(|rung| rung.form == form)
    }

    /// The best form that is not given up; while one works, also those whose time has come. The last one, if all are.
    pub(super) fn best(&self, now: Instant) -> Form {
        let untried = |rung: &&Rung| rung.away_until.is_none();
        let due = |rung: &&Rung| rung.away_until.is_none_or(|until| until <= now);
        let untried = self.rungs.iter().find(untried).filter(|_| self.descending);
        let best = untried.or_else(|| self.rungs.iter().find(due)).or(self.rungs.last());
        best.map_or(Form::ShortPoll, |rung| rung.form)
    }

    /// When one that is better than `form` is to be tried again, if there is one that works meanwhile.
    pub(super) fn better_at(&self, form: Form) -> Option<Instant> {
        let better = self.rungs.iter().take_while(|rung| rung.form != form);
        better.filter_map(|rung| rung.away_until).min().filter(|_| !self.descending)
    }

    /// Begins with `form`, and with a better one later.
    pub(super) fn begin_with(&mut self, form: Form, now: Instant, chance: &mut Rng) {
        if self.has(form) {
            let better: Vec<_> =
                self.rungs.iter().map(|rung| rung.form).take_while(|other| *other != form).collect();
            for form in better {
                self.give_up(form, now, chance);
            }
        }
    }

    /// Gives a form up, each time for twice as long.
    pub(super) fn give_up(&mut self, form: Form, now: Instant, chance: &mut Rng) {
        let most = self.reprobe_max;
        self.descending = true;
        if let Some(rung) = self.rung(form) {
            rung.away_until = Some(now + rung.away_for.mul_f64(0.9 + chance.f64() / 5.0));
            rung.away_for = (rung.away_for * 2).min(most);
            rung.cuts = 0;
        }
    }

    /// A form has lived long enough: what it failed at is forgotten, but for silence, which says so only later.
    pub(super) fn worked(&mut self, form: Form) {
        let again = self.reprobe_after;
        self.descending = false;
        if let Some(rung) = self.rung(form) {
            (rung.cuts, rung.away_until, rung.trusted) = (0, None, true);
            if rung.mutes == 0 {
                (rung.away_for, rung.was_mute) = (again, false);
            }
        }
    }

    /// Whether a form has one more try: once after it has worked.
    pub(super) fn pardon(&mut self, form: Form) -> bool {
        self.rung(form).is_some_and(|rung| std::mem::take(&mut rung.trusted))
    }

    /// A heartbeat came through it.
    pub(super) fn beat(&mut self, form: Form) {
        if let Some(rung) = self.rung(form) {
            rung.mutes = 0;
        }
        self.worked(form);
    }

    /// It lived only for a moment. Returns whether that was once too often.
    pub(super) fn cut(&mut self, form: Form) -> bool {
        self.rung(form).is_some_and(|rung| {
            rung.cuts += 1;
            rung.trusted &= rung.cuts < CUTS_MAX;
            rung.cuts >= CUTS_MAX
        })
    }

    /// It went mute, having brought something before or not. Returns whether that was once too often.
    pub(super) fn mute(&mut self, form: Form, brought_something: bool) -> bool {
        self.rung(form).is_some_and(|rung| {
            rung.was_mute = true;
            rung.mutes = if brought_something { rung.mutes.saturating_add(1) } else { MUTES_MAX };
            rung.trusted &= rung.mutes < MUTES_MAX;
            rung.mutes >= MUTES_MAX
        })
    }

    pub(super) fn was_mute(&self, form: Form) -> bool {
        self.rungs.iter().any(|rung| rung.form == form && rung.was_mute)
    }

    fn rung(&mut self, form: Form) -> Option<&mut Rung> {
        self.rungs.iter_mut().find(|rung| rung.form == form)
    }
}
