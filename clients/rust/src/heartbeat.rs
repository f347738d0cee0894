//! The search for the longest heartbeat that keeps a connection alive on this network: double, then bisect.
//!
//! A heartbeat of 30 s is proven when an envelope arrives after 30 s of silence. It has failed when the connection dies
//! during the silence, but only directly after a success at the shortest heartbeat: otherwise the whole network may have
//! failed. So a first failure is only doubted: the shortest heartbeat is proven again, and then it is tried again. A
//! connection that is closed in a silence longer than any proven one shows the limit itself, without doubt.

use std::time::Duration;

use crate::memory::Known;
use crate::settings::{Settings, whole_seconds};

/// How far heartbeats stay below an idle timeout that the user knows.
const CLOCK_MARGIN: Duration = Duration::from_secs(5);

/// Smallest difference of heartbeats on the wire.
const RESOLUTION: Duration = Duration::from_secs(1);

/// The heartbeat in use stays below the proven one by a tenth, and at most by this.
const MARGIN_MAX: Duration = Duration::from_secs(20);

/// The heartbeats that are proven and those that have failed on a network.
#[derive(Debug, Clone)]
pub(crate) struct Heartbeat {
    min: Duration,
    max: Duration,
    /// Longest heartbeat that is proven.
    proven: Option<Duration>,
    /// Shortest heartbeat that has failed.
    failed: Option<Duration>,
    /// Heartbeat that did not work, perhaps for another reason.
    doubted: Option<Duration>,
    /// Whether the last outcome was a success at `min`.
    behind_min: bool,
    /// `proven` and `failed` before the last failure, until it is confirmed or retracted.
    before: Option<(Option<Duration>, Option<Duration>)>,
}

impl Heartbeat {
    pub(crate) fn new(settings: &Settings, known: &Known) -> Self {
        let min = whole_seconds(settings.heartbeat_min);
        let clock =
            settings.idle_clock.map_or(settings.heartbeat_max, |clock| clock.saturating_sub(CLOCK_MARGIN));
        let max = whole_seconds(settings.heartbeat_max.min(clock)).max(min);
        let within =
            |seconds: u64| Some(Duration::from_secs(seconds)).filter(|time| (min..=max).contains(time));
        let proven = known.heartbeat_lo.and_then(within);
        let failed =
            known.heartbeat_hi.and_then(within).filter(|failed| proven.is_none_or(|lo| lo < *failed));
        Self { min, max, proven, failed, doubted: None, behind_min: false, before: None }
    }

    pub(crate) fn proven(&self) -> Option<Duration> {
        self.proven
    }

    pub(crate) fn failed_at(&self) -> Option<Duration> {
        self.failed
    }

    /// Heartbeat that every network is expected to bear.
    pub(crate) fn min(&self) -> Duration {
        self.min
    }

    /// Heartbeat of the next connection.
    pub(crate) fn next(&self) -> Duration {
        let Some(proven) = self.proven else { return self.min };
        match (self.doubted, self.failed) {
            (Some(doubted), _) if self.behind_min => doubted,
            (Some(_), _) => self.min,
            (None, _) if self.is_found(proven) => self.in_use(proven),
            (None, Some(failed)) => whole_seconds((proven + failed) / 2),
            (None, None) => (proven * 2).min(self.max),
        }
    }

    /// An envelope arrived after a silence of this heartbeat. Returns whether the search goes on with another connection.
    pub(crate) fn survived(&mut self, heartbeat: Duration) -> bool {
        self.before = None;
        self.proven = self.proven.max(Some(heartbeat));
        self.behind_min = heartbeat <= self.min;
        if !self.behind_min {
            self.doubted = None;
            self.failed = self.failed.filter(|failed| *failed > heartbeat);
        }
        self.next() != heartbeat
    }

    /// A connection with this heartbeat has died: it stayed silent, or was cut after this much silence.
    pub(crate) fn died(&mut self, heartbeat: Duration, cut_after: Option<Duration>) {
        if heartbeat <= self.min {
            self.behind_min = false;
            return;
        }
        let is_clear = cut_after > self.proven;
        if std::mem::take(&mut self.behind_min) || is_clear {
            let limit = cut_after.map_or(heartbeat, |silence| whole_seconds(silence).min(heartbeat));
            let limit = limit.max(self.min + RESOLUTION);
            self.before = Some((self.proven, self.failed));
            self.failed = Some(limit);
            self.proven = self.proven.map(|proven| if proven < limit { proven } else { self.min });
            self.doubted = None;
        } else {
            self.doubted = Some(heartbeat);
        }
    }

    /// The gateway was restarted or unreachable: the last failure says nothing about the network.
    pub(crate) fn retract_failure(&mut self) {
        if let Some((proven, failed)) = self.before.take() {
            (self.proven, self.failed) = (proven, failed);
        }
    }

    fn is_found(&self, proven: Duration) -> bool {
        let near = (self.min / 3).max(proven / 10).max(RESOLUTION);
        proven >= self.max || self.failed.is_some_and(|failed| failed - proven <= near)
    }

    fn in_use(&self, proven: Duration) -> Duration {
        let margin = (proven / 10).min(MARGIN_MAX);
        // Rounded, as a tenth of little is less than the wire can say.
        whole_seconds(proven - margin + RESOLUTION / 2).max(self.min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The heartbeats of `connections` idle connections through a NAT with this limit.
    fn search(heartbeat: &mut Heartbeat, limit: u64, connections: usize) -> Vec<u64> {
        let mut asked = Vec::new();
        while asked.len() < connections {
            let next = heartbeat.next();
            asked.push(next.as_secs());
            if next.as_secs() >= limit {
                heartbeat.died(next, None);
            } else if !heartbeat.survived(next) {
                break;
            }
        }
        asked
    }

    fn fresh() -> Heartbeat {
        Heartbeat::new(&Settings::default(), &Known::default())
    }

    /// A network on which this is proven and has failed, in seconds.
    fn knowing(proven: u64, failed: u64) -> Heartbeat {
        let known = Known { heartbeat_lo: Some(proven), heartbeat_hi: Some(failed), ..Known::default() };
        Heartbeat::new(&Settings::default(), &known)
    }

    #[test]
    fn most_of_the_limit_of_a_nat_is_found_within_ten_connections() {
        for limit in [60, 240] {
            let mut heartbeat = fresh();
            let asked = search(&mut heartbeat, limit, 10);
            let found = heartbeat.next().as_secs();
            assert!(found * 10 >= limit * 8 && found < limit, "{found} s of {limit} s by {asked:?}");
        }
    }

    #[test]
    fn every_limit_above_the_shortest_heartbeat_is_kept_and_used_well() {
        for limit in 16..=400 {
            let mut heartbeat = fresh();
            let asked = search(&mut heartbeat, limit, 30);
            assert!(asked.len() <= 20, "{limit}: {asked:?}");
            let found = heartbeat.next().as_secs();
            let due = limit.min(300);
            assert!(
                found < limit && (found * 10 >= due * 7 || due < 25),
                "{found} s of {limit} s by {asked:?}"
            );
        }
    }

    #[test]
    fn a_failure_counts_only_behind_a_success_at_the_shortest() {
        let mut heartbeat = fresh();
        search(&mut heartbeat, 1000, 3);
        let asked = heartbeat.next();
        // An address change, not the heartbeat.
        heartbeat.died(asked, None);
        assert_eq!(heartbeat.next(), heartbeat.min());
        assert!(heartbeat.survived(heartbeat.min()));
        assert_eq!((heartbeat.next(), heartbeat.failed_at()), (asked, None));
        heartbeat.died(asked, None);
        assert_eq!(heartbeat.failed_at(), Some(asked));
    }

    #[test]
    fn a_connection_that_is_closed_in_silence_is_believed_at_once_unless_the_gateway_went_away() {
        let mut heartbeat = fresh();
        search(&mut heartbeat, 1000, 2);
        let asked = heartbeat.next();
        heartbeat.died(asked, Some(Duration::from_millis(40_200)));
        assert_eq!(heartbeat.failed_at(), Some(Duration::from_secs(40)));
        heartbeat.retract_failure();
        assert_eq!((heartbeat.failed_at(), heartbeat.next()), (None, asked));
    }

    #[test]
    fn a_network_that_has_become_worse_is_searched_again() {
        let mut heartbeat = fresh();
        search(&mut heartbeat, 240, 20);
        search(&mut heartbeat, 60, 20);
        assert!((42..60).contains(&heartbeat.next().as_secs()), "{heartbeat:?}");
    }

    #[test]
    fn what_a_search_has_found_is_used_by_the_next_one() {
        let mut heartbeat = fresh();
        search(&mut heartbeat, 240, 30);
        let (proven, failed) = (heartbeat.proven().unwrap(), heartbeat.failed_at().unwrap());
        assert!((200..240).contains(&proven.as_secs()) && failed.as_secs() >= 240, "{heartbeat:?}");
        let seconds = |time: Duration| Some(time.as_secs());
        let known =
            Known { heartbeat_lo: seconds(proven), heartbeat_hi: seconds(failed), ..Known::default() };
        let mut next = Heartbeat::new(&Settings::default(), &known);
        assert_eq!(search(&mut next, 240, 30), [heartbeat.next().as_secs()]);
        assert_eq!((next.proven(), next.failed_at()), (Some(proven), Some(failed)));
    }

    #[test]
    fn a_known_clock_is_never_reached() {
        let settings = Settings { idle_clock: Some(Duration::from_secs(100)), ..Settings::default() };
        let mut heartbeat = Heartbeat::new(&settings, &Known::default());
        let asked = search(&mut heartbeat, 1000, 30);
        assert_eq!(asked.iter().max(), Some(&95));
    }

    #[test]
    fn a_doubted_heartbeat_that_survives_is_doubted_no_more() {
        let mut heartbeat = fresh();
        search(&mut heartbeat, 1000, 2);
        let asked = heartbeat.next();
        heartbeat.died(asked, None);
        heartbeat.survived(heartbeat.min());
        assert!(heartbeat.survived(asked), "the search goes on");
        assert_eq!(heartbeat.next(), asked * 2);
    }

    #[test]
    fn a_heartbeat_that_survives_where_it_had_failed_has_not_failed() {
        let mut heartbeat = knowing(30, 60);
        heartbeat.survived(Duration::from_secs(60));
        assert_eq!((heartbeat.proven(), heartbeat.failed_at()), (Some(Duration::from_secs(60)), None));
    }

    #[test]
    fn a_cut_after_a_silence_that_was_proven_is_only_doubted() {
        let mut heartbeat = fresh();
        search(&mut heartbeat, 1000, 2);
        let (proven, asked) = (heartbeat.proven().unwrap(), heartbeat.next());
        heartbeat.died(asked, Some(proven));
        assert_eq!((heartbeat.failed_at(), heartbeat.next()), (None, heartbeat.min()));
    }

    #[test]
    fn a_limit_is_above_the_shortest_heartbeat() {
        let mut heartbeat = fresh();
        search(&mut heartbeat, 1000, 1);
        heartbeat.died(heartbeat.next(), Some(Duration::from_millis(15_500)));
        assert_eq!(heartbeat.failed_at(), Some(Duration::from_secs(16)));
    }

    #[test]
    fn a_proven_heartbeat_that_fails_twice_is_proven_no_more() {
        let mut heartbeat = knowing(100, 101);
        let proven = Duration::from_secs(100);
        heartbeat.died(proven, None);
        heartbeat.survived(heartbeat.min());
        heartbeat.died(proven, None);
        assert_eq!((heartbeat.proven(), heartbeat.failed_at()), (Some(heartbeat.min()), Some(proven)));
    }

    #[test]
    fn the_heartbeat_in_use_stays_a_tenth_below_the_limit() {
        for (proven, failed, used) in [(100, 101, 90), (16, 17, 15), (250, 251, 230)] {
            assert_eq!(knowing(proven, failed).next(), Duration::from_secs(used));
        }
    }
}
