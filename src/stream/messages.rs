//! From the body of an append to its messages (protocol, section 9.1).

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::value::RawValue;

use super::{ContentType, Payload};

/// Why a body is no JSON append.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessages {
    /// It is not JSON (RFC 8259).
    #[error("the body is not valid JSON: {0}")]
    NotJson(String),
    /// It nests deeper than the limit.
    #[error("the JSON nests deeper than {0} levels")]
    TooDeep(usize),
}

/// Splits `body` by the rules of `content_type`: JSON arrays are flattened by one level, anything else is one
/// piece. An empty array is an empty payload. JSON values keep their bytes; nothing is re-encoded.
pub fn split(body: Bytes, content_type: &ContentType, depth_max: usize) -> Result<Payload, InvalidMessages> {
    if !content_type.is_json() || body.is_empty() {
        return Ok(Payload::raw(body));
    }
    if json_depth(&body) > depth_max {
        return Err(InvalidMessages::TooDeep(depth_max));
    }
    let not_json = |error: serde_json::Error| InvalidMessages::NotJson(error.to_string());
    let is_array = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let values: Vec<&RawValue> = if is_array {
        serde_json::from_slice(&body).map_err(not_json)?
    } else {
        vec![serde_json::from_slice(&body).map_err(not_json)?]
    };
    let values: Vec<Bytes> = values.iter().map(|value| body.slice_ref(value.get().as_bytes())).collect();
    Ok(joined_in_place(&body, &values).unwrap_or_else(|| joined(&values)))
}

/// The values as they lie in the body, if just a comma is between them, as encoders write them.
fn joined_in_place(body: &Bytes, values: &[Bytes]) -> Option<Payload> {
    let start_of = |value: &Bytes| value.as_ptr() as usize - body.as_ptr() as usize;
    let start = start_of(values.first()?);
    let mut end = start;
    let mut ends = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        if index > 0 && start_of(value) != end + 1 {
            return None;
        }
        end = start_of(value) + value.len();
        ends.push(u32::try_from(end - start).ok()?);
    }
    Some(Payload::json(body.slice(start..end), ends))
}

fn joined(values: &[Bytes]) -> Payload {
    let size = values.iter().map(|value| value.len() + 1).sum();
    let mut bytes = BytesMut::with_capacity(size);
    let mut ends = Vec::with_capacity(values.len());
    for value in values {
        if !bytes.is_empty() {
            bytes.put_u8(b',');
        }
        bytes.extend_from_slice(value);
        ends.push(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    }
    Payload::json(bytes.freeze(), ends)
}

/// How deep brackets nest outside of strings, whether or not the text is JSON.
pub fn json_depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split_json(body: &str) -> Result<Vec<String>, InvalidMessages> {
        let json = ContentType::parse("application/json").unwrap();
        let payload = split(Bytes::copy_from_slice(body.as_bytes()), &json, 64)?;
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let count = payload.positions();
        Ok((0..count).map(|n| text(payload.until(n + 1).since(n))).collect())
    }

    #[test]
    fn arrays_are_flattened_by_one_level_and_nothing_else_is() {
        for (body, values) in [
            (r#"{"a":1}"#, vec![r#"{"a":1}"#]),
            (r#" [1, "x,y" ,[2,3],{} ] "#, vec!["1", r#""x,y""#, "[2,3]", "{}"]),
            ("[[1,2],[3]]", vec!["[1,2]", "[3]"]),
            ("[[[1]]]", vec!["[[1]]"]),
            ("[]", vec![]),
            ("null", vec!["null"]),
            (r#"["",""]"#, vec![r#""""#, r#""""#]),
        ] {
            assert_eq!(split_json(body).unwrap(), values, "{body}");
        }
    }

    #[test]
    fn a_body_of_another_type_is_one_message_and_an_empty_one_none() {
        let split_as = |content_type: &str, body: &'static [u8]| {
            split(Bytes::from_static(body), &ContentType::parse(content_type).unwrap(), 64).unwrap()
        };
        let text = split_as("text/plain", b"[1,2]");
        assert_eq!((text.messages(), text.since(0).as_ref()), (1, &b"[1,2]"[..]));
        assert_eq!(split_as("text/plain", b"").positions(), 0);
        assert_eq!(split_as("application/json", b"").positions(), 0);
    }

    #[test]
    fn compact_arrays_are_not_copied() {
        let body = Bytes::from_static(br#"[1,{"a":2}]"#);
        let json = ContentType::parse("application/json").unwrap();
        let payload = split(body.clone(), &json, 64).unwrap();
        assert_eq!(payload.since(0).as_ptr() as usize, body.as_ptr() as usize + 1);
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for body in ["{", "[1,]", "tru", "\"\u{0}\"", "1 2", "[1][2]", "'a'", "\u{feff}1"] {
            assert!(matches!(split_json(body), Err(InvalidMessages::NotJson(_))), "{body:?}");
        }
    }

    #[test]
    fn depth_counts_brackets_outside_of_strings() {
        assert!(split_json(&("[".repeat(64) + &"]".repeat(64))).is_ok());
        assert_eq!(split_json(&("[".repeat(65) + &"]".repeat(65))), Err(InvalidMessages::TooDeep(64)));
        assert_eq!(split_json(&"[".repeat(1_000_000)), Err(InvalidMessages::TooDeep(64)));
        for (text, depth) in
            [("[{}][]", 2), (r#"["[[",{"]]":[]}]"#, 3), (r#"["\"[[",[]]"#, 2), (r#"["\\",[[]]]"#, 3)]
        {
            assert_eq!(json_depth(text.as_bytes()), depth, "{text}");
        }
        assert!(split_json(&format!(r#""{}\"{}""#, "[".repeat(100), "{".repeat(100))).is_ok());
    }
}
