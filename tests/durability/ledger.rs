//! [`Ledger`]: the acknowledgements and refusals that publishers received.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::verdict::Acknowledged;
use crate::world::{Answer, Took};

/// Acknowledgements per stream and publisher, and refusals.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    acknowledged: Mutex<BTreeMap<String, Acknowledged>>,
    refusals: Mutex<Vec<Refused>>,
}

/// A refused append.
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

    /// Returns the acknowledgements on a stream, with a zero for each publisher that may have a first message in flight.
    pub(crate) fn on(&self, stream: &str, publishers: &[usize]) -> Acknowledged {
        let mut acknowledged: Acknowledged = publishers.iter().map(|publisher| (*publisher, 0)).collect();
        acknowledged.extend(self.acknowledged.lock().get(stream).into_iter().flatten());
        acknowledged
    }

    /// Returns the number of acknowledged messages of a publisher.
    pub(crate) fn of(&self, publisher: usize) -> u64 {
        self.acknowledged.lock().values().filter_map(|stream| stream.get(&publisher)).sum()
    }

    /// Returns the number of acknowledged messages on all streams.
    pub(crate) fn total(&self) -> u64 {
        self.acknowledged.lock().values().flat_map(BTreeMap::values).sum()
    }

    /// Returns the refusals since they were last cleared.
    pub(crate) fn refusals(&self) -> Vec<Refused> {
        self.refusals.lock().clone()
    }

    pub(crate) fn forget_refusals(&self) {
        self.refusals.lock().clear();
    }
}
