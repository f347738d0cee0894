//! [`Followed`]: wakes the readers of this gateway when another gateway has changed a stream of the store that they share, and tells who
//! serves a session when another gateway wants it.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::subscriber::Subscribers;
use super::waiters::WaiterRegistry;
use crate::stream::{Epoch, NewsListener, Position, SessionNames, StreamName};

/// News that wait for one listener. What does not fit is told again, or the session is taken without an answer.
const NEWS_MAX: usize = 4096;

/// Room for news other than of orphans, which are told each second: there are many when a gateway has ended.
const RESERVED: usize = NEWS_MAX / 2;

/// What a gateway is told about sessions.
#[derive(Debug)]
pub enum ClaimNews {
    /// Another gateway wants or has taken a session of this one.
    Wanted(Arc<str>),
    /// A session without an owner is to be looked at, see [`super::Hub::claim_orphan`].
    Orphaned(Arc<str>),
    /// There is a new record of a gateway, maybe of this one.
    Known(Arc<str>),
    /// A record of a gateway has ended, maybe of this one.
    Gone(Arc<str>),
    /// A gateway, maybe this one, tells something about a session: the session and the text.
    Told(Arc<str>, Box<str>),
    /// News may have been missed.
    Missed,
}

/// The listeners of the parts of the gateway that have sessions.
#[derive(Debug, Default)]
pub(super) struct ClaimListeners(Mutex<Vec<(SessionNames<'static>, mpsc::Sender<ClaimNews>)>>);

impl ClaimListeners {
    pub(super) fn add(&self, names: SessionNames<'static>) -> mpsc::Receiver<ClaimNews> {
        let (sender, receiver) = mpsc::channel(NEWS_MAX);
        self.0.lock().push((names, sender));
        receiver
    }

    pub(super) fn tell_missed(&self) {
        for (_, listener) in self.0.lock().iter() {
            let _full_or_ended = listener.try_send(ClaimNews::Missed);
        }
    }

    pub(super) fn tell(&self, news: ClaimNews) {
        let (ClaimNews::Wanted(session)
        | ClaimNews::Orphaned(session)
        | ClaimNews::Known(session)
        | ClaimNews::Gone(session)
        | ClaimNews::Told(session, _)) = &news
        else {
            return;
        };
        let listener =
            self.0.lock().iter().find(|(names, _)| names.select(session)).map(|(_, sender)| sender.clone());
        let Some(listener) = listener else { return };
        let has_room = !matches!(news, ClaimNews::Orphaned(_)) || listener.capacity() > RESERVED;
        if has_room {
            let _full_or_ended = listener.try_send(news);
        }
    }
}

/// Passes the news of a store on to waiters and subscribers.
pub(super) struct Followed {
    /// The waiters refer to the store, which refers to this.
    waiters: Weak<WaiterRegistry>,
    subscribers: Arc<Subscribers>,
    claims: Arc<ClaimListeners>,
}

impl Followed {
    pub(super) fn new(
        waiters: &Arc<WaiterRegistry>,
        subscribers: Arc<Subscribers>,
        claims: Arc<ClaimListeners>,
    ) -> Self {
        Self { waiters: Arc::downgrade(waiters), subscribers, claims }
    }
}

impl NewsListener for Followed {
    fn moved(&self, name: &StreamName, epoch: Epoch, tail: Position, closed: bool) {
        if let Some(waiters) = self.waiters.upgrade() {
            // The store attaches names, so that a new epoch needs no other attachment.
            waiters.advance(name, epoch, tail, closed);
        }
    }

    fn ended(&self, name: &StreamName) {
        if let Some(waiters) = self.waiters.upgrade() {
            waiters.end(name);
        }
    }

    fn missed(&self) {
        self.subscribers.missed();
        self.claims.tell_missed();
    }

    fn known(&self, session: &str) {
        self.claims.tell(ClaimNews::Known(session.into()));
    }

    fn gone(&self, session: &str) {
        self.claims.tell(ClaimNews::Gone(session.into()));
    }

    fn told(&self, session: &str, note: &str) {
        self.claims.tell(ClaimNews::Told(session.into(), note.into()));
    }

    fn wanted(&self, session: &str) {
        self.claims.tell(ClaimNews::Wanted(session.into()));
    }

    fn orphaned(&self, session: &str) {
        self.claims.tell(ClaimNews::Orphaned(session.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_orphans_leave_room_for_a_session_that_is_wanted() {
        let listeners = ClaimListeners::default();
        let mut news = listeners.add(SessionNames::OfClients);
        (0..=NEWS_MAX).for_each(|number| listeners.tell(ClaimNews::Orphaned(format!("o{number}").into())));
        listeners.tell(ClaimNews::Wanted("phone".into()));
        let told: Vec<_> = std::iter::from_fn(|| news.try_recv().ok()).collect();
        assert_eq!(told.len(), NEWS_MAX - RESERVED + 1);
        assert!(matches!(told.last(), Some(ClaimNews::Wanted(client)) if **client == *"phone"));
    }
}
