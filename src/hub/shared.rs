//! What those have in common who waited at the same place of a stream: one reads, and all have what was read and what a
//! front made of it.

use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::Batch;

/// So many ways of writing one batch are kept; more of them are written and not kept.
const MADE_MAX: usize = 4;

/// A batch that many may have.
#[derive(Debug, Clone)]
pub struct Shared(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    batch: Batch,
    made: Mutex<Vec<(Variant, Bytes)>>,
}

/// What a front tells its ways of writing a batch apart by. Two that are equal make the same bytes of the same batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant(pub [u64; 4]);

impl Shared {
    /// Whether nobody else has it.
    pub fn is_alone(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// What the batch is in this variant: made once, however many ask for it at the same time.
    pub fn made(&self, variant: Variant, make: impl FnOnce(&Batch) -> Bytes) -> Bytes {
        let mut made = self.0.made.lock();
        if let Some((_, bytes)) = made.iter().find(|(known, _)| *known == variant) {
            return bytes.clone();
        }
        let bytes = make(&self.0.batch);
        if made.len() < MADE_MAX {
            made.push((variant, bytes.clone()));
        }
        bytes
    }
}

impl From<Batch> for Shared {
    fn from(batch: Batch) -> Self {
        Self(Arc::new(Inner { batch, made: Mutex::default() }))
    }
}

impl Deref for Shared {
    type Target = Batch;

    fn deref(&self) -> &Batch {
        &self.0.batch
    }
}
