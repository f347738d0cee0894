//! The keys of an issuer at a URL: fetched when the gateway starts, again when they grow old, and when a token names a key that is
//! not among them.

use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::fetch::{FetchedKeys, KeyLocation};
use super::keys::{Key, KeySet};
use super::standing::Standing;

/// How soon the keys are fetched again at the earliest: after a failure, and for tokens that name an unknown key.
const PAUSE: Duration = Duration::from_secs(30);

/// The shortest, the usual and the longest time after which keys are fetched again, whatever the issuer says.
const REFRESH_MIN: Duration = Duration::from_secs(5 * 60);
const REFRESH: Duration = Duration::from_secs(60 * 60);
const REFRESH_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Ids of unknown keys that are remembered from one fetch to the next; tokens with others are then refused.
const UNKNOWN_MAX: usize = 1024;

/// How long keys are used while their issuer cannot be reached.
const STALE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Keys, and the JSON that they come from.
type ParsedKeys = (KeySet, Bytes);

/// The keys at one URL.
pub(super) struct KeyUrl {
    location: KeyLocation,
    keys: RwLock<ParsedKeys>,
    schedule: Mutex<Schedule>,
    /// The digests in the schedule are those of this process.
    digests: RandomState,
    /// A token names an unknown key.
    wanted: Notify,
}

/// When keys are fetched.
#[derive(Debug, Default)]
struct Schedule {
    /// When the last fetch began.
    began: Option<Instant>,
    /// When the last successful one ended.
    succeeded: Option<Instant>,
    /// A fetch is due, as soon as the last one is long enough ago, or under way.
    is_pending: bool,
    /// Digests of the unknown ids that tokens have named since the last fetch, and of the ids that the next one removes.
    unknown: HashSet<u64>,
    /// Digests of the ids that the last fetch did not bring. One that failed tells nothing about any id.
    absent: HashSet<u64>,
}

impl Schedule {
    /// Whether the next fetch may bring the key with an unknown id, so that its client should come again. Makes that fetch due.
    fn want(&mut self, id: u64, now: Instant) -> bool {
        let has_just_fetched = now < self.next_at(now);
        if has_just_fetched && (self.absent.contains(&id) || self.unknown.len() >= UNKNOWN_MAX) {
            return false;
        }
        if self.unknown.len() < UNKNOWN_MAX {
            self.unknown.insert(id);
        }
        self.is_pending = true;
        true
    }

    /// The earliest time of the next fetch.
    fn next_at(&self, now: Instant) -> Instant {
        self.began.map_or(now, |began| began + PAUSE)
    }

    fn begin(&mut self, now: Instant) {
        (self.began, self.is_pending) = (Some(now), true);
    }

    /// Ends a fetch. Returns when the next one is due, unless it is wanted earlier.
    fn end(&mut self, outcome: Result<Option<Duration>, ()>, now: Instant) -> Instant {
        self.is_pending = false;
        let named = std::mem::take(&mut self.unknown);
        match outcome {
            Ok(max_age) => {
                self.absent = named;
                self.succeeded = Some(now);
                now + max_age.unwrap_or(REFRESH).clamp(REFRESH_MIN, REFRESH_MAX)
            }
            Err(()) => {
                self.absent.clear();
                now + PAUSE
            }
        }
    }

    /// Whether keys that were fetched before are too old to be used.
    fn is_too_old(&self, now: Instant) -> bool {
        self.succeeded.is_some_and(|succeeded| now >= succeeded + STALE_MAX)
    }
}

impl KeyUrl {
    pub(super) fn new(location: KeyLocation) -> Self {
        let (keys, schedule, wanted) = Default::default();
        Self { location, keys, schedule, digests: RandomState::new(), wanted }
    }

    /// Calls `use_keys` with the keys.
    pub(super) fn with_keys<T>(&self, use_keys: impl FnOnce(&KeySet) -> T) -> T {
        use_keys(&self.keys.read().0)
    }

    /// Whether no keys were fetched since the gateway started.
    pub(super) fn awaits_first_keys(&self) -> bool {
        self.schedule.lock().succeeded.is_none()
    }

    /// Called for a token that names an unknown key, or none. Returns whether its client should come again, because the next fetch may
    /// bring the key.
    pub(super) fn want(&self, id: Option<&str>) -> bool {
        let is_pending = self.schedule.lock().want(self.digests.hash_one(id), Instant::now());
        if is_pending {
            self.wanted.notify_one();
        }
        is_pending
    }

    /// Keeps the keys fresh. Calls `changed` with other keys, which passes them to [`replace`](Self::replace), and `failed` with the
    /// reason after each failure. Never returns.
    pub(super) async fn keep_fresh(&self, changed: impl Fn(ParsedKeys), failed: impl Fn(&str)) {
        loop {
            self.schedule.lock().begin(Instant::now());
            let fetched = self.location.fetch().await.map_err(|error| error.to_string());
            let fetched = fetched.and_then(|fetched| Ok((KeySet::parse(&fetched.json)?, fetched)));
            let now = Instant::now();
            let outcome = match fetched {
                Ok((keys, FetchedKeys { json, max_age })) => {
                    let is_changed = self.keys.read().1 != json;
                    if is_changed {
                        let gone = self.ids_missing_in(&keys);
                        self.schedule.lock().unknown.extend(gone);
                        changed((keys, json));
                    }
                    Ok(max_age)
                }
                Err(why) => {
                    failed(&why);
                    let is_too_old = self.schedule.lock().is_too_old(now);
                    if is_too_old && self.with_keys(|keys| keys.iter().next().is_some()) {
                        changed(ParsedKeys::default());
                    }
                    Err(())
                }
            };
            let next = self.schedule.lock().end(outcome, now);
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.until_wanted() => {}
            }
        }
    }

    /// Uses other keys from now on. The standing that will have them is locked meanwhile.
    pub(super) fn replace(&self, keys: ParsedKeys, _standing: &mut Standing) {
        *self.keys.write() = keys;
    }

    /// Waits until a fetch is wanted, and the last one is long enough ago.
    async fn until_wanted(&self) {
        while !self.schedule.lock().is_pending {
            self.wanted.notified().await;
        }
        let at = self.schedule.lock().next_at(Instant::now());
        sleep_until(at).await;
    }

    /// Digests of the ids that present keys have and others have not.
    fn ids_missing_in(&self, others: &KeySet) -> Vec<u64> {
        let is_missing = |id: &Option<&str>| others.iter().all(|key| key.id() != *id);
        self.with_keys(|keys| {
            let missing = keys.iter().map(Key::id).filter(is_missing);
            missing.map(|id| self.digests.hash_one(id)).collect()
        })
    }
}

impl fmt::Debug for KeyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyUrl").field("schedule", &self.schedule).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use jsonwebtoken::Algorithm;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::yield_now;
    use tokio::time::{advance, pause};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// Longer than the precision of timers.
    const MOMENT: Duration = Duration::from_secs(1);

    /// An issuer that answers each request with its current response, and a loop that keeps its keys fresh.
    struct World {
        response: Arc<Mutex<String>>,
        requests: Arc<AtomicUsize>,
        changes: Arc<AtomicUsize>,
        failures: Arc<AtomicUsize>,
        keys: Arc<KeyUrl>,
    }

    fn with_keys(ids: &[&str], fields: &str) -> String {
        let key = |id: &&str| {
            format!(
                "{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"{id}\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}}"
            )
        };
        let body = format!("{{\"keys\":[{}]}}", ids.iter().map(key).collect::<Vec<_>>().join(","));
        format!("HTTP/1.1 200 OK\r\n{fields}content-length: {}\r\n\r\n{body}", body.len())
    }

    impl World {
        async fn start(response: String) -> Self {
            // A paused clock moves by itself only when nothing runs, so this keeps it in place while sockets are waited for.
            pause();
            tokio::spawn(async {
                loop {
                    yield_now().await;
                }
            });
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/keys", listener.local_addr().unwrap());
            let response = Arc::new(Mutex::new(response));
            let [requests, changes, failures]: [Arc<AtomicUsize>; 3] = Default::default();
            let (answer, count) = (response.clone(), requests.clone());
            tokio::spawn(async move {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let mut head = [0; 1024];
                    let length = stream.read(&mut head).await.unwrap();
                    assert!(head[..length].starts_with(b"GET /keys HTTP/1.1\r\n"));
                    count.fetch_add(1, Ordering::SeqCst);
                    let answer = answer.lock().clone();
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
            let keys = Arc::new(KeyUrl::new(KeyLocation::new(&url, None).unwrap()));
            let world = Self { response, requests, changes, failures, keys };
            let (keys, changes, failures) =
                (world.keys.clone(), world.changes.clone(), world.failures.clone());
            tokio::spawn(async move {
                let count = |count: &AtomicUsize| {
                    count.fetch_add(1, Ordering::SeqCst);
                };
                let changed = |other: ParsedKeys| {
                    // Keys must not be used before the standing is locked: it would refuse their tokens.
                    if keys.keys.read().1 != other.1 {
                        count(&changes);
                    }
                    keys.replace(other, &mut Standing::default());
                };
                keys.keep_fresh(changed, |_| count(&failures)).await;
            });
            world
        }

        fn answers(&self, response: String) {
            *self.response.lock() = response;
        }

        fn has(&self, id: &str) -> bool {
            self.keys.with_keys(|keys| keys.candidates(Algorithm::EdDSA, Some(id)).next().is_some())
        }

        /// Requests, changes and failures, once nothing is under way.
        async fn counts(&self) -> (usize, usize, usize) {
            while self.keys.schedule.lock().is_pending || self.keys.schedule.lock().began.is_none() {
                yield_now().await;
            }
            let count = |count: &AtomicUsize| count.load(Ordering::SeqCst);
            (count(&self.requests), count(&self.changes), count(&self.failures))
        }

        async fn after(&self, time: Duration, requests: usize) -> (usize, usize, usize) {
            advance(time).await;
            while self.requests.load(Ordering::SeqCst) < requests {
                yield_now().await;
            }
            self.counts().await
        }
    }

    #[tokio::test]
    async fn keys_are_fetched_again_when_they_are_as_old_as_the_issuer_says() {
        let world = World::start(with_keys(&["a"], "cache-control: max-age=600\r\n")).await;
        assert_eq!(world.counts().await, (1, 1, 0));
        assert!(world.has("a"));
        advance(Duration::from_secs(590)).await;
        assert_eq!(world.counts().await, (1, 1, 0));
        world.answers(with_keys(&["b"], "cache-control: max-age=1\r\n"));
        assert_eq!(world.after(Duration::from_secs(11), 2).await, (2, 2, 0));
        assert!(world.has("b") && !world.has("a"));
        // Not each second; and the same keys are no change.
        advance(Duration::from_secs(290)).await;
        assert_eq!(world.counts().await, (2, 2, 0));
        assert_eq!(world.after(Duration::from_secs(11), 3).await, (3, 2, 0));
    }

    #[tokio::test]
    async fn unknown_keys_make_one_fetch_in_half_a_minute() {
        let world = World::start(with_keys(&["a"], "")).await;
        world.counts().await;
        advance(PAUSE + MOMENT).await;
        world.answers(with_keys(&["a", "b"], ""));
        assert!((0..1000).all(|_| world.keys.want(Some("c"))), "all wait for one fetch");
        assert_eq!(world.after(Duration::ZERO, 2).await, (2, 2, 0));
        assert!(world.has("b"));
        assert!(!world.keys.want(Some("c")), "the last fetch did not bring it");
    }

    #[tokio::test]
    async fn a_key_that_is_new_right_after_a_fetch_comes_with_the_next_one_and_one_that_is_gone_does_not() {
        let world = World::start(with_keys(&["a"], "")).await;
        world.counts().await;
        world.answers(with_keys(&["b"], ""));
        assert!(world.keys.want(Some("b")));
        advance(PAUSE - MOMENT).await;
        assert_eq!(world.requests.load(Ordering::SeqCst), 1);
        assert_eq!(world.after(2 * MOMENT, 2).await, (2, 2, 0));
        assert!(world.has("b") && !world.has("a"));
        assert!(!world.keys.want(Some("a")));
        // Made-up ids are remembered up to a bound, and cause one fetch.
        let waiting = (0..5000).filter(|number| world.keys.want(Some(&format!("made up {number}")))).count();
        assert_eq!(waiting, UNKNOWN_MAX);
        assert_eq!(world.after(PAUSE + MOMENT, 3).await, (3, 2, 0));
    }

    #[tokio::test]
    async fn an_unknown_key_is_waited_for_while_the_issuer_fails() {
        let world = World::start("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".to_owned()).await;
        assert!(world.keys.want(Some("a")));
        assert_eq!(world.counts().await, (1, 0, 1));
        assert!(world.keys.want(Some("a")), "the issuer may have it");
        world.answers(with_keys(&["a"], ""));
        assert_eq!(world.after(PAUSE + MOMENT, 2).await, (2, 1, 1));
        assert!(world.has("a"));
    }

    #[tokio::test]
    async fn keys_stay_for_a_day_while_the_issuer_fails() {
        let world = World::start(with_keys(&["a"], "")).await;
        world.counts().await;
        let large = format!("HTTP/1.1 200 OK\r\ncontent-length: 70000\r\n\r\n{}", " ".repeat(70_000));
        for (index, failure) in [
            "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".to_owned(),
            "HTTP/1.1 302 Found\r\nlocation: http://10.0.0.1/\r\ncontent-length: 0\r\n\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_owned(),
            "nonsense\r\n\r\n".to_owned(),
            large,
        ]
        .into_iter()
        .enumerate()
        {
            world.answers(failure);
            let counts =
                world.after(if index == 0 { HOUR + MOMENT } else { PAUSE + MOMENT }, index + 2).await;
            assert_eq!(counts, (index + 2, 1, index + 1));
            assert!(world.has("a"));
        }
        assert_eq!(world.after(23 * HOUR, 7).await, (7, 2, 6));
        assert!(!world.has("a"), "after a day they are too old");
        world.answers(with_keys(&["a"], ""));
        assert_eq!(world.after(PAUSE + MOMENT, 8).await, (8, 3, 6));
        assert!(world.has("a"));
    }
}
