//! Reading the files as they are: whole records in order, and where that ends.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::directory::OpenError;
use super::frame::{self, FRAME_HEADER_BYTES, Found, Place};
use super::record::Record;
use super::segment::{HEADER_BYTES, Header, Segment, check_header};

/// A record, where it lies, how many bytes it has in all, and its content.
pub(super) struct Scanned {
    pub(super) place: Place,
    pub(super) bytes: u32,
    pub(super) record: Record,
    pub(super) content: Bytes,
}

/// Where the log ends.
#[derive(Debug, Default)]
pub(super) struct End {
    /// The last segment with whole records, and the offset behind them.
    pub(super) last: Option<(Arc<Segment>, u32)>,
    /// Whether something follows that is no record.
    pub(super) damaged: bool,
    /// Segments behind the end. Those with something in them can not be a part of the log any more.
    pub(super) behind: Vec<(u32, Rest)>,
}

/// What is in a segment behind the end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// Room that was made and not used.
    Unused,
    /// Records, or what is left of them.
    Used,
}

/// Reads the segments of `directory` in order, up to the first thing that is no record, and tells `each` of every segment
/// and every record before it.
pub(super) fn scan(
    directory: &Path,
    mut begin: impl FnMut(&Arc<Segment>),
    mut each: impl FnMut(Scanned),
) -> Result<End, OpenError> {
    let mut end = End::default();
    for number in numbers(directory)? {
        let (segment, bytes) = Segment::load(directory, number)?;
        let header = check_header(&bytes, number);
        if let Err(Header::Newer(format)) = header {
            return Err(OpenError::Newer { directory: directory.to_owned(), format });
        }
        let unused = bytes.get(HEADER_BYTES as usize..).unwrap_or_default().iter().all(|byte| *byte == 0);
        if end.damaged || header.is_err() || unused {
            // A file that was never finished, or whose room was not needed, tells nothing of the log.
            end.damaged |= !unused;
            end.behind.push((number, if unused { Rest::Unused } else { Rest::Used }));
            continue;
        }
        let segment = Arc::new(segment);
        let (bytes, mut offset) = (Bytes::from(bytes), HEADER_BYTES);
        let follows = follows(&bytes, number, &end);
        if !follows {
            end.damaged = true;
            end.behind.push((number, Rest::Used));
            continue;
        }
        begin(&segment);
        loop {
            let place = Place { segment: number, offset };
            let rest = bytes.get(offset as usize..).unwrap_or_default();
            let Found::Body(body) = frame::read(rest, place) else {
                end.damaged |= rest.iter().any(|byte| *byte != 0);
                break;
            };
            let Some((record, content)) = frame::split(body) else {
                end.damaged = true;
                break;
            };
            let length = u32::try_from(FRAME_HEADER_BYTES + body.len()).unwrap_or(u32::MAX);
            let content = bytes.slice_ref(content);
            each(Scanned { place, bytes: length, record, content });
            offset += length;
        }
        end.last = Some((segment, offset));
    }
    Ok(end)
}

/// Whether a segment begins where the one before it ends, if that is still there.
fn follows(bytes: &Bytes, number: u32, end: &End) -> bool {
    let place = Place { segment: number, offset: HEADER_BYTES };
    let Found::Body(body) = frame::read(bytes.get(HEADER_BYTES as usize..).unwrap_or_default(), place) else {
        return false;
    };
    match frame::split::<Record>(body) {
        Some((Record::Opened { after: Some((before, offset)), .. }, _)) => {
            end.last.as_ref().is_none_or(|(last, end)| last.number != before || *end == offset)
        }
        Some((Record::Opened { after: None, .. }, _)) => end.last.is_none(),
        _ => false,
    }
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
