//! Stanzas (RFC 6120, section 8): what a client asks for, answers, and the errors of answers.

use minidom::Element;

use super::jid::Jid;
use super::xml::{CLIENT, WithAttribute, element};
use crate::stream::Failure;

/// The namespace of the conditions of stanza errors (RFC 6120, section 8.3.3).
const CONDITIONS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
/// The namespace of conditions of publish-subscribe (XEP-0060, section 6).
const PUBSUB_ERRORS: &str = "http://jabber.org/protocol/pubsub#errors";

/// Maximum length of the id of a stanza, in bytes. Each answer repeats it.
const ID_BYTES_MAX: usize = 1024;

/// A stanza, as far as the gateway does something with it.
#[derive(Debug, PartialEq)]
pub(super) enum Stanza {
    /// A request, which gets an answer.
    Request(Request),
    /// The answer to a request of the gateway.
    Answer,
    /// A presence of type `available` or `unavailable`.
    Presence {
        /// Whether it is of type `available`.
        available: bool,
    },
    /// A message that could not be delivered, with its id.
    Returned(String),
    /// Anything else, which needs no answer.
    Other,
}

/// A request: an `iq` of type `get` or `set`.
#[derive(Debug, PartialEq)]
pub(super) struct Request {
    pub(super) id: String,
    /// Whether it is of type `set`.
    pub(super) is_set: bool,
    pub(super) payload: Element,
}

/// Why a request has failed (RFC 6120, section 8.3).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StanzaError {
    kind: &'static str,
    condition: &'static str,
    /// An element that says more.
    detail: Option<Box<Element>>,
    text: Option<&'static str>,
}

impl Stanza {
    /// Reads a stanza in the namespace of clients. A malformed request is an error for its sender.
    pub(super) fn read(mut stanza: Element) -> Result<Self, StanzaError> {
        let id = stanza.attr("id").unwrap_or_default().to_owned();
        let kind = stanza.attr("type").unwrap_or_default();
        if stanza.is("presence", CLIENT) {
            return Ok(match kind {
                "" => Self::Presence { available: true },
                "unavailable" => Self::Presence { available: false },
                _ => Self::Other,
            });
        }
        if stanza.is("message", CLIENT) {
            return Ok(if kind == "error" { Self::Returned(id) } else { Self::Other });
        }
        if !stanza.is("iq", CLIENT) {
            return Ok(Self::Other);
        }
        let is_set = match kind {
            "result" | "error" => return Ok(Self::Answer),
            "get" => false,
            "set" => true,
            _ => return Err(StanzaError::bad_request()),
        };
        if id.is_empty() || id.len() > ID_BYTES_MAX {
            return Err(StanzaError::bad_request());
        }
        let payload = stanza.unshift_child().ok_or_else(StanzaError::bad_request)?;
        Ok(Self::Request(Request { id, is_set, payload }))
    }
}

/// Whether a stanza is a request or looks like one, and so must be answered.
pub(super) fn wants_answer(stanza: &Element) -> bool {
    stanza.is("iq", CLIENT) && !matches!(stanza.attr("type"), Some("result" | "error"))
}

/// The id of the request that a stanza of the gateway answers, and who has sent it. `None`: it is no answer.
pub(super) fn answered_by(stanza: &Element) -> Option<(String, Jid)> {
    let (id, to) = (stanza.attr("id")?, stanza.attr("to")?);
    stanza.is("iq", CLIENT).then(|| Some((id.to_owned(), Jid::parse(to).ok()?)))?
}

/// The answer to a request. It is from the address that the request was sent to; `None`: from the account of the client.
pub(super) fn answer(
    id: &str,
    from: Option<&Jid>,
    to: &Jid,
    outcome: Result<Option<Element>, StanzaError>,
) -> Element {
    let iq = element("iq", CLIENT).with("id", id).with("to", to.as_str());
    let iq = match from {
        Some(from) => iq.with("from", from.as_str()),
        None => iq,
    };
    match outcome {
        Ok(payload) => iq.with("type", "result").append_all(payload).build(),
        Err(error) => iq.with("type", "error").append(error.to_element()).build(),
    }
}

/// A message of `jid` that cannot be delivered, as its sender gets it back. `None`: the stanza is no message, or is itself such an error.
pub(super) fn returned(stanza: &Element, jid: &Jid, error: &StanzaError) -> Option<Element> {
    if !stanza.is("message", CLIENT) || stanza.attr("type") == Some("error") {
        return None;
    }
    let mut message = element("message", CLIENT).with("type", "error").with("to", jid.as_str());
    for name in ["id", "to"] {
        if let Some(value) = stanza.attr(name) {
            message = message.with(if name == "to" { "from" } else { name }, value);
        }
    }
    Some(message.append(error.to_element()).build())
}

impl StanzaError {
    fn new(kind: &'static str, condition: &'static str) -> Self {
        Self { kind, condition, detail: None, text: None }
    }

    /// The request is malformed.
    pub(super) fn bad_request() -> Self {
        Self::new("modify", "bad-request")
    }

    /// The node does not exist, or the client may not know whether it does.
    pub(super) fn item_not_found() -> Self {
        Self::new("cancel", "item-not-found")
    }

    /// The client has no right to do this.
    pub(super) fn forbidden() -> Self {
        Self::new("auth", "forbidden")
    }

    /// Nobody may do this.
    pub(super) fn not_allowed() -> Self {
        Self::new("cancel", "not-allowed")
    }

    /// The node exists already.
    pub(super) fn conflict() -> Self {
        Self::new("cancel", "conflict")
    }

    /// The content does not fit.
    pub(super) fn not_acceptable() -> Self {
        Self::new("modify", "not-acceptable")
    }

    /// The answer does not fit into a stanza.
    pub(super) fn answer_too_large() -> Self {
        Self::not_acceptable().with_text("the answer is too large; ask for fewer items")
    }

    /// Not possible now; it may be later.
    pub(super) fn resource_constraint() -> Self {
        Self::new("wait", "resource-constraint")
    }

    /// The gateway has failed.
    pub(super) fn internal() -> Self {
        Self::new("wait", "internal-server-error")
    }

    /// The request is in a namespace that nobody here serves.
    pub(super) fn service_unavailable() -> Self {
        Self::new("cancel", "service-unavailable")
    }

    /// The request makes no sense in the state that the client is in.
    pub(super) fn unexpected_request() -> Self {
        Self::new("cancel", "unexpected-request")
    }

    /// A feature of publish-subscribe is not there (XEP-0060, section 10).
    pub(super) fn unsupported(feature: &'static str) -> Self {
        let detail = element("unsupported", PUBSUB_ERRORS).with("feature", feature).build();
        Self::new("cancel", "feature-not-implemented").saying(detail)
    }

    /// A feature that has no name in publish-subscribe is not there.
    pub(super) fn not_implemented() -> Self {
        Self::new("cancel", "feature-not-implemented")
    }

    /// Adds a condition of publish-subscribe.
    pub(super) fn because(self, condition: &'static str) -> Self {
        self.saying(element(condition, PUBSUB_ERRORS).build())
    }

    /// Adds an element that says more.
    pub(super) fn saying(self, detail: Element) -> Self {
        Self { detail: Some(Box::new(detail)), ..self }
    }

    /// Adds a text for people.
    pub(super) fn with_text(self, text: &'static str) -> Self {
        Self { text: Some(text), ..self }
    }

    /// The condition alone.
    pub(super) fn condition_element(&self) -> Element {
        element(self.condition, CONDITIONS).build()
    }

    pub(super) fn to_element(&self) -> Element {
        let text = self.text.map(|text| element("text", CONDITIONS).append(text).build());
        let children = [Some(self.condition_element()), text, self.detail.as_deref().cloned()];
        element("error", CLIENT).with("type", self.kind).append_all(children.into_iter().flatten()).build()
    }
}

/// The error for a client whose request the store could not perform.
pub(super) fn failed(failure: Failure) -> StanzaError {
    match failure {
        Failure::Full
        | Failure::Short
        | Failure::Unreachable
        | Failure::Superseded
        | Failure::OverBudget(_)
        | Failure::TooFast(_) => StanzaError::resource_constraint(),
        Failure::Broken | Failure::Unreadable | Failure::UpstreamRefused(_) => StanzaError::internal(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xmpp::xml::{parse_document, to_bytes};

    fn read(text: &str) -> Result<Stanza, StanzaError> {
        let text = text.replacen(' ', " xmlns='jabber:client' ", 1);
        Stanza::read(parse_document(text.as_bytes(), 4096).unwrap())
    }

    #[test]
    fn stanzas_are_what_their_names_and_types_say() {
        assert!(matches!(
            read("<iq id='1' type='get'><a xmlns='b'/></iq>"),
            Ok(Stanza::Request(Request { is_set: false, .. }))
        ));
        assert_eq!(read("<iq id='1' type='result'/>"), Ok(Stanza::Answer));
        assert_eq!(read("<iq id='1' type='error'/>"), Ok(Stanza::Answer));
        assert_eq!(read("<presence from='a'/>"), Ok(Stanza::Presence { available: true }));
        assert_eq!(read("<presence type='unavailable'/>"), Ok(Stanza::Presence { available: false }));
        assert_eq!(read("<presence type='subscribe'/>"), Ok(Stanza::Other));
        assert_eq!(read("<message id='1' type='error'/>"), Ok(Stanza::Returned("1".into())));
        assert_eq!(read("<message id='1'/>"), Ok(Stanza::Other));
        let long = format!("<iq id='{}' type='get'><a xmlns='b'/></iq>", "x".repeat(1025));
        for malformed in
            ["<iq type='get'><a/></iq>", "<iq id='1'><a/></iq>", "<iq id='1' type='set'/>", &long]
        {
            assert_eq!(read(malformed), Err(StanzaError::bad_request()), "{malformed}");
        }
    }

    #[test]
    fn an_error_names_its_condition_and_more() {
        let [from, to] = ["s.example", "a@b/c"].map(|text| Jid::parse(text).unwrap());
        let error = StanzaError::item_not_found().because("not-subscribed").with_text("gone");
        let text = String::from_utf8(to_bytes(&answer("7", Some(&from), &to, Err(error)))).unwrap();
        let parsed = parse_document(text.as_bytes(), 4096).unwrap();
        assert_eq!(
            (parsed.attr("id"), parsed.attr("to"), parsed.attr("type")),
            (Some("7"), Some("a@b/c"), Some("error"))
        );
        let error = parsed.get_child("error", CLIENT).unwrap();
        assert!(error.get_child("item-not-found", CONDITIONS).is_some(), "{text}");
        assert!(error.get_child("not-subscribed", PUBSUB_ERRORS).is_some(), "{text}");
        assert_eq!(error.get_child("text", CONDITIONS).unwrap().text(), "gone");
    }
}
