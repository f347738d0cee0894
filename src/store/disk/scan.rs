//! Reading the files as they are: whole records in order, what is damaged between them, and where the log ends.
//!
//! A power cut in the middle of a write leaves damage too, but only behind the last sync, in what nobody was promised. A
//! record says whether everything before it was synced when it was written. So damage before the last record that says so
//! is a loss, and records behind it count; damage behind it that can come from a write that was cut off ends the log.

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

/// What is found from the beginning of the log to its end.
pub(super) enum ScanStep {
    /// Another segment begins.
    Segment(Arc<Segment>),
    /// A record.
    LogRecord(Scanned),
    /// Something that was a record.
    Damage(Damaged),
}

/// A record, where it lies, how many bytes it has in all, and its content.
pub(super) struct Scanned {
    pub(super) place: FrameLocation,
    pub(super) bytes: u32,
    pub(super) record: LogRecord,
    pub(super) content: Bytes,
}

/// Bytes that are no record any more. They stay where they are.
#[derive(Debug, Clone)]
pub(super) struct Damaged {
    pub(super) place: FrameLocation,
    pub(super) bytes: Bytes,
}

/// Where the log ends.
#[derive(Debug, Default)]
pub(super) struct LogEnd {
    /// The last segment with anything in it, and the offset behind that.
    pub(super) last: Option<(Arc<Segment>, u32)>,
    /// The log was cut off there: what follows was written and not synced.
    pub(super) torn: bool,
    /// The first segment that may not be synced as a whole.
    pub(super) unsynced_from: u32,
    /// The last segment is of an earlier format or its header is damaged, so that nothing is written to it any more.
    pub(super) is_sealed: bool,
    /// Segments behind the end. Those with something in them can not be a part of the log any more.
    pub(super) behind: Vec<(u32, BeyondEnd)>,
}

/// What is in a segment behind the end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BeyondEnd {
    /// Room that was made and not used.
    Unused,
    /// Records, or what is left of them.
    Used,
}

/// Reads the segments of `directory` in order, up to where the last write was cut off, and tells `each` what is there.
pub(super) fn scan(directory: &Path, mut each: impl FnMut(ScanStep)) -> Result<LogEnd, OpenError> {
    let mut end = LogEnd::default();
    let numbers = numbers(directory)?;
    let Tear { at: tear, unsynced_from } = find_tear(directory, &numbers)?;
    end.unsynced_from = unsynced_from;
    let mut unused = Vec::new();
    for (index, number) in numbers.iter().copied().enumerate() {
        let (segment, bytes) = Segment::load(directory, number)?;
        let header = check_header(&bytes, number);
        if let Err(HeaderError::Newer(format)) = header {
            return Err(OpenError::Newer { directory: directory.to_owned(), format });
        }
        if is_unused(&bytes) {
            unused.push(segment);
            continue;
        }
        if tear.is_some_and(|tear| tear.segment < number) {
            end.behind.push((number, BeyondEnd::Used));
            continue;
        }
        // What a later segment follows on was written, though nothing of it is there.
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
    end.behind.extend(unused.iter().map(|segment| (segment.number, BeyondEnd::Unused)));
    Ok(end)
}

/// Tells of what is in a segment before the offset `end`. Returns the offset behind it.
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

/// Where a segment was left for the `next` one, if that one followed on it. Behind it there is nothing but room.
fn left_at(directory: &Path, number: u32, next: u32) -> Result<Option<u32>, OpenError> {
    let mut beginning = Vec::new();
    let bytes = u64::from(HEADER_BYTES + OPENED_BYTES_MAX);
    File::open(path(directory, next))?.take(bytes).read_to_end(&mut beginning)?;
    Ok(follows_on(&beginning, next).filter(|(before, _)| *before == number).map(|(_, offset)| offset))
}

/// What is known of the last writes.
#[derive(Debug, Default)]
struct Tear {
    /// Where the log ends before something that can come from a write which was cut off.
    at: Option<FrameLocation>,
    /// The first segment that may not be synced as a whole.
    unsynced_from: u32,
}

/// Reads the segments from the last one back to the last record that follows on a sync.
fn find_tear(directory: &Path, numbers: &[u32]) -> Result<Tear, OpenError> {
    let mut tear = Tear::default();
    let mut next: Option<(u32, u32)> = None;
    for number in numbers.iter().rev().copied() {
        let bytes = fs::read(path(directory, number))?;
        let (mut synced, mut torn_at) = (false, None);
        let mut frames = SegmentFrames::new(&bytes, number, HEADER_BYTES);
        for stretch in frames.by_ref() {
            match stretch {
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

/// What is missing at the end of a segment, as the next one says.
fn missing_end((last, end): &(Arc<Segment>, u32), bytes: &[u8], number: u32) -> Option<Damaged> {
    let (_, offset) =
        follows_on(bytes, number).filter(|(before, offset)| *before == last.number && end < offset)?;
    let place = FrameLocation { segment: last.number, offset: *end };
    Some(Damaged { place, bytes: vec![0; (offset - end) as usize].into() })
}

/// Which segment a segment follows on, and where that one ends.
fn follows_on(bytes: &[u8], number: u32) -> Option<(u32, u32)> {
    let place = FrameLocation { segment: number, offset: HEADER_BYTES };
    let FrameRead::Body(body) = frame::read(bytes.get(HEADER_BYTES as usize..)?, place) else { return None };
    match frame::split::<LogRecord>(body)? {
        (LogRecord::Opened { after, .. }, _) => after,
        _ => None,
    }
}

/// Whether a segment is nothing but room: it was never finished, or was not needed.
fn is_unused(bytes: &[u8]) -> bool {
    used(bytes) <= HEADER_BYTES as usize
}

/// The numbers of the segments of a directory, in order.
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

    /// A segment of records of 600 bytes, of which some say that everything before them was synced. Where each begins.
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

    /// Where records and damage are found, and where the log ends.
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

    /// A power cut may leave the end of a write and not its beginning. If something was written behind that, it had been
    /// synced, and what is missing is damage.
    #[test]
    fn a_write_of_which_the_beginning_is_missing_is_cut_unless_it_was_synced() {
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
