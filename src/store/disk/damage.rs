//! Known damage in the files: its description for operators, and the list of damage that an operator has accepted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use parking_lot::Mutex;

use super::directory::FILE_MODE;
use super::frame::FrameLocation;
use super::kept::{RecordSpan, Stored};
use crate::store::entry::Entry;

/// The file in the directory of the store that has a line for each damaged place that an operator has accepted.
const ACCEPTED: &str = "accepted-damage";

/// The maximum number of entries in a message; further ones are only counted.
const LISTED_MAX: usize = 20;

/// Damaged places in the existing segments.
#[derive(Debug, Default)]
pub(super) struct DamageTable(Mutex<BTreeMap<FrameLocation, u32>>);

impl DamageTable {
    /// Adds a damaged place. Returns whether it is new, and the total bytes of all damaged places.
    pub(super) fn note(&self, span: RecordSpan) -> (bool, u64) {
        let mut table = self.0.lock();
        let is_new = table.insert(span.place, span.bytes).is_none();
        (is_new, total(&table))
    }

    /// Removes the places in a segment that was removed. Returns the total bytes of the remaining ones.
    pub(super) fn forget(&self, segment: u32) -> u64 {
        let mut table = self.0.lock();
        table.retain(|place, _| place.segment != segment);
        total(&table)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

fn total(table: &BTreeMap<FrameLocation, u32>) -> u64 {
    table.values().map(|bytes| u64::from(*bytes)).sum()
}

/// The accepted damaged places.
pub(super) fn accepted(directory: &Path) -> io::Result<BTreeSet<String>> {
    match fs::read_to_string(directory.join(ACCEPTED)) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}

/// Replaces the accepted damaged places. Synced when this returns.
pub(super) fn accept(directory: &Path, damage: &[RecordSpan]) -> io::Result<()> {
    let mut text = String::new();
    for span in damage {
        // Writing to a string cannot fail.
        let _written = writeln!(text, "{}", in_words(span));
    }
    let new = directory.join(format!("{ACCEPTED}.new"));
    let mut file = File::options().write(true).create(true).truncate(true).mode(FILE_MODE).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, directory.join(ACCEPTED))?;
    File::open(directory)?.sync_all()
}

/// Describes a damaged place. The file of accepted damage has these texts, so they must not change.
pub(super) fn in_words(RecordSpan { place, bytes }: &RecordSpan) -> String {
    format!("{:010}.log, {bytes} bytes from {} on", place.segment, place.offset)
}

/// Describes what streams have lost, one line for each hole.
pub(super) fn lost<'a>(entries: impl Iterator<Item = &'a Entry<Stored>>) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in entries {
        for (from, to) in entry.log.holes() {
            let missed = to.since(from);
            let (from, to) = (entry.epoch_history.offset_at(from), entry.epoch_history.offset_at(to));
            let unit = if entry.content_type.is_json() { "messages" } else { "bytes" };
            lines.push(format!("{}: at most {missed} {unit} from {from} to {to}", entry.name.as_str()));
        }
    }
    lines.sort();
    lines
}

/// Joins lines for a message of one line.
pub(super) fn listed(lines: &[String]) -> String {
    let mut text = lines.iter().take(LISTED_MAX).cloned().collect::<Vec<_>>().join("; ");
    if let Some(more) = lines.len().checked_sub(LISTED_MAX).filter(|more| *more > 0) {
        // Writing to a string cannot fail.
        let _written = write!(text, "; and {more} more");
    }
    text
}
