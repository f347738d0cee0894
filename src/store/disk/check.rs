//! Reading all of a store without changing anything, to say whether it is whole.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::damage;
use super::directory::{Directory, OpenError};
use super::replay::Replay;
use super::scan::{BeyondEnd, LogEnd, scan};
use super::segment::Segments;
use crate::store::entry::State;

/// What was found in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Streams that there are.
    pub streams: usize,
    /// Records in the log, of which some may have been replaced by later ones.
    pub records: u64,
    /// Messages that are kept.
    pub messages: u64,
    /// Bytes of the files with records.
    pub bytes: u64,
    /// How many of those there are.
    pub files: usize,
    /// Where something is that is no record, in words for the operator.
    pub damage: Vec<String>,
    /// Which streams have lost what.
    pub lost: Vec<String>,
    /// Where the log was cut off in the middle of a write, which is no loss.
    pub torn: Vec<String>,
}

/// Later than any message: a check does not ask how old they are.
const END_OF_TIME: Duration = Duration::from_secs(1 << 40);

/// Checks the store in a directory, which no other process may have open.
pub fn check(directory: &Path) -> Result<Checked, OpenError> {
    if !directory.is_dir() {
        return Err(std::io::Error::from(std::io::ErrorKind::NotADirectory).into());
    }
    let directory = Directory::open(directory)?;
    let segments = Arc::new(Segments::new(directory.path())?);
    let mut replay = Replay::new(segments.clone(), SystemTime::UNIX_EPOCH + END_OF_TIME);
    let end = scan(directory.path(), |step| replay.take(step))?;
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
        lost: damage::lost(restored.streams.iter(), &restored.losses),
        torn: torn(&end),
    })
}

fn torn(end: &LogEnd) -> Vec<String> {
    let mut torn = Vec::new();
    if let Some((segment, offset)) = end.last.as_ref().filter(|_| end.torn) {
        torn.push(format!("{:010}.log from byte {offset} on", segment.number));
    }
    let used = end.behind.iter().filter(|(_, rest)| *rest == BeyondEnd::Used);
    torn.extend(used.map(|(number, _)| format!("{number:010}.log, which follows on that")));
    torn
}
