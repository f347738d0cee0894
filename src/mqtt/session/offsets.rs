//! [`Offsets`]: the offset up to which each stream has been sent to a client.

use std::collections::HashMap;

use crate::stream::{Offset, StreamName};

/// Number of offsets up to which a list takes less memory than a hash map, and no more time.
const FEW: usize = 8;

/// Offsets by stream. Most sessions have one or two, which take no more memory than a list.
#[derive(Debug)]
pub(super) enum Offsets {
    Few(Vec<(StreamName, Offset)>),
    Many(Box<ManyOffsets>),
}

/// Boxed, as a hash map would take 48 bytes in each session.
#[derive(Debug)]
pub(super) struct ManyOffsets(HashMap<StreamName, Offset>);

impl Default for Offsets {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Offsets {
    pub(super) fn get(&self, name: &StreamName) -> Option<&Offset> {
        match self {
            Self::Few(few) => few.iter().find(|(of, _)| of == name).map(|(_, offset)| offset),
            Self::Many(many) => many.0.get(name),
        }
    }

    /// Sets the offset of a stream, and returns the earlier one.
    pub(super) fn insert(&mut self, name: StreamName, offset: Offset) -> Option<Offset> {
        let few = match self {
            Self::Many(many) => return many.0.insert(name, offset),
            Self::Few(few) => few,
        };
        if let Some((_, known)) = few.iter_mut().find(|(of, _)| *of == name) {
            return Some(std::mem::replace(known, offset));
        }
        if few.len() < FEW {
            few.reserve_exact(1);
            few.push((name, offset));
        } else {
            let many = few.drain(..).chain([(name, offset)]).collect();
            *self = Self::Many(Box::new(ManyOffsets(many)));
        }
        None
    }

    /// Removes the offset of a stream. Frees the memory with the last one.
    pub(super) fn remove(&mut self, name: &StreamName) -> Option<Offset> {
        let removed = match self {
            Self::Few(few) => few.iter().position(|(of, _)| of == name).map(|at| few.swap_remove(at).1),
            Self::Many(many) => many.0.remove(name),
        };
        if self.len() == 0 {
            *self = Self::default();
        }
        removed
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many) => many.0.len(),
        }
    }

    /// The streams, in any order.
    pub(super) fn streams(&self) -> impl Iterator<Item = &StreamName> {
        let (few, many) = match self {
            Self::Few(few) => (Some(few.iter().map(|(name, _)| name)), None),
            Self::Many(many) => (None, Some(many.0.keys())),
        };
        few.into_iter().flatten().chain(many.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{Epoch, Position};

    fn name(number: usize) -> StreamName {
        StreamName::parse(&format!("s/{number}")).unwrap()
    }

    fn at(position: u64) -> Offset {
        Offset { epoch: Epoch(1), position: Position(position) }
    }

    #[test]
    fn few_and_many_offsets_behave_the_same() {
        for count in [1, FEW, FEW + 1, 100] {
            let mut offsets = Offsets::default();
            for number in 0..count {
                assert_eq!(offsets.insert(name(number), at(1)), None);
                assert_eq!(offsets.insert(name(number), at(2)), Some(at(1)));
            }
            assert_eq!((offsets.len(), offsets.streams().count()), (count, count));
            assert_eq!((offsets.get(&name(0)), offsets.get(&name(count))), (Some(&at(2)), None));
            for number in 0..count {
                assert_eq!(offsets.remove(&name(number)), Some(at(2)));
                assert_eq!(offsets.remove(&name(number)), None);
            }
            assert!(matches!(offsets, Offsets::Few(few) if few.capacity() == 0), "no memory is kept");
        }
    }
}
