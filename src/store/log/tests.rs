//! Tests of reading, trimming and forking logs in memory.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::budget::Budget;
use crate::stream::Payload;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn push(log: &mut Log<Bytes>, payload: Payload, at: SystemTime) {
    let (shape, content) = payload.into_parts();
    let creator = Budget::unlimited().owner(Principal::GATEWAY);
    let by = ChargedTo { principal: Principal::GATEWAY, creator: &creator };
    log.push(Record { start: Position(0), shape, content, at, annotation: None }, by);
}

fn json_log(batches: &[u64]) -> Log<Bytes> {
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
        let at = NOW + Duration::from_secs(log.tail.0);
        push(&mut log, Payload::json(values.join(",").into(), ends), at);
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
    let young = Retention { age_max: Some(Duration::from_secs(10)), ..Retention::default() };
    log.trim(&young, NOW + Duration::from_secs(11));
    assert_eq!(log.earliest, Position(1));
    log.trim(&young, NOW + Duration::from_secs(60));
    assert_eq!((log.earliest, log.tail, log.kept), (Position(2), Position(2), Extent::default()));
    push(&mut log, Payload::json("9".into(), vec![1]), NOW);
    assert_eq!(texts(&log.read(Position(2), 99)), "9");
    for (seconds, earliest) in [(9, 2), (10, 2), (11, 3)] {
        log.trim(&young, NOW + Duration::from_secs(seconds));
        assert_eq!(log.earliest, Position(earliest), "{seconds}");
    }
}

#[test]
fn an_append_with_a_time_in_the_future_ages_from_the_time_at_which_that_is_noticed() {
    let mut log = json_log(&[1]);
    let young = Retention { age_max: Some(Duration::from_secs(10)), ..Retention::default() };
    log.trim(&young, NOW);
    log.cap_append_times(NOW - Duration::from_secs(1000));
    log.trim(&young, NOW - Duration::from_secs(990));
    assert_eq!(log.earliest, Position(0));
    log.trim(&young, NOW - Duration::from_secs(989));
    assert_eq!(log.earliest, Position(1));
}

#[test]
fn trimming_frees_records_before_a_run_is_full() {
    let mut log = json_log(&[1; 20]);
    log.trim(&Retention { messages_max: Some(9), ..Retention::default() }, NOW);
    assert_eq!((log.open.len(), log.earliest, log.kept), (9, Position(11), log.count()));
    let appends = Restored { sealed: Vec::new(), open: log.open.clone() };
    let creator = Budget::unlimited().owner(Principal::GATEWAY);
    let by = ChargedTo { principal: Principal::GATEWAY, creator: &creator };
    let restored = Log::restore(log.earliest, log.tail, log.tail, appends, &Retention::default(), by);
    assert_eq!(texts(&restored.read(log.earliest, 99)), texts(&log.read(log.earliest, 99)));
    assert_eq!((restored.earliest, restored.tail, restored.kept), (log.earliest, log.tail, log.kept));
}

#[test]
fn a_fork_is_the_log_up_to_its_point() {
    let mut log = json_log(&vec![3; 2 * RUN_RECORDS_MAX]);
    let (run, all) = (3 * RUN_RECORDS_MAX as u64, 6 * RUN_RECORDS_MAX as u64);
    for end in [0, 1, 3, run - 1, run, run + 1, run + 50, all] {
        let fork = log.fork(Position(end));
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
    let creator = Budget::unlimited().owner(Principal::GATEWAY);
    let by = ChargedTo { principal: Principal::GATEWAY, creator: &creator };
    for (found, trimmed, expected) in [(0, 0, (0, 0)), (0, 2, (2, 2)), (3, 2, (2, 3)), (4, 1, (1, 4))] {
        let appends = Restored { sealed: Vec::new(), open: log.open[found..].to_vec() };
        let (trimmed, tail) = (Position(trimmed), log.tail);
        let restored = Log::restore(trimmed, tail, tail, appends, &Retention::default(), by);
        assert_eq!(beginning(&restored), expected, "{found} {trimmed:?}");
    }
}

/// A clock that was set back gave the second message an earlier time than the first.
#[test]
fn the_oldest_message_ages_although_an_older_one_with_a_later_time_was_damaged() {
    let mut log = Log::default();
    for (text, seconds) in [("0", 100), ("1", 0)] {
        push(&mut log, Payload::json(text.into(), vec![1]), NOW + Duration::from_secs(seconds));
    }
    let young = Retention { age_max: Some(Duration::from_secs(10)), ..Retention::default() };
    log.trim(&young, NOW + Duration::from_secs(20));
    assert_eq!(log.earliest, Position(0), "the first message protects what follows it");
    lose(&mut log, "0");
    log.trim(&young, NOW + Duration::from_secs(20));
    assert_eq!((log.earliest, log.kept), (Position(2), Extent::default()));
}
