//! What a subscription hands out.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::error::CertificateError;
use crate::refusal::Refusal;

/// A message, or something that a reader must know between two of them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Item {
    /// What somebody appended.
    Message(Message),
    /// Messages that are no longer kept were missed; what follows begins at the earliest that is.
    Gap {
        /// Of which stream.
        stream: Arc<str>,
        /// In the gateway's words: `reason=trimmed; missed=3` or `reason=epoch`.
        reason: Arc<str>,
    },
    /// The stream does not exist (any more). It is waited for.
    Missing {
        /// Which stream.
        stream: Arc<str>,
    },
    /// Nothing will ever follow in this stream.
    Closed {
        /// Which stream.
        stream: Arc<str>,
    },
    /// The gateway will never answer such a request, or does not accept the credentials (401, 403); nothing follows.
    Refused(Refusal),
    /// The certificate of the gateway is not trusted; nothing follows.
    Untrusted(CertificateError),
}

/// A message of a stream.
#[derive(Debug, Clone)]
pub struct Message {
    /// Of which stream.
    pub stream: Arc<str>,
    /// What was appended.
    pub data: Data,
}

/// The content of a message, by the content type of its stream.
#[derive(Debug, Clone)]
pub enum Data {
    /// One value of a JSON stream, to the letter.
    Json(Box<RawValue>),
    /// What was appended to a `text/*` stream: perhaps several appends in one, as they have no bounds.
    Text(String),
    /// What was appended to any other stream.
    Binary(Bytes),
}

impl Data {
    /// The content as bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Json(value) => value.get().as_bytes(),
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }
}
