//! News of all gateways: each change of a stream is published by the function that makes it, in the same step.
//!
//! `subscribers.rs` receives the messages. Here they are parsed, the tails of streams are read whose news may have been lost, and the engine
//! in turn is told which streams have readers here.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use super::argument::{millis, partition_number, partition_of};
use super::functions::EngineCall;
use super::reply::{EngineReply, StreamHead, epoch_of};
use super::shared::SharedStore;
use crate::stream::{Epoch, Failure, NewsListener, Position, StreamName};

/// How long the engine believes that there are readers. A gateway that was killed has none after this time.
const BELIEVED_FOR: Duration = Duration::from_secs(60);

/// Streams in one pipeline of calls.
const CALLS_MAX: usize = 256;

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
    pub(super) fn tell(&self, message: &str, listener: &dyn NewsListener) {
        match message.split_once('\n') {
            Some(("wanted", rest)) => {
                if let Some((owner, session)) = rest.split_once('\n')
                    && *owner == *self.claims.owner(session)
                {
                    listener.wanted(session);
                }
            }
            Some(("known", session)) => listener.known(session),
            Some(("gone", session)) => listener.gone(session),
            Some(("told", rest)) => {
                if let Some((session, note)) = rest.split_once('\n') {
                    listener.told(session, note);
                }
            }
            _ => {
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

    /// Asks for the tails of the streams of some partitions that have readers here, and tells them, or that the stream has ended.
    /// Returns the partitions of which all were told.
    pub(super) async fn tell_attached(
        &self,
        partitions: &BTreeSet<u64>,
        listener: &dyn NewsListener,
    ) -> BTreeSet<u64> {
        let mut told = partitions.clone();
        let names = self.attached.names().into_iter();
        let names: Vec<StreamName> =
            names.filter(|name| partitions.contains(&partition_number(name))).collect();
        for part in names.chunks(CALLS_MAX) {
            let call = |name| self.call("describe", name, SystemTime::UNIX_EPOCH).with("0");
            let calls: Vec<EngineCall> = part.iter().map(call).collect();
            for (name, answer) in part.iter().zip(self.engine.call_each(&calls).await) {
                let Ok(answer) = answer else {
                    told.remove(&partition_number(name));
                    continue;
                };
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
        told
    }
}
