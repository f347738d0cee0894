//! [`Troubles`]: the errors of a run, counted.

use std::collections::BTreeMap;
use std::fmt::Display;

use parking_lot::Mutex;

/// Errors by their text, with counts.
#[derive(Debug, Default)]
pub struct Troubles(Mutex<BTreeMap<String, u64>>);

impl Troubles {
    /// Counts an error. The same error must have the same text each time.
    pub fn note(&self, what: String) {
        *self.0.lock().entry(what).or_default() += 1;
    }

    /// Returns the value of `Ok`; counts an `Err` and returns `None`.
    pub fn unless<T, E: Display>(&self, done: Result<T, E>) -> Option<T> {
        done.map_err(|error| self.note(error.to_string())).ok()
    }

    /// Whether there are no errors.
    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Returns each error and its count.
    pub fn all(&self) -> BTreeMap<String, u64> {
        self.0.lock().clone()
    }
}
