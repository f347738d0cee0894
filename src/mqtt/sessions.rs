//! The sessions of all clients: who has one at the moment, and what is kept of those who are away.
//!
//! A connection owns its session. One that comes for the same client says so and waits until the older one has put
//! the session down, so there is never a moment with two of them or none.

use std::collections::BTreeMap;
use std::sync::Arc;

use dashmap::DashMap;
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::codec::Will;
use super::session::Session;
use crate::hub::Signal;
use crate::metrics::MqttMetrics;

/// All sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    places: DashMap<Arc<str>, Arc<Place>>,
    agenda: Mutex<Agenda>,
    metrics: MqttMetrics,
}

/// When to look at which place again.
#[derive(Debug, Default)]
struct Agenda {
    due: BTreeMap<Due, Arc<str>>,
    next: u64,
}

/// A moment, and a number that makes it unique.
type Due = (Instant, u64);

/// Where the session of one client is, if no connection has it.
#[derive(Debug)]
struct Place {
    kept: Arc<tokio::sync::Mutex<Kept>>,
    /// The newest connection that wants it.
    newest: Signal<u64>,
}

#[derive(Debug)]
enum Kept {
    /// There is none yet, or a connection has it.
    Nothing,
    Session(Box<Away>),
    /// The place is not in the table any more.
    Removed,
}

/// The session of a client that is away.
#[derive(Debug)]
struct Away {
    session: Session,
    until: Instant,
    will: Option<Will>,
    due: Due,
}

/// A connection's hold on the session of its client. Dropped without `keep`, the session is over.
#[derive(Debug)]
pub(super) struct Attached {
    sessions: Arc<Sessions>,
    client: Arc<str>,
    place: Arc<Place>,
    kept: OwnedMutexGuard<Kept>,
    number: u64,
}

/// What a connection finds of its client.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) attached: Attached,
    /// What was kept of it.
    pub(super) session: Option<Session>,
    /// The will that was about to be published, and is not any more.
    pub(super) will: Option<Will>,
}

/// What has come to an end by itself.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) client: Arc<str>,
    pub(super) will: Option<Will>,
}

impl Sessions {
    pub(super) fn new(metrics: MqttMetrics) -> Self {
        Self { places: DashMap::new(), agenda: Mutex::default(), metrics }
    }

    /// Takes the session of `client` from whoever has it. `None`: a still newer connection wants it.
    ///
    /// Cancel safe: whoever gives up waiting leaves the session where it is.
    pub(super) async fn attach(self: &Arc<Self>, client: &Arc<str>) -> Option<Found> {
        loop {
            let place = self.place(client);
            let mut number = 0;
            place.newest.update(|newest| {
                *newest += 1;
                number = *newest;
            });
            let kept = place.kept.clone().lock_owned().await;
            if matches!(*kept, Kept::Removed) {
                continue;
            }
            let (sessions, client) = (self.clone(), client.clone());
            let mut attached = Attached { sessions, client, place, kept, number };
            if attached.superseded().now_or_never().is_some() {
                return None;
            }
            return Some(match std::mem::replace(&mut *attached.kept, Kept::Nothing) {
                Kept::Session(away) => {
                    self.agenda.lock().due.remove(&away.due);
                    Found { attached, session: Some(away.session), will: away.will }
                }
                Kept::Nothing | Kept::Removed => Found { attached, session: None, will: None },
            });
        }
    }

    fn place(&self, client: &Arc<str>) -> Arc<Place> {
        let new = || {
            self.metrics.sessions.inc();
            Arc::new(Place::new())
        };
        self.places.entry(client.clone()).or_insert_with(new).clone()
    }

    fn remove(&self, client: &Arc<str>, place: &Arc<Place>) {
        if self.places.remove_if(client, |_, other| Arc::ptr_eq(other, place)).is_some() {
            self.metrics.sessions.dec();
        }
    }

    /// What is over by `now`: wills whose moment has come, sessions that nobody came back for.
    pub(super) fn sweep(&self, now: Instant) -> Vec<Ended> {
        let mut ended = Vec::new();
        let next = || self.agenda.lock().take(now);
        while let Some((due, client)) = next() {
            let Some(place) = self.places.get(&client).map(|place| place.value().clone()) else { continue };
            // Whoever holds the place is a connection, which has taken the session's entry out of the agenda, or is
            // about to.
            let Ok(mut kept) = place.kept.clone().try_lock_owned() else { continue };
            let Kept::Session(away) = &mut *kept else { continue };
            if away.due != due {
                continue;
            }
            let will = away.will.take();
            if away.until > now {
                away.due = self.agenda.lock().add(away.until, client.clone());
            } else {
                *kept = Kept::Removed;
                self.remove(&client, &place);
            }
            ended.push(Ended { client, will });
        }
        ended
    }

    /// Whether a client has a session.
    pub(super) fn knows(&self, client: &str) -> bool {
        self.places.contains_key(client)
    }

    /// How many clients have a session, here or away.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }
}

impl Agenda {
    fn add(&mut self, at: Instant, client: Arc<str>) -> Due {
        self.next += 1;
        let due = (at, self.next);
        self.due.insert(due, client);
        due
    }

    fn take(&mut self, now: Instant) -> Option<(Due, Arc<str>)> {
        let first = self.due.first_entry().filter(|first| first.key().0 <= now)?;
        Some(first.remove_entry())
    }
}

impl Place {
    fn new() -> Self {
        Self { kept: Arc::new(tokio::sync::Mutex::new(Kept::Nothing)), newest: Signal::new(0) }
    }
}

impl Attached {
    /// Waits until a newer connection wants the session. Cancel safe.
    pub(super) async fn superseded(&self) {
        self.place.newest.wait_until(|newest| (*newest != self.number).then_some(())).await;
    }

    /// Keeps the session until a moment, and publishes a will then, or at its own moment if that is earlier.
    pub(super) fn keep(mut self, session: Session, until: Instant, will: Option<(Will, Instant)>) {
        let will_at = will.as_ref().map_or(until, |(_, at)| *at);
        let due = self.sessions.agenda.lock().add(until.min(will_at), self.client.clone());
        let will = will.map(|(will, _)| will);
        *self.kept = Kept::Session(Box::new(Away { session, until, will, due }));
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if matches!(*self.kept, Kept::Nothing) {
            *self.kept = Kept::Removed;
            self.sessions.remove(&self.client, &self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::metrics::Metrics;
    use crate::mqtt::codec::MessageProperties;
    use crate::stream::Quality;

    const HOUR: Duration = Duration::from_secs(3600);

    fn sessions() -> Arc<Sessions> {
        Arc::new(Sessions::new(Metrics::new().mqtt().clone()))
    }

    async fn attach(sessions: &Arc<Sessions>, client: &str) -> Found {
        sessions.attach(&client.into()).await.unwrap()
    }

    #[tokio::test]
    async fn a_session_is_found_again_until_its_time_is_over() {
        let sessions = sessions();
        let now = Instant::now();
        let found = attach(&sessions, "a").await;
        assert!(found.session.is_none());
        found.attached.keep(Session::new("a".into()), now + HOUR, None);
        assert!(sessions.sweep(now).is_empty());
        let found = attach(&sessions, "a").await;
        assert!(found.session.is_some());
        found.attached.keep(Session::new("a".into()), now + HOUR, None);
        assert_eq!(sessions.sweep(now + HOUR).len(), 1);
        assert_eq!((sessions.len(), sessions.agenda.lock().due.len()), (0, 0));
    }

    #[tokio::test]
    async fn a_will_comes_at_its_moment_and_the_session_stays() {
        let sessions = sessions();
        let now = Instant::now();
        let will = Will {
            topic: "gone".into(),
            payload: Bytes::new(),
            quality: Quality::AtMostOnce,
            retain: false,
            properties: MessageProperties::default(),
            delay: HOUR,
        };
        let found = attach(&sessions, "a").await;
        found.attached.keep(Session::new("a".into()), now + 2 * HOUR, Some((will, now + HOUR)));
        let ended = sessions.sweep(now + HOUR);
        assert!(ended.iter().map(|ended| ended.will.is_some()).eq([true]));
        let found = attach(&sessions, "a").await;
        assert!(found.session.is_some() && found.will.is_none());
    }

    #[tokio::test]
    async fn the_newest_of_many_connections_gets_the_session() {
        let sessions = sessions();
        let first = attach(&sessions, "a").await;
        let others: Vec<_> = (0..3)
            .map(|_| {
                let sessions = sessions.clone();
                tokio::spawn(async move { sessions.attach(&"a".into()).await })
            })
            .collect();
        // The first and each of the others counts one.
        first.attached.place.newest.wait_until(|newest| (*newest == 4).then_some(())).await;
        first.attached.keep(Session::new("a".into()), Instant::now() + HOUR, None);
        let mut winners = 0;
        for other in others {
            if let Some(found) = other.await.unwrap() {
                assert!(found.session.is_some());
                winners += 1;
            }
        }
        assert_eq!(winners, 1);
    }

    #[tokio::test]
    async fn an_ended_session_leaves_nothing_behind() {
        let sessions = sessions();
        let found = attach(&sessions, "a").await;
        drop(found.attached);
        assert_eq!(sessions.len(), 0);
        assert!(attach(&sessions, "a").await.session.is_none());
    }
}
