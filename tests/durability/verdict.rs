//! [`Verdict`]: compares the messages read from a stream with the acknowledged ones.

use std::collections::{BTreeMap, BTreeSet};

use crate::message::Message;

/// Number of acknowledged messages of each publisher on a stream.
pub(crate) type Acknowledged = BTreeMap<usize, u64>;

/// Counts of wrong messages.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Acknowledged messages that are missing.
    pub(crate) lost: u64,
    /// Messages that occur again.
    pub(crate) doubled: u64,
    /// Messages after a later one of the same publisher.
    pub(crate) reordered: u64,
    /// Messages that no publisher sent.
    pub(crate) altered: u64,
}

impl Verdict {
    pub(crate) const CLEAN: Self = Self { lost: 0, doubled: 0, reordered: 0, altered: 0 };

    /// Checks the messages read from the beginning of a stream. For each publisher it may hold one message more than was
    /// acknowledged: the one in flight.
    pub(crate) fn on(read: &[String], acknowledged: &Acknowledged) -> Self {
        let mut verdict = Self::default();
        let mut seen: BTreeMap<usize, BTreeSet<u64>> = BTreeMap::new();
        for text in read {
            let sent = |message: &Message| {
                acknowledged.get(&message.publisher).is_some_and(|count| message.counter <= *count)
            };
            let Some(Message { publisher, counter, .. }) = Message::parse(text).filter(sent) else {
                verdict.altered += 1;
                continue;
            };
            let seen = seen.entry(publisher).or_default();
            let is_late = seen.last().is_some_and(|last| *last > counter);
            if !seen.insert(counter) {
                verdict.doubled += 1;
            } else if is_late {
                verdict.reordered += 1;
            }
        }
        for (publisher, count) in acknowledged {
            let there = seen.get(publisher).map_or(0, |seen| seen.range(..count).count());
            verdict.lost += count - there as u64;
        }
        verdict
    }
}

/// Returns the texts of messages that publisher 1 would have sent.
fn read(counters: &[u64]) -> Vec<String> {
    counters.iter().map(|&counter| Message { publisher: 1, counter, size: 3 }.to_string()).collect()
}

#[test]
fn each_kind_of_wrong_message_is_counted_and_no_other() {
    let acknowledged = Acknowledged::from([(1, 3)]);
    let on = |counters: &[u64]| Verdict::on(&read(counters), &acknowledged);
    assert_eq!(on(&[0, 1, 2]), Verdict::CLEAN);
    assert_eq!(on(&[0, 1, 2, 3]), Verdict::CLEAN, "one was on its way");
    assert_eq!(on(&[0, 1]), Verdict { lost: 1, ..Verdict::CLEAN });
    assert_eq!(on(&[0, 2]), Verdict { lost: 1, ..Verdict::CLEAN });
    assert_eq!(on(&[]), Verdict { lost: 3, ..Verdict::CLEAN });
    assert_eq!(on(&[0, 1, 1, 2, 0]), Verdict { doubled: 2, ..Verdict::CLEAN });
    assert_eq!(on(&[0, 2, 1]), Verdict { reordered: 1, ..Verdict::CLEAN });
    assert_eq!(on(&[0, 1, 2, 3, 4]), Verdict { altered: 1, ..Verdict::CLEAN }, "nobody sent it yet");
}

#[test]
fn a_single_changed_letter_counts_as_altered() {
    let acknowledged = Acknowledged::from([(1, 1)]);
    let mut texts = read(&[0]);
    texts[0] = texts[0].replace("xxx", "xyx");
    assert_eq!(Verdict::on(&texts, &acknowledged), Verdict { lost: 1, altered: 1, ..Verdict::CLEAN });
}
