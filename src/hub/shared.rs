//! What those have in common who waited at the same place of a stream: one reads, and all have what was read and what a
//! front made of it.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::stream::Batch;

/// So many ways of writing one batch are kept; more of them are written and not kept.
const MADE_MAX: usize = 4;

/// A batch that many may have.
#[derive(Debug, Clone)]
pub struct Shared(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    batch: Batch,
    made: [OnceLock<(Variant, Bytes)>; MADE_MAX],
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
    pub fn made(&self, variant: Variant, make: impl Fn(&Batch) -> Bytes) -> Bytes {
        for made in &self.0.made {
            let (known, bytes) = made.get_or_init(|| (variant, make(self)));
            if *known == variant {
                return bytes.clone();
            }
        }
        make(self)
    }
}

impl From<Batch> for Shared {
    fn from(batch: Batch) -> Self {
        Self(Arc::new(Inner { batch, made: Default::default() }))
    }
}

impl Deref for Shared {
    type Target = Batch;

    fn deref(&self) -> &Batch {
        &self.0.batch
    }
}
