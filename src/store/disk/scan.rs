//! Scans the files of a store: finds valid records in order, damage between them, and the end of the log.
//!
//! A power cut during a write leaves damage, too, but only after the last sync, in appends that were not acknowledged. Each
//! record says whether everything before it was synced when it was written. So damage before the last such record is a loss,
//! and the records after that damage count; damage after the last such record ends the log if it can come from an incomplete
//! write.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::directory::OpenError;
use super::frame::{self, FrameLocation, FrameRead};
use super::frames::{Damage, SegmentFrames, SegmentPart, used};
use super::record::LogRecord;
use super::segment::{FORMAT, HEADER_BYTES, HeaderError, OPENED_BYTES_MAX, Segment, check_header, path};

/// A step of the scan, from the beginning of the log to its end.
pub(super) enum ScanStep {
    /// The next segment.
    Segment(Arc<Segment>),
    /// A valid record.
    LogRecord(Scanned),
    /// Bytes that were a record and are damaged.
    Damage(Damaged),
}

/// A record with its location, its total size and its content.
pub(super) struct Scanned {
    pub(super) place: FrameLocation,
    pub(super) bytes: u32,
    pub(super) record: LogRecord,
    pub(super) content: Bytes,
}

/// Damaged bytes with their location. The file keeps them.
#[derive(Debug, Clone)]
pub(super) struct Damaged {
    pub(super) place: FrameLocation,
    pub(super) bytes: Bytes,
}

/// The end of the log.
#[derive(Debug, Default)]
pub(super) struct LogEnd {
    /// The last segment that is in use, and the offset after its last record.
    pub(super) last: Option<(Arc<Segment>, u32)>,
    /// Whether the log ends in an incomplete write, whose remains come after the end.
    pub(super) torn: bool,
    /// The first segment that may not be completely synced.
    pub(super) unsynced_from: u32,
    /// Whether the last segment has an earlier format or a damaged header, so that nothing more is written to it.
    pub(super) is_sealed: bool,
    /// Segments after the end of the log. Those with records cannot be a part of the log any more.
    pub(super) beyond_end: Vec<(u32, TrailingSegment)>,
}

/// The content of a segment after the end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TrailingSegment {
    /// A segment that was created in advance and not used.
    Unused,
    /// Records, or remains of them.
    Used,
}

/// Scans the segments of `directory` in order up to an incomplete last write, and calls `each` with every step.
pub(super) fn scan(directory: &Path, mut each: impl FnMut(ScanStep)) -> Result<LogEnd, OpenError> {
    let mut end = LogEnd::default();
    let numbers = numbers(directory)?;
    let IncompleteWrite { at: tear, unsynced_from } = find_tear(directory, &numbers)?;
    end.unsynced_from = unsynced_from;
    let mut unused = Vec::new();
    for (index, number) in numbers.iter().copied().enumerate() {
        let (segment, bytes) = Segment::load(directory, number)?;
        let header = check_header(&bytes, number);
        if let Err(HeaderError::Newer(format)) = header {
            return Err(OpenError::Newer { format });
        }
        if is_unused(&bytes) {
            unused.push(segment);
            continue;
        }
        if tear.is_some_and(|tear| tear.segment < number) {
            end.beyond_end.push((number, TrailingSegment::Used));
            continue;
        }
        // A later segment continues an unused one, so records were written to it and all of them are lost.
        for segment in unused.drain(..).map(Arc::new) {
            each(ScanStep::Segment(segment.clone()));
            end.last = Some((segment, HEADER_BYTES));
        }
        let (segment, bytes) = (Arc::new(segment), Bytes::from(bytes));
        if let Some(damage) = end.last.as_ref().and_then(|last| missing_end(last, &bytes, number)) {
            each(ScanStep::Damage(damage));
        }
        each(ScanStep::Segment(segment.clone()));
        if header.is_err() {
            let place = FrameLocation { segment: number, offset: 0 };
            each(ScanStep::Damage(Damaged { place, bytes: bytes.slice(..HEADER_BYTES as usize) }));
        }
        let cut = tear.filter(|tear| tear.segment == number).map(|tear| tear.offset);
        let next = numbers.get(index + 1).copied();
        let left = next.map(|next| left_at(directory, number, next)).transpose()?.flatten();
        let offset = scan_segment(&bytes, number, cut.or(left).unwrap_or(u32::MAX), &mut each);
        end.torn |= cut.is_some();
        end.is_sealed = header != Ok(FORMAT);
        end.last = Some((segment, offset));
    }
    end.beyond_end.extend(unused.iter().map(|segment| (segment.number, TrailingSegment::Unused)));
    Ok(end)
}

/// Scans a segment up to the offset `end`. Returns the offset after its last part.
fn scan_segment(bytes: &Bytes, number: u32, end: u32, each: &mut impl FnMut(ScanStep)) -> u32 {
    let mut frames = SegmentFrames::new(bytes, number, HEADER_BYTES);
    let damaged = |from: u32, to: u32| {
        let place = FrameLocation { segment: number, offset: from };
        ScanStep::Damage(Damaged { place, bytes: bytes.slice(from as usize..to as usize) })
    };
    while frames.offset() < end {
        match frames.next() {
            None => break,
            Some(SegmentPart::Damage(Damage { from, to, .. })) => each(damaged(from, to)),
            Some(SegmentPart::FoundFrame(frame)) => match frame::split(frame.body) {
                Some((record, content)) => {
                    let (place, content) =
                        (FrameLocation { segment: number, offset: frame.offset }, bytes.slice_ref(content));
                    each(ScanStep::LogRecord(Scanned { place, bytes: frame.bytes, record, content }));
                }
                None => each(damaged(frame.offset, frame.offset + frame.bytes)),
            },
        }
    }
    frames.offset().min(end)
}

/// The offset at which the segment `next` says that this segment ends; `None` if it does not continue this one. After that
/// offset, the file is unused.
fn left_at(directory: &Path, number: u32, next: u32) -> Result<Option<u32>, OpenError> {
    let mut beginning = Vec::new();
    let bytes = u64::from(HEADER_BYTES + OPENED_BYTES_MAX);
    File::open(path(directory, next))?.take(bytes).read_to_end(&mut beginning)?;
    Ok(follows_on(&beginning, next).filter(|(before, _)| *before == number).map(|(_, offset)| offset))
}

/// The incomplete last write.
#[derive(Debug, Default)]
struct IncompleteWrite {
    /// Where the log ends, if damage after that can come from an incomplete write.
    at: Option<FrameLocation>,
    /// The first segment that may not be completely synced.
    unsynced_from: u32,
}

/// Reads the segments backwards up to the last record that says that everything before it was synced.
fn find_tear(directory: &Path, numbers: &[u32]) -> Result<IncompleteWrite, OpenError> {
    let mut tear = IncompleteWrite::default();
    let mut next: Option<(u32, u32)> = None;
    for number in numbers.iter().rev().copied() {
        let bytes = fs::read(path(directory, number))?;
        let (mut synced, mut torn_at) = (false, None);
        let mut frames = SegmentFrames::new(&bytes, number, HEADER_BYTES);
        for part in frames.by_ref() {
            match part {
                SegmentPart::FoundFrame(frame) if frame.follows_sync => (synced, torn_at) = (true, None),
                SegmentPart::FoundFrame(_) => {}
                SegmentPart::Damage(damage) if damage.looks_torn => torn_at = torn_at.or(Some(damage.from)),
                SegmentPart::Damage(_) => {}
            }
        }
        if let Some((_, left)) = next.filter(|(before, _)| *before == number) {
            let end = Some(frames.offset()).filter(|end| *end < left);
            torn_at = torn_at.or(end).filter(|torn_at| *torn_at < left);
        }
        if let Some(offset) = torn_at {
            tear.at = Some(FrameLocation { segment: number, offset });
        }
        if synced {
            tear.unsynced_from = number;
            break;
        }
        next = follows_on(&bytes, number);
    }
    Ok(tear)
}

/// The part missing at the end of the segment `last`, according to the segment that continues it.
fn missing_end((last, end): &(Arc<Segment>, u32), bytes: &[u8], number: u32) -> Option<Damaged> {
    let (_, offset) =
        follows_on(bytes, number).filter(|(before, offset)| *before == last.number && end < offset)?;
    let place = FrameLocation { segment: last.number, offset: *end };
    Some(Damaged { place, bytes: vec![0; (offset - end) as usize].into() })
}

/// The segment that this one continues, and the offset at which that one ends.
fn follows_on(bytes: &[u8], number: u32) -> Option<(u32, u32)> {
    let place = FrameLocation { segment: number, offset: HEADER_BYTES };
    let FrameRead::Body(body) = frame::read(bytes.get(HEADER_BYTES as usize..)?, place) else { return None };
    match frame::split::<LogRecord>(body)? {
        (LogRecord::Opened { after, .. }, _) => after,
        _ => None,
    }
}

/// Whether a segment has no records: it was not completed, or not used.
fn is_unused(bytes: &[u8]) -> bool {
    used(bytes) <= HEADER_BYTES as usize
}

/// Fails unless a directory has a store. Creates nothing.
pub(super) fn expect_store(directory: &Path) -> Result<(), OpenError> {
    match numbers(directory) {
        Ok(numbers) if numbers.is_empty() => {
            Err(OpenError::NoStore("it has none of the files of a store, such as 0000000001.log"))
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(OpenError::NoStore("there is no such directory"))
        }
        Err(error) => Err(error.into()),
    }
}

/// The numbers of the segments in a directory, in order.
fn numbers(directory: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for file in fs::read_dir(directory)? {
        let name = file?.file_name();
        let number =
            name.to_str().and_then(|name| name.strip_suffix(".log")).and_then(|n| n.parse::<u32>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::record::Ends;
    use crate::store::disk::segment::Segments;

    /// A segment with records of 600 bytes, with the synced bit of each, and their offsets.
    fn written(directory: &Path, synced: &[bool]) -> (Segment, Vec<u32>) {
        let segments = Segments::new(directory).unwrap();
        let segment = Segment::make(segments.folder(), 1, 16 * 1024).unwrap();
        let (mut bytes, mut starts) = (Vec::new(), Vec::new());
        for (start, synced) in (0..).zip(synced) {
            let record = LogRecord::Appended { stream: 1, start, at: 0, ends: Ends::Raw, said: None };
            let place = FrameLocation { segment: 1, offset: HEADER_BYTES + bytes.len() as u32 };
            starts.push(place.offset);
            frame::write(&mut bytes, place, *synced, &record, &[b'x'; 600]);
        }
        segment.write(&bytes, HEADER_BYTES).unwrap();
        (segment, starts)
    }

    /// The offsets of records and damage, the offset of the end, and whether it is torn.
    fn scanned(directory: &Path) -> (Vec<u32>, Vec<u32>, u32, bool) {
        let (mut records, mut damage) = (Vec::new(), Vec::new());
        let end = scan(directory, |step| match step {
            ScanStep::Segment(_) => {}
            ScanStep::LogRecord(record) => records.push(record.place.offset),
            ScanStep::Damage(damaged) => damage.push(damaged.place.offset),
        });
        let end = end.unwrap();
        (records, damage, end.last.unwrap().1, end.torn)
    }

    /// A power cut may leave the end of a write without its beginning. If a later record says that the write was synced, the
    /// missing beginning is damage.
    #[test]
    fn a_write_without_its_beginning_is_cut_unless_it_was_synced() {
        for synced_behind in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let synced = [true, true, false, false, synced_behind];
            let (segment, starts) = written(directory.path(), &synced);
            let sector = starts[1] / 512 * 512;
            segment.write(&vec![0; (sector + 512 - starts[1]) as usize], starts[1]).unwrap();
            let (records, damage, end, torn) = scanned(directory.path());
            if synced_behind {
                assert_eq!(
                    (records, damage),
                    ([starts[0], starts[2], starts[3], starts[4]].into(), vec![starts[1]])
                );
                assert!(!torn);
            } else {
                assert_eq!((records, damage, end), (vec![starts[0]], Vec::new(), starts[1]));
                assert!(torn);
            }
        }
    }
}
