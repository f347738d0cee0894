//! Short and long poll: one envelope is the whole answer.

use bytes::BytesMut;

use super::super::attempt::End;
use super::super::connection::Connection;
use super::super::envelope::{ENVELOPE_BYTES_MAX, Envelope};
use super::answer::Answer;
use super::{Ended, Got};

/// A poll whose answer is coming.
pub(in super::super) struct Poll {
    answer: Answer,
    read: BytesMut,
    /// Whether the answer is there as a whole.
    whole: bool,
}

impl Poll {
    pub(super) fn over(answer: Answer) -> Self {
        Self { answer, read: BytesMut::new(), whole: false }
    }

    pub(super) async fn next(&mut self) -> Result<Got, Ended> {
        if self.whole {
            return Err(End::Clean.into());
        }
        match self.answer.more().await? {
            Some(bytes) if self.read.len() + bytes.len() > ENVELOPE_BYTES_MAX => Err(End::NotGateway.into()),
            Some(bytes) => {
                self.read.extend_from_slice(&bytes);
                Ok(Got::Bytes)
            }
            None => {
                self.whole = true;
                Ok(Got::Envelope(Envelope::parse(&self.read)?))
            }
        }
    }

    pub(super) fn into_connection(self) -> Option<Connection> {
        self.whole.then(|| self.answer.into_connection())
    }
}
