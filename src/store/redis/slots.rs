//! [`SlotMap`]: which node of a cluster has which hash slot.

use redis::Value;

use super::address::NodeAddress;
use super::reply::{items, text};

/// Number of hash slots of a cluster (redis.io, "Redis cluster specification").
pub(super) const SLOTS: u16 = 16_384;

/// The ranges of slots with their primaries, in the order of the slots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SlotMap(Vec<(u16, u16, NodeAddress)>);

impl SlotMap {
    /// Parses the answer to `CLUSTER SLOTS`. A node without a host is `asked`, which does not know its own address.
    pub(super) fn parse(answer: Value, asked: &NodeAddress) -> Option<Self> {
        let mut ranges = Vec::new();
        for range in items(answer)? {
            let mut range = items(range)?.into_iter();
            let mut number = || text(range.next()?)?.parse::<u16>().ok();
            let (first, last) = (number()?, number()?);
            let mut primary = items(range.next()?)?.into_iter();
            let host = primary.next().and_then(text).filter(|host| !host.is_empty());
            let port = text(primary.next()?)?.parse().ok()?;
            ranges.push((first, last, NodeAddress::new(host.as_deref().unwrap_or(asked.host()), port)));
        }
        ranges.sort();
        Some(Self(ranges))
    }

    /// The node that has a slot; `None` if no node has it.
    pub(super) fn node(&self, slot: u16) -> Option<&NodeAddress> {
        let range = self.0.iter().find(|(first, last, _)| (*first..=*last).contains(&slot));
        range.map(|(_, _, node)| node)
    }

    /// All primaries with slots, each once.
    pub(super) fn nodes(&self) -> Vec<NodeAddress> {
        let mut nodes: Vec<_> = self.0.iter().map(|(_, _, node)| node.clone()).collect();
        nodes.sort();
        nodes.dedup();
        nodes
    }

    /// Number of slots that some node has.
    pub(super) fn covered(&self) -> usize {
        self.0.iter().map(|(first, last, _)| usize::from(last.saturating_sub(*first)) + 1).sum()
    }

    /// Notes that a slot is on another node, as a redirection says.
    pub(super) fn set(&mut self, slot: u16, node: NodeAddress) {
        let mut ranges = Vec::with_capacity(self.0.len() + 2);
        for (first, last, owner) in self.0.drain(..) {
            if !(first..=last).contains(&slot) {
                ranges.push((first, last, owner));
                continue;
            }
            if first < slot {
                ranges.push((first, slot - 1, owner.clone()));
            }
            if slot < last {
                ranges.push((slot + 1, last, owner));
            }
        }
        ranges.push((slot, slot, node));
        ranges.sort();
        self.0 = ranges;
    }
}

/// The slot of a key: of the part in braces, if there is any.
pub(super) fn slot_of(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    crc16(tag.filter(|tag| !tag.is_empty()).unwrap_or(key).as_bytes()) % SLOTS
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_of_a_key_is_that_of_its_tag() {
        assert_eq!(crc16(b"123456789"), 0x31C3, "the test vector of the specification");
        // CLUSTER KEYSLOT of Redis 7.0.
        assert_eq!(
            (slot_of("foo"), slot_of("pollgate:{0}:"), slot_of("pollgate:{127}:news")),
            (12_182, 13_907, 6_102)
        );
        assert_eq!(slot_of("a{foo}b"), slot_of("foo"));
        assert_ne!(slot_of("{}foo"), slot_of("foo"));
    }

    #[test]
    fn a_redirection_changes_one_slot() {
        let (a, b) = (NodeAddress::new("a", 1), NodeAddress::new("b", 2));
        let node = |host: &str, port| Value::Array(vec![Value::BulkString(host.into()), Value::Int(port)]);
        let range = |first, last, node| Value::Array(vec![Value::Int(first), Value::Int(last), node]);
        let answer = Value::Array(vec![range(100, 200, node("b", 2)), range(0, 99, node("", 1))]);
        let mut map = SlotMap::parse(answer, &a).unwrap();
        assert_eq!((map.node(99), map.node(100), map.node(201)), (Some(&a), Some(&b), None));
        map.set(150, a.clone());
        map.set(201, b.clone());
        assert_eq!([149, 150, 151, 201].map(|slot| map.node(slot).unwrap()), [&b, &a, &b, &b]);
        assert_eq!((map.nodes(), map.covered()), (vec![a, b], 202));
    }
}
