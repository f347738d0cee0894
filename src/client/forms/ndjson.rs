//! NDJSON: an envelope a line.

use super::super::attempt::End;
use super::super::envelope::Envelope;
use super::super::lines::Lines;
use super::answer::Answer;
use super::{Ended, Got};

/// An open stream of lines.
pub(in super::super) struct Ndjson {
    answer: Answer,
    lines: Lines,
}

impl Ndjson {
    pub(super) fn over(answer: Answer) -> Self {
        Self { answer, lines: Lines::default() }
    }

    pub(super) async fn next(&mut self) -> Result<Got, Ended> {
        if let Some(line) = self.lines.next() {
            return Ok(Got::Envelope(Envelope::parse(&line)?));
        }
        let bytes = self.answer.more().await?.ok_or(End::Clean)?;
        self.lines.put(&bytes)?;
        Ok(Got::Bytes)
    }
}
