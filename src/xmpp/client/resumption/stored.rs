//! The stored form of resumable streams: a session for each stream, whose name no MQTT client can have. It has an entry for each
//! subscription, and one for everything else.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{ResumableStreams, SuspendedStream};
use crate::clock::Clock;
use crate::hub::{Hub, SessionWalk};
use crate::stream::{
    Epoch, Failure, Offset, Position, Principal, SessionChange, SessionNames, StoredSession, StreamName,
    Tenant,
};
use crate::xmpp::client::acks::{Notified, StanzaCounts};
use crate::xmpp::jid::Jid;
use crate::xmpp::subscriptions::{SubscriptionKey, parse_subscription};

/// What the names of these sessions begin with, see [`OWN_SESSIONS`](crate::stream::OWN_SESSIONS).
const STREAMS: &str = "\0xmpp-stream/";

/// The sessions of streams.
pub(in crate::xmpp::client) const STREAM_SESSIONS: SessionNames<'static> = SessionNames::Own(STREAMS);

/// The key of the entry that is no subscription. Those of subscriptions have a control character.
const KEY: &[u8] = b"stream";

/// Format of the value. A changed format gets a new number; streams with an unknown number end.
const FORMAT: u8 = 2;

/// What is stored of a stream besides its subscriptions.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::xmpp::client) struct ResumableRecord {
    pub(in crate::xmpp::client) jid: String,
    pub(in crate::xmpp::client) subject: Option<String>,
    pub(in crate::xmpp::client) tenant: String,
    pub(in crate::xmpp::client) principal: u64,
    pub(in crate::xmpp::client) credentials: Option<Box<[u8]>>,
    pub(in crate::xmpp::client) counts: StanzaCounts,
    pub(in crate::xmpp::client) resume_time: Duration,
    pub(in crate::xmpp::client) device: Option<String>,
    /// `None`: the client is connected, or was when the gateway was killed.
    pub(in crate::xmpp::client) suspended: Option<SuspendedRecord>,
}

/// What is stored of a suspended stream.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::xmpp::client) struct SuspendedRecord {
    until: SystemTime,
    notified: Vec<NotifiedRecord>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct NotifiedRecord {
    number: u32,
    stream: String,
    jid: String,
    epoch: u64,
    position: u64,
}

/// The name of the session of a stream.
pub(in crate::xmpp::client) fn record_name(id: &str) -> Arc<str> {
    [STREAMS, id].concat().into()
}

/// The id of the stream whose session has this name.
pub(in crate::xmpp::client) fn id_of(session: &str) -> Option<&str> {
    session.strip_prefix(STREAMS)
}

impl ResumableRecord {
    /// The entry of the session. `None`: it cannot be encoded.
    pub(in crate::xmpp::client) fn to_entry(&self) -> Option<(Bytes, Option<Bytes>)> {
        let value = postcard::to_extend(self, vec![FORMAT]).ok()?;
        Some((Bytes::from_static(KEY), Some(value.into())))
    }
}

impl SuspendedRecord {
    /// What is stored of a stream that may be resumed until this time.
    pub(in crate::xmpp::client) fn new(until: SystemTime, notified: &VecDeque<Notified>) -> Self {
        let record = |Notified { number, key, next }: &Notified| NotifiedRecord {
            number: *number,
            stream: key.stream.to_string(),
            jid: key.jid.to_string(),
            epoch: next.epoch.0,
            position: next.position.0,
        };
        Self { until, notified: notified.iter().map(record).collect() }
    }

    fn notified(&self) -> Option<VecDeque<Notified>> {
        let notified = |record: &NotifiedRecord| {
            let stream = StreamName::stored(&record.stream).ok()?;
            let next = Offset { epoch: Epoch(record.epoch), position: Position(record.position) };
            let key = SubscriptionKey { stream, jid: Jid::parse(&record.jid).ok()? };
            Some(Notified { number: record.number, key, next })
        };
        self.notified.iter().map(notified).collect()
    }
}

impl ResumableStreams {
    /// Loads the stored streams, unless several gateways share the store. A stream that was connected when the gateway ended can be
    /// resumed for `xmpp_resume_time` from now on.
    pub(in crate::xmpp::client) async fn load(&self, hub: &Hub, clock: Clock) -> Result<(), Failure> {
        if hub.shares_sessions() {
            return Ok(());
        }
        let mut walk = SessionWalk::over(STREAM_SESSIONS);
        while let Some(sessions) = hub.next_sessions(&mut walk).await? {
            for session in sessions {
                if !self.restore(hub, &session, clock) {
                    hub.change_session(SessionChange::end(session.client)).await?;
                }
            }
        }
        Ok(())
    }

    /// Adds a stream with its stored session. Returns whether that is whole.
    pub(in crate::xmpp::client) fn restore(&self, hub: &Hub, session: &StoredSession, clock: Clock) -> bool {
        let is_whole = self.try_restore(hub, session, clock).is_some();
        if !is_whole {
            tracing::error!("a stored XMPP stream is damaged and ends");
        }
        is_whole
    }

    fn try_restore(&self, hub: &Hub, session: &StoredSession, clock: Clock) -> Option<()> {
        let id = id_of(&session.client)?;
        let (_, value) = session.entries.iter().find(|(key, _)| key == KEY)?;
        let record: ResumableRecord = postcard::from_bytes(value.strip_prefix(&[FORMAT])?).ok()?;
        let of_subscriptions = session.entries.iter().filter(|(key, _)| key != KEY);
        let subscriptions = of_subscriptions.map(|(key, value)| parse_subscription(key, value));
        let jid = Jid::parse(&record.jid).ok()?;
        let (notified, left) = match &record.suspended {
            Some(suspended) => {
                let left = suspended.until.duration_since(clock.now()).unwrap_or_default();
                (Some(suspended.notified()?), left.min(record.resume_time))
            }
            None => (None, record.resume_time),
        };
        let (owner, principal) = (record.subject.as_deref().map(Into::into), Principal(record.principal));
        let stream = SuspendedStream {
            jid,
            counts: record.counts,
            notified,
            subscriptions: subscriptions.collect::<Option<_>>()?,
            credentials: record.credentials,
            resume_time: record.resume_time,
            device: record.device,
            until: clock.instant() + left,
        };
        let account = hub.budget().owner_in(Tenant::parse(&record.tenant).ok()?, principal);
        self.adopt(id.into(), owner, principal, stream, &account);
        Some(())
    }
}
