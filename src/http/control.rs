//! What a live form says beside the messages: the cursor and what has become of the stream.

use serde::Serialize;

use super::error::gap_text;
use crate::hub::{Batch, Gap, Update};
use crate::stream::Cursor;

/// The `control` event of server-sent events and the fields of an envelope around its data (protocol, section
/// 5.8).
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Control {
    stream_next_offset: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_cursor: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    up_to_date: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stream_closed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<String>,
}

impl Control {
    pub(super) fn of(update: &Update, cursor: Cursor) -> Self {
        match update {
            Update::Batch(batch) => Self::behind(batch, cursor),
            Update::Gap(gap) => Self::of_gap(gap, cursor),
        }
    }

    fn behind(batch: &Batch, cursor: Cursor) -> Self {
        Self {
            stream_next_offset: batch.next.to_string(),
            stream_cursor: (!batch.closed).then(|| cursor.0.to_string()),
            up_to_date: batch.up_to_date,
            stream_closed: batch.closed,
            gap: None,
        }
    }

    fn of_gap(gap: &Gap, cursor: Cursor) -> Self {
        Self {
            stream_next_offset: gap.earliest.to_string(),
            stream_cursor: Some(cursor.0.to_string()),
            gap: Some(gap_text(gap)),
            ..Self::default()
        }
    }

    /// The JSON object.
    pub(super) fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}
