//! Checks a store: reads all of it and reports damage, without changing anything.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::damage;
use super::directory::{Directory, OpenError};
use super::replay::Replay;
use super::scan::{LogEnd, TrailingSegment, expect_store, scan};
use super::segment::Segments;
use crate::store::entry::State;

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Number of streams.
    pub streams: usize,
    /// Number of records in the log, including those that later records replace.
    pub records: u64,
    /// Number of messages that are kept.
    pub messages: u64,
    /// Total bytes of the files.
    pub bytes: u64,
    /// Number of files.
    pub files: usize,
    /// Damaged places in the files, as text for the operator.
    pub damage: Vec<String>,
    /// Streams that have lost messages, and how many, as text for the operator.
    pub lost: Vec<String>,
    /// Where the log ends in the middle of a write, which is not a loss, as text for the operator.
    pub torn: Vec<String>,
}

/// Later than any message, so that the check does not treat messages as coming from the future.
const END_OF_TIME: Duration = Duration::from_secs(1 << 40);

/// Checks the store in a directory, which must have one. No other process may have it open.
pub fn check(directory: &Path) -> Result<Checked, OpenError> {
    expect_store(directory)?;
    let directory = Directory::open(directory)?;
    let segments = Arc::new(Segments::new(directory.path())?);
    let mut replay = Replay::new(segments.clone(), SystemTime::UNIX_EPOCH + END_OF_TIME);
    let end = scan(directory.path(), |step| replay.apply(step))?;
    let records = replay.records;
    let restored = replay.into_streams();
    let live = restored.streams.iter().filter(|entry| entry.state == State::Live);
    let files = segments.all();
    Ok(Checked {
        streams: live.clone().count(),
        records,
        messages: live.map(|entry| entry.log.messages_kept()).sum(),
        bytes: files.iter().map(|segment| u64::from(segment.capacity)).sum(),
        files: files.len(),
        damage: restored.losses.damage.iter().map(damage::in_words).collect(),
        lost: damage::lost(restored.streams.iter().map(Box::as_ref)),
        torn: torn(&end),
    })
}

fn torn(end: &LogEnd) -> Vec<String> {
    let mut torn = Vec::new();
    if let Some((segment, offset)) = end.last.as_ref().filter(|_| end.torn) {
        torn.push(format!("{:010}.log from byte {offset} on", segment.number));
    }
    let used = end.beyond_end.iter().filter(|(_, rest)| *rest == TrailingSegment::Used);
    torn.extend(used.map(|(number, _)| format!("{number:010}.log, which comes after it")));
    torn
}
