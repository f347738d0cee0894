//! Items of a subscription: messages, and what a reader must know between two of them.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::error::CertificateError;
use crate::offset::Offset;
use crate::refusal::Refusal;

/// A message, or something that a reader must know between two messages.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Item {
    /// A message.
    Message(Message),
    /// Messages were missed that are no longer kept. The next message is the earliest that is kept.
    Gap {
        /// Name of the stream.
        stream: Arc<str>,
        /// Value of the field `Stream-Gap`, such as `reason=trimmed; missed=3` or `reason=epoch`.
        reason: Arc<str>,
    },
    /// The stream does not exist. The subscription waits until it is created.
    Missing {
        /// Name of the stream.
        stream: Arc<str>,
    },
    /// The token does not grant this stream, of several. The subscription goes on with the others, and reads this one, too, once a
    /// later token grants it.
    Forbidden {
        /// Name of the stream.
        stream: Arc<str>,
    },
    /// The stream is closed: no message will follow in it.
    Closed {
        /// Name of the stream.
        stream: Arc<str>,
    },
    /// The gateway refuses the request for good, or does not accept the credentials (401, 403). It is the last item.
    Refused(Refusal),
    /// The certificate of the gateway is not trusted. It is the last item.
    Untrusted(CertificateError),
}

/// A message of a stream.
#[derive(Debug, Clone)]
pub struct Message {
    /// Name of the stream.
    pub stream: Arc<str>,
    /// Content of the message.
    pub data: Data,
    /// The offset behind the message. Appends to a `text/*` stream may arrive as one message, which has the offset behind the
    /// last of them.
    pub offset: Option<Offset>,
    /// When the message was appended, by the clock of the gateway; only with [`Settings::times`](crate::Settings::times).
    pub time: Option<SystemTime>,
}

/// The content of a message, by the content type of its stream.
#[derive(Debug, Clone)]
pub enum Data {
    /// One value of a JSON stream, as it was written.
    Json(Box<RawValue>),
    /// Text of a `text/*` stream. Appends to such a stream have no boundaries, so this may be several of them.
    Text(String),
    /// Bytes of a stream of any other content type.
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
