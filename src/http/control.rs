//! What a live form says beside the messages: the cursor and what has become of the stream.

use serde::Serialize;

use super::error::gap_text;
use crate::hub::Update;
use crate::stream::{Batch, Cursor, Gap};

/// The `control` event of server-sent events and the fields of an envelope around its data (protocol, section
/// 5.8).
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Control {
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_next_offset: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_cursor: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    up_to_date: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stream_closed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    missing: bool,
}

impl Control {
    /// `cursor` is for caches, if the form has one.
    pub(super) fn of(update: &Update, cursor: Option<Cursor>) -> Self {
        let cursor = cursor.map(|cursor| cursor.0.to_string());
        match update {
            Update::Batch(batch) => Self::behind(batch, cursor),
            Update::Gap(gap) => Self::of_gap(gap, cursor),
        }
    }

    /// There is no such stream. As long as that is so, all of it has been read.
    pub(super) fn of_missing() -> Self {
        Self { missing: true, up_to_date: true, ..Self::default() }
    }

    fn behind(batch: &Batch, cursor: Option<String>) -> Self {
        Self {
            stream_next_offset: Some(batch.next.to_string()),
            stream_cursor: cursor.filter(|_| !batch.closed),
            up_to_date: batch.up_to_date,
            stream_closed: batch.closed,
            ..Self::default()
        }
    }

    fn of_gap(gap: &Gap, cursor: Option<String>) -> Self {
        Self {
            stream_next_offset: Some(gap.earliest.to_string()),
            stream_cursor: cursor,
            gap: Some(gap_text(gap)),
            ..Self::default()
        }
    }

    /// The JSON object.
    pub(super) fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}
