//! What went wrong in a run, counted.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Each kind of trouble by its words.
#[derive(Debug, Default)]
pub struct Troubles(Mutex<BTreeMap<String, u64>>);

impl Troubles {
    /// Notes that something went wrong, in words that are the same for the same trouble.
    pub fn note(&self, what: String) {
        *self.0.lock().entry(what).or_default() += 1;
    }

    /// Each trouble and how often it came.
    pub fn all(&self) -> BTreeMap<String, u64> {
        self.0.lock().clone()
    }
}
