//! [`SeenDigests`]: what the stream already has of its origin, as digests, and what of a new response is to be appended. Pure.
//!
//! Without a key, a response is one thing: it is appended if its digest differs from the last one. With a key, each element of a JSON
//! array is: those are appended whose key is new, or whose digest differs from that of the last response. Elements that an origin does
//! not have any more are forgotten.

use std::collections::BTreeMap;

use bytes::Bytes;
use ring::digest::{SHA256, digest};
use serde_json::Value;
use serde_json::value::RawValue;

use super::response::PollFailure;
use crate::hub::{ElementKey, SeenEntry};
use crate::stream::{ContentType, Payload, json_depth, split};

/// The key of the entry for the whole response.
const WHOLE: &[u8] = b"whole";

/// Begins the keys of the entries for elements; the first byte of the digests of their keys follows. An entry has all elements with that
/// byte, so that a change of some elements writes a part of them.
const ELEMENTS: &[u8] = b"part";

/// Bytes of a digest that are kept.
const DIGEST_BYTES: usize = 16;

/// An entry for elements consists of pairs of digests.
const PAIR_BYTES: usize = 2 * DIGEST_BYTES;

/// Memory of an element: its digests in the tree, and in the entry that is stored.
const ELEMENT_BYTES: usize = 100;

/// The beginning of a SHA-256.
type ElementDigest = [u8; DIGEST_BYTES];

/// What the stream has of its origin.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
pub(super) struct SeenDigests {
    /// The last response.
    whole: Option<ElementDigest>,
    /// The elements of the last response, by the digests of their keys.
    elements: BTreeMap<ElementDigest, ElementDigest>,
}

/// What a response changes.
#[derive(Debug)]
pub(super) struct SeenChange {
    /// The messages to append; may be none.
    pub(super) payload: Payload,
    /// What the stream has once they are appended.
    pub(super) seen: SeenDigests,
    /// How that is stored.
    pub(super) entries: Vec<SeenEntry>,
}

/// The limits of a response.
#[derive(Debug, Clone, Copy)]
pub(super) struct ContentLimits {
    /// Nesting depth of JSON.
    pub(super) json_depth_max: usize,
    /// Elements of a response with a key.
    pub(super) elements_max: usize,
}

impl SeenDigests {
    /// Reads what is stored. Damaged entries are ignored, and their elements are appended again.
    pub(super) fn stored(entries: &[(Bytes, Bytes)]) -> Self {
        let whole = entries.iter().find(|(key, _)| key == WHOLE).and_then(|(_, value)| digest_of(value));
        let parts = entries.iter().filter(|(key, _)| key.starts_with(ELEMENTS));
        let pairs = parts.flat_map(|(_, value)| value.chunks_exact(PAIR_BYTES));
        let pairs = pairs.filter_map(|pair| {
            let (key, content) = pair.split_at_checked(DIGEST_BYTES)?;
            Some((digest_of(key)?, digest_of(content)?))
        });
        Self { whole, elements: pairs.collect() }
    }

    /// Memory of the digests, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.elements.len() * ELEMENT_BYTES
    }

    /// Compares a response with what the stream has. `None`: nothing has changed.
    pub(super) fn compare(
        &self,
        body: Bytes,
        content_type: &ContentType,
        key: Option<&ElementKey>,
        limits: ContentLimits,
    ) -> Result<Option<SeenChange>, PollFailure> {
        let whole = Some(digested(&body));
        if self.whole == whole {
            return Ok(None);
        }
        let (payload, elements) = match key {
            None => {
                let payload = split(body, content_type, limits.json_depth_max);
                (payload.map_err(|_| PollFailure::Json)?, BTreeMap::new())
            }
            Some(key) => self.compare_elements(&body, key, limits)?,
        };
        let seen = Self { whole, elements };
        let entries = self.entries_to(&seen);
        Ok(Some(SeenChange { payload, seen, entries }))
    }

    fn compare_elements(
        &self,
        body: &[u8],
        key: &ElementKey,
        limits: ContentLimits,
    ) -> Result<(Payload, BTreeMap<ElementDigest, ElementDigest>), PollFailure> {
        if json_depth(body) > limits.json_depth_max {
            return Err(PollFailure::Json);
        }
        let elements: Vec<&RawValue> = serde_json::from_slice(body).map_err(|_| PollFailure::Json)?;
        if elements.len() > limits.elements_max {
            return Err(PollFailure::TooManyElements);
        }
        let mut last = BTreeMap::new();
        for (index, element) in elements.iter().enumerate() {
            let value: Value = serde_json::from_str(element.get()).map_err(|_| PollFailure::Json)?;
            let key = key.of(&value).ok_or(PollFailure::Key)?;
            // Of several elements with one key, the last one counts.
            last.insert(digested(key.as_bytes()), (index, digested(element.get().as_bytes())));
        }
        let mut changed: Vec<usize> = last
            .iter()
            .filter(|(key, (_, content))| self.elements.get(*key) != Some(content))
            .map(|(_, (index, _))| *index)
            .collect();
        changed.sort_unstable();
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(changed.len()));
        for element in changed.into_iter().filter_map(|index| elements.get(index)) {
            if !bytes.is_empty() {
                bytes.push(b',');
            }
            bytes.extend_from_slice(element.get().as_bytes());
            ends.push(u32::try_from(bytes.len()).map_err(|_| PollFailure::TooLarge)?);
        }
        let payload = if ends.is_empty() { Payload::default() } else { Payload::json(bytes.into(), ends) };
        Ok((payload, last.into_iter().map(|(key, (_, content))| (key, content)).collect()))
    }

    /// The entries that differ in `next`.
    fn entries_to(&self, next: &Self) -> Vec<SeenEntry> {
        let whole = next.whole.map(|digest| Bytes::copy_from_slice(&digest));
        let mut entries = vec![(Bytes::from_static(WHOLE), whole)];
        for part in 0..=u8::MAX {
            let (before, after) = (self.part(part), next.part(part));
            if before != after {
                let value = (!after.is_empty()).then(|| Bytes::from(after));
                entries.push(([ELEMENTS, &[part]].concat().into(), value));
            }
        }
        entries
    }

    /// The pairs of the elements whose keys' digests begin with `part`.
    fn part(&self, part: u8) -> Vec<u8> {
        let (mut from, mut to) = ([0; DIGEST_BYTES], [u8::MAX; DIGEST_BYTES]);
        (from[0], to[0]) = (part, part);
        self.elements.range(from..=to).flat_map(|(key, content)| [*key, *content].concat()).collect()
    }
}

fn digested(bytes: &[u8]) -> ElementDigest {
    digest_of(digest(&SHA256, bytes).as_ref().get(..DIGEST_BYTES).unwrap_or_default()).unwrap_or_default()
}

fn digest_of(bytes: &[u8]) -> Option<ElementDigest> {
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ContentLimits = ContentLimits { json_depth_max: 8, elements_max: 1000 };

    fn json() -> ContentType {
        ContentType::parse("application/json").unwrap()
    }

    /// What is appended of a response, and what is seen afterwards, once directly and once through the store.
    fn appended(
        seen: &mut SeenDigests,
        stored: &mut BTreeMap<Bytes, Bytes>,
        body: &str,
        key: Option<&str>,
    ) -> String {
        let key = key.and_then(ElementKey::parse);
        let body = Bytes::copy_from_slice(body.as_bytes());
        let Some(change) = seen.compare(body, &json(), key.as_ref(), LIMITS).unwrap() else {
            return "unchanged".to_owned();
        };
        for (key, value) in change.entries {
            match value {
                Some(value) => drop(stored.insert(key, value)),
                None => drop(stored.remove(&key)),
            }
        }
        let entries: Vec<_> = stored.clone().into_iter().collect();
        assert_eq!(SeenDigests::stored(&entries), change.seen);
        *seen = change.seen;
        String::from_utf8(change.payload.bytes().to_vec()).unwrap()
    }

    #[test]
    fn with_a_key_only_new_and_changed_elements_are_appended() {
        let (mut seen, mut stored) = Default::default();
        let mut poll = |body: &str| appended(&mut seen, &mut stored, body, Some("id"));
        assert_eq!(poll(r#"[{"id":1,"n":1}, {"id":2}]"#), r#"{"id":1,"n":1},{"id":2}"#);
        assert_eq!(poll(r#"[{"id":1,"n":1}, {"id":2}]"#), "unchanged");
        assert_eq!(poll(r#"[{"id":2},{"id":1,"n":1}]"#), "");
        assert_eq!(poll(r#"[{"id":2},{"id":1,"n":9},{"id":"1"}]"#), r#"{"id":1,"n":9},{"id":"1"}"#);
        // An element that comes back is new.
        assert_eq!(poll(r#"[{"id":1,"n":9}]"#), "");
        assert_eq!(poll(r#"[{"id":1,"n":9},{"id":2}]"#), r#"{"id":2}"#);
        // Of two with one key, the last one counts, and is appended once.
        assert_eq!(poll(r#"[{"id":1,"n":7},{"id":1,"n":8}]"#), r#"{"id":1,"n":8}"#);
        assert_eq!(poll(r#"[{"id":1,"n":7},{"id":1,"n":8},{"id":3}]"#), r#"{"id":3}"#);
        assert_eq!(poll("[]"), "");
        assert_eq!(stored.len(), 1);
    }

    #[test]
    fn without_a_key_a_response_that_differs_is_appended_whole() {
        let (mut seen, mut stored) = Default::default();
        let mut poll = |body: &str| appended(&mut seen, &mut stored, body, None);
        assert_eq!(
            [poll("[1,2]"), poll("[1,2]"), poll("{}"), poll("[1,2]")],
            ["1,2", "unchanged", "{}", "1,2"]
        );
    }

    #[test]
    fn a_change_of_one_of_many_elements_writes_a_small_part_of_them() {
        let body = |changed: usize| {
            let elements = (0..1000).map(|id| format!("{{\"id\":{id},\"v\":{}}}", u8::from(id == changed)));
            Bytes::from(format!("[{}]", elements.collect::<Vec<_>>().join(",")))
        };
        let key = ElementKey::parse("id");
        let compare =
            |seen: &SeenDigests, body| seen.compare(body, &json(), key.as_ref(), LIMITS).unwrap().unwrap();
        let first = compare(&SeenDigests::default(), body(1000));
        let second = compare(&first.seen, body(7));
        assert_eq!((first.payload.messages(), second.payload.messages()), (1000, 1));
        let bytes: usize = second.entries.iter().filter_map(|(_, value)| Some(value.as_ref()?.len())).sum();
        assert!(second.entries.len() == 2 && bytes < 1000, "{bytes}");
    }

    #[test]
    fn what_is_no_array_of_elements_with_keys_is_a_failure() {
        let key = ElementKey::parse("id");
        let failure = |body: &'static str, key: Option<&ElementKey>| {
            let limits = ContentLimits { elements_max: 2, ..LIMITS };
            SeenDigests::default().compare(body.into(), &json(), key, limits).err()
        };
        for (body, expected) in [
            ("<html>", PollFailure::Json),
            ("{\"id\":1}", PollFailure::Json),
            ("[[[[[[[[[[1]]]]]]]]]]", PollFailure::Json),
            ("[{\"id\":1},{}]", PollFailure::Key),
            ("[1]", PollFailure::Key),
            ("[{\"id\":1},{\"id\":2},{\"id\":3}]", PollFailure::TooManyElements),
        ] {
            assert_eq!(failure(body, key.as_ref()), Some(expected), "{body}");
        }
        assert_eq!(failure("<html>", None), Some(PollFailure::Json));
    }
}
