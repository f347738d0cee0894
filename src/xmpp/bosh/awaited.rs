//! [`AwaitedSessions`]: sessions that are stored, and whose clients have not come back yet.

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::body::Sid;
use crate::budget::Charge;

/// Sessions of this gateway whose clients have not come back since it has started, or has taken them from a gateway that has ended.
#[derive(Default)]
pub(super) struct AwaitedSessions(Mutex<HashMap<Sid, AwaitedSession>>);

/// The entries of a session, which ends if its client does not come.
pub(super) struct AwaitedSession {
    pub(super) entries: Vec<(Bytes, Bytes)>,
    pub(super) until: Instant,
    pub(super) _charge: Charge,
}

impl AwaitedSessions {
    pub(super) fn has(&self, sid: Sid) -> bool {
        self.0.lock().contains_key(&sid)
    }

    pub(super) fn take(&self, sid: Sid) -> Option<AwaitedSession> {
        self.0.lock().remove(&sid)
    }

    pub(super) fn put(&self, sid: Sid, session: AwaitedSession) {
        self.0.lock().insert(sid, session);
    }

    /// Takes the sessions whose time is over by `now`.
    pub(super) fn take_ended(&self, now: Instant) -> Vec<Sid> {
        let mut awaited = self.0.lock();
        let ended: Vec<_> =
            awaited.iter().filter(|(_, session)| session.until <= now).map(|(sid, _)| *sid).collect();
        ended.iter().for_each(|sid| drop(awaited.remove(sid)));
        ended
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::budget::{Account, Budget};
    use crate::stream::Principal;

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_whose_client_has_not_come_in_time() {
        let (awaited, owner) = (AwaitedSessions::default(), Budget::unlimited().owner(Principal::GATEWAY));
        let now = Instant::now();
        for seconds in 1..=3 {
            let until = now + Duration::from_secs(seconds);
            let charge = Charge::new(&owner, Account::Sessions, 1);
            awaited.put(Sid(seconds.into()), AwaitedSession { entries: Vec::new(), until, _charge: charge });
        }
        assert!(awaited.take(Sid(1)).is_some() && awaited.take(Sid(1)).is_none());
        assert!(awaited.take_ended(now + Duration::from_secs(2)) == [Sid(2)]);
        assert!(awaited.has(Sid(3)) && !awaited.has(Sid(2)));
    }
}
