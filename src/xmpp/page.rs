//! Pages of long answers (XEP-0059): which page a client asks for, and what an answer says of its page.

use minidom::Element;

use super::stanza::StanzaError;
use super::xml::element;

const RSM: &str = "http://jabber.org/protocol/rsm";

/// The page that a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PageQuery {
    /// Maximum number of entries.
    pub(super) max: usize,
    pub(super) from: PageStart,
}

/// Where a page begins or ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PageStart {
    /// It is the first page.
    First,
    /// It begins behind the entry with this id.
    After(String),
    /// It ends before the entry with this id; `None`: it is the last page.
    Before(Option<String>),
}

impl PageQuery {
    /// Reads the query from the element that contains it, with at most `max` entries. `None`: there is no query.
    pub(super) fn read(parent: &Element, max: usize) -> Result<Option<Self>, StanzaError> {
        let Some(set) = parent.get_child("set", RSM) else { return Ok(None) };
        let asked = match set.get_child("max", RSM) {
            Some(asked) => asked.text().trim().parse().map_err(|_| StanzaError::bad_request())?,
            None => max,
        };
        if set.get_child("index", RSM).is_some() {
            return Err(StanzaError::not_implemented());
        }
        let text = |name| set.get_child(name, RSM).map(Element::text);
        let from = match (text("after"), text("before")) {
            (None, None) => PageStart::First,
            (Some(id), None) => PageStart::After(id),
            (None, Some(id)) => PageStart::Before((!id.is_empty()).then_some(id)),
            (Some(_), Some(_)) => return Err(StanzaError::bad_request()),
        };
        Ok(Some(Self { max: max.min(asked), from }))
    }

    /// What an answer says of its page, from the ids of its first and last entries; `None`: it has none.
    pub(super) fn answer(ends: Option<(String, String)>) -> Element {
        let end = |name, id: String| element(name, RSM).append(id).build();
        let ends = ends.map(|(first, last)| [end("first", first), end("last", last)]);
        element("set", RSM).append_all(ends.into_iter().flatten()).build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xmpp::xml::parse_document;

    fn read(content: &str) -> Result<Option<PageQuery>, StanzaError> {
        let text = format!("<query xmlns='x'><set xmlns='{RSM}'>{content}</set></query>");
        PageQuery::read(&parse_document(text.as_bytes(), 4096).unwrap(), 50)
    }

    #[test]
    fn a_page_is_bounded_by_what_is_asked_and_by_the_limit() {
        let page = |max, from| Ok(Some(PageQuery { max, from }));
        assert_eq!(read(""), page(50, PageStart::First));
        assert_eq!(read("<max>7</max><after>a</after>"), page(7, PageStart::After("a".into())));
        assert_eq!(read("<max>0</max><before/>"), page(0, PageStart::Before(None)));
        assert_eq!(read("<max>99</max><before>a</before>"), page(50, PageStart::Before(Some("a".into()))));
        assert_eq!(PageQuery::read(&Element::bare("query", "x"), 50), Ok(None));
    }

    #[test]
    fn queries_that_cannot_be_answered_are_errors() {
        for content in ["<max>-1</max>", "<max>x</max>", "<after>a</after><before/>", "<index>1</index>"] {
            assert!(read(content).is_err(), "{content}");
        }
    }
}
