//! Follows the streams that are read at this edge: subscriptions to the parent, each for up to [`STREAMS_MAX`] streams over one
//! connection, by the form that passes (`pollgate_client`).
//!
//! A stream is followed in this order: it joins a subscription, the subscription has a position in it, the tail is asked for, and
//! only then its mirror answers reads. So no message falls between the tail and the subscription.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use pollgate_client::{Data, Item, Message, ResumeToken, Start, Subscription};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_stream::Stream;

use super::mirror::{Mirror, TailNews};
use super::shared::UpstreamShared;
use crate::clock::Backoff;
use crate::stream::{ChangeError, NewsListener, Offset, Payload, StreamName, Tenant};

/// Streams of one subscription, as many as one request may read.
const STREAMS_MAX: usize = 1000;

/// Time between two changes of the subscriptions, so that many streams that are read at once change them once; and more for each
/// stream, since a changed subscription names all of its streams again.
const SETTLE_TIME: Duration = Duration::from_millis(10);
const SETTLE_TIME_PER_STREAM: Duration = Duration::from_micros(200);

/// Tails that are asked for at once.
const TAILS_AT_ONCE: usize = 16;

/// Delays after a failure that no retry of the client can mend, or of a request for a tail.
const AGAIN: Backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(5) };

/// One subscription and its streams, all of one tenant.
struct Shard {
    tenant: Tenant,
    names: HashSet<StreamName>,
    /// The names for the task, which ends when this is dropped.
    sender: watch::Sender<HashSet<StreamName>>,
}

/// Keeps the subscriptions at the streams that are read. Runs until it is aborted.
pub(super) async fn follow(shared: Arc<UpstreamShared>, listener: Arc<dyn NewsListener>) {
    let (mut shards, mut tasks) = (Vec::<Shard>::new(), JoinSet::new());
    loop {
        shared.changed.notified().await;
        let mut missing = HashMap::<Tenant, HashSet<StreamName>>::new();
        for name in shared.names() {
            missing.entry(name.tenant()).or_default().insert(name);
        }
        for shard in &mut shards {
            let missing = missing.entry(shard.tenant.clone()).or_default();
            shard.names.retain(|name| missing.remove(name));
        }
        for shard in &mut shards {
            let missing = missing.entry(shard.tenant.clone()).or_default();
            let room = STREAMS_MAX - shard.names.len();
            let added: Vec<_> = missing.iter().take(room).cloned().collect();
            added.iter().for_each(|name| {
                missing.remove(name);
            });
            shard.names.extend(added);
        }
        for (tenant, mut missing) in missing {
            while !missing.is_empty() {
                let names: HashSet<_> = missing.iter().take(STREAMS_MAX).cloned().collect();
                missing.retain(|name| !names.contains(name));
                let (sender, receiver) = watch::channel(HashSet::new());
                let (shared, listener, tenant) = (shared.clone(), listener.clone(), tenant.clone());
                tasks.spawn(subscribe(Follower { shared, listener, tenant: tenant.clone() }, receiver));
                shards.push(Shard { tenant, names, sender });
            }
        }
        shards.retain(|shard| !shard.names.is_empty());
        for shard in &shards {
            // Also if the names are the same: a mirror may be another one.
            shard.sender.send_replace(shard.names.clone());
        }
        while tasks.try_join_next().is_some() {}
        shared.metrics.subscriptions.set(shards.len() as u64);
        let streams = shared.len().min(STREAMS_MAX) as u32;
        sleep(SETTLE_TIME + SETTLE_TIME_PER_STREAM * streams).await;
    }
}

/// What happens to a subscription.
enum SubscriptionEvent {
    /// It has a position in each of its streams.
    Positioned,
    Item(Item),
    /// The parent has refused it for good.
    End,
}

/// Runs one subscription, and renews it with its position whenever its streams change.
async fn subscribe(follower: Follower, mut names: watch::Receiver<HashSet<StreamName>>) {
    let mut token: Option<ResumeToken> = None;
    let mut positioned = HashSet::<StreamName>::new();
    let (mut failures, mut tails) = (0, JoinSet::new());
    while names.wait_for(|names| !names.is_empty()).await.is_ok() {
        let streams = names.borrow_and_update().clone();
        let Some(client) = follower.shared.parent.access.client(&follower.tenant) else {
            // Until there is a token for the tenant. Reads are refused.
            failures += 1;
            follower.end_all(&streams);
            tokio::select! {
                () = sleep(AGAIN.half_jitter(failures, fastrand::f64())) => continue,
                changed = names.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            }
        };
        let start = token.clone().map_or_else(Start::now, Start::after);
        positioned.retain(|name| streams.contains(name));
        let mut awaits_position = streams.iter().any(|name| !positioned.contains(name));
        let mut subscription = client.subscribe(streams.iter().map(StreamName::local), start);
        loop {
            let event = tokio::select! {
                event = next_event(&mut subscription, awaits_position.then_some(token.as_ref())) => event,
                changed = names.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if *names.borrow() == streams {
                        if !awaits_position {
                            tails.spawn(follower.clone().begin_all(streams.clone()));
                        }
                        continue;
                    }
                    token = subscription.resume_token().cloned();
                    break;
                }
            };
            while tails.try_join_next().is_some() {}
            match event {
                SubscriptionEvent::Positioned => {
                    (awaits_position, failures) = (false, 0);
                    positioned.clone_from(&streams);
                    tails.spawn(follower.clone().begin_all(streams.clone()));
                }
                SubscriptionEvent::Item(item) => {
                    if let Some(name) = follower.take(item) {
                        tails.spawn(follower.clone().begin_all([name].into()));
                    }
                }
                SubscriptionEvent::End => {
                    failures += 1;
                    (token, positioned) = (None, HashSet::new());
                    follower.end_all(&streams);
                    sleep(AGAIN.half_jitter(failures, fastrand::f64())).await;
                    break;
                }
            }
        }
    }
}

/// Waits for the next event of a subscription. With `before`, the resume token at its beginning, also until that changes.
async fn next_event(
    subscription: &mut Subscription,
    before: Option<Option<&ResumeToken>>,
) -> SubscriptionEvent {
    std::future::poll_fn(|context| match Pin::new(&mut *subscription).poll_next(context) {
        Poll::Ready(Some(Item::Refused(refusal))) => {
            tracing::warn!(%refusal, "the upstream gateway refuses to be followed; trying again");
            Poll::Ready(SubscriptionEvent::End)
        }
        Poll::Ready(Some(Item::Untrusted(error))) => {
            tracing::warn!(%error, "the upstream gateway is not trusted; trying again");
            Poll::Ready(SubscriptionEvent::End)
        }
        Poll::Ready(Some(item)) => Poll::Ready(SubscriptionEvent::Item(item)),
        Poll::Ready(None) => Poll::Ready(SubscriptionEvent::End),
        Poll::Pending if before.is_some_and(|before| before != subscription.resume_token()) => {
            Poll::Ready(SubscriptionEvent::Positioned)
        }
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// What is needed to follow streams of one tenant.
#[derive(Clone)]
struct Follower {
    shared: Arc<UpstreamShared>,
    listener: Arc<dyn NewsListener>,
    tenant: Tenant,
}

impl Follower {
    /// Asks for the tails of streams, and lets their mirrors answer reads from then on.
    async fn begin_all(self, names: HashSet<StreamName>) {
        stream::iter(names).for_each_concurrent(TAILS_AT_ONCE, |name| self.begin(name)).await;
    }

    async fn begin(&self, name: StreamName) {
        let mut failures = 0;
        while let Some(mirror) = self.shared.mirror(&name)
            && let Some(generation) = mirror.ask_tail()
        {
            let described = loop {
                match self.shared.parent.describe(&name).await {
                    Err(ChangeError::Failed(_)) if mirror.is_of(generation) => {
                        failures += 1;
                        sleep(AGAIN.half_jitter(failures, fastrand::f64())).await;
                    }
                    described => break described,
                }
            };
            match described {
                Ok(description) => self.tell(&name, mirror.begin(description, generation)),
                Err(ChangeError::Missing(_)) if mirror.is_of(generation) => self.end(&name, &mirror),
                Err(_) => {}
            }
        }
    }

    /// Takes an item of a subscription. Returns the stream whose tail has to be asked for.
    fn take(&self, item: Item) -> Option<StreamName> {
        match item {
            Item::Message(message) => {
                let (name, mirror) = self.find(&message.stream)?;
                self.shared.metrics.messages.inc();
                let (payload, next, at) = parts_of(message)?;
                self.tell(&name, mirror.push(payload, next, at));
                mirror.is_pending().then_some(name)
            }
            Item::Gap { stream, reason } => {
                let (name, mirror) = self.find(&stream)?;
                mirror.forget();
                if &*reason == "reason=epoch" {
                    // Offsets of the new epoch may be less than those that waiters know.
                    self.listener.ended(&name);
                }
                Some(name)
            }
            Item::Closed { stream } => {
                let (name, mirror) = self.find(&stream)?;
                self.tell(&name, mirror.close());
                None
            }
            Item::Missing { stream } => {
                let (name, mirror) = self.find(&stream)?;
                self.end(&name, &mirror);
                None
            }
            Item::Forbidden { stream } => {
                self.find(&stream)?.1.end();
                None
            }
            _ => None,
        }
    }

    fn find(&self, stream: &str) -> Option<(StreamName, Arc<Mirror>)> {
        let name = StreamName::stored(stream).ok()?.of_tenant(&self.tenant);
        let mirror = self.shared.mirror(&name)?;
        Some((name, mirror))
    }

    /// Lets no mirror answer any more, as nobody tells them news.
    fn end_all(&self, names: &HashSet<StreamName>) {
        names.iter().filter_map(|name| self.shared.mirror(name)).for_each(|mirror| mirror.end());
    }

    fn end(&self, name: &StreamName, mirror: &Mirror) {
        mirror.end();
        self.listener.ended(name);
    }

    fn tell(&self, name: &StreamName, news: Option<TailNews>) {
        self.shared.metrics.kept.set(self.shared.room.bytes());
        if let Some(TailNews { epoch, tail, closed }) = news {
            self.listener.moved(name, epoch, tail, closed);
        }
    }
}

/// The content of a message, the offset behind it, and its time. `None`: the parent is no gateway that tells offsets.
fn parts_of(message: Message) -> Option<(Payload, Offset, SystemTime)> {
    let payload = match message.data {
        Data::Json(value) => {
            let text = Bytes::from(String::from(Box::<str>::from(value)));
            let end = u32::try_from(text.len()).ok()?;
            Payload::json(text, vec![end])
        }
        Data::Text(text) => Payload::message(text.into()),
        Data::Binary(bytes) => Payload::message(bytes),
    };
    // Both are the wire's, and each crate has its own type.
    let next = message.offset?.to_string().parse().ok()?;
    Some((payload, next, message.time.unwrap_or(SystemTime::UNIX_EPOCH)))
}
