//! What went wrong in a run, counted.

use std::collections::BTreeMap;
use std::fmt::Display;

use parking_lot::Mutex;

/// Each kind of trouble by its words.
#[derive(Debug, Default)]
pub struct Troubles(Mutex<BTreeMap<String, u64>>);

impl Troubles {
    /// Notes that something went wrong, in words that are the same for the same trouble.
    pub fn note(&self, what: String) {
        *self.0.lock().entry(what).or_default() += 1;
    }

    /// What was done, or `None` after noting why it was not.
    pub fn unless<T, E: Display>(&self, done: Result<T, E>) -> Option<T> {
        done.map_err(|error| self.note(error.to_string())).ok()
    }

    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Each trouble and how often it came.
    pub fn all(&self) -> BTreeMap<String, u64> {
        self.0.lock().clone()
    }
}
