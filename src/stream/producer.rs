//! Idempotent producers: recognizes retries, fences old epochs of a producer, and refuses gaps (protocol, section 5.2.1).

use std::collections::HashMap;
use std::mem::size_of;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Principal;

/// How long an idle producer is remembered while there is room (protocol, "Producer State Cleanup").
const IDLE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// A producer that has been idle this long may be forgotten to make room for a new one, the longest idle first. Clients do not
/// retry after so long. A retry that does come is refused as a gap, unless it is the first append of its epoch.
const GIVES_WAY_AFTER: Duration = Duration::from_secs(3600);

/// The maximum number of producers of one stream. A producer takes about 100 bytes and its id.
pub const PRODUCERS_MAX: usize = 10_000;

/// Producers that are forgotten at once to make room, so that not every new producer searches all of them.
const GIVE_WAY_AT_ONCE: usize = PRODUCERS_MAX / 16;

/// The maximum length of a producer's id, in bytes.
pub const PRODUCER_ID_BYTES_MAX: usize = 256;

/// The id that a producer chose for itself; never empty.
pub type ProducerId = Arc<str>;

/// The producer fields of one append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    /// The id of the producer.
    pub id: ProducerId,
    /// The epoch, which the producer raises with each restart; at most 2^53 - 1.
    pub epoch: u64,
    /// The number of the append in its epoch, from 0; at most 2^53 - 1.
    pub sequence: u64,
}

impl Producer {
    /// The producer with an id that no other principal can have.
    pub fn of(self, Principal(number): Principal) -> Self {
        Self { id: format!("{number:x}{SEPARATOR}{}", self.id).into(), ..self }
    }
}

/// Separates a principal from the id that a producer of it has chosen, which has no control characters.
const SEPARATOR: char = '\u{1f}';

/// Why an append of a producer is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProducerRefusal {
    /// A newer epoch of the producer is known, so this one is fenced.
    StaleEpoch {
        /// The newest epoch.
        current: u64,
    },
    /// The first append of a new epoch must have the sequence 0.
    EpochNotFromZero,
    /// An earlier append of the producer is missing.
    SequenceGap {
        /// The next sequence that is accepted.
        expected: u64,
        /// The sequence of the append.
        received: u64,
    },
    /// The stream remembers the maximum number of producers, in total or of this principal, and none of them may be forgotten.
    TooMany,
}

/// The producers of one stream.
#[derive(Debug, Default)]
pub struct Producers {
    states: HashMap<ProducerId, ProducerState>,
    /// Number of producers of each principal.
    of: HashMap<Principal, usize>,
    /// Total bytes of all ids.
    id_bytes: usize,
    /// No producer may be forgotten before this time, as the last search found.
    none_before: Option<SystemTime>,
}

#[derive(Debug, Clone, Copy)]
struct ProducerState {
    epoch: u64,
    last: u64,
    seen: SystemTime,
    principal: Principal,
}

impl Producers {
    /// Checks an append: `Ok(None)` if it is new, `Ok(Some(highest accepted sequence))` if it is a retry. Makes room for a new
    /// producer; one principal has at most `own_max` producers.
    pub fn check(
        &mut self,
        producer: &Producer,
        principal: Principal,
        own_max: usize,
        now: SystemTime,
    ) -> Result<Option<u64>, ProducerRefusal> {
        let known = self.states.get(&producer.id);
        let Some(state) = known.filter(|state| !state.is_idle(now, IDLE_MAX)) else {
            return match producer.sequence {
                0 if known.is_some() || self.has_room(principal, own_max, now) => Ok(None),
                0 => Err(ProducerRefusal::TooMany),
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

    /// Each producer: its id, epoch, last sequence, and the time of its last append.
    pub fn states(&self) -> impl Iterator<Item = (&ProducerId, u64, u64, SystemTime)> {
        self.states.iter().map(|(id, state)| (id, state.epoch, state.last, state.seen))
    }

    /// Records an append that `check` called new.
    pub fn record(&mut self, producer: &Producer, principal: Principal, now: SystemTime) {
        if let Some(state) = self.states.get_mut(&producer.id) {
            (state.epoch, state.last, state.seen) = (producer.epoch, producer.sequence, now);
            return;
        }
        if self.states.len() >= PRODUCERS_MAX {
            // Appends that are replayed from a log were checked when they were written, so make room without a check. The
            // longest idle are forgotten here, too.
            self.give_way(|_| true, Duration::ZERO, now);
        }
        let state = ProducerState { epoch: producer.epoch, last: producer.sequence, seen: now, principal };
        self.states.insert(producer.id.clone(), state);
        *self.of.entry(principal).or_default() += 1;
        self.id_bytes += producer.id.len();
    }

    /// The approximate memory of the producers, in bytes.
    pub fn bytes(&self) -> usize {
        let entry = size_of::<(ProducerId, ProducerState)>() + 1;
        // A hash table is at most 7/8 full. An id is an allocation with two reference counts.
        self.states.capacity() * entry * 8 / 7 + self.id_bytes + self.states.len() * 24
    }

    /// Makes room for a new producer if necessary; returns whether there is room.
    fn has_room(&mut self, principal: Principal, own_max: usize, now: SystemTime) -> bool {
        let is_full = self.states.len() >= PRODUCERS_MAX;
        let own_is_full = self.of.get(&principal).is_some_and(|count| *count >= own_max);
        if !is_full && !own_is_full {
            return true;
        }
        if self.none_before.is_some_and(|until| now < until) {
            return false;
        }
        self.give_way(|state| !own_is_full || state.principal == principal, GIVES_WAY_AFTER, now)
    }

    /// Forgets the longest idle producers that match `whose` and have been idle for at least `idle`, up to
    /// [`GIVE_WAY_AT_ONCE`]. Returns whether there were any.
    fn give_way(&mut self, whose: impl Fn(&ProducerState) -> bool, idle: Duration, now: SystemTime) -> bool {
        let gives_way = |state: &ProducerState| whose(state) && state.is_idle(now, idle);
        let idle_ones = self.states.iter().filter(|(_, state)| gives_way(state));
        let mut idle_ones: Vec<_> = idle_ones.map(|(id, state)| (state.seen, id.clone())).collect();
        if idle_ones.is_empty() {
            self.none_before =
                self.states.values().map(|state| state.seen).min().and_then(|seen| seen.checked_add(idle));
            return false;
        }
        idle_ones.sort_unstable();
        for (_, id) in idle_ones.into_iter().take(GIVE_WAY_AT_ONCE) {
            self.forget(&id);
        }
        true
    }

    fn forget(&mut self, id: &ProducerId) {
        let Some(state) = self.states.remove(id) else { return };
        self.id_bytes -= id.len();
        if let Some(count) = self.of.get_mut(&state.principal) {
            *count -= 1;
            if *count == 0 {
                self.of.remove(&state.principal);
            }
        }
    }
}

impl ProducerState {
    /// Whether the last append is at least `idle` ago. Of two simultaneous requests, the second may have read its clock first
    /// and see a last append in its future, which is not idle.
    fn is_idle(&self, now: SystemTime, idle: Duration) -> bool {
        now.duration_since(self.seen).is_ok_and(|since| since >= idle) || idle.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;
    const ONE: Principal = Principal(1);
    const OTHER: Principal = Principal(2);

    fn producer(epoch: u64, sequence: u64) -> Producer {
        Producer { id: "p".into(), epoch, sequence }
    }

    fn check(
        producers: &mut Producers,
        producer: &Producer,
        now: SystemTime,
    ) -> Result<Option<u64>, ProducerRefusal> {
        producers.check(producer, ONE, PRODUCERS_MAX / 2, now)
    }

    fn after(appends: &[(u64, u64)]) -> Producers {
        let mut producers = Producers::default();
        for (epoch, sequence) in appends {
            assert_eq!(check(&mut producers, &producer(*epoch, *sequence), NOW), Ok(None));
            producers.record(&producer(*epoch, *sequence), ONE, NOW);
        }
        producers
    }

    #[test]
    fn retries_are_recognised_and_gaps_refused() {
        let mut producers = after(&[(0, 0), (0, 1), (0, 2)]);
        assert_eq!(check(&mut producers, &producer(0, 0), NOW), Ok(Some(2)));
        assert_eq!(check(&mut producers, &producer(0, 3), NOW), Ok(None));
        let gap = ProducerRefusal::SequenceGap { expected: 3, received: 5 };
        assert_eq!(check(&mut producers, &producer(0, 5), NOW), Err(gap));
    }

    #[test]
    fn a_new_epoch_fences_the_old_one_and_begins_at_zero() {
        let mut producers = after(&[(0, 0), (4, 0)]);
        assert_eq!(
            check(&mut producers, &producer(0, 1), NOW),
            Err(ProducerRefusal::StaleEpoch { current: 4 })
        );
        assert_eq!(check(&mut producers, &producer(5, 1), NOW), Err(ProducerRefusal::EpochNotFromZero));
        assert_eq!(check(&mut producers, &producer(5, 0), NOW), Ok(None));
    }

    #[test]
    fn a_week_of_silence_makes_a_producer_new() {
        let mut producers = after(&[(3, 0)]);
        let later = NOW + IDLE_MAX;
        assert_eq!(check(&mut producers, &producer(0, 0), later), Ok(None));
    }

    #[test]
    fn a_retry_with_an_earlier_time_is_still_a_retry() {
        let mut producers = Producers::default();
        producers.record(&producer(0, 0), ONE, NOW + Duration::from_millis(1));
        producers.record(&producer(0, 1), ONE, NOW + Duration::from_millis(2));
        assert_eq!(check(&mut producers, &producer(0, 0), NOW), Ok(Some(1)));
    }

    fn named(name: impl ToString) -> Producer {
        Producer { id: name.to_string().into(), epoch: 0, sequence: 0 }
    }

    #[test]
    fn one_principal_cannot_take_the_places_of_others() {
        let mut producers = Producers::default();
        for n in 0..PRODUCERS_MAX {
            if check(&mut producers, &named(n), NOW).is_ok() {
                producers.record(&named(n), ONE, NOW);
            }
        }
        assert_eq!(producers.states.len(), PRODUCERS_MAX / 2);
        assert_eq!(check(&mut producers, &named("honest"), NOW), Err(ProducerRefusal::TooMany));
        assert_eq!(producers.check(&named("honest"), OTHER, PRODUCERS_MAX / 2, NOW), Ok(None));
        producers.record(&named("honest"), OTHER, NOW);
        assert_eq!(producers.bytes() / producers.states.len(), producers.bytes() / (PRODUCERS_MAX / 2 + 1));
        assert!(producers.bytes() < PRODUCERS_MAX * 150, "{}", producers.bytes());
    }

    #[test]
    fn a_producer_idle_for_an_hour_may_be_forgotten_and_gets_a_gap() {
        let mut producers = Producers::default();
        for n in 0..PRODUCERS_MAX as u64 {
            producers.record(&named(n), Principal(n % 4), NOW + Duration::from_millis(n));
        }
        let busy = Producer { sequence: 1, ..named(0) };
        producers.record(&busy, ONE, NOW + Duration::from_secs(100));
        let full = Err(ProducerRefusal::TooMany);
        assert_eq!(
            check(&mut producers, &named("new"), NOW + GIVES_WAY_AFTER - Duration::from_secs(1)),
            full
        );
        let later = NOW + GIVES_WAY_AFTER + Duration::from_secs(10);
        assert_eq!(check(&mut producers, &named("new"), later), Ok(None));
        producers.record(&named("new"), ONE, later);
        assert_eq!(producers.states.len(), PRODUCERS_MAX - GIVE_WAY_AT_ONCE + 1);
        let gap = ProducerRefusal::SequenceGap { expected: 0, received: 1 };
        assert_eq!(check(&mut producers, &Producer { sequence: 1, ..named(1) }, later), Err(gap));
        assert_eq!(check(&mut producers, &busy, later), Ok(Some(1)), "the busy one is still known");
    }

    #[test]
    fn replayed_producers_stay_within_the_maximum() {
        let mut producers = Producers::default();
        for n in 0..PRODUCERS_MAX as u64 + 10 {
            producers.record(&named(n), Principal::GATEWAY, NOW + Duration::from_millis(n));
        }
        assert!(producers.states.len() <= PRODUCERS_MAX);
        assert_eq!(producers.of[&Principal::GATEWAY], producers.states.len());
        let ids: usize = producers.states.keys().map(|id| id.len()).sum();
        assert_eq!(producers.id_bytes, ids);
    }
}
