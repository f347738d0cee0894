//! The stored form of subscriptions: a session for each address without its resource, whose name no MQTT client can have, with an entry
//! for each subscription.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::table::SubscriptionKey;
use crate::hub::{Hub, SessionWalk};
use crate::stream::{Epoch, Failure, Offset, Position, SessionChange, SessionNames, StreamName};
use crate::xmpp::jid::Jid;

/// What the names of these sessions begin with, see [`OWN_SESSIONS`](crate::stream::OWN_SESSIONS).
const SESSIONS: &str = "\0xmpp/";

/// Format of the values. A changed format gets a new number; values with an unknown number are skipped.
const FORMAT: u8 = 1;

/// Separates the address from the name of the stream in a key. Neither has control characters.
const SEPARATOR: char = '\0';

#[derive(Serialize, Deserialize)]
struct SubscriptionRecord {
    epoch: u64,
    position: u64,
    suspended: bool,
}

/// The name of the session of an address.
pub(in crate::xmpp) fn session_name(jid: &Jid) -> Arc<str> {
    [SESSIONS, jid.bare().as_str()].concat().into()
}

/// The change that stores subscriptions of one address without its resource: each with its offset and whether it is suspended;
/// `None` removes it.
pub(super) fn stored_change<'a>(
    jid: &Jid,
    states: impl IntoIterator<Item = (&'a SubscriptionKey, Option<(Offset, bool)>)>,
) -> SessionChange {
    let encoded = |(offset, suspended): (Offset, bool)| {
        let record = SubscriptionRecord { epoch: offset.epoch.0, position: offset.position.0, suspended };
        postcard::to_extend(&record, vec![FORMAT]).ok().map(Bytes::from)
    };
    let entry = |(key, state): (&SubscriptionKey, Option<_>)| {
        let name = format!("{}{SEPARATOR}{}", key.jid, key.stream);
        (Bytes::from(name), state.and_then(encoded))
    };
    SessionChange { client: session_name(jid), anew: false, entries: states.into_iter().map(entry).collect() }
}

/// The subscriptions that the store has kept. Damaged ones are left out.
pub(super) async fn restored(hub: &Hub) -> Result<Vec<(SubscriptionKey, Offset, bool)>, Failure> {
    let (mut walk, mut found) = (SessionWalk::over(SessionNames::Own(SESSIONS)), Vec::new());
    while let Some(sessions) = hub.next_sessions(&mut walk).await? {
        found.extend(sessions.iter().flat_map(|session| parse_all(&session.entries)));
    }
    Ok(found)
}

/// Reads the entries of a session. Damaged ones are left out.
pub(super) fn parse_all(entries: &[(Bytes, Bytes)]) -> Vec<(SubscriptionKey, Offset, bool)> {
    let parsed = entries.iter().filter_map(|(key, value)| {
        let subscription = parse(key, value);
        if subscription.is_none() {
            tracing::error!(?key, "a stored XMPP subscription is damaged and left out");
        }
        subscription
    });
    parsed.collect()
}

/// Reads an entry of a session. `None`: it is damaged.
pub(in crate::xmpp) fn parse(key: &[u8], value: &[u8]) -> Option<(SubscriptionKey, Offset, bool)> {
    let (jid, stream) = std::str::from_utf8(key).ok()?.split_once(SEPARATOR)?;
    let key = SubscriptionKey { stream: StreamName::stored(stream).ok()?, jid: Jid::parse(jid).ok()? };
    let record = value.strip_prefix(&[FORMAT])?;
    let SubscriptionRecord { epoch, position, suspended } = postcard::from_bytes(record).ok()?;
    Some((key, Offset { epoch: Epoch(epoch), position: Position(position) }, suspended))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_restored() {
        let jid = Jid::parse("a@b/c d").unwrap();
        let key = SubscriptionKey { stream: StreamName::parse("x/y").unwrap(), jid: jid.clone() };
        let offset = Offset { epoch: Epoch(7), position: Position(u64::MAX) };
        let change = stored_change(&jid.bare(), [(&key, Some((offset, true)))]);
        assert_eq!(&*change.client, "\0xmpp/a@b");
        let (name, value) = change.entries[0].clone();
        assert_eq!(parse(&name, &value.unwrap()), Some((key.clone(), offset, true)));
        assert_eq!(stored_change(&jid, [(&key, None)]).entries, [(name.clone(), None)]);
        for damaged in [&b""[..], b"\x02", b"\x01\xff"] {
            assert_eq!(parse(&name, damaged), None);
        }
    }
}
