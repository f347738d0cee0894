//! The hold time of long polls on this network: a poll that is cut shortens the hold time of the next ones.

use std::time::Duration;

use crate::memory::Known;
use crate::settings::{Settings, whole_seconds};

/// A poll that is cut earlier than this says nothing about the hold time.
const EARLY: Duration = Duration::from_secs(1);

/// Early cuts in a row after which long polls are given up.
const EARLY_CUTS_MAX: u8 = 3;

/// Current hold time, and the longest one that was answered.
#[derive(Debug, Clone)]
pub(crate) struct HoldTime {
    hold: Duration,
    proven: Duration,
    cuts: u8,
    early_cuts: u8,
    /// Both before the last cut, until it is confirmed or retracted.
    before_cut: Option<(Duration, Duration)>,
}

impl HoldTime {
    pub(crate) fn new(settings: &Settings, known: &Known) -> Self {
        let most = whole_seconds(settings.hold);
        let hold = known.hold.map_or(most, |seconds| whole_seconds(Duration::from_secs(seconds)).min(most));
        let proven = Duration::from_secs(known.hold_proven.unwrap_or(0)).min(most);
        Self { hold, proven, cuts: 0, early_cuts: 0, before_cut: None }
    }

    /// Hold time of the next poll.
    pub(crate) fn current(&self) -> Duration {
        self.hold
    }

    pub(crate) fn proven(&self) -> Duration {
        self.proven
    }

    /// A poll was answered after this time.
    pub(crate) fn answered(&mut self, after: Duration) {
        (self.cuts, self.early_cuts, self.before_cut) = (0, 0, None);
        self.proven = self.proven.max(Duration::from_secs(after.as_secs())).min(self.hold);
    }

    /// A held poll was cut after this time. Returns whether long polls should be given up.
    pub(crate) fn cut(&mut self, after: Duration) -> bool {
        self.before_cut = Some((self.hold, self.proven));
        if after < EARLY {
            self.early_cuts += 1;
            return self.early_cuts >= EARLY_CUTS_MAX;
        }
        (self.cuts, self.early_cuts) = (self.cuts + 1, 0);
        let fluke = after <= self.proven && self.cuts == 1;
        if !fluke {
            self.hold = whole_seconds(after.mul_f64(0.8)).min(self.hold);
            self.proven = self.proven.min(self.hold);
        }
        false
    }

    /// The gateway was restarted or unreachable: the last cut says nothing about the network.
    pub(crate) fn retract_failure(&mut self) {
        if let Some((hold, proven)) = self.before_cut.take() {
            (self.hold, self.proven, self.cuts, self.early_cuts) = (hold, proven, 0, 0);
        }
    }

    /// Long polls were given up: counting starts over.
    pub(crate) fn forget_cuts(&mut self) {
        (self.cuts, self.early_cuts, self.before_cut) = (0, 0, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn fresh() -> HoldTime {
        HoldTime::new(&Settings::default(), &Known::default())
    }

    #[test]
    fn a_cut_makes_the_next_hold_four_fifths_of_it() {
        let mut hold = fresh();
        for (cut, next) in [(20, 16), (10, 8), (1, 1)] {
            assert!(!hold.cut(seconds(cut)));
            assert_eq!(hold.current(), seconds(next));
        }
    }

    #[test]
    fn one_cut_below_a_proven_hold_is_a_fluke_and_two_are_not() {
        let mut hold = fresh();
        hold.answered(seconds(25));
        hold.cut(seconds(10));
        assert_eq!(hold.current(), seconds(25));
        hold.answered(seconds(3));
        hold.cut(seconds(10));
        assert_eq!(hold.current(), seconds(25), "an answer came between");
        hold.cut(seconds(10));
        assert_eq!((hold.current(), hold.proven()), (seconds(8), seconds(8)));
    }

    #[test]
    fn three_cuts_within_a_second_are_hopeless_and_leave_the_hold_alone() {
        let mut hold = fresh();
        let early = Duration::from_millis(300);
        assert_eq!([hold.cut(early), hold.cut(early), hold.cut(early)], [false, false, true]);
        assert_eq!(hold.current(), seconds(25));
    }

    #[test]
    fn early_cuts_are_counted_anew_once_long_polls_were_given_up() {
        let mut hold = fresh();
        let early = Duration::from_millis(300);
        assert_eq!([hold.cut(early), hold.cut(early)], [false, false]);
        hold.forget_cuts();
        assert_eq!([hold.cut(early), hold.cut(early), hold.cut(early)], [false, false, true]);
    }

    #[test]
    fn a_cut_that_was_the_gateways_end_is_taken_back() {
        let mut hold = fresh();
        hold.cut(seconds(10));
        hold.retract_failure();
        assert_eq!(hold.current(), seconds(25));
    }
}
