//! A part of a log: a sealed run, or the beginning of one that a fork shares with its source.

use std::borrow::Cow;
use std::sync::Arc;

use super::record::{Content, Extent, Record, Sealed};
use crate::budget::Charges;
use crate::stream::{Position, Shape};

/// A sealed run, or the first part of one that a fork shares.
#[derive(Debug)]
pub(in crate::store) struct Part<C: Content> {
    pub(in crate::store) run: Arc<C::Sealed>,
    /// The principals of its appends. They are charged until the last log drops the run.
    pub(super) charges: Arc<Charges>,
    /// Where the run ends in this log.
    pub(super) end: Position,
    /// The shape of the last append in this log, if `end` is inside that append.
    pub(super) cut: Option<Box<Shape>>,
}

impl<C: Content> Part<C> {
    pub(in crate::store) fn start(&self) -> Position {
        self.run.start()
    }

    /// A whole run.
    pub(super) fn whole(run: Arc<C::Sealed>, charges: Charges) -> Self {
        Self { end: run.end(), run, charges: Arc::new(charges), cut: None }
    }

    pub(super) fn records_from(&self, from: Position) -> impl Iterator<Item = Cow<'_, Record<C>>> {
        let records = self.run.records_from(from).take_while(|record| record.start < self.end);
        records.map(|record| match &self.cut {
            Some(shape) if record.end() > self.end => {
                Cow::Owned(Record { shape: Shape::clone(shape), ..record.into_owned() })
            }
            _ => record,
        })
    }

    /// The record that ends at `end` or contains it.
    fn record_before(&self, end: Position) -> Option<Cow<'_, Record<C>>> {
        self.records_from(Position(end.0.saturating_sub(1))).next()
    }

    /// The last record.
    pub(super) fn last(&self) -> Option<Cow<'_, Record<C>>> {
        self.record_before(self.end)
    }

    pub(super) fn extent(&self) -> Extent {
        if self.end == self.run.end() {
            return self.run.extent();
        }
        let start = self.run.start();
        self.records_from(start).fold(Extent::default(), |sum, record| sum.plus(record.extent_from(start)))
    }

    /// The part of this run up to `end`.
    pub(super) fn until(&self, end: Position) -> Self {
        let (run, charges) = (self.run.clone(), self.charges.clone());
        if end >= self.end {
            return Self { run, charges, end: self.end, cut: self.cut.clone() };
        }
        let last = self.record_before(end).filter(|record| record.start < end && record.end() > end);
        let cut = last.map(|record| Box::new(record.shape.until(end.since(record.start))));
        Self { run, charges, end, cut }
    }
}
