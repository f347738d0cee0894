//! Refuses JSON that readers may understand in different ways: a name that occurs twice in an object, of which some take the first
//! and some the last member (RFC 7519, section 4), and `null` in the place of a value that decides whether a token counts.

use std::collections::HashSet;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

/// Members of headers and claims that the gateway obeys (RFC 7515, section 4.1; RFC 7519, section 4.1). Without this check, `null`
/// would count as a member that is not there.
const NEVER_NULL: [&str; 15] = [
    "alg", "typ", "kid", "crit", "jwk", "jku", "x5u", "x5c", "iss", "sub", "aud", "exp", "nbf", "iat", "jti",
];

/// Whether the header and the claims of a token are objects that all readers understand in the same way.
pub(super) fn is_unambiguous(token: &[u8]) -> bool {
    let mut parts = token.split(|byte| *byte == b'.');
    let is_strict = |part: Option<&[u8]>| {
        let json = part.and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
        json.is_some_and(|json| matches!(serde_json::from_slice(&json), Ok(StrictValue::Object)))
    };
    is_strict(parts.next()) && is_strict(parts.next())
}

/// A value in which no object has a name twice. Only its kind is kept.
#[derive(Debug, PartialEq, Eq)]
enum StrictValue {
    Null,
    Object,
    Other,
}

impl<'de> Deserialize<'de> for StrictValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor { is_top: true })
    }
}

/// A value within another one.
struct NestedValue(StrictValue);

impl<'de> Deserialize<'de> for NestedValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor { is_top: false }).map(Self)
    }
}

struct StrictVisitor {
    is_top: bool,
}

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = StrictValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<StrictValue, A::Error> {
        let mut names = HashSet::new();
        while let Some((name, NestedValue(value))) = members.next_entry::<String, NestedValue>()? {
            if self.is_top && value == StrictValue::Null && NEVER_NULL.contains(&name.as_str()) {
                return Err(de::Error::custom("null"));
            }
            if !names.insert(name) {
                return Err(de::Error::custom("a name occurs twice"));
            }
        }
        Ok(StrictValue::Object)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<StrictValue, A::Error> {
        while items.next_element::<NestedValue>()?.is_some() {}
        Ok(StrictValue::Other)
    }

    fn visit_unit<E>(self) -> Result<StrictValue, E> {
        Ok(StrictValue::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<StrictValue, E> {
        Ok(StrictValue::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<StrictValue, E> {
        Ok(StrictValue::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<StrictValue, E> {
        Ok(StrictValue::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<StrictValue, E> {
        Ok(StrictValue::Other)
    }

    fn visit_str<E>(self, _: &str) -> Result<StrictValue, E> {
        Ok(StrictValue::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(header: &str, claims: &str) -> bool {
        let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
        is_unambiguous(format!("{header}.{claims}.c2ln").as_bytes())
    }

    #[test]
    fn each_name_occurs_once_in_its_object() {
        let claims = r#"{"a":1,"b":[{"a":1},{"a":-2.5}],"c":{"a":{"a":true}},"d":"a","e":null}"#;
        assert!(holds(r#"{"alg":"EdDSA"}"#, claims));
        for twice in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"b":[{"a":1,"a":2}]}"#,
            r#"{"b":{"a":1,"a":2}}"#,
        ] {
            assert!(!holds("{}", twice), "{twice}");
            assert!(!holds(twice, "{}"), "{twice}");
        }
    }

    #[test]
    fn what_decides_whether_a_token_counts_is_not_null() {
        for name in NEVER_NULL {
            assert!(!holds("{}", &format!("{{\"{name}\":null}}")), "{name}");
        }
        assert!(holds(r#"{"x":null}"#, r#"{"act":{"sub":null}}"#));
    }

    #[test]
    fn both_parts_are_objects() {
        for other in ["", "[]", "null", "7", "\"{}\"", "{} {}"] {
            assert!(!holds(other, "{}") && !holds("{}", other), "{other}");
        }
        assert!(!is_unambiguous(b"e30"));
    }
}
