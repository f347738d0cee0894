//! Sessions that fronts store for their clients.

use std::collections::BTreeMap;

use bytes::Bytes;
use pollgate::stream::{
    Append, AppendError, Missing, PAGE_SESSIONS_MAX, SessionChange, SessionNames, StoredSession,
};

use super::world::*;

pub type Entries = BTreeMap<String, BTreeMap<String, String>>;

/// Parses a change such as `a=1 b=2 -c`, optionally with `anew` first.
fn change(client: &str, words: &str) -> SessionChange {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let entry = |word: &str| match word.split_once('=') {
        Some((key, value)) => (bytes(key), Some(bytes(value))),
        None => (bytes(word.strip_prefix('-').unwrap()), None),
    };
    let anew = words.starts_with("anew");
    let words = words.strip_prefix("anew").unwrap_or(words);
    SessionChange { client: client.into(), anew, entries: words.split_whitespace().map(entry).collect() }
}

impl World {
    pub async fn change(&self, client: &str, words: &str) {
        self.store.change_session(change(client, words)).await.unwrap();
    }

    pub async fn sessions(&self) -> Entries {
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let entries = |entries: &[(Bytes, Bytes)]| entries.iter().map(|(k, v)| (text(k), text(v))).collect();
        let sessions = self.stored(SessionNames::OfClients).await;
        sessions.iter().map(|s| (s.client.to_string(), entries(&s.entries))).collect()
    }

    /// Reads all pages of sessions.
    pub async fn stored(&self, names: SessionNames<'_>) -> Vec<StoredSession> {
        let (mut sessions, mut after) = (Vec::new(), None);
        loop {
            let page = self.store.session_page(names, after.as_deref()).await.unwrap();
            assert!(page.sessions.len() <= PAGE_SESSIONS_MAX);
            sessions.extend(page.sessions);
            after = page.next;
            if after.is_none() {
                return sessions;
            }
        }
    }

    /// Formats a session as `a=1 b=2`.
    pub async fn session(&self, client: &str) -> String {
        let sessions = self.sessions().await;
        let words = sessions.get(client).into_iter().flatten().map(|(key, value)| format!("{key}={value}"));
        words.collect::<Vec<_>>().join(" ")
    }
}

pub async fn a_session_holds_the_result_of_its_changes(make: MakeStore<'_>) {
    let world = World::new(make);
    assert_eq!(world.sessions().await, Entries::new());
    world.change("ada", "b=1 a=1").await;
    world.change("bob", "a=9").await;
    world.change("ada", "c=2 -b a=3 -nothing").await;
    assert_eq!((&*world.session("ada").await, &*world.session("bob").await), ("a=3 c=2", "a=9"));
    world.change("ada", "x=1 -x y=1 y=2 -z z=1").await;
    assert_eq!(world.session("ada").await, "a=3 c=2 y=2 z=1");
    world.change("ada", "anew a=5").await;
    assert_eq!(world.session("ada").await, "a=5");
}

pub async fn a_session_that_has_ended_is_gone(make: MakeStore<'_>) {
    let world = World::new(make);
    for client in ["ada", "bob", "eve"] {
        world.change(client, "a=1").await;
    }
    world.store.change_session(SessionChange::end("ada".into())).await.unwrap();
    world.store.change_session(SessionChange::end("nobody".into())).await.unwrap();
    world.change("bob", "-a").await;
    assert_eq!(world.sessions().await.into_keys().collect::<Vec<_>>(), ["eve"]);
    world.change("ada", "b=1").await;
    assert_eq!(world.session("ada").await, "b=1");
}

pub async fn an_append_changes_a_session_with_it_or_not_at_all(make: MakeStore<'_>) {
    let world = World::new(make);
    let append = |sequence, words| Append {
        producer: producer(0, sequence),
        session: Some(change("ada", words)),
        ..append(json(), numbers([sequence]))
    };
    let missing = world.append("s", append(0, "a=0")).await;
    assert_eq!(missing, Err(AppendError::Missing(Missing::NotFound)));
    world.open("s").await;
    world.append("s", append(0, "a=1")).await.unwrap();
    assert!(world.append("s", append(0, "a=2")).await.unwrap().duplicate);
    assert!(matches!(world.append("s", append(7, "a=3")).await, Err(AppendError::Refused { .. })));
    assert_eq!(world.session("ada").await, "a=1");
    world.append("s", append(1, "-a b=1")).await.unwrap();
    assert_eq!((&*world.session("ada").await, &*world.content("s").await), ("b=1", "0,1"));
}

pub async fn a_session_may_be_large_and_hold_any_bytes(make: MakeStore<'_>) {
    let world = World::new(make);
    let key = |n: u32| Bytes::from([&[0, 255], &n.to_be_bytes()[..]].concat());
    let entries = (0..10_000).map(|n| (key(n), Some(Bytes::from(vec![n as u8; 100])))).collect();
    world.store.change_session(SessionChange { client: "ada".into(), anew: true, entries }).await.unwrap();
    world
        .store
        .change_session(SessionChange { entries: vec![(key(7), None)], ..change("ada", "") })
        .await
        .unwrap();
    let mut stored = world.stored(SessionNames::OfClients).await.pop().unwrap().entries;
    stored.sort();
    let expected = (0..10_000).filter(|n| *n != 7).map(|n| (key(n), Bytes::from(vec![n as u8; 100])));
    assert!(stored.into_iter().eq(expected));
}

pub async fn sessions_are_listed_page_by_page_and_those_of_the_gateway_apart(make: MakeStore<'_>) {
    let world = World::new(make);
    let count = 2 * PAGE_SESSIONS_MAX + 7;
    for number in (0..count).rev() {
        world.change(&format!("client {number:04}"), "a=1").await;
    }
    for own in ["\0first/a", "\0second/a", "\0second/b", "\0third/a"] {
        world.change(own, "a=1").await;
    }
    let names = |sessions: Vec<StoredSession>| sessions.into_iter().map(|session| session.client.to_string());
    let mut of_clients: Vec<_> = names(world.stored(SessionNames::OfClients).await).collect();
    of_clients.sort();
    assert!(
        of_clients.iter().eq(&(0..count).map(|number| format!("client {number:04}")).collect::<Vec<_>>())
    );
    let mut own: Vec<_> = names(world.stored(SessionNames::Own("\0second/")).await).collect();
    own.sort();
    assert_eq!(own, ["\0second/a", "\0second/b"]);
}
