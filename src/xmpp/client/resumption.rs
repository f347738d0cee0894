//! [`ResumableStreams`]: the streams that clients may resume after their connection is lost (XEP-0198 1.6.3, section 5).
//!
//! Each stream has one place in the table. A session holds it while it is connected, and leaves a [`SuspendedStream`] in it when its
//! connection is lost. If a client resumes a stream whose connection seems to be alive, that one has to leave first.

mod stored;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use super::acks::{NOTIFIED_BYTES, Notified, StanzaCounts};
use crate::auth::Grants;
use crate::budget::{Account, Charge, Owner};
use crate::limits::Limits;
use crate::stream::{Offset, Principal};
use crate::xmpp::jid::Jid;
use crate::xmpp::subscriptions::{SubscriptionKey, bytes_of};

pub(super) use stored::{ResumableRecord, STREAM_SESSIONS, SuspendedRecord, id_of, record_name};

/// Length of the id of a stream before its encoding, in bytes.
const ID_BYTES: usize = 16;

/// Estimated memory of a suspended stream, without its subscriptions and notifications.
const STREAM_BYTES: u64 = 600;

/// How long a connection may take to leave a stream that is resumed elsewhere.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(5);

/// The id of a stream. It cannot be guessed.
pub(super) type ResumptionId = Arc<str>;

/// The table of the streams that clients may resume.
pub(super) struct ResumableStreams {
    table: Mutex<StreamTable>,
    max: usize,
    per_client_max: usize,
}

#[derive(Default)]
struct StreamTable {
    streams: HashMap<ResumptionId, Slot>,
    /// When suspended streams end.
    ends: BTreeSet<(Instant, ResumptionId)>,
    /// Number of streams of each client.
    counts: HashMap<Principal, usize>,
}

struct Slot {
    owner: StreamOwner,
    principal: Principal,
    state: PlaceState,
}

enum PlaceState {
    Connected(Arc<Handover>),
    /// With the charge of its memory.
    Suspended(Box<SuspendedStream>, Charge),
}

/// How a connection learns that its stream is resumed elsewhere, and tells that it has left it.
#[derive(Default)]
struct Handover {
    is_wanted: Notify,
    is_left: Notify,
}

/// Who may resume a stream: the subject that has begun it. `None`: a client without credentials, for which the id of the stream is the only
/// secret. The address does not count, since the name of a client gives it no rights.
pub(super) type StreamOwner = Option<Arc<str>>;

/// A stream whose connection is lost: all that is needed to go on.
pub(super) struct SuspendedStream {
    pub(super) jid: Jid,
    pub(super) counts: StanzaCounts,
    /// Notifications that the client has not acknowledged. `None`: the gateway was killed, so nobody knows what was sent.
    pub(super) notified: Option<VecDeque<Notified>>,
    /// Subscriptions with their confirmed offsets, and whether they are suspended.
    pub(super) subscriptions: Vec<(SubscriptionKey, Offset, bool)>,
    /// Identifies the credentials that the client had, see [`Authenticator::has_revoked`](crate::auth::Authenticator::has_revoked).
    pub(super) credentials: Option<Box<[u8]>>,
    /// How long the stream may be resumed after its connection is lost.
    pub(super) resume_time: Duration,
    /// The device that the client has become by enabling push.
    pub(super) device: Option<String>,
    pub(super) until: Instant,
}

/// The place of a connected stream in the table. Dropping it ends the stream.
pub(super) struct StreamPlace {
    streams: Arc<ResumableStreams>,
    id: ResumptionId,
    handover: Arc<Handover>,
}

/// The owner of the streams of a client with these rights.
pub(super) fn owner_of(grants: &Grants) -> StreamOwner {
    grants.subject().map(Into::into)
}

impl PlaceState {
    /// The state of a suspended stream, which is charged to `account`.
    fn suspended(stream: SuspendedStream, account: &Arc<Owner>) -> Self {
        let notified = stream.notified.as_ref().map_or(0, VecDeque::len) * NOTIFIED_BYTES;
        let subscriptions: u64 = stream.subscriptions.iter().map(|(key, ..)| bytes_of(key)).sum();
        let charge = Charge::new(account, Account::Sessions, STREAM_BYTES + notified as u64 + subscriptions);
        Self::Suspended(Box::new(stream), charge)
    }
}

impl ResumableStreams {
    /// Creates an empty table.
    pub(super) fn new(limits: &Limits) -> Self {
        let (max, per_client_max) = (limits.xmpp_resumable_max, limits.xmpp_resumable_per_client_max);
        Self { table: Mutex::default(), max, per_client_max }
    }

    /// Takes a place for a new stream. `None`: there are too many, of this client or of all.
    pub(super) fn begin(self: &Arc<Self>, owner: StreamOwner, principal: Principal) -> Option<StreamPlace> {
        let mut bytes = [0; ID_BYTES];
        SystemRandom::new().fill(&mut bytes).ok()?;
        let id: ResumptionId = format!("{:032x}", u128::from_be_bytes(bytes)).into();
        let handover = Arc::new(Handover::default());
        let state = PlaceState::Connected(handover.clone());
        let mut table = self.table.lock();
        let of_client = table.counts.get(&principal).copied().unwrap_or_default();
        if table.streams.len() >= self.max || of_client >= self.per_client_max {
            return None;
        }
        table.insert(id.clone(), Slot { owner, principal, state });
        Some(StreamPlace { streams: self.clone(), id, handover })
    }

    /// Adds a stream that the store has kept, whatever the limits are by now.
    pub(super) fn adopt(
        &self,
        id: ResumptionId,
        owner: StreamOwner,
        principal: Principal,
        stream: SuspendedStream,
        account: &Arc<Owner>,
    ) {
        let mut table = self.table.lock();
        table.ends.insert((stream.until, id.clone()));
        table.insert(id, Slot { owner, principal, state: PlaceState::suspended(stream, account) });
    }

    /// Takes a stream that its owner resumes. If it is connected, that connection leaves it first. `None`: there is no such stream.
    pub(super) async fn resume(
        self: &Arc<Self>,
        id: &str,
        owner: &StreamOwner,
    ) -> Option<(StreamPlace, SuspendedStream)> {
        loop {
            let other = {
                let mut table = self.table.lock();
                match table.take_suspended(id, owner)? {
                    Ok((id, handover, stream)) => {
                        return Some((StreamPlace { streams: self.clone(), id, handover }, *stream));
                    }
                    Err(other) => other,
                }
            };
            other.is_wanted.notify_one();
            timeout(HANDOVER_TIMEOUT, other.is_left.notified()).await.ok()?;
            // Others may wait for the same, and then for this connection.
            other.is_left.notify_one();
        }
    }

    /// Whether a stream is in the table.
    pub(super) fn has(&self, id: &str) -> bool {
        self.table.lock().streams.contains_key(id)
    }

    /// Removes a stream that another gateway has from now on. If it is connected, that connection leaves it first.
    pub(super) async fn give(&self, id: &str) {
        let until = Instant::now() + HANDOVER_TIMEOUT;
        loop {
            let other = {
                let mut table = self.table.lock();
                match table.connected(id) {
                    Some(other) if Instant::now() < until => other,
                    _ => return table.forget(id),
                }
            };
            other.is_wanted.notify_one();
            let _left = timeout_at(until, other.is_left.notified()).await;
            other.is_left.notify_one();
        }
    }

    /// Takes the ids of the suspended streams that have ended by `now`.
    pub(super) fn take_ended(&self, now: Instant) -> Vec<ResumptionId> {
        let (mut table, mut ended) = (self.table.lock(), Vec::new());
        while table.ends.first().is_some_and(|(end, _)| *end <= now) {
            let Some((_, id)) = table.ends.pop_first() else { break };
            table.remove(&id);
            ended.push(id);
        }
        ended
    }

    /// Number of streams without a connection.
    pub(super) fn suspended(&self) -> usize {
        self.table.lock().ends.len()
    }
}

/// A stream that its owner may go on with.
type TakenStream = (ResumptionId, Arc<Handover>, Box<SuspendedStream>);

impl StreamTable {
    fn insert(&mut self, id: ResumptionId, slot: Slot) {
        *self.counts.entry(slot.principal).or_default() += 1;
        self.streams.insert(id, slot);
    }

    fn remove(&mut self, id: &str) {
        let Some(slot) = self.streams.remove(id) else { return };
        if let Some(count) = self.counts.get_mut(&slot.principal) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&slot.principal);
            }
        }
    }

    /// The connection that has a stream. `None`: it is suspended, or there is none.
    fn connected(&self, id: &str) -> Option<Arc<Handover>> {
        match &self.streams.get(id)?.state {
            PlaceState::Connected(handover) => Some(handover.clone()),
            PlaceState::Suspended(..) => None,
        }
    }

    /// Removes a stream, whether it is suspended or not.
    fn forget(&mut self, id: &str) {
        if let Some(Slot { state: PlaceState::Suspended(stream, _), .. }) = self.streams.get(id) {
            self.ends.remove(&(stream.until, id.into()));
        }
        self.remove(id);
    }

    /// Takes the stream of a place, which is connected from now on. The error is the connection that has the stream.
    fn take_suspended(
        &mut self,
        id: &str,
        owner: &StreamOwner,
    ) -> Option<Result<TakenStream, Arc<Handover>>> {
        let (id, _) = self.streams.get_key_value(id)?;
        let id = id.clone();
        let slot = self.streams.get_mut(&id).filter(|slot| slot.owner == *owner)?;
        let handover = Arc::new(Handover::default());
        match std::mem::replace(&mut slot.state, PlaceState::Connected(handover.clone())) {
            PlaceState::Suspended(stream, _charge) => {
                self.ends.remove(&(stream.until, id.clone()));
                Some(Ok((id, handover, stream)))
            }
            PlaceState::Connected(other) => {
                slot.state = PlaceState::Connected(other.clone());
                Some(Err(other))
            }
        }
    }
}

impl StreamPlace {
    /// The id of the stream.
    pub(super) fn id(&self) -> &ResumptionId {
        &self.id
    }

    /// Waits until the stream is resumed elsewhere. Cancel safe.
    pub(super) async fn is_wanted(&self) {
        self.handover.is_wanted.notified().await;
    }

    /// Leaves the stream, which may be resumed until it ends and is charged to `account`.
    pub(super) fn suspend(self, stream: SuspendedStream, account: &Arc<Owner>) {
        let mut table = self.streams.table.lock();
        let end = (stream.until, self.id.clone());
        if let Some(slot) = table.streams.get_mut(&self.id) {
            slot.state = PlaceState::suspended(stream, account);
            table.ends.insert(end);
        }
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut table = self.streams.table.lock();
        let is_own = |slot: &Slot| matches!(&slot.state, PlaceState::Connected(other) if Arc::ptr_eq(other, &self.handover));
        if table.streams.get(&self.id).is_some_and(is_own) {
            table.remove(&self.id);
        }
        self.handover.is_left.notify_one();
    }
}
