//! XML of XMPP streams: bytes to elements within limits, and elements to bytes. Without IO.
//!
//! [`StreamDecoder`] reads a stream, whose root element stays open and whose children are the stanzas. [`parse_document`] reads one
//! whole element, as a WebSocket frame or a stored message has it. Both accept the XML that XMPP allows and nothing else (RFC 6120,
//! section 11.1): no document types, entities, processing instructions and comments.

use minidom::{Element, ElementBuilder};
use rxml::{AttrMap, NcName, Options, Parse, Parser, WithOptions};

/// The namespace of stanzas inside of the gateway (RFC 6120, section 4.8.2). A component's link has another one.
pub(super) const CLIENT: &str = "jabber:client";
/// The namespace of the elements of a stream (RFC 6120, section 4.8.1).
pub(super) const STREAMS: &str = "http://etherx.jabber.org/streams";
/// The namespace of what the gateway adds to the standards.
pub(super) const POLLGATE: &str = "urn:pollgate:0";

/// Maximum depth of an element in a stanza.
const DEPTH_MAX: usize = 32;
/// Maximum number of elements in a stanza. An element without content takes 4 bytes in XML and over 200 in memory.
const ELEMENTS_MAX: usize = 4096;
/// Maximum number of attributes of an element.
const ATTRIBUTES_MAX: usize = 64;
/// Maximum length of the names of elements and attributes, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// Maximum length of an attribute, in bytes.
const ATTRIBUTE_BYTES_MAX: usize = 8192;

/// What a stream has brought.
#[derive(Debug, PartialEq)]
pub(super) enum StreamEvent {
    /// The root element was opened. The element has its attributes and no content.
    Opened(Element),
    /// A child of the root element is complete.
    Stanza(Element),
    /// The root element was closed.
    Closed,
}

/// Why bytes are not accepted. The stream cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum XmlError {
    /// The bytes are not XML, or XML that XMPP does not allow.
    #[error("the XML is malformed or restricted: {0}")]
    Malformed(String),
    /// A stanza exceeds a limit.
    #[error("a stanza has too many {0}")]
    TooLarge(&'static str),
}

/// Decodes the bytes of a stream, which may be cut anywhere.
pub(super) struct StreamDecoder {
    parser: Parser,
    tree: Tree,
    is_open: bool,
    /// Bytes of the current stanza so far.
    bytes: usize,
    bytes_max: usize,
}

impl StreamDecoder {
    /// A decoder of a stream whose header and stanzas have at most `bytes_max` bytes each.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { parser: parser(), tree: Tree::default(), is_open: false, bytes: 0, bytes_max }
    }

    /// Changes the limit of further stanzas.
    pub(super) fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// Takes bytes from `input` up to the end of the next event. `None`: all are taken, and more are needed.
    pub(super) fn next(&mut self, input: &mut &[u8]) -> Result<Option<StreamEvent>, XmlError> {
        loop {
            let before = input.len();
            let parsed = self.parser.parse(input, false);
            self.bytes += before - input.len();
            if self.bytes > self.bytes_max {
                return Err(XmlError::TooLarge("bytes"));
            }
            match parsed {
                Ok(Some(event)) => {
                    if let Some(event) = self.handle(event)? {
                        self.bytes = 0;
                        return Ok(Some(event));
                    }
                }
                Ok(None) | Err(rxml::error::EndOrError::NeedMoreData) => return Ok(None),
                Err(rxml::error::EndOrError::Error(error)) => return Err(malformed(&error)),
            }
        }
    }

    fn handle(&mut self, event: rxml::Event) -> Result<Option<StreamEvent>, XmlError> {
        match event {
            rxml::Event::XmlDeclaration(..) => Ok(None),
            rxml::Event::StartElement(_, (namespace, name), attributes) if !self.is_open => {
                self.is_open = true;
                let header = element_of(namespace.as_str(), name.as_str(), attributes)?;
                Ok(Some(StreamEvent::Opened(header)))
            }
            rxml::Event::StartElement(_, (namespace, name), attributes) => {
                self.tree.open(element_of(namespace.as_str(), name.as_str(), attributes)?)?;
                Ok(None)
            }
            rxml::Event::EndElement(_) if self.tree.is_empty() => Ok(Some(StreamEvent::Closed)),
            rxml::Event::EndElement(_) => Ok(self.tree.close().map(StreamEvent::Stanza)),
            rxml::Event::Text(_, text) => {
                // White space between stanzas keeps a connection alive, and counts for no stanza.
                if self.tree.is_empty() {
                    self.bytes = 0;
                    return if text.trim().is_empty() { Ok(None) } else { Err(stray_text()) };
                }
                self.tree.text(&text);
                Ok(None)
            }
        }
    }
}

/// Parses a whole element of at most `bytes_max` bytes.
pub(super) fn parse_document(mut bytes: &[u8], bytes_max: usize) -> Result<Element, XmlError> {
    if bytes.len() > bytes_max {
        return Err(XmlError::TooLarge("bytes"));
    }
    let (mut parser, mut tree, mut root) = (parser(), Tree::default(), None);
    loop {
        match parser.parse(&mut bytes, true) {
            Ok(Some(rxml::Event::XmlDeclaration(..))) => {}
            Ok(Some(rxml::Event::StartElement(_, (namespace, name), attributes))) => {
                tree.open(element_of(namespace.as_str(), name.as_str(), attributes)?)?;
            }
            Ok(Some(rxml::Event::EndElement(_))) => root = tree.close().or(root),
            Ok(Some(rxml::Event::Text(_, text))) => tree.text(&text),
            Ok(None) => return root.ok_or_else(stray_text),
            Err(rxml::error::EndOrError::NeedMoreData) => return Err(stray_text()),
            Err(rxml::error::EndOrError::Error(error)) => return Err(malformed(&error)),
        }
    }
}

/// The elements that are open, the outermost first.
#[derive(Default)]
struct Tree {
    stack: Vec<Element>,
    elements: usize,
}

impl Tree {
    fn is_empty(&self) -> bool {
        self.stack.is_empty()
    }

    fn open(&mut self, element: Element) -> Result<(), XmlError> {
        self.elements += 1;
        if self.elements > ELEMENTS_MAX {
            return Err(XmlError::TooLarge("elements"));
        }
        if self.stack.len() >= DEPTH_MAX {
            return Err(XmlError::TooLarge("levels"));
        }
        self.stack.push(element);
        Ok(())
    }

    /// Closes the innermost element. Returns it if it was the outermost one.
    fn close(&mut self) -> Option<Element> {
        let element = self.stack.pop()?;
        match self.stack.last_mut() {
            Some(parent) => {
                parent.append_child(element);
                None
            }
            None => {
                self.elements = 0;
                Some(element)
            }
        }
    }

    fn text(&mut self, text: &str) {
        if let Some(element) = self.stack.last_mut() {
            element.append_text(text);
        }
    }
}

fn parser() -> Parser {
    Parser::with_options(Options { max_token_length: ATTRIBUTE_BYTES_MAX, ..Options::default() })
}

fn malformed(error: &rxml::Error) -> XmlError {
    XmlError::Malformed(error.to_string())
}

fn stray_text() -> XmlError {
    XmlError::Malformed("text outside of an element, or no element".to_owned())
}

fn element_of(namespace: &str, name: &str, attributes: AttrMap) -> Result<Element, XmlError> {
    if attributes.len() > ATTRIBUTES_MAX {
        return Err(XmlError::TooLarge("attributes"));
    }
    let is_long = |name: &str| name.len() > NAME_BYTES_MAX;
    if is_long(name) || is_long(namespace) || attributes.iter().any(|((_, name), _)| is_long(name.as_str())) {
        return Err(XmlError::TooLarge("bytes in a name"));
    }
    let mut element = Element::bare(name, namespace);
    for ((namespace, name), value) in attributes {
        element.set_attr(namespace, name, value);
    }
    Ok(element)
}

/// Begins an element.
pub(super) fn element(name: &'static str, namespace: &str) -> ElementBuilder {
    Element::builder(name, namespace)
}

/// Begins an element of a stream, which has the prefix that clients expect (RFC 6120, section 4.8.5).
pub(super) fn stream_element(name: &'static str) -> ElementBuilder {
    // Fails only if the prefix is declared already.
    let prefixed = element(name, STREAMS).prefix(Some("stream".to_owned()), STREAMS);
    prefixed.unwrap_or_else(|_| element(name, STREAMS))
}

/// Adds attributes by name.
pub(super) trait WithAttribute: Sized {
    /// Adds an attribute without a namespace.
    fn with(self, name: &'static str, value: impl Into<String>) -> Self;
}

impl WithAttribute for ElementBuilder {
    fn with(self, name: &'static str, value: impl Into<String>) -> Self {
        match NcName::try_from(name) {
            Ok(name) => self.attr(name, value.into()),
            Err(_) => self,
        }
    }
}

/// Whether XML carries the text unchanged (XML 1.0, sections 2.2 and 2.11): a carriage return would become a line feed.
pub(super) fn is_text(text: &str) -> bool {
    let is_carried = |character| matches!(character, '\t' | '\n' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    text.chars().all(is_carried)
}

/// The bytes of an element, which declares its namespace itself.
pub(super) fn to_bytes(element: &Element) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Fails only for names that are not XML; each name was parsed, or is in this code.
    match element.write_to(&mut bytes) {
        Ok(()) => bytes,
        Err(_) => Vec::new(),
    }
}

/// A stanza whose own namespace and that of its children in the same one is `to` instead of `from` (XEP-0114: stanzas of a component
/// are in another namespace than those of clients). What is further inside keeps its namespace.
pub(super) fn in_namespace(stanza: Element, from: &str, to: &str) -> Element {
    if from == to || !stanza.has_ns(from) {
        return stanza;
    }
    let mut moved = with_namespace(stanza, to);
    for child in moved.children_mut() {
        if child.has_ns(from) {
            let owned = std::mem::replace(child, Element::bare("_", to));
            *child = with_namespace(owned, to);
        }
    }
    moved
}

fn with_namespace(mut element: Element, namespace: &str) -> Element {
    let mut moved = Element::bare(element.name(), namespace);
    *moved.attrs_mut() = std::mem::take(element.attrs_mut());
    element.take_nodes().into_iter().for_each(|node| moved.append_node(node));
    moved
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::held;
    use crate::limits::Limits;

    const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='a'>";

    /// The events of a stream that arrives in pieces of `size` bytes.
    fn events(text: &str, size: usize) -> Result<Vec<StreamEvent>, XmlError> {
        let mut decoder = StreamDecoder::new(10_000);
        let mut found = Vec::new();
        for mut piece in text.as_bytes().chunks(size) {
            while let Some(event) = decoder.next(&mut piece)? {
                found.push(event);
            }
        }
        Ok(found)
    }

    fn stanza(text: &str) -> Result<Vec<StreamEvent>, XmlError> {
        events(&[HEADER, text].concat(), 4096)
    }

    #[test]
    fn a_stream_may_be_cut_at_any_byte() {
        let text = format!(
            "{HEADER} <iq id='1' type='get'><ping xmlns='urn:xmpp:ping'/></iq>\n<message><body>ä &amp; b</body></message></stream:stream>"
        );
        let whole = events(&text, text.len()).unwrap();
        assert_eq!(whole.len(), 4);
        assert!(
            matches!(&whole[0], StreamEvent::Opened(header) if header.is("stream", STREAMS) && header.attr("to") == Some("a"))
        );
        assert!(
            matches!(&whole[2], StreamEvent::Stanza(message) if message.get_child("body", CLIENT).unwrap().text() == "ä & b")
        );
        for size in 1..40 {
            assert_eq!(events(&text, size).unwrap(), whole, "in pieces of {size} bytes");
        }
    }

    #[test]
    fn restricted_xml_is_refused() {
        for text in [
            "<!-- -->",
            "<?pi?>",
            "<a>&x;</a>",
            "<!DOCTYPE a>",
            "text",
            "<a x:y='1'/>",
            "<a b='1' b='2'/>",
            "<a>\u{1}</a>",
        ] {
            // A text ends where an element begins.
            let events = stanza(&format!("{text}<b/>"));
            assert!(matches!(events, Err(XmlError::Malformed(_))), "{text}: {events:?}");
        }
    }

    #[test]
    fn each_limit_ends_the_stream() {
        let deep = |levels: usize| format!("{}{}", "<a>".repeat(levels), "</a>".repeat(levels));
        let wide = |count: usize| format!("<a>{}</a>", "<b/>".repeat(count));
        let attributes =
            |count: usize| format!("<a {}/>", (0..count).map(|n| format!("a{n}='' ")).collect::<String>());
        let named = |bytes: usize| format!("<{}/>", "n".repeat(bytes));
        assert!([deep(32), attributes(64), named(256)].iter().all(|text| stanza(text).is_ok()));
        assert_eq!(stanza(&deep(33)), Err(XmlError::TooLarge("levels")));
        assert_eq!(stanza(&attributes(65)), Err(XmlError::TooLarge("attributes")));
        assert_eq!(stanza(&named(257)), Err(XmlError::TooLarge("bytes in a name")));
        assert_eq!(stanza(&format!("<a>{}</a>", "x".repeat(10_000))), Err(XmlError::TooLarge("bytes")));
        let document = |text: &str| parse_document(text.as_bytes(), 100_000);
        assert!(document(&wide(4095)).is_ok());
        assert_eq!(document(&wide(4096)), Err(XmlError::TooLarge("elements")));
        assert_eq!(Limits::default().xmpp_stanza_bytes_max, 256 * 1024);
    }

    #[test]
    fn a_stream_keeps_nothing_of_the_stanzas_that_it_has_brought() {
        let mut decoder = StreamDecoder::new(10_000);
        let mut decode = |text: &str| {
            let mut bytes = text.as_bytes();
            while decoder.next(&mut bytes).unwrap().is_some() {}
        };
        decode(HEADER);
        let mut names = (0..).map(|number| {
            let declared: String =
                (0..20).map(|index| format!(" xmlns:p{index}='n{number}-{index}'")).collect();
            format!("<a{number} xmlns='n{number}'{declared} p1:b{number}=''><p2:c/></a{number}>")
        });
        for text in names.by_ref().take(1000) {
            decode(&text);
        }
        let before = held();
        for text in names.take(10_000) {
            decode(&text);
        }
        assert!(held() - before < 64 * 1024, "{} bytes more are held", held() - before);
    }

    #[test]
    fn white_space_between_stanzas_has_no_limit() {
        assert_eq!(stanza(&format!("{}<a/>", " ".repeat(30_000))).unwrap().len(), 2);
    }

    #[test]
    fn an_element_is_the_same_after_it_was_written() {
        for text in
            ["<a xmlns='x'>1 &lt; 2<b xmlns='y' c='&quot;&apos;'/></a>", "<a xmlns='x' xml:lang='de'>é</a>"]
        {
            let element = parse_document(text.as_bytes(), 1000).unwrap();
            assert_eq!(parse_document(&to_bytes(&element), 1000), Ok(element), "{text}");
        }
        for text in ["", "a", "<a xmlns='x'>", "<a xmlns='x'/><b xmlns='x'/>"] {
            assert!(parse_document(text.as_bytes(), 1000).is_err(), "{text}");
        }
    }

    #[test]
    fn a_stanza_changes_its_namespace_and_what_is_inside_does_not() {
        let text = "<iq xmlns='jabber:client' id='1'><error type='x'/><a xmlns='b'><c xmlns='jabber:client'/></a></iq>";
        let stanza = parse_document(text.as_bytes(), 1000).unwrap();
        let moved = in_namespace(stanza.clone(), CLIENT, "accept");
        assert!(moved.is("iq", "accept") && moved.get_child("error", "accept").is_some());
        assert!(moved.get_child("a", "b").unwrap().get_child("c", CLIENT).is_some());
        assert_eq!(in_namespace(moved, "accept", CLIENT), stanza);
    }
}
