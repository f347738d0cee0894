//! The trace of a simulation: what happened to whom and when, and its digest.

use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use parking_lot::Mutex;

/// Collects the events of one group in their order.
#[derive(Debug)]
pub(super) struct Trace {
    digest: Mutex<DefaultHasher>,
    /// `None`: only the digest is wanted.
    text: Option<Mutex<String>>,
}

impl Trace {
    pub(super) fn new(keeps_text: bool) -> Self {
        Self { digest: Mutex::default(), text: keeps_text.then(Mutex::default) }
    }

    /// Adds an event of a phone at a time since the day's begin.
    pub(super) fn note(&self, at: Duration, phone: u32, what: &str, number: u64) {
        (at.as_micros(), phone, what, number).hash(&mut *self.digest.lock());
        if let Some(text) = &self.text {
            // Writing to a string does not fail.
            let _written = writeln!(text.lock(), "{:.6} {phone} {what} {number}", at.as_secs_f64());
        }
    }

    /// The digest of all events until now.
    pub(super) fn digest(&self) -> u64 {
        self.digest.lock().finish()
    }

    /// The events as text, a line each; empty if it was not kept.
    pub(super) fn text(&self) -> String {
        self.text.as_ref().map(|text| text.lock().clone()).unwrap_or_default()
    }
}
