//! A sealed run of a log on disk: for each append a row of numbers with the location of its record, in about 8 bytes. What a
//! publisher declared about a message is read together with its content.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::frame::FrameLocation;
use super::kept::{Kept, RecordSpan, Slice, Stored};
use super::record::{moment, time};
use super::segment::Segments;
use super::table::Table;
use crate::store::log::{Content, Extent, Record, Sealed};
use crate::stream::{Position, Shape};

/// The appends of a run. It is the only owner of their records, except of those in `kept`.
#[derive(Debug)]
pub(super) struct Packed {
    /// Columns that do not change: first position, bytes of content, append time, whether it is JSON.
    appends: Table<4>,
    /// Columns that change when records are moved: location, and bytes of the record besides the content.
    spans: Mutex<Table<2>>,
    /// The shapes of JSON appends with several values, by row.
    divided: Box<[(u32, Shape)]>,
    /// Records that have other owners, too, by row. Their current location is there and not in `spans`.
    kept: Box<[(u32, Arc<Kept>)]>,
    end: Position,
    extent: Extent,
    /// Counts the bytes of the records; `None` if all of them are in `kept`.
    segments: Option<Arc<Segments>>,
}

/// Columns of [`Packed::appends`].
const START: usize = 0;
const LENGTH: usize = 1;

/// Column of [`Packed::spans`].
const PLACE: usize = 0;

impl Content for Stored {
    type Piece = Slice;
    type Sealed = Packed;

    /// The places in the tables of streams and of the committer, and the record of the state.
    const STREAM_BYTES: usize = 256;

    fn bytes(&self) -> u64 {
        match self {
            Self::Kept(_) => size_of::<Kept>() as u64 + 16,
            Self::Packed(_) => 0,
        }
    }

    fn piece(&self, range: Range<usize>) -> Slice {
        Slice { span: self.span(), range }
    }
}

impl Sealed<Stored> for Packed {
    fn seal(records: Vec<Record<Stored>>) -> Self {
        let end = records.last().map(Record::end).unwrap_or_default();
        let (mut appends, mut spans) = (Vec::new(), Vec::new());
        let (mut divided, mut shared, mut segments, mut extent) =
            (Vec::new(), Vec::new(), None, Extent::default());
        for (row, Record { start, shape, content, at, annotation: _ }) in (0..).zip(records) {
            appends.push([start.0, shape.len() as u64, moment(at).cast_unsigned(), shape.is_json().into()]);
            extent.messages += shape.messages();
            extent.bytes += shape.len() as u64;
            spans.push(span_row(content.span(), shape.len() as u64));
            if !shape.ends().is_empty() {
                divided.push((row, shape));
            }
            match content {
                Stored::Kept(kept) => match Arc::try_unwrap(kept) {
                    Ok(kept) => segments = kept.into_span().1.or(segments),
                    Err(kept) => shared.push((row, kept)),
                },
                Stored::Packed(_) => debug_assert!(false, "another run owns the record"),
            }
        }
        Self {
            appends: Table::of(&appends),
            spans: Mutex::new(Table::of(&spans)),
            divided: divided.into(),
            kept: shared.into(),
            end,
            extent,
            segments,
        }
    }

    fn bytes(&self) -> u64 {
        let divided = self.divided.iter().map(|(_, shape)| size_of_val(shape.ends())).sum::<usize>();
        let tables = self.appends.bytes() + self.spans.lock().bytes();
        let kept = self.kept.len() * (size_of::<Kept>() + 16);
        let lists = size_of_val(&*self.divided) + size_of_val(&*self.kept);
        (size_of::<Self>() + tables + divided + kept + lists) as u64
    }

    fn start(&self) -> Position {
        Position(self.appends.range(START).0)
    }

    fn end(&self) -> Position {
        self.end
    }

    fn extent(&self) -> Extent {
        self.extent
    }

    fn records_from(&self, from: Position) -> impl Iterator<Item = Cow<'_, Record<Stored>>> {
        let first = self.row_of(from);
        (first..self.appends.len()).map(|row| Cow::Owned(self.record(row)))
    }
}

impl Packed {
    /// The row of the append that contains `from` or is the first after it.
    fn row_of(&self, from: Position) -> usize {
        let (mut low, mut high) = (0, self.appends.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.appends.get(middle, START) <= from.0 { low = middle + 1 } else { high = middle }
        }
        let holds = low.checked_sub(1).filter(|row| self.record_shape(*row).1 > from);
        holds.unwrap_or(low)
    }

    /// The shape of an append, and the position after it.
    fn record_shape(&self, row: usize) -> (Shape, Position) {
        let [start, length, _, is_json] = self.appends.row(row);
        let shape = self.shape(row, length, is_json);
        let end = Position(start).after(shape.positions());
        (shape, end)
    }

    fn shape(&self, row: usize, length: u64, is_json: u64) -> Shape {
        if let Some(shape) = found(&self.divided, row) {
            return shape.clone();
        }
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        if is_json == 0 { Shape::message(length) } else { Shape::json(length, Vec::new()) }
    }

    fn record(&self, row: usize) -> Record<Stored> {
        let [start, length, at, is_json] = self.appends.row(row);
        let content = match found(&self.kept, row) {
            Some(kept) => Stored::Kept(kept.clone()),
            None => Stored::Packed(span_of(self.spans.lock().row(row), length)),
        };
        Record {
            start: Position(start),
            shape: self.shape(row, length, is_json),
            content,
            at: time(at.cast_signed()),
            annotation: None,
        }
    }

    /// The records in a segment: those that only this run owns, with their rows, and those with other owners.
    pub(super) fn records_in(&self, segment: u32) -> (Vec<(usize, RecordSpan)>, Vec<Arc<Kept>>) {
        let kept = self.kept.iter().filter(|(_, kept)| kept.place().segment == segment);
        let kept = kept.map(|(_, kept)| kept.clone()).collect();
        let spans = self.spans.lock();
        let (least, most) = spans.range(PLACE);
        if !(place(least).segment..=place(most).segment).contains(&segment) {
            return (Vec::new(), kept);
        }
        let rows = (0..spans.len()).filter(|row| place(spans.get(*row, PLACE)).segment == segment);
        let rows = rows.filter(|row| found(&self.kept, *row).is_none());
        (rows.map(|row| (row, span_of(spans.row(row), self.appends.get(row, LENGTH)))).collect(), kept)
    }

    /// Sets the locations of some rows to copies of the records, which must be synced.
    pub(super) fn move_to(&self, moved: &[(usize, RecordSpan)]) {
        let Some(segments) = &self.segments else { return };
        let mut table = self.spans.lock();
        let mut rows: Vec<_> = table.rows().collect();
        for (row, to) in moved {
            let length = self.appends.get(*row, LENGTH);
            if let Some(row) = rows.get_mut(*row) {
                let from = span_of(*row, length);
                segments.count_in(to.place.segment, to.bytes.into());
                segments.count_out(from.place.segment, from.bytes.into());
                *row = span_row(*to, length);
            }
        }
        *table = Table::of(&rows);
    }
}

impl Drop for Packed {
    fn drop(&mut self) {
        let Some(segments) = &self.segments else { return };
        let spans = self.spans.get_mut();
        let mut gone = (0, 0);
        for row in (0..spans.len()).filter(|row| found(&self.kept, *row).is_none()) {
            let RecordSpan { place, bytes } = span_of(spans.row(row), self.appends.get(row, LENGTH));
            if place.segment != gone.0 {
                segments.count_out(gone.0, gone.1);
                gone = (place.segment, 0);
            }
            gone.1 += u64::from(bytes);
        }
        segments.count_out(gone.0, gone.1);
    }
}

/// The item of a row in `list`.
fn found<T>(list: &[(u32, T)], row: usize) -> Option<&T> {
    let index = list.binary_search_by_key(&row, |(row, _)| *row as usize).ok()?;
    list.get(index).map(|(_, item)| item)
}

/// A span as a row of [`Packed::spans`]. As numbers, locations in one segment are close together.
fn span_row(span: RecordSpan, length: u64) -> [u64; 2] {
    let RecordSpan { place, bytes } = span;
    [u64::from(place.segment) << 32 | u64::from(place.offset), u64::from(bytes).saturating_sub(length)]
}

fn span_of([at, beside]: [u64; 2], length: u64) -> RecordSpan {
    RecordSpan { place: place(at), bytes: u32::try_from(beside + length).unwrap_or(u32::MAX) }
}

fn place(number: u64) -> FrameLocation {
    FrameLocation { segment: (number >> 32) as u32, offset: (number & u64::from(u32::MAX)) as u32 }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::segment::Segment;
    use super::*;

    /// Two segments without records in use.
    fn segments(directory: &tempfile::TempDir) -> Arc<Segments> {
        let segments = Segments::new(directory.path()).unwrap();
        for number in [1, 2] {
            segments.insert(Arc::new(Segment::make(segments.folder(), number, 4096).unwrap()));
        }
        Arc::new(segments)
    }

    fn live(segments: &Segments) -> [u64; 2] {
        [1, 2].map(|number| segments.get(number).unwrap().live())
    }

    /// Consecutive appends of every shape, with records in the first segment.
    fn records(segments: &Arc<Segments>, count: u32) -> Vec<Record<Stored>> {
        let mut start = Position(7);
        let records = (0..count).map(|n| {
            let shape = match n % 3 {
                0 => Shape::raw(n + 1),
                1 => Shape::json(n + 1, Vec::new()),
                _ => Shape::json(n + 4, vec![1, n + 4]),
            };
            let place = FrameLocation { segment: 1, offset: 64 + 40 * n };
            let content = Stored::Kept(Kept::new(segments, place, 30 + n));
            let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(5_000 - u64::from(n));
            let record = Record { start, shape, content, at, annotation: None };
            start = record.end();
            record
        });
        records.collect()
    }

    type Seen = (Position, Shape, RecordSpan, SystemTime);

    fn seen(record: &Record<Stored>) -> Seen {
        (record.start, record.shape.clone(), record.content.span(), record.at)
    }

    fn all(packed: &Packed, from: Position) -> Vec<Seen> {
        packed.records_from(from).map(|record| seen(&record)).collect()
    }

    #[test]
    fn a_run_returns_the_sealed_appends_from_every_position() {
        let directory = tempfile::tempdir().unwrap();
        let segments = segments(&directory);
        let records = records(&segments, 20);
        let expected: Vec<_> = records.iter().map(seen).collect();
        let ends: Vec<_> = records.iter().map(Record::end).collect();
        let packed = Packed::seal(records);
        assert_eq!((packed.start(), packed.end()), (Position(7), ends[19]));
        for position in 0..=packed.end().0 + 1 {
            let first = ends.partition_point(|end| end.0 <= position);
            assert_eq!(all(&packed, Position(position)), expected[first..], "from {position}");
        }
        let extent = packed.extent();
        let bytes: u64 = expected.iter().map(|(_, shape, ..)| shape.len() as u64).sum();
        assert_eq!((extent.messages, extent.bytes), (7 + 7 + 2 * 6, bytes));
    }

    #[test]
    fn each_record_is_counted_once_until_its_last_owner_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let segments = segments(&directory);
        let records = records(&segments, 4);
        let bytes = 30 + 31 + 32 + 33;
        let Stored::Kept(shared) = records[2].content.clone() else { panic!("not kept") };
        let packed = Packed::seal(records);
        assert_eq!(live(&segments), [bytes, 0]);
        let (rows, kept) = packed.records_in(1);
        assert_eq!((rows.iter().map(|(row, _)| *row).collect::<Vec<_>>(), kept.len()), (vec![0, 1, 3], 1));
        let to = |offset| RecordSpan { place: FrameLocation { segment: 2, offset }, bytes: 50 };
        packed.move_to(&[(0, to(100)), (3, to(200))]);
        assert_eq!(live(&segments), [31 + 32, 100]);
        shared.move_to(to(300));
        assert_eq!(live(&segments), [31, 150]);
        let spans: Vec<_> = all(&packed, Position(0)).into_iter().map(|(.., span, _)| span).collect();
        assert_eq!((spans[0], spans[2], spans[3]), (to(100), to(300), to(200)));
        assert_eq!(packed.records_in(1).0, [(1, spans[1])]);
        drop((packed, kept));
        assert_eq!(live(&segments), [0, 50], "it has another owner");
        drop(shared);
        assert_eq!(live(&segments), [0, 0]);
    }
}
