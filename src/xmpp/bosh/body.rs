//! The `<body/>` elements of BOSH (XEP-0124, version 1.11), which carry stanzas in requests and responses. Without IO.

use std::fmt::{self, Write};
use std::time::Duration;

use bytes::Bytes;
use minidom::Element;

use crate::xmpp::xml::{CLIENT, in_namespace, parse_document};

const HTTPBIND: &str = "http://jabber.org/protocol/httpbind";
/// The namespace of what XMPP adds (XEP-0206).
const XBOSH: &str = "urn:xmpp:xbosh";

/// The largest request id (XEP-0124, section 9.2).
const RID_MAX: u64 = (1 << 53) - 1;

/// A response without stanzas.
const EMPTY: &[u8] = b"<body xmlns='http://jabber.org/protocol/httpbind'/>";

/// The name of a session, which nobody else can guess.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Sid(pub(super) u128);

/// The body of a request.
#[derive(Debug, PartialEq)]
pub(super) struct RequestBody {
    /// The request id.
    pub(super) rid: u64,
    pub(super) kind: RequestKind,
    /// The client has the responses to all requests up to this one.
    pub(super) ack: Option<u64>,
    /// Stanzas and other elements of the stream.
    pub(super) payload: Vec<Element>,
    /// Length of the whole body.
    pub(super) bytes: usize,
}

/// Which session a request is for.
#[derive(Debug, PartialEq)]
pub(super) enum SessionTarget {
    New(Wishes),
    Session(Sid),
}

/// What a client wants of its session.
#[derive(Debug, PartialEq)]
pub(super) struct Wishes {
    /// The domain that it wants to reach.
    pub(super) to: Option<String>,
    /// The longest time until a response.
    pub(super) wait: Option<Duration>,
    /// Requests that may wait at the same time.
    pub(super) hold: Option<u64>,
    /// It wants to be told which requests have arrived.
    pub(super) acks: bool,
}

/// What a request is for, besides its stanzas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestKind {
    Plain,
    /// The stream begins anew (XEP-0206, section 5).
    Restart,
    /// The client sends nothing for this time (XEP-0124, section 10).
    Pause(Duration),
    /// The session ends behind the stanzas.
    Terminate,
}

/// Why a session ends (XEP-0124, section 17.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    BadRequest,
    HostUnknown,
    ImproperAddressing,
    InternalServerError,
    ItemNotFound,
    PolicyViolation,
    /// A stream error is in the payload.
    RemoteStreamError,
    SystemShutdown,
}

impl Sid {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_written =
            text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        u128::from_str_radix(text, 16).ok().filter(|_| is_written).map(Self)
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A secret, which no log shows.
impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sid")
    }
}

impl RequestBody {
    /// Parses a body of at most `bytes_max` bytes. Also returns the session that it is for.
    pub(super) fn parse(bytes: &[u8], bytes_max: usize) -> Result<(SessionTarget, Self), Condition> {
        if bytes.len() > bytes_max {
            return Err(Condition::PolicyViolation);
        }
        let mut body = parse_document(bytes, bytes_max).map_err(|error| {
            tracing::debug!(%error, "a BOSH request has no body element");
            Condition::BadRequest
        })?;
        let rid =
            number(&body, "rid")?.filter(|rid| (1..=RID_MAX).contains(rid)).ok_or(Condition::BadRequest)?;
        if !body.is("body", HTTPBIND) {
            return Err(Condition::BadRequest);
        }
        let target = match body.attr("sid") {
            // No such name was ever given.
            Some(text) => SessionTarget::Session(Sid::parse(text).ok_or(Condition::ItemNotFound)?),
            None => SessionTarget::New(Wishes {
                to: body.attr("to").map(str::to_owned),
                wait: number(&body, "wait")?.map(Duration::from_secs),
                hold: number(&body, "hold")?,
                acks: body.attr("ack") == Some("1"),
            }),
        };
        let kind = if body.attr("type") == Some("terminate") {
            RequestKind::Terminate
        } else if body.attr_ns(XBOSH, "restart") == Some("true") {
            RequestKind::Restart
        } else {
            number(&body, "pause")?
                .map_or(RequestKind::Plain, |pause| RequestKind::Pause(Duration::from_secs(pause)))
        };
        let ack = number(&body, "ack")?;
        let payload = body.take_nodes().into_iter().filter_map(|node| node.into_element());
        // Some clients leave out the namespace of stanzas.
        let payload = payload.map(|element| in_namespace(element, HTTPBIND, CLIENT)).collect();
        Ok((target, Self { rid, kind, ack, payload, bytes: bytes.len() }))
    }

    /// Whether a client with nothing to say sends it only to receive.
    pub(super) fn is_empty(&self) -> bool {
        self.payload.is_empty() && self.kind == RequestKind::Plain
    }
}

fn number(body: &Element, name: &str) -> Result<Option<u64>, Condition> {
    body.attr(name).map(|text| text.parse().map_err(|_| Condition::BadRequest)).transpose()
}

impl Condition {
    fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad-request",
            Self::HostUnknown => "host-unknown",
            Self::ImproperAddressing => "improper-addressing",
            Self::InternalServerError => "internal-server-error",
            Self::ItemNotFound => "item-not-found",
            Self::PolicyViolation => "policy-violation",
            Self::RemoteStreamError => "remote-stream-error",
            Self::SystemShutdown => "system-shutdown",
        }
    }
}

/// Builds the body of a response. Each element of its payload is complete.
pub(super) struct ResponseBody(String);

impl ResponseBody {
    pub(super) fn new() -> Self {
        Self(format!("<body xmlns='{HTTPBIND}'"))
    }

    /// The body that ends a session, with the reason unless the client has asked for it.
    pub(super) fn terminate(condition: Option<Condition>) -> Self {
        let body = Self::new().with("type", "terminate");
        match condition {
            Some(condition) => body.with("condition", condition.as_str()),
            None => body,
        }
    }

    /// Declares the namespace of XMPP's attributes, and says that streams begin anew in the same session (XEP-0206, section 4).
    pub(super) fn of_xmpp(mut self) -> Self {
        // Writing to a text does not fail.
        let _ok = write!(self.0, " xmlns:xmpp='{XBOSH}' xmpp:version='1.0' xmpp:restartlogic='true'");
        self
    }

    /// Adds an attribute, whose value has no characters with a meaning in XML.
    pub(super) fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        let _ok = write!(self.0, " {name}='{value}'");
        self
    }

    pub(super) fn with_payload(self, payload: &[u8]) -> Bytes {
        if payload.is_empty() {
            return Bytes::from([self.0.as_bytes(), b"/>"].concat());
        }
        Bytes::from([self.0.as_bytes(), b">", payload, b"</body>"].concat())
    }

    /// A response without anything in it. All of them share their bytes.
    pub(super) fn empty() -> Bytes {
        Bytes::from_static(EMPTY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(attributes: &str, payload: &str) -> Result<(SessionTarget, RequestBody), Condition> {
        let text = format!("<body xmlns='{HTTPBIND}' xmlns:xmpp='{XBOSH}' {attributes}>{payload}</body>");
        RequestBody::parse(text.as_bytes(), 4096)
    }

    fn kind(attributes: &str) -> RequestKind {
        parse(&format!("rid='7' sid='{}' {attributes}", Sid(1)), "").unwrap().1.kind
    }

    #[test]
    fn a_body_says_what_the_client_wants() {
        let (target, created) =
            parse("rid='7' to='a.example' wait='60' hold='1' ack='1' ver='1.6'", "").unwrap();
        let wishes = Wishes {
            to: Some("a.example".into()),
            wait: Some(Duration::from_secs(60)),
            hold: Some(1),
            acks: true,
        };
        assert_eq!((created.rid, target), (7, SessionTarget::New(wishes)));
        assert_eq!(kind(""), RequestKind::Plain);
        assert_eq!(kind("xmpp:restart='true'"), RequestKind::Restart);
        assert_eq!(kind("restart='true'"), RequestKind::Plain);
        assert_eq!(kind("pause='90'"), RequestKind::Pause(Duration::from_secs(90)));
        assert_eq!(kind("type='terminate' pause='90'"), RequestKind::Terminate);
    }

    #[test]
    fn stanzas_are_those_of_clients_with_a_namespace_or_without() {
        let attributes = format!("rid='7' sid='{}'", Sid(1));
        let (_, body) =
            parse(&attributes, " <iq id='1'/> <iq xmlns='jabber:client' id='2'/><a xmlns='b'/>").unwrap();
        let names: Vec<_> = body.payload.iter().map(|element| (element.name(), element.ns())).collect();
        assert_eq!(names, [("iq", CLIENT.into()), ("iq", CLIENT.into()), ("a", "b".into())]);
    }

    #[test]
    fn what_is_no_body_is_refused() {
        for attributes in ["", "rid='x'", "rid='0'", "rid='9007199254740992'", "rid='-1'", "rid='1' wait='x'"]
        {
            assert_eq!(parse(attributes, ""), Err(Condition::BadRequest), "{attributes}");
        }
        for sid in ["", "x", "1", &format!("{}0", Sid(1)), &format!("+{}", "0".repeat(31)), &"A".repeat(32)] {
            assert_eq!(parse(&format!("rid='1' sid='{sid}'"), ""), Err(Condition::ItemNotFound), "{sid}");
        }
        for text in
            ["", "<body", "<body rid='1'/>", "<a xmlns='http://jabber.org/protocol/httpbind' rid='1'/>"]
        {
            assert_eq!(RequestBody::parse(text.as_bytes(), 4096), Err(Condition::BadRequest), "{text}");
        }
        assert_eq!(RequestBody::parse(&[b' '; 9], 8), Err(Condition::PolicyViolation));
    }

    #[test]
    fn a_response_is_xml() {
        let sid = Sid(0xab);
        let body =
            ResponseBody::new().of_xmpp().with("sid", sid).with("wait", 60).with_payload(b"<a xmlns='b'/>");
        let parsed = parse_document(&body, 4096).unwrap();
        assert!(parsed.is("body", HTTPBIND) && parsed.get_child("a", "b").is_some());
        assert_eq!(Sid::parse(parsed.attr("sid").unwrap()), Some(sid));
        assert_eq!(parsed.attr_ns(XBOSH, "restartlogic"), Some("true"));
        let ended = ResponseBody::terminate(Some(Condition::ItemNotFound)).with_payload(b"");
        let ended = parse_document(&ended, 4096).unwrap();
        assert_eq!(
            (ended.attr("type"), ended.attr("condition")),
            (Some("terminate"), Some("item-not-found"))
        );
        assert_eq!(ResponseBody::empty(), ResponseBody::new().with_payload(b""));
    }
}
