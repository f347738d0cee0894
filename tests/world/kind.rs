//! Kinds of streams, and the common form in which read and appended data are compared.

use serde_json::value::RawValue;

/// Content of a stream.
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

    /// Returns the data of an append or a response: for JSON one line per message, unchanged except for white space between
    /// tokens; otherwise the bytes.
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

/// Returns JSON values in the form of the log.
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
