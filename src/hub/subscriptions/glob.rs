//! [`Glob`]: a pattern of stream names, as subscriptions have them. `*` matches within a segment, `**` any number of segments.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::stream::{ANY_LEVELS, Filter, ONE_LEVEL, StreamName};

/// The longest pattern, in bytes, and its most segments.
const BYTES_MAX: usize = 512;
const SEGMENTS_MAX: usize = 64;

/// Matches any number of segments, including none.
const ANY: &str = "**";

/// A valid pattern: no empty segment, and `**` only as a whole segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Glob(String);

/// The text is not a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidGlob;

impl Glob {
    /// Parses a pattern. Slashes at its ends do not count.
    pub fn parse(text: &str) -> Result<Self, InvalidGlob> {
        let text = text.trim_matches('/');
        let is_segment = |segment: &str| !segment.is_empty() && (segment == ANY || !segment.contains(ANY));
        let is_valid = text.len() <= BYTES_MAX
            && text.split('/').count() <= SEGMENTS_MAX
            && text.split('/').all(is_segment)
            && !text.chars().any(char::is_control);
        if is_valid { Ok(Self(text.to_owned())) } else { Err(InvalidGlob) }
    }

    /// Whether the pattern matches the name, as clients of its tenant know it. A wildcard in the first segment does not match names
    /// that begin with `$`, as in filters.
    pub fn matches(&self, name: &str) -> bool {
        if name.starts_with('$') && !self.0.starts_with('$') {
            return false;
        }
        let segments: Vec<_> = name.split('/').collect();
        // `reached[n]`: the pattern so far matches the first n segments. The cost is the product of both lengths.
        let mut reached = vec![true];
        reached.resize(segments.len() + 1, false);
        for part in self.0.split('/') {
            let before = std::mem::replace(&mut reached, vec![false; segments.len() + 1]);
            if part == ANY {
                let mut is_behind = false;
                for (now, before) in reached.iter_mut().zip(before) {
                    is_behind |= before;
                    *now = is_behind;
                }
            } else {
                let ends = reached.iter_mut().skip(1).zip(&segments).zip(before);
                ends.for_each(|((now, segment), before)| *now = before && matches_segment(part, segment));
            }
        }
        reached.last() == Some(&true)
    }

    /// A filter that matches at least the streams that the pattern matches.
    pub fn filter(&self) -> Filter {
        let mut levels = Vec::new();
        for part in self.0.split('/') {
            if part == ANY {
                levels.push(ANY_LEVELS);
                break;
            }
            let is_literal = !part.contains(['*', '+', '#']);
            levels.push(if is_literal { part } else { ONE_LEVEL });
        }
        match Filter::parse(&levels.join("/")) {
            Ok(filter) if filter.exact().is_none() => filter,
            // Without a wildcard it matches one stream.
            _ => StreamName::stored(&self.0).map_or_else(|_| all_streams(), Filter::literal),
        }
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The filter of all streams. `#` is always valid.
fn all_streams() -> Filter {
    Filter::parse(ANY_LEVELS).unwrap_or_else(|_| Filter::literal(StreamName::behind_tenants()))
}

/// Whether `part`, in which each `*` matches any characters, matches a whole segment. A part that is just `*` matches no empty one,
/// which names do not have.
fn matches_segment(part: &str, segment: &str) -> bool {
    let Some((first, rest)) = part.split_once('*') else { return part == segment };
    let Some(mut left) = segment.strip_prefix(first) else { return false };
    let Some((between, last)) = rest.rsplit_once('*') else { return left.ends_with(rest) };
    // Each literal part is taken at its first place, which leaves most for the others.
    for literal in between.split('*') {
        match left.find(literal) {
            Some(at) => left = left.get(at + literal.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    left.ends_with(last)
}

impl TryFrom<String> for Glob {
    type Error = InvalidGlob;

    fn try_from(text: String) -> Result<Self, InvalidGlob> {
        Self::parse(&text)
    }
}

impl From<Glob> for String {
    fn from(glob: Glob) -> Self {
        glob.0
    }
}

impl fmt::Display for InvalidGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pattern must have 1 to 64 segments and at most 512 bytes; * matches within a segment, ** is a whole segment")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_match_within_a_segment_and_double_stars_any_segments() {
        for (pattern, matching, others) in [
            ("events/*", &["events/a", "events/*"][..], &["events", "events/a/b", "event/a"][..]),
            ("**", &["a", "a/b/c"], &["$auth/revocations"]),
            ("*/a", &["b/a"], &["$b/a"]),
            ("$b/*", &["$b/a"], &["b/a"]),
            ("a/**", &["a", "a/b", "a/b/c"], &["b", "ab"]),
            ("a/**/z", &["a/z", "a/b/z", "a/b/c/z", "a/z/z"], &["a", "z", "a/z/y"]),
            ("**/x/**", &["x", "a/x", "x/b", "a/x/b/c"], &["a", "xx"]),
            ("a*c*e/f", &["ace/f", "abcde/f", "aXcYcZe/f"], &["ac/f", "aec/f", "ace"]),
            ("*a", &["a", "ba"], &["ab", "x/a"]),
            ("a", &["a"], &["a/b", "b"]),
            ("a*a", &["aa", "aba"], &["a"]),
            ("/a/", &["a"], &["b"]),
        ] {
            let glob = Glob::parse(pattern).unwrap();
            for name in matching {
                assert!(glob.matches(name), "{pattern} and {name}");
                assert!(glob.filter().matches(&StreamName::parse(name).unwrap()), "{} {name}", glob.filter());
            }
            for name in others {
                assert!(!glob.matches(name), "{pattern} and {name}");
            }
        }
    }

    #[test]
    fn a_filter_is_never_narrower_than_its_pattern() {
        for (pattern, filter) in
            [("a/*", "a/+"), ("a/**/b", "a/#"), ("a/x+/*", "a/+/+"), ("a#", "+"), ("a/b", "a/b"), ("a*", "+")]
        {
            assert_eq!(Glob::parse(pattern).unwrap().filter().as_str(), filter);
        }
        for text in ["", "/", "a//b", "a/b**", "***", "a\u{7}", &"a/".repeat(65), &"a".repeat(513)] {
            assert_eq!(Glob::parse(text), Err(InvalidGlob), "{text}");
        }
        // The worst pattern against the longest name takes no time to speak of.
        let glob = Glob::parse(&["**"; 64].join("/")).unwrap();
        assert!(glob.matches(&["a"; 255].join("/")));
    }
}
