//! Mars's heartbeats: the published rule of WeChat's client (Tencent Mars, `mars/stn/src/smart_heartbeat.cc`), without IO, and a phone
//! that uses it.
//!
//! The client sends a heartbeat and waits for its answer. On each new connection it uses the shortest interval until three heartbeats were
//! answered. Then it uses the interval of the network, which it lengthens by a step whenever five heartbeats in a row were answered. After two
//! failures the interval falls by the step and a margin below what has failed, and is kept; if it fails again, the search begins anew. Not
//! simulated: an app in the foreground, which uses the shortest interval, and the weekly attempt at a longer one.

mod phone;

use std::time::Duration;

pub(super) use phone::read;

/// Shortest interval.
const MIN: Duration = Duration::from_secs(210);

/// Longest interval that is tried.
const MAX: Duration = Duration::from_secs(600);

/// Step up, and down.
const STEP: Duration = Duration::from_secs(60);

/// How far the interval stays below what was found, besides.
const MARGIN: Duration = Duration::from_secs(20);

/// Heartbeats that are answered on a connection before the interval of the network is used on it.
const KNOWN_AFTER: u32 = 3;

/// Heartbeats that are answered at an interval before a longer one is tried.
const UP_AFTER: u32 = 5;

/// Failures at an interval after which a shorter one is used.
const DOWN_AFTER: u32 = 2;

/// The rule, on one network.
#[derive(Debug)]
struct Rule {
    /// The interval of the network.
    interval: Duration,
    /// The interval of the last heartbeat.
    last: Duration,
    /// Heartbeats that were answered on this connection.
    on_connection: u32,
    /// Heartbeats that were answered in a row at the interval of the network.
    at_interval: u32,
    failures: u32,
    /// Whether the search has ended.
    is_found: bool,
}

impl Rule {
    fn new() -> Self {
        Self { interval: MIN, last: MIN, on_connection: 0, at_interval: 0, failures: 0, is_found: false }
    }

    /// A connection begins.
    fn connected(&mut self) {
        self.on_connection = 0;
    }

    /// The interval until the next heartbeat.
    fn next(&mut self) -> Duration {
        self.last = if self.on_connection < KNOWN_AFTER { MIN } else { self.interval };
        self.last
    }

    /// A heartbeat was answered.
    fn answered(&mut self) {
        self.on_connection += 1;
        if self.is_found || !self.is_of_the_network() {
            return;
        }
        (self.at_interval, self.failures) = (self.at_interval + 1, 0);
        if self.interval >= MAX {
            (self.interval, self.at_interval, self.is_found) = (MAX - MARGIN, 0, true);
        } else if self.at_interval >= UP_AFTER {
            (self.interval, self.at_interval) = ((self.interval + STEP).min(MAX), 0);
        }
    }

    /// A heartbeat was not answered.
    fn failed(&mut self) {
        if !self.is_of_the_network() || self.last == MIN {
            return;
        }
        self.failures += 1;
        if self.failures < DOWN_AFTER {
            return;
        }
        self.interval = if self.is_found { MIN } else { (self.interval - STEP - MARGIN).max(MIN) };
        (self.at_interval, self.failures, self.is_found) = (0, 0, !self.is_found);
    }

    /// Whether the outcome of the last heartbeat says something about the interval of the network.
    fn is_of_the_network(&self) -> bool {
        self.on_connection >= KNOWN_AFTER && self.last == self.interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The intervals of `heartbeats` heartbeats behind a NAT that forgets a connection after `nat` seconds, and the number that failed.
    fn behind(rule: &mut Rule, nat: u64, heartbeats: usize) -> (Vec<u64>, usize) {
        let (mut intervals, mut failed) = (Vec::new(), 0);
        for _ in 0..heartbeats {
            let interval = rule.next().as_secs();
            intervals.push(interval);
            if interval <= nat {
                rule.answered();
            } else {
                failed += 1;
                rule.failed();
                rule.connected();
            }
        }
        (intervals, failed)
    }

    #[test]
    fn behind_a_patient_nat_each_interval_is_used_five_times_and_the_longest_is_kept_with_a_margin() {
        let (intervals, failed) = behind(&mut Rule::new(), 1800, 60);
        assert_eq!(failed, 0);
        let used = |seconds| intervals.iter().filter(|interval| **interval == seconds).count();
        // The first two only make the connection known.
        assert_eq!([210, 270, 330, 390, 450, 510, 570].map(used), [7, 5, 5, 5, 5, 5, 5]);
        assert_eq!((used(600), intervals.last()), (1, Some(&580)));
        // The search takes as long as published: about 245 minutes.
        let search: u64 = intervals.iter().take_while(|interval| **interval != 580).sum();
        assert!((230 * 60..250 * 60).contains(&search), "{search} s");
    }

    #[test]
    fn two_failures_leave_an_interval_below_the_one_that_had_worked() {
        let (intervals, failed) = behind(&mut Rule::new(), 300, 60);
        // 270 s had worked, 330 s failed twice, each time with three heartbeats in between that make the new connection known.
        assert_eq!((failed, intervals.last()), (2, Some(&250)));
        let first = intervals.iter().position(|interval| *interval == 330).unwrap();
        assert_eq!(intervals[first..first + 6], [330, 210, 210, 210, 330, 210]);
    }

    #[test]
    fn an_interval_that_was_found_and_fails_twice_is_searched_for_anew() {
        let mut rule = Rule::new();
        behind(&mut rule, 1800, 60);
        let (intervals, failed) = behind(&mut rule, 240, 12);
        assert_eq!((failed, &intervals[..6]), (2, &[580, 210, 210, 210, 580, 210][..]));
        assert!(intervals[5..].iter().all(|interval| *interval == 210), "{intervals:?}");
        assert!(!rule.is_found);
    }

    #[test]
    fn nothing_is_shorter_than_the_shortest_interval() {
        let (intervals, failed) = behind(&mut Rule::new(), 60, 20);
        assert_eq!((failed, intervals.iter().max()), (20, Some(&210)));
    }
}
