//! What all views share: their parameters, why they cannot be shown, and their JSON.

use bytes::Bytes;
use serde::Serialize;

use crate::http::api::target::decoded;
use crate::stream::{Failure, Offset, StreamName};

/// Items that one event lists at most: it is computed again for each event.
pub(super) const EVENT_ITEMS_MAX: usize = 100;

/// The longest text that is searched for, in bytes: that of the longest name.
const SEARCH_BYTES_MAX: usize = 512;

/// Why a view cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(super) enum ViewError {
    #[error("{0}")]
    Parameters(&'static str),
    #[error("there is no such stream")]
    Missing,
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// The parameters of all views. Which of them a view takes is checked by its caller.
#[derive(Debug, Default)]
pub(super) struct ViewParameters {
    pub(super) live: bool,
    pub(super) prefix: String,
    pub(super) contains: String,
    pub(super) after: Option<StreamName>,
    pub(super) limit: Option<usize>,
    pub(super) stream: Option<StreamName>,
    pub(super) before: Option<Offset>,
}

impl ViewParameters {
    /// Parses a query of the parameters in `known`. `None`: there are others, or a value is invalid.
    pub(super) fn parse(query: &str, known: &[&str], limit_max: usize) -> Option<Self> {
        let mut parsed = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').filter(|(key, _)| known.contains(key))?;
            let value = decoded(&value.replace('+', "%20"))?;
            match key {
                "live" if value == "sse" => parsed.live = true,
                "prefix" => parsed.prefix = value,
                "contains" if value.len() <= SEARCH_BYTES_MAX => parsed.contains = value,
                "after" => parsed.after = Some(StreamName::stored(&value).ok()?),
                "stream" => parsed.stream = Some(StreamName::stored(&value).ok()?),
                "before" => parsed.before = Some(value.parse().ok()?),
                "limit" => parsed.limit = Some(value.parse().ok()?),
                _ => return None,
            }
        }
        let limit_max = if parsed.live { limit_max.min(EVENT_ITEMS_MAX) } else { limit_max };
        let is_valid = parsed.limit.is_none_or(|limit| (1..=limit_max).contains(&limit));
        is_valid.then_some(parsed)
    }
}

/// A line of JSON.
pub(super) fn json(value: &impl Serialize) -> Bytes {
    let mut body = serde_json::to_vec(value).unwrap_or_default();
    body.push(b'\n');
    body.into()
}
