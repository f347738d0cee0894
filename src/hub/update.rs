//! What a read of one stream brings: a batch of messages, which readers at the same place share, or a gap.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::time::Instant;

use crate::stream::{Batch, Gap};

/// Encodings of one batch that are kept. Further ones are made for each reader anew.
const ENCODINGS_MAX: usize = 4;

/// What the reader of a stream is told next.
#[derive(Debug, Clone)]
pub enum Update {
    /// Messages with the offset behind them. A batch without messages is a first answer, a heartbeat or an end.
    Batch(SharedBatch),
    /// Messages behind the reader's offset are not kept any more.
    Gap(Gap),
}

/// A batch that several readers of a stream may hold, together with what a front has encoded of it.
#[derive(Debug, Clone)]
pub struct SharedBatch(Arc<SharedParts>);

#[derive(Debug)]
struct SharedParts {
    batch: Batch,
    encodings: [OnceLock<(Variant, Bytes)>; ENCODINGS_MAX],
}

/// Identifies one way of encoding a batch. Two encodings of a batch with the same variant are the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant(pub [u64; 4]);

impl SharedBatch {
    /// Whether this is the only reference to the batch.
    pub fn is_alone(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// The batch encoded in `variant`. `encode` runs once for each variant, however many readers ask at the same time.
    pub fn encoded(&self, variant: Variant, encode: impl Fn(&Batch) -> Bytes) -> Bytes {
        for encoding in &self.0.encodings {
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
        Self(Arc::new(SharedParts { batch, encodings: Default::default() }))
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

/// Why a source is worth reading again.
#[derive(Debug)]
pub struct Change<B> {
    /// When the store answered the latest append, if it was one.
    pub published: Option<Instant>,
    /// The next batch, if another reader at the same position has read it already. Then nothing else is to be read.
    pub batch: Option<B>,
}

impl<B> Default for Change<B> {
    fn default() -> Self {
        Self { published: None, batch: None }
    }
}
