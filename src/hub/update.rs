//! The result of reading one stream: [`Update`] is a [`SharedBatch`] of messages, which readers at the same
//! offset share, or a gap.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::time::Instant;

use crate::stream::{Batch, Gap};

/// Number of encodings cached per batch. Further encodings are computed for each reader.
const ENCODINGS_MAX: usize = 4;

/// What a reader of a stream receives next.
#[derive(Debug, Clone)]
pub enum Update {
    /// Messages and the offset behind them. A batch without messages is a first answer, a heartbeat, or the
    /// end of the stream.
    Batch(SharedBatch),
    /// Messages behind the reader's offset are no longer kept.
    Gap(Gap),
}

/// A batch that several readers of a stream can share, with a cache of its encodings.
#[derive(Debug, Clone)]
pub struct SharedBatch(Arc<SharedParts>);

type Encodings = [OnceLock<(Variant, Bytes)>; ENCODINGS_MAX];

#[derive(Debug)]
struct SharedParts {
    batch: Batch,
    /// Allocated for the first encoding, since most batches have one reader, which does not share its response.
    encodings: OnceLock<Box<Encodings>>,
}

/// Identifies one way of encoding a batch. Two encodings of a batch with the same variant are the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant(pub [u64; 4]);

impl SharedBatch {
    /// Whether this is the only reference to the batch.
    pub fn is_alone(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// Returns the batch encoded as `variant`. `encode` runs once per cached variant, even if several readers
    /// call this concurrently.
    pub fn encoded(&self, variant: Variant, encode: impl Fn(&Batch) -> Bytes) -> Bytes {
        for encoding in &**self.0.encodings.get_or_init(Box::default) {
            let (known, bytes) = encoding.get_or_init(|| (variant, encode(self)));
            if *known == variant {
                return bytes.clone();
            }
        }
        encode(self)
    }
}

impl From<Batch> for SharedBatch {
    fn from(batch: Batch) -> Self {
        Self(Arc::new(SharedParts { batch, encodings: OnceLock::new() }))
    }
}

impl From<SharedBatch> for Update {
    fn from(batch: SharedBatch) -> Self {
        Self::Batch(batch)
    }
}

impl Deref for SharedBatch {
    type Target = Batch;

    fn deref(&self) -> &Batch {
        &self.0.batch
    }
}

/// Reason to read a source again.
#[derive(Debug)]
pub struct Change<B> {
    /// When the latest append was reported, if an append is the reason.
    pub published: Option<Instant>,
    /// The next batch, if another reader at the same position has already read it. The source must not be
    /// read then.
    pub batch: Option<B>,
}

impl<B> Default for Change<B> {
    fn default() -> Self {
        Self { published: None, batch: None }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::stream::{ContentType, Epoch, Offset, Position};

    fn batch() -> SharedBatch {
        SharedBatch::from(Batch {
            content_type: ContentType::octet_stream(),
            pieces: Vec::new(),
            messages: 0,
            start: Offset::ZERO,
            next: Offset::ZERO,
            tail: Position(0),
            up_to_date: true,
            closed: false,
            epoch: Epoch(0),
            lives_for: None,
        })
    }

    #[test]
    fn a_batch_knows_whether_it_is_shared() {
        let batch = batch();
        assert!(batch.is_alone());
        let other = batch.clone();
        assert!(!batch.is_alone() && !other.is_alone());
        drop(other);
        assert!(batch.is_alone());
    }

    #[test]
    fn each_variant_is_encoded_once_until_the_cache_is_full() {
        let (batch, runs) = (batch(), Cell::new(0));
        let encoded = |number: u64| {
            let bytes = batch.encoded(Variant([number; 4]), |_| {
                runs.set(runs.get() + 1);
                Bytes::from(number.to_string())
            });
            assert_eq!(bytes, number.to_string());
        };
        let cached = ENCODINGS_MAX as u64;
        for number in (0..cached).chain((0..cached).rev()) {
            encoded(number);
        }
        assert_eq!(runs.get(), cached);
        for further in 1..=2 {
            encoded(cached);
            assert_eq!(runs.get(), cached + further, "no place is left for it");
        }
    }
}
