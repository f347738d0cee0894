//! Kinds of streams, and the one spelling in which what was read is compared with what was appended.

use serde_json::value::RawValue;

/// What a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Json,
    Text,
    Binary,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Json, Self::Text, Self::Binary];

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Text => "text/plain",
            Self::Binary => "application/octet-stream",
        }
    }

    /// What an append or an answer holds: in JSON a line for each message, which is the message to the letter but
    /// for the white space between its tokens; otherwise the bytes.
    pub fn log(self, body: &[u8]) -> Vec<u8> {
        if self != Self::Json {
            return body.to_vec();
        }
        let values: Vec<&RawValue> = if body.trim_ascii_start().starts_with(b"[") {
            serde_json::from_slice(body).expect("a JSON array")
        } else {
            vec![serde_json::from_slice(body).expect("JSON")]
        };
        lines(values)
    }
}

/// JSON values in the spelling of the log.
pub(super) fn lines<'a>(values: impl IntoIterator<Item = &'a RawValue>) -> Vec<u8> {
    values.into_iter().map(|value| without_white_space(value.get()) + "\n").collect::<String>().into_bytes()
}

fn without_white_space(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let is_kept = |character: &char| {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => in_string = !in_string,
            _ => {}
        }
        in_string || !character.is_ascii_whitespace()
    };
    json.chars().filter(is_kept).collect()
}
