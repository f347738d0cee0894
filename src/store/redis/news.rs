//! News of all gateways: each change of a stream is published by the function that makes it, in the same step.
//!
//! `subscribers.rs` receives the messages. Here they are parsed, the tails of streams are read whose news may have been lost, and the engine
//! in turn is told which streams have readers here.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use super::argument::{millis, partition_number, partition_of};
use super::functions::EngineCall;
use super::hot::StreamMove;
use super::reply::{self, EngineReply, epoch_of};
use super::shared::SharedStore;
use crate::stream::{Failure, NewsListener, Position, StreamName};

/// How long the engine believes that there are readers. A gateway that was killed has none after this time.
const BELIEVED_FOR: Duration = Duration::from_secs(60);

/// Streams in one pipeline of calls.
const CALLS_MAX: usize = 256;

/// Lines before the messages in news.
const LINES: usize = 6;

/// Messages of one change in news, in bytes at most, as in `library.lua`. If there are more, readers read them.
pub(super) const NEWS_BYTES_MAX: usize = 16 * 1024;

/// A stream has moved or ended.
#[derive(Debug)]
struct News<'a> {
    name: &'a str,
    /// `None`: it has ended.
    moved: Option<StreamMove>,
}

impl<'a> News<'a> {
    /// Parses lines with the epoch, the tail before and after, whether the stream is closed, and the name. Gateways of earlier versions
    /// tell changes this way, and all tell the end of a stream.
    fn of_lines(text: &'a str) -> Option<Self> {
        let mut lines = text.splitn(5, '\n');
        let mut next = || lines.next();
        let (epoch, before, tail, closed, name) = (next()?, next()?, next()?, next()?, next()?);
        if epoch.is_empty() {
            return Some(Self { name, moved: None });
        }
        let moved = StreamMove {
            epoch: epoch_of(epoch)?,
            before: position(before)?,
            tail: position(tail)?,
            closed: !closed.is_empty(),
            earliest: None,
            records: Vec::new(),
        };
        Some(Self { name, moved: Some(moved) })
    }

    /// Parses a change with its messages: lines with the earliest position, and the same as [`of_lines`](Self::of_lines), then the
    /// messages, which are missing if they are many or nobody waits for them here.
    fn with_records(message: &'a [u8]) -> Option<Self> {
        let (lines, records) = message.split_at_checked(lines_of(message))?;
        let (earliest, lines) = std::str::from_utf8(lines).ok()?.trim_end_matches('\n').split_once('\n')?;
        let mut news = Self::of_lines(lines)?;
        if let Some(moved) = &mut news.moved {
            moved.earliest = Some(position(earliest)?);
            if !records.is_empty() {
                // Without them, they are read.
                moved.records = reply::records(records).unwrap_or_default();
            }
        }
        Some(news)
    }
}

fn position(text: &str) -> Option<Position> {
    text.parse().ok().map(Position)
}

/// The length of the lines before the messages in news that have any.
fn lines_of(message: &[u8]) -> usize {
    let ends = message.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    ends.map(|(at, _)| at + 1).nth(LINES - 1).unwrap_or(message.len())
}

/// Drops the messages of news unless `is_wanted` says of the name of their stream that somebody waits for them.
pub(super) fn drop_records(message: &mut Vec<u8>, is_wanted: impl FnOnce(&str) -> bool) {
    let lines = lines_of(message);
    let name = message.get(..lines).and_then(|lines| lines.strip_suffix(b"\n"));
    let name = name.and_then(|lines| lines.rsplit(|byte| *byte == b'\n').next());
    let name = name.and_then(|name| std::str::from_utf8(name).ok());
    if lines < message.len() && !name.is_some_and(is_wanted) {
        message.truncate(lines);
        message.shrink_to_fit();
    }
}

impl SharedStore {
    /// Tells a change of a stream that came with its messages.
    pub(super) fn tell_records(&self, message: &[u8], listener: &dyn NewsListener) {
        if let Some(news) = News::with_records(message) {
            self.tell_news(news, listener);
        }
    }

    fn tell_news(&self, News { name, moved }: News<'_>, listener: &dyn NewsListener) {
        let Ok(name) = StreamName::stored(name) else { return };
        let tail = moved.as_ref().map(|moved| (moved.epoch, moved.tail, moved.closed));
        self.attached.note_news(&name, moved);
        match tail {
            Some((epoch, tail, closed)) => listener.moved(&name, epoch, tail, closed),
            None => listener.ended(&name),
        }
    }

    /// Tells one message of lines: that a stream has moved, or that another gateway wants a session of this one.
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
                if let Some(news) = News::of_lines(message) {
                    self.tell_news(news, listener);
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
    /// Returns the partitions of which not all could be told.
    pub(super) async fn tell_attached(
        &self,
        partitions: &BTreeSet<u64>,
        listener: &dyn NewsListener,
    ) -> BTreeSet<u64> {
        let names = self.attached.names().into_iter();
        let names: Vec<StreamName> =
            names.filter(|name| partitions.contains(&partition_number(name))).collect();
        self.tell_tails(&names, listener).await
    }

    /// [`tell_attached`](Self::tell_attached) of the streams that were read before the gateway heard of their changes.
    pub(super) async fn tell_read_early(&self, listener: &dyn NewsListener) -> BTreeSet<u64> {
        self.tell_tails(&self.attached.interest.take_read_early(), listener).await
    }

    async fn tell_tails(&self, names: &[StreamName], listener: &dyn NewsListener) -> BTreeSet<u64> {
        let mut untold = BTreeSet::new();
        for part in names.chunks(CALLS_MAX) {
            let call = |name| self.call("describe", name, SystemTime::UNIX_EPOCH).with("0");
            let calls: Vec<EngineCall> = part.iter().map(call).collect();
            for (name, answer) in part.iter().zip(self.engine.call_each(&calls).await) {
                let Ok(answer) = answer else {
                    untold.insert(partition_number(name));
                    continue;
                };
                let Some(mut reply) = EngineReply::of(answer) else { continue };
                match reply.head() {
                    Some(head) => {
                        self.attached.note_news(name, Some(StreamMove::found(&head)));
                        listener.moved(name, head.history.own(), head.tail, head.closed);
                    }
                    None => {
                        self.attached.note_news(name, None);
                        listener.ended(name);
                    }
                }
            }
        }
        untold
    }
}
