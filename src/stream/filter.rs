//! Filters: the name of one stream, or a pattern of names with wildcards (MQTT 5, section 4.7).

use std::fmt;
use std::sync::Arc;

use super::StreamName;
use super::name::{LEVELS_MAX, escaped};
use super::tenant::{Tenant, split_tenant};

/// The wildcard that matches exactly one level.
pub const ONE_LEVEL: &str = "+";

/// The wildcard that matches any number of levels, including none.
pub const ANY_LEVELS: &str = "#";

/// A valid filter of stream names: not empty, no control characters, `+` only as a whole level, `#` only as the whole last level.
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Filter {
    text: Arc<str>,
    exact: Option<StreamName>,
}

/// Why a text is not a valid filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidFilter {
    /// The text is empty.
    Empty,
    /// More than 200 levels of an MQTT topic filter.
    TooManyLevels,
    /// A control character, which no stream name contains.
    ControlCharacter,
    /// A `+` or `#` that is not a whole level, or a `#` that is not the last level.
    Wildcard,
}

impl Filter {
    /// Parses a filter. A text that is not a valid stream name, such as `a//b`, is still a filter, which matches nothing.
    pub fn parse(text: &str) -> Result<Self, InvalidFilter> {
        if text.is_empty() {
            return Err(InvalidFilter::Empty);
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
        let exact = if text.contains(['+', '#']) { None } else { StreamName::stored(text).ok() };
        let text = exact.as_ref().map_or_else(|| text.into(), StreamName::shared);
        Ok(Self { text, exact })
    }

    /// The filter of the streams whose topics an MQTT topic filter matches.
    pub fn of_topics(text: &str) -> Result<Self, InvalidFilter> {
        if text.is_empty() {
            return Err(InvalidFilter::Empty);
        }
        if text.split('/').count() > LEVELS_MAX {
            return Err(InvalidFilter::TooManyLevels);
        }
        Self::parse(&escaped(text))
    }

    /// A filter for exactly this stream, even if its name contains `+` or `#`.
    pub fn literal(name: StreamName) -> Self {
        Self { text: name.shared(), exact: Some(name) }
    }

    /// The filter in the hub that matches the streams of `tenant` whose names this filter matches.
    pub fn of_tenant(&self, tenant: &Tenant) -> Self {
        if tenant.is_default() {
            return self.clone();
        }
        match self.exact.clone() {
            Some(name) => Self::literal(name.of_tenant(tenant)),
            None => Self { text: [tenant.prefix(), &self.text].concat().into(), exact: None },
        }
    }

    /// The filter that a client of its tenant would have written.
    pub fn local(&self) -> &str {
        split_tenant(&self.text).1
    }

    /// Whether the filter matches the name. A wildcard in the first level does not match names that begin with `$` (section
    /// 4.7.2).
    pub fn matches(&self, name: &StreamName) -> bool {
        if let Some(exact) = &self.exact {
            return exact == name;
        }
        let ((tenant, own), (of_name, name)) = (split_tenant(&self.text), split_tenant(name.as_str()));
        if tenant != of_name || name.starts_with('$') && own.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = name.split('/');
        for level in own.split('/') {
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

    /// Whether the filter matches every name that `other` matches, so that a right to this filter includes `other`.
    pub fn covers(&self, other: &Self) -> bool {
        if let Some(name) = &other.exact {
            return self.matches(name);
        }
        if self.exact.is_some() {
            return false;
        }
        let ((tenant, own), (of_other, other)) = (split_tenant(&self.text), split_tenant(&other.text));
        if tenant != of_other || other.starts_with('$') && own.starts_with(['+', '#']) {
            return false;
        }
        // Every name has a level.
        let other = if other == ANY_LEVELS { "+/#" } else { other };
        let mut levels = other.split('/');
        for level in own.split('/') {
            let covers = match (level, levels.next()) {
                (ANY_LEVELS, _) => return true,
                (_, None | Some(ANY_LEVELS)) => false,
                (ONE_LEVEL, Some(_)) => true,
                (level, Some(own)) => level == own,
            };
            if !covers {
                return false;
            }
        }
        levels.next().is_none()
    }

    /// The only stream that the filter can match; `None` if it has a wildcard or is not a valid stream name.
    pub fn exact(&self) -> Option<&StreamName> {
        self.exact.as_ref()
    }

    /// Whether the filter contains a wildcard.
    pub fn has_wildcard(&self) -> bool {
        self.exact.is_none() && self.text.contains(['+', '#'])
    }

    /// A prefix of all names that the filter matches; without a wildcard, the whole filter.
    pub fn prefix(&self) -> &str {
        if self.exact.is_some() {
            return &self.text;
        }
        let (before, wildcard) = self.text.split_at(self.text.find(['+', '#']).unwrap_or(self.text.len()));
        // `a/#` matches `a`, too.
        if wildcard == ANY_LEVELS && self.local() != ANY_LEVELS {
            before.strip_suffix('/').unwrap_or(before)
        } else {
            before
        }
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
            Self::TooManyLevels => "a filter has at most 200 levels",
            Self::ControlCharacter => "a filter must not contain control characters",
            Self::Wildcard => "in a filter, '+' must be a whole level, and '#' the whole last level",
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
    fn a_topic_filter_matches_topics_with_empty_levels() {
        for (filter, topic, expected) in [
            ("/finance", "/finance", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("a/+/b", "a//b", true),
            ("a//b", "a//b", true),
            ("a/#", "a/", true),
            ("#", "/", true),
            ("a/%00", "a/", false),
            ("a/./+", "a/./b", true),
        ] {
            let name = StreamName::of_topic(topic).unwrap();
            assert_eq!(Filter::of_topics(filter).unwrap().matches(&name), expected, "{filter} and {topic}");
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

    /// Compares all filters and names of up to three levels from a small set with a definition in the words of the
    /// specification.
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

    /// All pairs of filters of up to three levels from a small set: a filter covers another just if it matches each name that
    /// the other matches. The names have one level more and one other level, so that they tell wildcards from literals.
    #[test]
    fn a_filter_covers_just_those_whose_names_it_matches() {
        let texts = |levels: &[&str], depth: usize| {
            let mut all: Vec<String> = vec![String::new()];
            let mut found = Vec::new();
            for _ in 0..depth {
                let longer = |text: &String| {
                    let text = if text.is_empty() { String::new() } else { format!("{text}/") };
                    levels.iter().map(move |level| format!("{text}{level}")).collect::<Vec<_>>()
                };
                all = all.iter().flat_map(longer).collect();
                found.extend(all.clone());
            }
            found
        };
        let filters: Vec<_> =
            texts(&["a", "$x", "+", "#"], 3).iter().filter_map(|text| Filter::parse(text).ok()).collect();
        let names: Vec<_> =
            texts(&["a", "b", "$x"], 4).iter().map(|text| StreamName::parse(text).unwrap()).collect();
        let matched: Vec<Vec<bool>> =
            filters.iter().map(|filter| names.iter().map(|name| filter.matches(name)).collect()).collect();
        let mut covered = 0;
        for (one, of_one) in filters.iter().zip(&matched) {
            for (other, of_other) in filters.iter().zip(&matched) {
                let expected = of_one.iter().zip(of_other).all(|(one, other)| *one || !*other);
                assert_eq!(one.covers(other), expected, "{one} covers {other}");
                covered += usize::from(expected);
            }
        }
        assert!(covered > filters.len(), "{covered} pairs of {} filters", filters.len());
    }

    #[test]
    fn matching_names_begin_with_the_prefix() {
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
