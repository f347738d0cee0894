//! How a subscription is stored: as a session of the store, with an entry for its configuration, one for its wake, and one for each
//! link. A change writes only the entries that have changed, in one step.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::state::{Link, SubscriptionConfig, SubscriptionState, WakePhase};
use crate::stream::{Epoch, Offset, Position, SessionChange, StoredSession, StreamName, Tenant};

/// What the names of the sessions begin with, see [`OWN_SESSIONS`](crate::stream::OWN_SESSIONS).
pub const SUBSCRIPTION_SESSIONS: &str = "\0subscription/";

/// Separates tenant and name.
const SEPARATOR: char = '/';

const CONFIG: &[u8] = b"c";
const WAKE: &[u8] = b"w";

/// Begins the key of a link; the name of the stream follows.
const LINK: u8 = b'l';

#[derive(Serialize, Deserialize)]
struct StoredConfig {
    config: SubscriptionConfig,
    incarnation: u64,
    created_at: String,
}

#[derive(Serialize, Deserialize)]
struct StoredWake {
    generation: u64,
    failures: u32,
    phase: WakePhase,
}

#[derive(Serialize, Deserialize)]
struct StoredLink {
    explicit: bool,
    /// Epoch and position.
    acked: Option<(u64, u64)>,
}

/// The part of a subscription that a change writes.
pub(super) enum ChangedPart<'a> {
    Everything,
    Wake(&'a [StreamName]),
}

/// The name of a subscription's session.
pub(super) fn session_name(tenant: &Tenant, id: &str) -> Arc<str> {
    format!("{SUBSCRIPTION_SESSIONS}{tenant}{SEPARATOR}{id}").into()
}

fn link_key(name: &StreamName) -> Bytes {
    [&[LINK], name.as_str().as_bytes()].concat().into()
}

fn json(value: &impl Serialize) -> Option<Bytes> {
    serde_json::to_vec(value).ok().map(Bytes::from)
}

/// The change that stores a part of a subscription.
pub(super) fn change(client: Arc<str>, state: &SubscriptionState, part: ChangedPart<'_>) -> SessionChange {
    let link = |name: &StreamName| {
        let stored = state.links.get(name).and_then(|link| {
            let acked = link.acked.map(|acked| (acked.epoch.0, acked.position.0));
            json(&StoredLink { explicit: link.is_explicit, acked })
        });
        (link_key(name), stored)
    };
    let SubscriptionState { generation, failures, .. } = *state;
    let wake = json(&StoredWake { generation, failures, phase: state.phase.clone() });
    let mut entries = vec![(Bytes::from_static(WAKE), wake)];
    let anew = matches!(part, ChangedPart::Everything);
    match part {
        ChangedPart::Wake(links) => entries.extend(links.iter().map(link)),
        ChangedPart::Everything => {
            let (config, created_at) = (state.config.clone(), state.created_at.clone());
            let config = StoredConfig { config, incarnation: state.incarnation, created_at };
            entries.push((Bytes::from_static(CONFIG), json(&config)));
            entries.extend(state.links.keys().map(link));
        }
    }
    SessionChange { client, anew, entries }
}

/// The tenant and the name of the subscription with a session. `None`: it is damaged.
pub(super) fn tenant_and_name(session: &str) -> Option<(Tenant, String)> {
    let (tenant, id) = session.strip_prefix(SUBSCRIPTION_SESSIONS)?.split_once(SEPARATOR)?;
    Some((Tenant::parse(tenant).ok()?, id.to_owned()))
}

/// Reads a stored subscription: its tenant, its name and its state. `None`: its name is damaged. A link that cannot be read is
/// missing; without configuration there is no state.
pub(super) fn restore(stored: &StoredSession) -> Option<(Tenant, String, Option<SubscriptionState>)> {
    let (tenant, id) = tenant_and_name(&stored.client)?;
    let entry = |key: &[u8]| stored.entries.iter().find(|(own, _)| own == key).map(|(_, value)| value);
    let config = entry(CONFIG).and_then(|json| serde_json::from_slice::<StoredConfig>(json).ok());
    let wake = entry(WAKE).and_then(|json| serde_json::from_slice::<StoredWake>(json).ok());
    let state = config.zip(wake).map(|(stored_config, wake)| {
        let StoredConfig { config, incarnation, created_at } = stored_config;
        let StoredWake { generation, failures, phase } = wake;
        let links = stored.entries.iter().filter_map(|(key, value)| link(key, value));
        let links: BTreeMap<_, _> = links.collect();
        let tenant = tenant.clone();
        SubscriptionState { config, tenant, incarnation, created_at, links, generation, failures, phase }
    });
    Some((tenant, id, state))
}

fn link(key: &[u8], value: &[u8]) -> Option<(StreamName, Link)> {
    let name = std::str::from_utf8(key.strip_prefix(&[LINK])?).ok()?;
    let StoredLink { explicit, acked } = serde_json::from_slice(value).ok()?;
    let acked = acked.map(|(epoch, position)| Offset { epoch: Epoch(epoch), position: Position(position) });
    Some((StreamName::stored(name).ok()?, Link::new(explicit, acked, None)))
}
