//! What publishers were told: each acknowledgement and each refusal.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::verdict::Acknowledged;
use crate::world::{Answer, Took};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    acknowledged: Mutex<BTreeMap<String, Acknowledged>>,
    refusals: Mutex<Vec<Refused>>,
}

/// An append that was answered, but not acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    pub(crate) publisher: usize,
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) after: Took,
}

impl Ledger {
    pub(crate) fn acknowledge(&self, stream: &str, publisher: usize) {
        let mut acknowledged = self.acknowledged.lock();
        *acknowledged.entry(stream.to_owned()).or_default().entry(publisher).or_default() += 1;
    }

    pub(crate) fn refuse(&self, publisher: usize, answer: &Answer, after: Took) {
        let content_type = answer.header("content-type").to_owned();
        let status = answer.status.as_u16();
        self.refusals.lock().push(Refused { publisher, status, content_type, after });
    }

    /// What was acknowledged on a stream, with a zero for each publisher that may have one on its way there.
    pub(crate) fn on(&self, stream: &str, publishers: &[usize]) -> Acknowledged {
        let mut acknowledged: Acknowledged = publishers.iter().map(|publisher| (*publisher, 0)).collect();
        acknowledged.extend(self.acknowledged.lock().get(stream).into_iter().flatten());
        acknowledged
    }

    /// How many messages were acknowledged on all streams.
    pub(crate) fn total(&self) -> u64 {
        self.acknowledged.lock().values().flat_map(BTreeMap::values).sum()
    }

    /// What was refused since it was last forgotten.
    pub(crate) fn refusals(&self) -> Vec<Refused> {
        self.refusals.lock().clone()
    }

    pub(crate) fn forget_refusals(&self) {
        self.refusals.lock().clear();
    }
}
