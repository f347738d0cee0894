//! Tests of reading, trimming and forking logs in memory.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::budget::{Account, Budget};
use crate::stream::Payload;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn push_in(budget: &Arc<Budget>, log: &mut Log<Bytes>, payload: Payload, at: SystemTime) {
    let (shape, content) = payload.into_parts();
    let creator = budget.owner(Principal::GATEWAY);
    let by = ChargedTo { principal: Principal::GATEWAY, creator: &creator };
    log.push(Record { start: Position(0), shape, content, at, annotation: None }, by);
}

fn push(log: &mut Log<Bytes>, payload: Payload, at: SystemTime) {
    push_in(&Budget::unlimited(), log, payload, at);
}

/// Restores a log from open appends.
fn restore(
    trimmed: Position,
    written: Position,
    tail: Position,
    open: &[Record<Bytes>],
    retention: &Retention,
) -> Log<Bytes> {
    let appends = Restored { sealed: Vec::new(), open: open.to_vec() };
    let creator = Budget::unlimited().owner(Principal::GATEWAY);
    let by = ChargedTo { principal: Principal::GATEWAY, creator: &creator };
    Log::restore(trimmed, written, tail, appends, retention, by)
}

fn json_log(batches: &[u64]) -> Log<Bytes> {
    json_log_in(&Budget::unlimited(), batches)
}

fn json_log_in(budget: &Arc<Budget>, batches: &[u64]) -> Log<Bytes> {
    let mut log = Log::default();
    let mut next = 0..;
    for size in batches {
        let values: Vec<_> = next.by_ref().take(*size as usize).map(|n: u64| n.to_string()).collect();
        let mut ends = Vec::new();
        let mut end = 0;
        for value in &values {
            end += value.len() as u32;
            ends.push(end);
            end += 1;
        }
        let at = NOW + seconds(log.tail.0);
        push_in(budget, &mut log, Payload::json(values.join(",").into(), ends), at);
    }
    log
}

fn texts(slice: &LogSlice<Bytes>) -> String {
    slice.pieces.iter().map(|p| String::from_utf8(p.to_vec()).unwrap()).collect::<Vec<_>>().join("|")
}

#[test]
fn a_read_begins_anywhere_even_inside_an_append() {
    let log = json_log(&[1, 3, 2]);
    let read = |from| log.read(Position(from), usize::MAX);
    assert_eq!(texts(&read(0)), "0|1,2,3|4,5");
    assert_eq!(texts(&read(2)), "2,3|4,5");
    assert_eq!((texts(&read(6)).as_str(), read(6).next), ("", Position(6)));
    assert_eq!((read(2).messages, read(2).next), (4, Position(6)));
}

#[test]
fn a_read_stops_at_its_limit_but_returns_at_least_one_append() {
    let log = json_log(&[3, 3, 3]);
    assert_eq!(texts(&log.read(Position(0), 1)), "0,1,2");
    assert_eq!(texts(&log.read(Position(0), 10)), "0,1,2|3,4,5");
}

#[test]
fn many_runs_read_as_one_log() {
    let log = json_log(&vec![2; 3 * RUN_RECORDS_MAX]);
    assert!(log.sealed.len() >= 2);
    let (run, all) = (2 * RUN_RECORDS_MAX as u64, 6 * RUN_RECORDS_MAX as u64);
    for from in [0, 1, run - 1, run, run + 1, 2 * run, all - 1] {
        let text = texts(&log.read(Position(from), usize::MAX)).replace('|', ",");
        let expected: Vec<_> = (from..all).map(|n| n.to_string()).collect();
        assert_eq!(text, expected.join(","));
    }
}

#[test]
fn messages_are_trimmed_one_by_one_and_bytes_by_whole_appends() {
    let mut log = json_log(&[4, 4]);
    log.trim(&Retention { messages_max: Some(5), ..Retention::default() }, NOW);
    assert_eq!((log.earliest, texts(&log.read(log.earliest, 99)).as_str()), (Position(3), "3|4,5,6,7"));
    assert_eq!(log.kept, log.count());
    log.trim(&Retention { bytes_max: Some(2), ..Retention::default() }, NOW);
    assert_eq!((log.earliest, log.kept), (Position(4), log.count()));
}

#[test]
fn age_may_empty_a_log_and_positions_continue() {
    let mut log = json_log(&[1, 1]);
    let young = Retention { age_max: Some(seconds(10)), ..Retention::default() };
    log.trim(&young, NOW + seconds(11));
    assert_eq!(log.earliest, Position(1));
    log.trim(&young, NOW + seconds(60));
    assert_eq!((log.earliest, log.tail, log.kept), (Position(2), Position(2), Extent::default()));
    push(&mut log, Payload::json("9".into(), vec![1]), NOW);
    assert_eq!(texts(&log.read(Position(2), 99)), "9");
    for (second, earliest) in [(9, 2), (10, 2), (11, 3)] {
        log.trim(&young, NOW + seconds(second));
        assert_eq!(log.earliest, Position(earliest), "{second}");
    }
}

#[test]
fn an_append_with_a_time_in_the_future_ages_from_the_time_at_which_that_is_noticed() {
    let mut log = json_log(&[1]);
    let young = Retention { age_max: Some(seconds(10)), ..Retention::default() };
    log.trim(&young, NOW);
    log.cap_append_times(NOW - seconds(1000));
    log.trim(&young, NOW - seconds(990));
    assert_eq!(log.earliest, Position(0));
    log.trim(&young, NOW - seconds(989));
    assert_eq!(log.earliest, Position(1));
}

#[test]
fn an_append_after_the_clock_was_set_right_ages_from_its_own_time() {
    let mut log = json_log(&[1]);
    let young = Retention { age_max: Some(seconds(10)), ..Retention::default() };
    let right = NOW - seconds(1000);
    log.cap_append_times(right);
    push(&mut log, Payload::json("1".into(), vec![1]), right + seconds(5));
    for (after, earliest) in [(10, 0), (11, 1), (15, 1), (16, 2)] {
        log.trim(&young, right + seconds(after));
        assert_eq!(log.earliest, Position(earliest), "{after}");
    }
}

#[test]
fn trimming_frees_records_before_a_run_is_full() {
    let mut log = json_log(&[1; 20]);
    log.trim(&Retention { messages_max: Some(9), ..Retention::default() }, NOW);
    assert_eq!((log.open.len(), log.earliest, log.kept), (9, Position(11), log.count()));
    let restored = restore(log.earliest, log.tail, log.tail, &log.open, &Retention::default());
    assert_eq!(texts(&restored.read(log.earliest, 99)), texts(&log.read(log.earliest, 99)));
    assert_eq!((restored.earliest, restored.tail, restored.kept), (log.earliest, log.tail, log.kept));
}

#[test]
fn a_fork_is_the_log_up_to_its_point() {
    let mut log = json_log(&vec![3; 2 * RUN_RECORDS_MAX]);
    let (run, all) = (3 * RUN_RECORDS_MAX as u64, 6 * RUN_RECORDS_MAX as u64);
    for end in [0, 1, 3, run - 1, run, run + 1, run + 50, all] {
        let (open, parts) = (log.open.len(), end.div_ceil(run) as usize);
        let fork = log.fork(Position(end));
        assert_eq!((fork.sealed.len(), fork.open().len()), (parts, 0));
        if end <= run {
            assert_eq!(log.open().len(), open, "they are not shared, and stay open");
        }
        let text = texts(&fork.read(Position(0), usize::MAX)).replace('|', ",");
        let expected: Vec<_> = (0..end).map(|n| n.to_string()).collect();
        assert_eq!((fork.tail, text), (Position(end), expected.join(",")));
        assert_eq!(fork.kept, Extent { messages: end, ..fork.kept });
    }
}

fn lose(log: &mut Log<Bytes>, content: &'static str) {
    log.lose(Position(0), |found| found == content);
}

/// The position after the trimmed messages, and the first one that can be read.
fn beginning(log: &Log<Bytes>) -> (u64, u64) {
    (log.trimmed().0, log.earliest().0)
}

#[test]
fn damage_at_the_beginning_is_not_trimmed_until_later_messages_are() {
    let mut log = json_log(&[1, 1, 1, 1]);
    lose(&mut log, "0");
    lose(&mut log, "1");
    assert_eq!((beginning(&log), log.holes()), ((0, 2), vec![(Position(0), Position(2))]));
    let fork = log.fork(Position(3));
    assert_eq!(beginning(&fork), (0, 2));
    log.trim(&Retention { messages_max: Some(1), ..Retention::default() }, NOW);
    assert_eq!((beginning(&log), log.holes()), ((3, 3), vec![]));
    lose(&mut log, "3");
    assert_eq!((beginning(&log), log.tail), ((3, 4), Position(4)));
    log.skip_to(Position(6));
    assert_eq!((beginning(&log), log.tail), ((3, 6), Position(6)));
}

#[test]
fn a_log_is_restored_with_the_damage_at_its_beginning() {
    let log = json_log(&[1; 4]);
    for (found, trimmed, expected) in [(0, 0, (0, 0)), (0, 2, (2, 2)), (3, 2, (2, 3)), (4, 1, (1, 4))] {
        let (trimmed, tail) = (Position(trimmed), log.tail);
        let restored = restore(trimmed, tail, tail, &log.open[found..], &Retention::default());
        assert_eq!(beginning(&restored), expected, "{found} {trimmed:?}");
    }
}

/// A clock that was set back gave the second message an earlier time than the first.
#[test]
fn the_oldest_message_ages_although_an_older_one_with_a_later_time_was_damaged() {
    let mut log = Log::default();
    for (text, second) in [("0", 100), ("1", 0)] {
        push(&mut log, Payload::json(text.into(), vec![1]), NOW + seconds(second));
    }
    let young = Retention { age_max: Some(seconds(10)), ..Retention::default() };
    log.trim(&young, NOW + seconds(20));
    assert_eq!(log.earliest, Position(0), "the first message protects what follows it");
    lose(&mut log, "0");
    log.trim(&young, NOW + seconds(20));
    assert_eq!((log.earliest, log.kept), (Position(2), Extent::default()));
}

#[test]
fn appends_are_freed_once_they_are_many_and_more_than_half_of_the_open_ones() {
    let left = |appends, kept| {
        let mut log = json_log(&vec![1; appends]);
        log.trim(&Retention { messages_max: Some(kept), ..Retention::default() }, NOW);
        assert_eq!(log.messages_kept(), kept);
        log.open.len()
    };
    let cases = [(20, 15), (20, 12), (20, 10), (20, 9), (8, 1), (10, 2), (3, 0)];
    assert_eq!(cases.map(|(appends, kept)| left(appends, kept)), [20, 20, 20, 9, 8, 2, 0]);
}

#[test]
fn a_log_within_its_retention_is_not_searched() {
    let mut log = json_log(&[1, 1, 1]);
    let retention = |messages_max, bytes_max, age_max: Option<u64>| Retention {
        messages_max,
        bytes_max,
        age_max: age_max.map(seconds),
    };
    for (messages_max, bytes_max, exceeds) in
        [(None, None, false), (Some(3), Some(3), false), (Some(2), None, true), (None, Some(2), true)]
    {
        let retention = retention(messages_max, bytes_max, None);
        assert_eq!(log.may_exceed(&retention, NOW), exceeds, "{retention:?}");
    }
    let young = retention(None, None, Some(10));
    assert!(log.may_exceed(&young, NOW), "the ages are not known");
    log.trim(&young, NOW);
    for (second, exceeds) in [(9, false), (10, true), (11, true)] {
        assert_eq!(log.may_exceed(&young, NOW + seconds(second)), exceeds, "{second}");
    }
}

#[test]
fn text_is_trimmed_by_whole_appends_and_the_newest_stays_unless_it_is_too_old() {
    let log = || {
        let mut log = Log::default();
        for (second, text) in (0..).zip(["aa", "bb", "cc"]) {
            push(&mut log, Payload::raw(text.into()), NOW + seconds(second));
        }
        log
    };
    let retention = |messages_max, age_max| Retention { messages_max, age_max, ..Retention::default() };
    let young = Some(seconds(10));
    for (retention, second, earliest) in [
        (retention(None, young), 10, 0),
        (retention(None, young), 11, 2),
        (retention(None, young), 13, 6),
        (retention(Some(2), young), 10, 2),
        (retention(Some(1), None), 99, 4),
        (retention(Some(0), None), 99, 4),
    ] {
        let mut log = log();
        log.trim(&retention, NOW + seconds(second));
        assert_eq!((log.earliest, log.kept), (Position(earliest), log.count()), "{retention:?} {second}");
        assert_eq!(log.messages_kept(), 3 - earliest / 2);
    }
}

#[test]
fn a_log_is_restored_as_it_was_whenever_its_state_was_written() {
    for keep in [
        Retention { messages_max: Some(3), ..Retention::default() },
        Retention { bytes_max: Some(7), ..Retention::default() },
        Retention { age_max: Some(seconds(5)), ..Retention::default() },
    ] {
        let appends = json_log(&[2; 6]).open;
        let mut log = Log::default();
        let mut states = vec![(log.earliest, log.tail)];
        for Record { shape, content, at, .. } in appends.clone() {
            let ends = if shape.ends().is_empty() { vec![shape.len() as u32] } else { shape.ends().to_vec() };
            push(&mut log, Payload::json(content, ends), at);
            log.trim(&keep, at);
            states.push((log.earliest, log.tail));
        }
        for (trimmed, written) in states {
            let restored = restore(trimmed, written, log.tail, &appends, &keep);
            let found = (restored.earliest, restored.tail, restored.kept);
            assert_eq!(found, (log.earliest, log.tail, log.kept), "{keep:?} {written:?}");
        }
    }
}

/// A clock that was set back gave the second message an earlier time than the first.
#[test]
fn an_append_after_the_restored_ones_is_not_trimmed_with_them() {
    let mut log = Log::default();
    for (text, second) in [("0", 100), ("1", 0)] {
        push(&mut log, Payload::json(text.into(), vec![1]), NOW + seconds(second));
    }
    let none = Retention { messages_max: Some(0), age_max: Some(seconds(10)), ..Retention::default() };
    let restored = restore(Position(0), Position(0), log.tail, &log.open, &none);
    assert_eq!((restored.earliest, restored.tail, restored.kept), (log.tail, log.tail, Extent::default()));
}

#[test]
fn the_oldest_and_the_newest_message_are_kept_ones() {
    let times = |log: &Log<Bytes>| {
        let second = |at: SystemTime| at.duration_since(NOW).unwrap().as_secs();
        (log.oldest().map(second), log.newest().map(second))
    };
    let mut log = json_log(&[1; RUN_RECORDS_MAX + 6]);
    log.trim(&Retention { messages_max: Some(50), ..Retention::default() }, NOW);
    assert_eq!(times(&log), (Some(20), Some(69)));
    assert_eq!(times(&log.fork(Position(60))), (Some(20), Some(59)));
    assert_eq!(times(&log.fork(Position(20))), (None, None));
    log.skip_to(Position(80));
    assert_eq!(times(&log), (Some(20), Some(69)), "damage behind them");
    let log = json_log(&[1; 3]);
    assert_eq!(times(&restore(log.tail, log.tail, log.tail, &log.open, &Retention::default())), (None, None));
    assert_eq!(times(&Log::default()), (None, None));
}

#[test]
fn a_run_is_charged_with_its_appends_and_its_place_after_a_restart_too() {
    let messages = |budget: &Budget| budget.usage().accounts[Account::Messages as usize];
    let budget = Budget::unlimited();
    let mut log = json_log_in(&budget, &[3; 20]);
    log.trim(&Retention { messages_max: Some(9), ..Retention::default() }, NOW);
    assert_eq!(messages(&budget), 3 * log.open[0].bytes(), "trimmed appends are not charged");
    drop(log);
    assert_eq!(messages(&budget), 0);

    let mut log = json_log_in(&budget, &vec![1; 3 * RUN_RECORDS_MAX]);
    let fork = log.fork(log.tail);
    let appends: u64 = log.records_from(Position(0)).map(|record| record.bytes()).sum();
    assert_eq!(
        (messages(&budget), log.places_bytes()),
        (appends + 3 * 160, 3 * size_of::<Part<Bytes>>() as u64)
    );
    let after = Budget::unlimited();
    let creator = after.owner(Principal::GATEWAY);
    let by = ChargedTo { principal: Principal::GATEWAY, creator: &creator };
    let sealed = log.sealed.iter().map(|part| (part.run.clone(), part.end)).collect();
    let restored = Restored { sealed, open: Vec::<Record<Bytes>>::new() };
    let restored = Log::restore(Position(0), log.tail, log.tail, restored, &Retention::default(), by);
    assert_eq!((messages(&after), restored.kept), (messages(&budget), log.kept));
    drop(log);
    assert_eq!(messages(&budget), appends + 3 * 160, "the fork shares them");
    drop(fork);
    assert_eq!(messages(&budget), 0);
}

#[test]
fn a_run_is_sealed_when_it_has_many_bytes_before_and_after_a_restart() {
    let half = || Payload::raw(vec![b'x'; RUN_BYTES_MAX / 2].into());
    let mut log = Log::default();
    for sealed in [0, 0, 1, 1, 2] {
        push(&mut log, half(), NOW);
        assert_eq!(log.sealed.len(), sealed);
    }
    push(&mut log, half(), NOW);
    assert_eq!(log.open.len(), 2);
    let (from, tail) = (log.open[0].start, log.tail);
    let mut restored = restore(from, tail, tail, &log.open, &Retention::default());
    push(&mut restored, half(), NOW);
    assert_eq!((restored.sealed.len(), restored.open.len()), (1, 1));
}
