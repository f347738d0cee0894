//! News of all gateways: each change of a stream is published by the function that makes it, in the same step.
//!
//! Pub/sub may lose messages: when the connection is lost, or when the engine drops a slow subscriber. After each new connection the
//! tails of all attached streams are read, and from time to time anyway, so a lost message only delays its readers. The engine in turn is
//! told which streams have readers here.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use redis::{PushInfo, PushKind};
use tokio::sync::mpsc;
use tokio::time::{interval, sleep};

use super::argument::{PARTITIONS, millis, news_channel, partition_of};
use super::engine::EngineCall;
use super::reply::{EngineReply, StreamHead, epoch_of, text};
use super::shared::SharedStore;
use crate::clock::Backoff;
use crate::stream::{Epoch, Failure, NewsListener, Position, StreamName};

/// Delays between two attempts to connect.
const RECONNECT: Backoff = Backoff { first: Duration::from_millis(50), max: Duration::from_secs(2) };

/// How long the engine believes that there are readers. A gateway that was killed has none after this time.
const BELIEVED_FOR: Duration = Duration::from_secs(60);

/// Streams in one pipeline of calls.
const CALLS_MAX: usize = 256;

/// Interval at which the tails of all attached streams are read in case news were lost without notice.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// Follows the news until the store is dropped.
pub(super) async fn follow(store: Weak<SharedStore>, listener: Arc<dyn NewsListener>) {
    let mut failures = 0;
    loop {
        let Some(shared) = store.upgrade() else { return };
        let (sender, mut pushes) = mpsc::unbounded_channel();
        let subscribed = shared.engine.subscribe((0..PARTITIONS).map(news_channel), sender).await;
        if subscribed.is_ok() {
            shared.attached.news_begin();
        }
        drop(shared);
        match subscribed {
            // The connection lives as long as this value.
            Ok(_connection) => {
                failures = 0;
                listen(&store, &*listener, &mut pushes).await;
                let Some(shared) = store.upgrade() else { return };
                shared.attached.news_end();
                drop(shared);
                tracing::warn!("the connection for the news of other gateways was lost; connecting again");
            }
            Err(error) => {
                failures += 1;
                if failures == 1 {
                    tracing::warn!(%error, "cannot subscribe to the news of other gateways; trying again");
                }
            }
        }
        sleep(RECONNECT.half_jitter(failures.max(1), fastrand::f64())).await;
    }
}

/// Passes news on until the connection is lost.
async fn listen(
    store: &Weak<SharedStore>,
    listener: &dyn NewsListener,
    pushes: &mut mpsc::UnboundedReceiver<PushInfo>,
) {
    let mut check = interval(CHECK_INTERVAL);
    // The first check is at once: the connection is new.
    listener.missed();
    loop {
        tokio::select! {
            push = pushes.recv() => match push {
                Some(PushInfo { kind: PushKind::SMessage, data }) => {
                    let text = data.into_iter().nth(1).and_then(text);
                    if let (Some(text), Some(shared)) = (text, store.upgrade()) {
                        shared.tell(&text, listener);
                    }
                }
                // A partition has moved to another node: the next connection finds it.
                Some(PushInfo { kind: PushKind::Disconnection | PushKind::SUnsubscribe, .. }) | None => return,
                Some(_) => {}
            },
            _ = check.tick() => {
                let Some(shared) = store.upgrade() else { return };
                shared.tell_attached(listener).await;
                shared.tell_lost_claims(listener).await;
            }
        }
    }
}

/// One message: a stream has moved or ended.
struct News {
    name: StreamName,
    /// The epoch, the tail before and after, and whether the stream is closed. `None`: it has ended.
    moved: Option<(Epoch, Position, Position, bool)>,
}

impl News {
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.splitn(5, '\n');
        let mut next = || lines.next();
        let (epoch, before, tail, closed, name) = (next()?, next()?, next()?, next()?, next()?);
        let name = StreamName::stored(name).ok()?;
        let moved = match epoch {
            "" => None,
            epoch => {
                let position = |text: &str| text.parse().ok().map(Position);
                Some((epoch_of(epoch)?, position(before)?, position(tail)?, !closed.is_empty()))
            }
        };
        Some(Self { name, moved })
    }

    fn tell(&self, listener: &dyn NewsListener) {
        match self.moved {
            Some((epoch, _, tail, closed)) => listener.moved(&self.name, epoch, tail, closed),
            None => listener.ended(&self.name),
        }
    }
}

impl SharedStore {
    /// Tells one message: that a stream has moved, or that another gateway wants a session of this one.
    fn tell(&self, message: &str, listener: &dyn NewsListener) {
        match message.strip_prefix("wanted\n").and_then(|rest| rest.split_once('\n')) {
            Some((owner, session)) if *owner == *self.claims.owner(session) => listener.wanted(session),
            Some(_) => {}
            None if let Some(session) = message.strip_prefix("known\n") => listener.known(session),
            None => {
                if let Some(news) = News::parse(message) {
                    self.attached.note_news(&news.name, news.moved);
                    news.tell(listener);
                }
            }
        }
    }

    /// Tells the engine that the last reader of a stream has left, if it was not told yet.
    pub(super) async fn tell_left(&self, name: &StreamName) -> Result<(), Failure> {
        match self.attached.take_left(name) {
            Some(left_at) => self.engine.call(&self.wait(name, Some(left_at), left_at)).await.map(drop),
            None => Ok(()),
        }
    }

    /// The call that tells whether a stream has readers here.
    fn wait(&self, name: &StreamName, left_at: Option<SystemTime>, now: SystemTime) -> EngineCall {
        let (now, _) = self.moment(left_at.unwrap_or(now));
        let until = if left_at.is_some() { 0 } else { millis(now + BELIEVED_FOR) };
        let call = EngineCall::of("wait", &partition_of(name)).with(name.as_str()).with(&self.gateway);
        call.number(until).number(millis(now))
    }

    /// Tells the engine which streams have readers here.
    pub(super) async fn tell_waiters(&self, now: SystemTime) -> Result<(), Failure> {
        for part in self.attached.take_due(now).chunks(CALLS_MAX) {
            let calls: Vec<EngineCall> =
                part.iter().map(|(name, left_at)| self.wait(name, *left_at, now)).collect();
            self.engine.call_all(&calls).await?;
        }
        Ok(())
    }

    /// Asks for the tails of all streams with readers here, and tells them, or that the stream has ended.
    pub(super) async fn tell_attached(&self, listener: &dyn NewsListener) {
        for part in self.attached.names().chunks(CALLS_MAX) {
            let call = |name| self.call("describe", name, SystemTime::UNIX_EPOCH).with("0");
            let calls: Vec<EngineCall> = part.iter().map(call).collect();
            let Ok(answers) = self.engine.call_all(&calls).await else { return };
            for (name, answer) in part.iter().zip(answers) {
                let Some(mut reply) = EngineReply::of(answer) else { continue };
                match reply.head() {
                    Some(StreamHead { history, tail, closed, .. }) => {
                        self.attached.note_news(name, Some((history.own(), tail, tail, closed)));
                        listener.moved(name, history.own(), tail, closed);
                    }
                    None => {
                        self.attached.note_news(name, None);
                        listener.ended(name);
                    }
                }
            }
        }
    }
}
