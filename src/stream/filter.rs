//! Which streams somebody means: a name, or a pattern of names with wildcards (MQTT 5, section 4.7).

use std::fmt;
use std::sync::Arc;

use super::StreamName;
use super::name::NAME_BYTES_MAX;

/// The wildcard for one level.
pub const ONE_LEVEL: &str = "+";

/// The wildcard for any number of levels, none too.
pub const ANY_LEVELS: &str = "#";

/// A valid topic filter: 1 to 512 bytes, no control characters, `+` as a whole level, `#` as the whole last one.
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Filter {
    text: Arc<str>,
    exact: Option<StreamName>,
}

/// Why a text is no filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidFilter {
    /// Nothing at all.
    Empty,
    /// More than 512 bytes, as no stream name has.
    TooLong,
    /// A control character, as no stream name has.
    ControlCharacter,
    /// A `+` or `#` that is not a whole level, or a `#` that is not the last one.
    Wildcard,
}

impl Filter {
    /// Checks `text`. What no stream can be called, such as `a//b`, is a filter nevertheless and matches nothing.
    pub fn parse(text: &str) -> Result<Self, InvalidFilter> {
        if text.is_empty() {
            return Err(InvalidFilter::Empty);
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(InvalidFilter::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(InvalidFilter::ControlCharacter);
        }
        let mut levels = text.split('/');
        while let Some(level) = levels.next() {
            let is_last = levels.clone().next().is_none();
            let is_wildcard = level == ONE_LEVEL || (level == ANY_LEVELS && is_last);
            if level.contains(['+', '#']) && !is_wildcard {
                return Err(InvalidFilter::Wildcard);
            }
        }
        let exact = if text.contains(['+', '#']) { None } else { StreamName::parse(text).ok() };
        Ok(Self { text: text.into(), exact })
    }

    /// The stream of this name and no other, even if there is a `+` or `#` in the name.
    pub fn literal(name: StreamName) -> Self {
        Self { text: name.shared(), exact: Some(name) }
    }

    /// Whether it means the stream. Names that begin with `$` are not meant by a wildcard in the first level
    /// (section 4.7.2).
    pub fn matches(&self, name: &StreamName) -> bool {
        if let Some(exact) = &self.exact {
            return exact == name;
        }
        if name.as_str().starts_with('$') && self.text.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = name.as_str().split('/');
        for level in self.text.split('/') {
            let same = match level {
                ANY_LEVELS => return true,
                ONE_LEVEL => levels.next().is_some(),
                level => levels.next() == Some(level),
            };
            if !same {
                return false;
            }
        }
        levels.next().is_none()
    }

    /// The one stream that it means, if it has no wildcard and a stream can be called so.
    pub fn exact(&self) -> Option<&StreamName> {
        self.exact.as_ref()
    }

    /// Whether there is a wildcard in it.
    pub fn has_wildcard(&self) -> bool {
        self.exact.is_none() && self.text.contains(['+', '#'])
    }

    /// What the name of each stream that it means begins with. Without a wildcard that is all of the filter.
    pub fn prefix(&self) -> &str {
        if self.exact.is_some() {
            return &self.text;
        }
        let (before, wildcard) = self.text.split_at(self.text.find(['+', '#']).unwrap_or(self.text.len()));
        // `a/#` means `a` too.
        if wildcard == ANY_LEVELS { before.strip_suffix('/').unwrap_or(before) } else { before }
    }

    /// The filter as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for InvalidFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "a filter must not be empty",
            Self::TooLong => "a filter has at most 512 bytes",
            Self::ControlCharacter => "a filter must not contain control characters",
            Self::Wildcard => "a filter has '+' for a whole level only, and '#' for the whole last one only",
        })
    }
}

impl std::error::Error for InvalidFilter {}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(filter: &str, name: &str) -> bool {
        Filter::parse(filter).unwrap().matches(&StreamName::parse(name).unwrap())
    }

    #[test]
    fn the_examples_of_the_specification_hold() {
        for (filter, name, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("#", "sport/tennis", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player2", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("+", "finance", true),
            ("+/tennis/#", "sport/tennis", true),
            ("sport/+/player1", "sport/tennis/player1", true),
            ("/finance", "finance", false),
            ("#", "$SYS", false),
            ("#", "$SYS/monitor/Clients", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/monitor/Clients", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("ACCOUNTS", "Accounts", false),
            ("sport/$x/+", "sport/$x/y", true),
            ("sport/+/y", "sport/$x/y", true),
        ] {
            assert_eq!(matches(filter, name), expected, "{filter} and {name}");
        }
    }

    #[test]
    fn wildcards_are_whole_levels_and_the_rest_is_as_in_names() {
        for (text, reason) in [
            ("", InvalidFilter::Empty),
            (&*"x".repeat(513), InvalidFilter::TooLong),
            ("a\0", InvalidFilter::ControlCharacter),
            ("a/\u{85}", InvalidFilter::ControlCharacter),
            ("sport/tennis#", InvalidFilter::Wildcard),
            ("sport/tennis/#/ranking", InvalidFilter::Wildcard),
            ("sport+", InvalidFilter::Wildcard),
            ("++", InvalidFilter::Wildcard),
            ("#/", InvalidFilter::Wildcard),
        ] {
            assert_eq!(Filter::parse(text), Err(reason), "{text:?}");
        }
        for text in ["/", "+/+", "/+", "a//b", "a/../b", "+/tennis/#", &"x".repeat(512)] {
            assert_eq!(Filter::parse(text).map(|filter| filter.as_str().to_owned()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn only_a_possible_name_is_exact() {
        for (text, exact) in [("a/b", true), ("$SYS/a", true), ("a//b", false), ("a/+", false), ("#", false)]
        {
            let filter = Filter::parse(text).unwrap();
            assert_eq!(filter.exact().map(StreamName::as_str), exact.then_some(text));
        }
    }

    /// All filters and names of up to three levels out of a few, against the words of the specification.
    #[test]
    fn every_small_filter_and_name_agree_with_the_definition() {
        fn texts(levels: &[&str]) -> Vec<String> {
            let one: Vec<_> = levels.iter().map(|level| (*level).to_owned()).collect();
            let longer = |shorter: &[String]| -> Vec<String> {
                shorter
                    .iter()
                    .flat_map(|text| levels.iter().map(move |level| format!("{text}/{level}")))
                    .collect()
            };
            let two = longer(&one);
            let three = longer(&two);
            [one, two, three].concat()
        }
        fn defined(filter: &[&str], name: &[&str]) -> bool {
            match (filter, name) {
                ([], []) => true,
                (["#"], _) => true,
                (["+", filter @ ..], [_, name @ ..]) => defined(filter, name),
                ([level, filter @ ..], [own, name @ ..]) => level == own && defined(filter, name),
                _ => false,
            }
        }
        let (mut compared, mut matched) = (0, 0);
        for filter in texts(&["a", "bb", "$x", "", "+", "#"]) {
            let Ok(parsed) = Filter::parse(&filter) else { continue };
            for name in texts(&["a", "bb", "$x"]) {
                let (filter_levels, name_levels): (Vec<_>, Vec<_>) =
                    (filter.split('/').collect(), name.split('/').collect());
                let hidden = name.starts_with('$') && ["+", "#"].contains(&filter_levels[0]);
                let expected = !hidden && defined(&filter_levels, &name_levels);
                assert_eq!(
                    parsed.matches(&StreamName::parse(&name).unwrap()),
                    expected,
                    "{filter} and {name}"
                );
                compared += 1;
                matched += u32::from(expected);
            }
        }
        assert!(compared > 7000 && matched > 400, "{compared} compared, {matched} matched");
    }

    #[test]
    fn whatever_a_filter_matches_begins_with_its_prefix() {
        let filters = ["#", "+/b", "a", "a/b", "a/#", "a/+", "a/+/c", "a/b/#", "a//b", "$x/#"];
        let prefixes = filters.map(|text| Filter::parse(text).unwrap().prefix().to_owned());
        assert_eq!(prefixes, ["", "", "a", "a/b", "a", "a/", "a/", "a/b", "a//b", "$x"]);
        for name in ["a", "a/b", "a/b/c", "ab", "b/b", "$x/a"] {
            for filter in filters.map(|text| Filter::parse(text).unwrap()) {
                let matches = filter.matches(&StreamName::parse(name).unwrap());
                assert!(!matches || name.starts_with(filter.prefix()), "{filter} and {name}");
            }
        }
    }

    #[test]
    fn a_literal_is_its_name_whatever_is_in_it() {
        for text in ["a/+/#", "+", "#", "a", "a+b/c#"] {
            let name = StreamName::parse(text).unwrap();
            let literal = Filter::literal(name.clone());
            assert_eq!((literal.exact(), literal.has_wildcard()), (Some(&name), false));
            assert_eq!(literal.as_str(), text);
            assert!(literal.matches(&name) && !literal.matches(&StreamName::parse("x/y").unwrap()));
        }
        assert_ne!(Filter::literal(StreamName::parse("+").unwrap()), Filter::parse("+").unwrap());
    }
}
