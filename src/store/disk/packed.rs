//! A sealed run of a log on disk: for each append a row of numbers that says where its record lies, in about 8 bytes.
//! What its publisher said is read together with its content.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::frame::Place;
use super::kept::{Kept, Slice, Span, Stored};
use super::record::{moment, time};
use super::segment::Segments;
use super::table::Table;
use crate::store::log::{Content, Extent, Record, Sealed};
use crate::stream::{Position, Shape};

/// Appends whose records nobody else owns, but for those in `kept`.
#[derive(Debug)]
pub(super) struct Packed {
    /// What does not change: the first position, the bytes of the content, when it was appended, whether it is JSON.
    appends: Table<4>,
    /// Where each record lies: its segment and offset, and its bytes beside the content.
    spans: Mutex<Table<2>>,
    /// Where JSON values end, of the appends with several ones, by row.
    divided: Box<[(u32, Shape)]>,
    /// Records that others own too, by row. Their spans are there and not in `spans`.
    kept: Box<[(u32, Arc<Kept>)]>,
    end: Position,
    extent: Extent,
    /// `None` if all records are in `kept`.
    segments: Option<Arc<Segments>>,
}

/// Columns of `Packed::appends`.
const START: usize = 0;
const LENGTH: usize = 1;

/// A column of `Packed::spans`.
const PLACE: usize = 0;

impl Content for Stored {
    type Piece = Slice;
    type Sealed = Packed;

    /// The places in the table and with the committer, and the record of its state.
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
                    Ok(kept) => segments = kept.give_up().1.or(segments),
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
    /// The row of the append that holds `from`, or that is the first behind it.
    fn row_of(&self, from: Position) -> usize {
        let (mut low, mut high) = (0, self.appends.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.appends.get(middle, START) <= from.0 { low = middle + 1 } else { high = middle }
        }
        let holds = low.checked_sub(1).filter(|row| self.record_shape(*row).1 > from);
        holds.unwrap_or(low)
    }

    /// The shape of an append, and where it ends.
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
        if is_json == 0 { Shape::raw(length) } else { Shape::json(length, Vec::new()) }
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

    /// The records that lie in a segment: those that only this run owns, by row, and others.
    pub(super) fn lying_in(&self, segment: u32) -> (Vec<(usize, Span)>, Vec<Arc<Kept>>) {
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

    /// The records of some rows lie there now, and are synced.
    pub(super) fn move_to(&self, moved: &[(usize, Span)]) {
        let Some(segments) = &self.segments else { return };
        let mut table = self.spans.lock();
        let mut rows: Vec<_> = (0..table.len()).map(|row| table.row(row)).collect();
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
            let Span { place, bytes } = span_of(spans.row(row), self.appends.get(row, LENGTH));
            if place.segment != gone.0 {
                segments.count_out(gone.0, gone.1);
                gone = (place.segment, 0);
            }
            gone.1 += u64::from(bytes);
        }
        segments.count_out(gone.0, gone.1);
    }
}

/// What `list` has of a row.
fn found<T>(list: &[(u32, T)], row: usize) -> Option<&T> {
    let index = list.binary_search_by_key(&row, |(row, _)| *row as usize).ok()?;
    list.get(index).map(|(_, item)| item)
}

/// A span as a row of `Packed::spans`: places sort as numbers, and those in one segment lie near to each other.
fn span_row(span: Span, length: u64) -> [u64; 2] {
    let Span { place, bytes } = span;
    [u64::from(place.segment) << 32 | u64::from(place.offset), u64::from(bytes).saturating_sub(length)]
}

fn span_of([at, beside]: [u64; 2], length: u64) -> Span {
    Span { place: place(at), bytes: u32::try_from(beside + length).unwrap_or(u32::MAX) }
}

fn place(number: u64) -> Place {
    Place { segment: (number >> 32) as u32, offset: (number & u64::from(u32::MAX)) as u32 }
}
