//! Idempotent producers: retries are recognised, zombies fenced, gaps refused (protocol, section 5.2.1).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How long an idle producer is remembered (protocol, "Producer State Cleanup").
const IDLE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// How many producers one stream remembers: about 200 bytes each.
const PRODUCERS_MAX: usize = 10_000;

/// The name that a producer gave itself; never empty.
pub type ProducerId = Arc<str>;

/// What one append says of its producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    /// Who.
    pub id: ProducerId,
    /// Which start of it, at most 2^53 - 1.
    pub epoch: u64,
    /// Which append of that start, from 0, at most 2^53 - 1.
    pub sequence: u64,
}

/// Why a producer's append is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProducerRefusal {
    /// A newer start of the producer has been seen: this one is a zombie.
    StaleEpoch {
        /// The newest epoch.
        current: u64,
    },
    /// A new epoch has to begin at sequence 0.
    EpochNotFromZero,
    /// An earlier append is missing.
    SequenceGap {
        /// The sequence that would be accepted.
        expected: u64,
        /// The sequence that came.
        received: u64,
    },
    /// The stream remembers as many producers as it may.
    TooMany,
}

/// The producers of one stream.
#[derive(Debug, Default)]
pub struct Producers {
    states: HashMap<ProducerId, State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    epoch: u64,
    last: u64,
    seen: SystemTime,
}

impl Producers {
    /// Whether an append is new (`Ok(None)`), a retry (`Ok(Some(highest accepted sequence))`) or refused.
    pub fn check(&self, producer: &Producer, now: SystemTime) -> Result<Option<u64>, ProducerRefusal> {
        let Some(state) = self.states.get(&producer.id).filter(|state| !state.is_idle(now)) else {
            let full = self.states.len() >= PRODUCERS_MAX && !self.states.contains_key(&producer.id);
            return match producer.sequence {
                0 if full && !self.states.values().any(|state| state.is_idle(now)) => {
                    Err(ProducerRefusal::TooMany)
                }
                0 => Ok(None),
                received => Err(ProducerRefusal::SequenceGap { expected: 0, received }),
            };
        };
        if producer.epoch < state.epoch {
            return Err(ProducerRefusal::StaleEpoch { current: state.epoch });
        }
        if producer.epoch > state.epoch {
            return if producer.sequence == 0 { Ok(None) } else { Err(ProducerRefusal::EpochNotFromZero) };
        }
        let expected = state.last + 1;
        match producer.sequence {
            retry if retry < expected => Ok(Some(state.last)),
            next if next == expected => Ok(None),
            received => Err(ProducerRefusal::SequenceGap { expected, received }),
        }
    }

    /// What is remembered of each producer: its name, epoch, last sequence, and when it was seen last.
    pub fn states(&self) -> impl Iterator<Item = (&ProducerId, u64, u64, SystemTime)> {
        self.states.iter().map(|(id, state)| (id, state.epoch, state.last, state.seen))
    }

    /// Remembers an append that `check` called new.
    pub fn record(&mut self, producer: &Producer, now: SystemTime) {
        if self.states.len() >= PRODUCERS_MAX {
            self.states.retain(|_, state| !state.is_idle(now));
        }
        let state = State { epoch: producer.epoch, last: producer.sequence, seen: now };
        self.states.insert(producer.id.clone(), state);
    }
}

impl State {
    /// Whether it may be forgotten. Of two requests at once the one that comes second may have read its clock first:
    /// then the producer was seen in its future, and just now.
    fn is_idle(&self, now: SystemTime) -> bool {
        now.duration_since(self.seen).is_ok_and(|idle| idle >= IDLE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn producer(epoch: u64, sequence: u64) -> Producer {
        Producer { id: "p".into(), epoch, sequence }
    }

    fn after(appends: &[(u64, u64)]) -> Producers {
        let mut producers = Producers::default();
        for (epoch, sequence) in appends {
            assert_eq!(producers.check(&producer(*epoch, *sequence), NOW), Ok(None));
            producers.record(&producer(*epoch, *sequence), NOW);
        }
        producers
    }

    #[test]
    fn retries_are_recognised_and_gaps_refused() {
        let producers = after(&[(0, 0), (0, 1), (0, 2)]);
        assert_eq!(producers.check(&producer(0, 0), NOW), Ok(Some(2)));
        assert_eq!(producers.check(&producer(0, 3), NOW), Ok(None));
        let gap = ProducerRefusal::SequenceGap { expected: 3, received: 5 };
        assert_eq!(producers.check(&producer(0, 5), NOW), Err(gap));
    }

    #[test]
    fn a_new_epoch_fences_the_old_one_and_begins_at_zero() {
        let producers = after(&[(0, 0), (4, 0)]);
        assert_eq!(producers.check(&producer(0, 1), NOW), Err(ProducerRefusal::StaleEpoch { current: 4 }));
        assert_eq!(producers.check(&producer(5, 1), NOW), Err(ProducerRefusal::EpochNotFromZero));
        assert_eq!(producers.check(&producer(5, 0), NOW), Ok(None));
    }

    #[test]
    fn a_week_of_silence_makes_a_producer_new() {
        let producers = after(&[(3, 0)]);
        let later = NOW + IDLE_MAX;
        assert_eq!(producers.check(&producer(0, 0), later), Ok(None));
    }

    #[test]
    fn a_retry_that_read_its_clock_before_the_original_is_still_a_retry() {
        let mut producers = Producers::default();
        producers.record(&producer(0, 0), NOW + Duration::from_millis(1));
        producers.record(&producer(0, 1), NOW + Duration::from_millis(2));
        assert_eq!(producers.check(&producer(0, 0), NOW), Ok(Some(1)));
    }

    #[test]
    fn the_table_is_bounded_until_somebody_was_idle_for_a_week() {
        let mut producers = Producers::default();
        for n in 0..PRODUCERS_MAX {
            producers.record(&Producer { id: n.to_string().into(), epoch: 0, sequence: 0 }, NOW);
        }
        assert_eq!(producers.check(&producer(0, 0), NOW), Err(ProducerRefusal::TooMany));
        let later = NOW + IDLE_MAX;
        assert_eq!(producers.check(&producer(0, 0), later), Ok(None));
        producers.record(&producer(0, 0), later);
        assert_eq!(producers.states.len(), 1);
    }
}
