//! The stored form of BOSH sessions: a session of the store for each, whose name no MQTT client can have. It has an entry for the login, one for
//! the requests, and one for each subscription.

use std::sync::Arc;

use bytes::Bytes;
use minidom::Element;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::body::Sid;
use super::state::{SessionState, SessionTerms, Unhandled};
use super::window::RidWindow;
use crate::stream::{Offset, Principal, SessionNames};
use crate::xmpp::client::ClientSession;
use crate::xmpp::jid::Jid;
use crate::xmpp::subscriptions::{SubscriptionKey, parse_subscription};
use crate::xmpp::xml::{parse_document, to_bytes};

/// What the names of these sessions begin with, see [`OWN_SESSIONS`](crate::stream::OWN_SESSIONS).
const SESSIONS: &str = "\0xmpp-bosh/";

/// The sessions of the store that are BOSH sessions.
pub(super) const BOSH_SESSIONS: SessionNames<'static> = SessionNames::Own(SESSIONS);

/// The keys of the entries that are no subscriptions. Those of subscriptions have a control character.
const LOGIN_KEY: &[u8] = b"login";
const REQUESTS_KEY: &[u8] = b"requests";

/// Format of the values. A changed format gets a new number; sessions with an unknown number end.
const FORMAT: u8 = 2;

/// Bits of the place of a stanza that count stanzas of one request, of which each takes several bytes.
const INDEX_BITS: u32 = 16;

/// An entry of a session.
type RecordEntry = (Bytes, Option<Bytes>);

/// What is stored of a session.
pub(super) struct BoshRecord {
    pub(super) login: LoginRecord,
    pub(super) requests: StoredRequests,
    pub(super) subscriptions: Vec<(SubscriptionKey, Offset, bool)>,
}

/// What does not change.
#[derive(Serialize, Deserialize)]
pub(super) struct LoginRecord {
    jid: String,
    pub(super) address: u64,
    /// See [`Grants::to_bytes`](crate::auth::Grants::to_bytes).
    pub(super) grants: Option<Box<[u8]>>,
    /// See [`StoredProgress`](super::state::StoredProgress).
    pub(super) first: u64,
    pub(super) terms: SessionTerms,
}

/// What changes with each response.
#[derive(Serialize, Deserialize)]
pub(super) struct RequestsRecord {
    window: RidWindow,
    out: Vec<u8>,
    /// Elements that are not handled yet, with their places.
    inbox: Vec<(Vec<u8>, Option<u64>)>,
    /// The device that the client has become by enabling push.
    device: Option<String>,
}

/// The requests of a session that is restored.
pub(super) struct StoredRequests {
    pub(super) window: RidWindow,
    pub(super) out: Vec<u8>,
    pub(super) inbox: Vec<Unhandled>,
    pub(super) inbox_bytes: usize,
    pub(super) device: Option<String>,
}

/// The place of a stanza among all stanzas of a client, by the number of its request and its index in that. It is below 2^53 for 2^37
/// requests. `None`: there are too many before it.
pub(super) fn place_of(request: u64, index: u64) -> Option<u64> {
    (index < 1 << INDEX_BITS).then_some(request << INDEX_BITS | index)
}

/// The name of the session in the store.
pub(super) fn session_name(sid: Sid) -> Arc<str> {
    format!("{SESSIONS}{sid}").into()
}

/// The session whose name in the store this is.
pub(super) fn sid_of(name: &str) -> Option<Sid> {
    Sid::parse(name.strip_prefix(SESSIONS)?)
}

/// Distinguishes what the client of a session publishes. It says nothing about the session.
pub(super) fn publisher_name(sid: Sid) -> Arc<str> {
    let digest = digest(&SHA256, &sid.0.to_be_bytes());
    let first = digest.as_ref().first_chunk().map_or(0, |bytes| u128::from_be_bytes(*bytes));
    format!("{first:032x}").into()
}

impl LoginRecord {
    pub(super) fn of(
        client: &ClientSession,
        Principal(address): Principal,
        first: u64,
        terms: SessionTerms,
    ) -> Self {
        Self { jid: client.jid().to_string(), address, grants: client.grants().to_bytes(), first, terms }
    }

    pub(super) fn jid(&self) -> Option<Jid> {
        Jid::parse(&self.jid).ok()
    }

    /// The entry of the session. `None`: it cannot be encoded.
    pub(super) fn to_entry(&self) -> Option<RecordEntry> {
        encoded(LOGIN_KEY, self)
    }
}

impl RequestsRecord {
    pub(super) fn of(state: &SessionState, client: &ClientSession) -> Self {
        let element = |unhandled: &Unhandled| match unhandled {
            Unhandled::Element(element, place) => Some((to_bytes(element), *place)),
            // The first one means nothing to a client that has logged in, and without the second one the session ends later.
            Unhandled::Restart | Unhandled::Terminate => None,
        };
        let inbox = state.inbox.iter().filter_map(element).collect();
        Self { window: state.window.clone(), out: state.out.clone(), inbox, device: client.device_name() }
    }

    /// The entry of the session. `None`: it cannot be encoded.
    pub(super) fn to_entry(&self) -> Option<RecordEntry> {
        encoded(REQUESTS_KEY, self)
    }

    fn decoded(self) -> Option<StoredRequests> {
        let Self { window, out, inbox, device } = self;
        let inbox_bytes = inbox.iter().map(|(bytes, _)| bytes.len()).sum();
        let element = |(bytes, place): (Vec<u8>, _)| {
            let element: Element = parse_document(&bytes, bytes.len()).ok()?;
            Some(Unhandled::Element(element, place))
        };
        let inbox = inbox.into_iter().map(element).collect::<Option<_>>()?;
        Some(StoredRequests { window, out, inbox, inbox_bytes, device })
    }
}

impl BoshRecord {
    /// Reads the entries of a session. `None`: they are damaged.
    pub(super) fn read(entries: &[(Bytes, Bytes)]) -> Option<Self> {
        let of_subscriptions = entries.iter().filter(|(key, _)| key != LOGIN_KEY && key != REQUESTS_KEY);
        let subscriptions = of_subscriptions.map(|(key, value)| parse_subscription(key, value));
        Some(Self {
            login: decoded(LOGIN_KEY, entries)?,
            requests: decoded::<RequestsRecord>(REQUESTS_KEY, entries)?.decoded()?,
            subscriptions: subscriptions.collect::<Option<_>>()?,
        })
    }
}

fn encoded(key: &'static [u8], record: &impl Serialize) -> Option<RecordEntry> {
    let value = postcard::to_extend(record, vec![FORMAT]).ok()?;
    Some((Bytes::from_static(key), Some(value.into())))
}

fn decoded<T: for<'a> Deserialize<'a>>(key: &[u8], entries: &[(Bytes, Bytes)]) -> Option<T> {
    let (_, value) = entries.iter().find(|(its, _)| its == key)?;
    postcard::from_bytes(value.strip_prefix(&[FORMAT])?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(text: &str) -> RequestsRecord {
        let inbox = vec![(text.as_bytes().to_vec(), Some(5))];
        let (window, out) = (RidWindow::new(10, 2), b"<a/>".to_vec());
        RequestsRecord { window, out, inbox, device: Some("phone".to_owned()) }
    }

    #[test]
    fn what_is_stored_is_restored_and_damage_is_found() {
        let sid = Sid(7);
        assert_eq!(sid_of(&session_name(sid)), Some(sid));
        assert_eq!(sid_of("\0xmpp-bosh/7"), None);
        let terms = SessionTerms { wait_millis: 9000, holds: true, acks: false };
        let login = LoginRecord { jid: "a@b/c".into(), address: 1, grants: None, first: 4, terms };
        let entries = |requests: RequestsRecord| {
            [login.to_entry(), requests.to_entry()]
                .map(|entry| entry.map(|(key, value)| (key, value.unwrap())).unwrap())
        };
        let stanza = "<message xmlns='jabber:client' to='b'/>";
        let record = BoshRecord::read(&entries(requests(stanza))).unwrap();
        assert_eq!((record.login.first, record.login.jid()), (4, Jid::parse("a@b/c").ok()));
        assert_eq!((record.requests.window.taken(), &*record.requests.out), (10, &b"<a/>"[..]));
        assert_eq!(record.requests.device.as_deref(), Some("phone"));
        assert!(
            matches!(&record.requests.inbox[..], [Unhandled::Element(one, Some(5))] if one.name() == "message")
        );
        assert!(BoshRecord::read(&entries(requests("<message"))).is_none());
        let [login, mut requests] = entries(requests(stanza));
        assert!(BoshRecord::read(std::slice::from_ref(&login)).is_none());
        requests.1 = Bytes::from_static(b"\x02");
        assert!(BoshRecord::read(&[login, requests]).is_none());
    }

    #[test]
    fn each_stanza_has_a_later_place_than_those_before_it() {
        let places = [(0, 0), (0, 1), (1, 0), (1, 65_535), (2, 0), (1 << 36, 9)];
        let places = places.map(|(request, index)| place_of(request, index).unwrap());
        assert!(places.is_sorted_by(|one, next| one < next) && places.iter().all(|place| *place < 1 << 53));
        assert_eq!(place_of(1, 65_536), None);
    }
}
