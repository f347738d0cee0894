//! Envelopes: batches of messages, and the change of the resume token that comes with them. They are the same in all forms.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::attempt::End;
use crate::item::{Data, Item, Message};
use crate::offset::Offset;
use crate::resume_token::TokenChange;

/// Longest envelope: a full response of binary messages, or one text message of control characters only.
pub(crate) const ENVELOPE_BYTES_MAX: usize = 16 << 20;

/// Content of an envelope.
#[derive(Debug)]
pub(crate) struct Envelope {
    pub(crate) items: Vec<Item>,
    pub(crate) token: TokenChange,
    /// Whether it ends at the tails of the streams.
    pub(crate) up_to_date: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    batches: Vec<Batch>,
    resume: Option<String>,
    resume_delta: Option<String>,
    up_to_date: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Batch {
    stream: String,
    #[serde(default)]
    data: Vec<Box<RawValue>>,
    content_type: Option<String>,
    stream_next_offset: Option<String>,
    /// When each item of `data` was appended, in milliseconds since 1970.
    #[serde(default)]
    times: Vec<u64>,
    gap: Option<String>,
    #[serde(default)]
    missing: bool,
    #[serde(default)]
    forbidden: bool,
    #[serde(default)]
    stream_closed: bool,
}

impl Envelope {
    /// Parses an envelope. JSON that ends early was cut; anything else that is not an envelope is not from the gateway.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, End> {
        let written: Written = serde_json::from_slice(json)
            .map_err(|error| if error.is_eof() && !json.is_empty() { End::Cut } else { End::NotGateway })?;
        let mut items = Vec::new();
        for batch in written.batches {
            batch.put_into(&mut items).ok_or(End::NotGateway)?;
        }
        let token = match (written.resume, written.resume_delta) {
            (Some(token), _) => TokenChange::Replace(token),
            (None, Some(part)) => TokenChange::Append(part),
            (None, None) => TokenChange::Unchanged,
        };
        Ok(Self { items, token, up_to_date: written.up_to_date })
    }
}

impl Batch {
    fn put_into(self, items: &mut Vec<Item>) -> Option<()> {
        let Self {
            stream,
            data,
            content_type,
            stream_next_offset,
            times,
            gap,
            missing,
            forbidden,
            stream_closed,
        } = self;
        let stream: Arc<str> = stream.into();
        if let Some(reason) = gap {
            items.push(Item::Gap { stream: stream.clone(), reason: reason.into() });
        }
        if missing {
            items.push(Item::Missing { stream: stream.clone() });
        }
        if forbidden {
            items.push(Item::Forbidden { stream: stream.clone() });
        }
        let kind = Kind::of(content_type.as_deref());
        let data: Vec<Data> = data.into_iter().map(|value| kind.read(value)).collect::<Option<_>>()?;
        let next: Option<Offset> = stream_next_offset.and_then(|offset| offset.parse().ok());
        let mut left: u64 = data.iter().map(Data::positions).sum();
        let mut times = times.into_iter().map(Duration::from_millis);
        for data in data {
            left = left.saturating_sub(data.positions());
            let time = times.next().and_then(|time| SystemTime::UNIX_EPOCH.checked_add(time));
            let offset = next.map(|next| next.before(left));
            items.push(Item::Message(Message { stream: stream.clone(), data, offset, time }));
        }
        if stream_closed {
            items.push(Item::Closed { stream });
        }
        Some(())
    }
}

impl Data {
    /// How many positions the message takes in its stream. All texts of a batch are one message, the last one.
    fn positions(&self) -> u64 {
        match self {
            Self::Json(_) | Self::Text(_) => 1,
            // A message without bytes takes one position.
            Self::Binary(bytes) => bytes.len().max(1) as u64,
        }
    }
}

/// How messages are encoded in an envelope.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Json,
    Text,
    Binary,
}

impl Kind {
    fn of(content_type: Option<&str>) -> Self {
        let content_type = content_type.unwrap_or("application/json").to_ascii_lowercase();
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json" => Self::Json,
            essence if essence.starts_with("text/") => Self::Text,
            _ => Self::Binary,
        }
    }

    fn read(self, value: Box<RawValue>) -> Option<Data> {
        if let Self::Json = self {
            return Some(Data::Json(value));
        }
        let text: String = serde_json::from_str(value.get()).ok()?;
        match self {
            Self::Binary => Some(Data::Binary(STANDARD.decode(text).ok()?.into())),
            Self::Json | Self::Text => Some(Data::Text(text)),
        }
    }
}

/// What a form has received.
#[derive(Debug)]
pub(crate) enum Received {
    /// Bytes that do not complete an envelope.
    Bytes,
    /// An envelope.
    Envelope(Envelope),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_become_items_in_their_order() {
        let json = r#"{"batches":[{"stream":"a","data":[{"n": 1},[2]],"streamNextOffset":"o","upToDate":true,
            "gap":"reason=trimmed; missed=3","streamClosed":true},{"stream":"t","contentType":"text/plain",
            "data":["x\n"]},{"stream":"b","contentType":"image/png","data":["AAE="]},{"stream":"m","missing":true},
            {"stream":"f","data":[],"forbidden":true}],
            "resumeDelta":"part","upToDate":false}"#;
        let envelope = Envelope::parse(json.as_bytes()).unwrap();
        let shown: Vec<_> = envelope
            .items
            .iter()
            .map(|item| match item {
                Item::Message(message) => format!("{} {:?}", message.stream, message.data.bytes()),
                Item::Gap { stream, reason } => format!("{stream} {reason}"),
                Item::Missing { stream } => format!("{stream} missing"),
                Item::Forbidden { stream } => format!("{stream} forbidden"),
                Item::Closed { stream } => format!("{stream} closed"),
                Item::Refused(refusal) => refusal.to_string(),
                Item::Untrusted(error) => error.to_string(),
            })
            .collect();
        let json = format!("a {:?}", br#"{"n": 1}"#);
        let expected = [
            "a reason=trimmed; missed=3",
            &json,
            "a [91, 50, 93]",
            "a closed",
            "t [120, 10]",
            "b [0, 1]",
            "m missing",
            "f forbidden",
        ];
        assert_eq!(shown, expected);
        assert!(matches!(envelope.token, TokenChange::Append(part) if part == "part"));
        assert!(!envelope.up_to_date);
    }

    #[test]
    fn what_is_cut_off_is_told_from_what_is_no_envelope() {
        assert_eq!(Envelope::parse(br#"{"batches":[{"stream":"a""#).unwrap_err(), End::Cut);
        for strange in [
            "",
            "<html>",
            "[]",
            "{}",
            r#"{"batches":[{"stream":"a","contentType":"a/b","data":["?"]}],"upToDate":true}"#,
        ] {
            assert_eq!(Envelope::parse(strange.as_bytes()).unwrap_err(), End::NotGateway, "{strange}");
        }
    }
}
