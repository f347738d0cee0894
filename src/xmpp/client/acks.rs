//! [`StreamAcks`]: counts the stanzas of a stream in both directions (XEP-0198 1.6.3, sections 4 and 5). Without IO and clock.
//!
//! No stanza is kept. For each notification that the client has not acknowledged, there is the offset behind its message; what was lost
//! with a connection is made from the log again.

use std::collections::VecDeque;

use minidom::Element;
use serde::{Deserialize, Serialize};

use crate::stream::Offset;
use crate::xmpp::stanza::StanzaError;
use crate::xmpp::subscriptions::SubscriptionKey;
use crate::xmpp::xml::{WithAttribute, element};

pub(super) const STREAM_MANAGEMENT: &str = "urn:xmpp:sm:3";

/// Notifications without an acknowledgement, beyond which no more are sent. The last turn may exceed it.
const UNACKNOWLEDGED_MAX: usize = 256;

/// Estimated memory of a notification that is not acknowledged.
pub(super) const NOTIFIED_BYTES: usize = size_of::<Notified>();

/// The stanzas of a stream, counted modulo 2^32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StanzaCounts {
    /// Stanzas of the client that the gateway has handled.
    pub(super) handled: u32,
    /// Stanzas that the gateway has sent.
    pub(super) sent: u32,
    /// Of those, stanzas that the client has acknowledged.
    pub(super) acknowledged: u32,
}

/// The state of stream management.
#[derive(Debug, Default)]
pub(super) struct StreamAcks {
    pub(super) counts: StanzaCounts,
    /// Notifications that the client has not acknowledged, in the order in which they were sent.
    pub(super) notified: VecDeque<Notified>,
    /// The client has been asked for an acknowledgement that it has not given.
    is_asked: bool,
    /// The last notification that the client was asked about.
    asked: Option<u32>,
}

/// A notification that the client has not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notified {
    /// What [`StanzaCounts::sent`] was after it.
    pub(super) number: u32,
    pub(super) key: SubscriptionKey,
    /// The offset behind its message.
    pub(super) next: Offset,
}

/// The client acknowledges more than it was sent, or less than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::xmpp) struct HandledCountTooHigh {
    handled: u32,
    sent: u32,
}

/// A request to resume a stream.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::xmpp) struct ResumeRequest {
    pub(super) id: String,
    /// Stanzas of the gateway that the client has handled.
    pub(super) handled: u32,
}

impl StreamAcks {
    /// Goes on with what is known of an earlier connection.
    pub(super) fn resumed(counts: StanzaCounts, notified: VecDeque<Notified>) -> Self {
        Self { counts, notified, is_asked: false, asked: None }
    }

    /// Counts a stanza of the client as handled.
    pub(super) fn handled(&mut self) {
        self.counts.handled = self.counts.handled.wrapping_add(1);
    }

    /// Counts a stanza that is sent.
    pub(super) fn sent(&mut self) {
        self.counts.sent = self.counts.sent.wrapping_add(1);
    }

    /// Counts a notification that is sent.
    pub(super) fn notified(&mut self, key: &SubscriptionKey, next: Offset) {
        self.sent();
        self.notified.push_back(Notified { number: self.counts.sent, key: key.clone(), next });
    }

    /// Whether further notifications may be sent.
    pub(super) fn has_room(&self) -> bool {
        self.notified.len() < UNACKNOWLEDGED_MAX
    }

    /// Estimated memory of what is not acknowledged, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        (self.notified.capacity() * NOTIFIED_BYTES) as u64
    }

    /// The request for an acknowledgement, unless one is under way or the client was asked about everything. Some clients count too few
    /// stanzas, so that something stays unacknowledged until more has come.
    pub(super) fn ask(&mut self) -> Option<Element> {
        let last = self.notified.back()?.number;
        if self.is_asked || self.asked == Some(last) {
            return None;
        }
        (self.is_asked, self.asked) = (true, Some(last));
        Some(element("r", STREAM_MANAGEMENT).build())
    }

    /// The client has handled the stanzas up to `handled`. Returns the notifications that this acknowledges.
    pub(super) fn acknowledged(
        &mut self,
        handled: u32,
    ) -> Result<Vec<(SubscriptionKey, Offset)>, HandledCountTooHigh> {
        self.is_asked = false;
        let StanzaCounts { sent, acknowledged, .. } = self.counts;
        let more = handled.wrapping_sub(acknowledged);
        if more > sent.wrapping_sub(acknowledged) {
            return Err(HandledCountTooHigh { handled, sent });
        }
        self.counts.acknowledged = handled;
        let is_handled = |notified: &Notified| notified.number.wrapping_sub(acknowledged) <= more;
        let count = self.notified.iter().take_while(|notified| is_handled(notified)).count();
        let found = self.notified.drain(..count).map(|notified| (notified.key, notified.next)).collect();
        // Few clients owe many acknowledgements for long.
        if self.notified.is_empty() {
            self.notified = VecDeque::new();
        }
        Ok(found)
    }

    /// The client that resumes the stream has handled the stanzas up to `handled`. What is behind them is lost, so numbers go on from
    /// there. Returns the notifications that this acknowledges.
    pub(super) fn resume(
        &mut self,
        handled: u32,
    ) -> Result<Vec<(SubscriptionKey, Offset)>, HandledCountTooHigh> {
        let acknowledged = self.acknowledged(handled)?;
        self.counts.sent = handled;
        self.notified = VecDeque::new();
        Ok(acknowledged)
    }
}

impl HandledCountTooHigh {
    /// What the stream error says besides its condition (section 6).
    pub(in crate::xmpp) fn to_element(self) -> Element {
        element("handled-count-too-high", STREAM_MANAGEMENT)
            .with("h", self.handled.to_string())
            .with("send-count", self.sent.to_string())
            .build()
    }
}

impl ResumeRequest {
    /// Reads `<resume/>`.
    pub(super) fn read(received: &Element) -> Option<Self> {
        Some(Self { id: received.attr("previd")?.to_owned(), handled: handled_of(received)? })
    }
}

/// The count of handled stanzas that an element has.
pub(super) fn handled_of(received: &Element) -> Option<u32> {
    received.attr("h")?.parse().ok()
}

/// The refusal of a request of stream management.
pub(super) fn refusal(error: &StanzaError) -> Element {
    element("failed", STREAM_MANAGEMENT).append(error.condition_element()).build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{Epoch, Position, StreamName};
    use crate::xmpp::jid::Jid;

    fn key(stream: &str) -> SubscriptionKey {
        SubscriptionKey { stream: StreamName::parse(stream).unwrap(), jid: Jid::parse("x@y").unwrap() }
    }

    fn at(position: u64) -> Offset {
        Offset { epoch: Epoch(1), position: Position(position) }
    }

    /// Has sent notifications of two streams with an answer between them, from a count just below the end of the numbers.
    fn acks() -> StreamAcks {
        let before = u32::MAX - 1;
        let counts = StanzaCounts { handled: 0, sent: before, acknowledged: before };
        let mut acks = StreamAcks::resumed(counts, VecDeque::new());
        acks.notified(&key("a"), at(1));
        acks.notified(&key("b"), at(7));
        acks.sent();
        acks.notified(&key("a"), at(2));
        acks
    }

    #[test]
    fn an_acknowledgement_is_of_everything_up_to_its_count() {
        let mut acks = acks();
        assert_eq!(acks.acknowledged(u32::MAX - 1), Ok(vec![]));
        assert_eq!(acks.acknowledged(1), Ok(vec![(key("a"), at(1)), (key("b"), at(7))]));
        assert_eq!(acks.acknowledged(2), Ok(vec![(key("a"), at(2))]));
        assert_eq!(acks.counts, StanzaCounts { handled: 0, sent: 2, acknowledged: 2 });
    }

    #[test]
    fn a_client_cannot_acknowledge_more_than_it_was_sent_nor_take_back_what_it_has_acknowledged() {
        let mut acks = acks();
        assert_eq!(acks.acknowledged(3), Err(HandledCountTooHigh { handled: 3, sent: 2 }));
        acks.acknowledged(0).unwrap();
        assert!(acks.acknowledged(u32::MAX).is_err());
        assert_eq!(acks.acknowledged(0), Ok(vec![]));
    }

    #[test]
    fn numbers_go_on_from_what_a_resuming_client_has_handled() {
        let mut acks = acks();
        assert_eq!(acks.resume(u32::MAX), Ok(vec![(key("a"), at(1))]));
        assert_eq!(acks.counts.sent, u32::MAX);
        acks.notified(&key("b"), at(7));
        assert_eq!(acks.acknowledged(0), Ok(vec![(key("b"), at(7))]));
    }

    #[test]
    fn one_request_is_under_way_and_none_without_a_reason() {
        let mut acks = acks();
        assert!(acks.ask().is_some() && acks.ask().is_none());
        acks.notified(&key("a"), at(3));
        acks.acknowledged(1).unwrap();
        assert!(acks.ask().is_some(), "another one was sent after the request");
        acks.acknowledged(2).unwrap();
        assert!(acks.ask().is_none(), "the client was asked about the last one");
        acks.acknowledged(3).unwrap();
        assert!(acks.ask().is_none());
    }

    #[test]
    fn a_client_that_acknowledges_nothing_is_sent_no_more() {
        let mut acks = StreamAcks::default();
        for number in 0..UNACKNOWLEDGED_MAX as u64 {
            assert!(acks.has_room());
            acks.notified(&key("a"), at(number));
        }
        assert!(!acks.has_room());
        acks.acknowledged(1).unwrap();
        assert!(acks.has_room());
    }
}
