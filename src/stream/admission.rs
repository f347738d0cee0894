//! The rules that accept or refuse an append: closing, content type, producers and sequences, in the protocol's order. The
//! state that they need is in [`Writers`].

use std::time::SystemTime;

use super::{Append, AppendRefusal, ContentType, Principal, Producer, ProducerId, Producers, WriterStates};

/// What a store does with an append that is not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The append is new, and the store appends it.
    New,
    /// The append is a retry of one that the stream has; nothing changes.
    Duplicate {
        /// The highest accepted sequence of the append's producer; `None` without a producer.
        highest: Option<u64>,
    },
}

/// What a stream remembers of its writers: idempotent producers, the last `Stream-Seq`, and whether it is closed.
#[derive(Debug, Default)]
pub struct Writers {
    /// `None` until the first append with a producer; most streams have none.
    producers: Option<Box<Producers>>,
    last_sequence: Option<Box<str>>,
    closed: bool,
    closed_by: Option<Producer>,
}

impl Writers {
    /// Whether the stream is closed.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Closes the stream without an append, as a creation may do.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Restores the state that a store has written down: each producer with the time of its last append, the last `Stream-Seq`,
    /// and for a closed stream the producer that closed it.
    pub fn remembered(
        producers: impl IntoIterator<Item = (Producer, SystemTime)>,
        last_sequence: Option<Box<str>>,
        closed: Option<Option<Producer>>,
    ) -> Self {
        let mut writers = Self { last_sequence, closed: closed.is_some(), ..Self::default() };
        for (producer, seen) in producers {
            writers.producers.get_or_insert_default().record(&producer, Principal::GATEWAY, seen);
        }
        writers.closed_by = closed.flatten();
        writers
    }

    /// All that is remembered, for an export.
    pub fn states(&self) -> WriterStates {
        let producers = self
            .producers()
            .map(|(id, epoch, sequence, seen)| (Producer { id: id.clone(), epoch, sequence }, seen));
        WriterStates {
            producers: producers.collect(),
            sequence: self.last_sequence.clone(),
            closed_by: self.closed_by.clone(),
        }
    }

    /// Each producer that is remembered: its id, epoch, last sequence, and the time of its last append.
    pub fn producers(&self) -> impl Iterator<Item = (&ProducerId, u64, u64, SystemTime)> {
        self.producers.iter().flat_map(|producers| producers.states())
    }

    /// The last `Stream-Seq` that was accepted.
    pub fn last_sequence(&self) -> Option<&str> {
        self.last_sequence.as_deref()
    }

    /// The producer whose append closed the stream; `None` if it is open, or was closed without a producer.
    pub fn closed_by(&self) -> Option<&Producer> {
        self.closed_by.as_ref()
    }

    /// The approximate memory that this takes beside itself, in bytes.
    pub fn bytes(&self) -> usize {
        let closed_by = self.closed_by.as_ref().map_or(0, |producer| producer.id.len());
        self.producers.as_deref().map_or(0, Producers::bytes)
            + self.last_sequence().map_or(0, str::len)
            + closed_by
    }

    /// Decides on an append to a stream of `content_type`. Changes nothing, except that idle producers may be forgotten to make
    /// room for a new one. One principal has at most `own_producers_max` producers in a stream.
    pub fn admit(
        &mut self,
        append: &Append,
        content_type: &ContentType,
        own_producers_max: usize,
        now: SystemTime,
    ) -> Result<Admission, AppendRefusal> {
        if self.closed {
            let retry = append.producer.is_some() && append.producer == self.closed_by;
            let close_only = append.close && append.payload.is_empty() && append.producer.is_none();
            let highest = append.producer.as_ref().map(|producer| producer.sequence);
            return if retry || close_only {
                Ok(Admission::Duplicate { highest })
            } else {
                Err(AppendRefusal::Closed)
            };
        }
        if !append.fits(content_type) {
            return Err(AppendRefusal::ContentType);
        }
        if let Some(producer) = &append.producer {
            let producers = self.producers.get_or_insert_default();
            let known = producers.check(producer, append.principal, own_producers_max, now);
            if let Some(highest) = known.map_err(AppendRefusal::Producer)? {
                return Ok(Admission::Duplicate { highest: Some(highest) });
            }
        }
        match (&append.sequence, &self.last_sequence) {
            (Some(next), Some(last)) if next.as_bytes() <= last.as_bytes() => {
                Err(AppendRefusal::SequenceRegression)
            }
            _ => Ok(Admission::New),
        }
    }

    /// Records an append that `admit` called new and that is in the log.
    pub fn record(&mut self, append: &Append, now: SystemTime) {
        if let Some(producer) = &append.producer {
            self.producers.get_or_insert_default().record(producer, append.principal, now);
        }
        if append.sequence.is_some() {
            self.last_sequence.clone_from(&append.sequence);
        }
        if append.close {
            self.closed = true;
            self.closed_by.clone_from(&append.producer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Payload;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn append(text: &'static str) -> Append {
        Append::of(ContentType::octet_stream(), Payload::raw(text.into()))
    }

    fn admit(writers: &mut Writers, append: &Append) -> Result<Admission, AppendRefusal> {
        let admission = writers.admit(append, &ContentType::octet_stream(), 10, NOW)?;
        if admission == Admission::New {
            writers.record(append, NOW);
        }
        Ok(admission)
    }

    #[test]
    fn sequences_compare_byte_by_byte() {
        let mut writers = Writers::default();
        for (sequence, taken) in
            [("09", true), ("10", true), ("10", false), ("2", true), ("10", false), ("B", true)]
        {
            let admission = admit(&mut writers, &Append { sequence: Some(sequence.into()), ..append("x") });
            assert_eq!(admission.is_ok(), taken, "{sequence}");
        }
    }

    #[test]
    fn closed_comes_before_every_other_reason() {
        let mut writers = Writers::default();
        writers.close();
        let wrong_type = Append::of(ContentType::parse("text/plain").unwrap(), Payload::raw("x".into()));
        assert_eq!(admit(&mut writers, &wrong_type), Err(AppendRefusal::Closed));
        assert_eq!(admit(&mut writers, &Append { close: true, ..append("x") }), Err(AppendRefusal::Closed));
        let close_only = Append { close: true, ..append("") };
        assert_eq!(admit(&mut writers, &close_only), Ok(Admission::Duplicate { highest: None }));
    }

    #[test]
    fn after_the_close_only_the_closing_append_is_a_retry() {
        let mut writers = Writers::default();
        let by = |sequence| Some(Producer { id: "p".into(), epoch: 0, sequence });
        let closing = Append { close: true, producer: by(0), ..append("x") };
        assert_eq!(admit(&mut writers, &closing), Ok(Admission::New));
        assert_eq!(admit(&mut writers, &closing), Ok(Admission::Duplicate { highest: Some(0) }));
        assert_eq!(admit(&mut writers, &Append { producer: by(1), ..closing }), Err(AppendRefusal::Closed));
    }
}
