//! What differs between the live forms: content type and encoding.

use bytes::Bytes;

use crate::http::api::form::Form;
use crate::http::read::envelope::{self, Frame};
use crate::http::read::sse;
use crate::hub::{OriginStatus, Update};
use crate::stream::{CacheCursor, Offset};

/// The encoding of a live form.
pub(in crate::http) struct Format {
    pub(super) form: Form,
    pub(super) content_type: &'static str,
    /// Encodes an update of one stream, with the state of its origin if it has one.
    pub(super) one: fn(&Update, CacheCursor, Option<&OriginStatus>) -> Bytes,
    /// Encodes why the rights of a client of one stream have ended, with its offset.
    pub(super) end: fn(&'static str, Option<Offset>) -> Bytes,
    /// The bytes around an envelope over many streams.
    pub(super) many: Frame,
}

/// The conformance tests of the protocol require this content type without a `charset` for one stream.
pub(in crate::http) const SSE: Format = Format {
    form: Form::Sse,
    content_type: "text/event-stream",
    one: sse::event,
    end: sse::end,
    many: Frame::EVENT,
};

pub(in crate::http) const NDJSON: Format = Format {
    form: Form::Ndjson,
    content_type: "application/x-ndjson",
    one: |update, cursor, origin| envelope::one(update, cursor, origin, Frame::LINE),
    end: |why, offset| envelope::end_of_one(why, offset, Frame::LINE),
    many: Frame::LINE,
};

/// The response to a handshake has no content type, and all frames with envelopes are text.
pub(in crate::http) const WEBSOCKET: Format = Format {
    form: Form::WebSocket,
    content_type: "",
    one: |update, cursor, origin| envelope::one(update, cursor, origin, Frame::NONE),
    end: |why, offset| envelope::end_of_one(why, offset, Frame::NONE),
    many: Frame::NONE,
};
