//! Room that nobody needs any more: the emptiest segment is moved together with what is written anyway, and given up.
//!
//! What is read when the store is opened must be the same without that segment. So the messages that somebody still has
//! are written again, the state of each stream that was written there too, and the end of a stream as long as anything
//! of it is left in another segment.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::committer::Committer;
use super::frame::FrameLocation;
use super::kept::RecordSpan;
use super::record::{LogRecord, StreamId, StreamRecord};
use super::room::NoRoom;
use super::segment::Segment;
use super::victim::{LiveRecords, Reclaiming, SearchResult, live_in};
use crate::store::entry::State;
use crate::stream::{Failure, Position};

/// How much is moved between two groups of changes, which wait so long.
const MOVED_BYTES_MAX: u32 = 256 * 1024;

/// How often garbage is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A segment with more than this share of live bytes is left alone, in percent: moving it would gain little.
const LIVE_PERCENT_MAX: u64 = 90;

/// All full segments together may have so many bytes for each hundred that are live.
const PERCENT_OF_LIVE_MAX: u64 = 110;

impl Committer {
    /// Does a part of the work, if there is some. What it writes is committed with the group.
    pub(super) fn reclaim(&mut self) -> io::Result<()> {
        let look = self.look_again || self.looked_at.elapsed() >= LOOK_AGAIN;
        if self.reclaiming.is_none() && look {
            self.look_again = false;
            self.looked_at = Instant::now();
            // What is underway has no place in the table of streams yet.
            self.commit()?;
            self.reclaiming = self.victim().map(|victim| Reclaiming::of(victim, &self.forks));
        }
        let due = self.reclaiming.take_if(|reclaiming| reclaiming.pause().is_zero());
        let Some(mut reclaiming) = due else { return Ok(()) };
        match self.move_some(&mut reclaiming) {
            Ok(true) => {
                self.look_again = true;
                self.give_up(reclaiming)
            }
            Ok(false) => {
                self.reclaiming = Some(reclaiming);
                Ok(())
            }
            // Deletions may make room; until then there is none to move things to.
            Err(NoRoom::Full | NoRoom::Short) => Ok(()),
            Err(NoRoom::Broken(error)) => Err(error),
        }
    }

    /// The emptiest of the full segments, if together they have too much that nobody needs.
    fn victim(&self) -> Option<Arc<Segment>> {
        let active = self.room.active().number;
        let full: Vec<_> =
            self.shared.segments.all().into_iter().filter(|one| one.number != active).collect();
        let (bytes, live) = full.iter().fold((0, 0), |(bytes, live), segment| {
            (bytes + u64::from(segment.capacity), live + segment.live())
        });
        self.shared.observer.sized(bytes + u64::from(self.room.active().capacity), live);
        let movable = full.into_iter().filter(|one| one.live() == 0 || !self.unmovable.contains(&one.number));
        let emptiest = movable.min_by_key(|segment| segment.live())?;
        let worthwhile = emptiest.live() * 100 <= u64::from(emptiest.capacity) * LIVE_PERCENT_MAX;
        (bytes * 100 > live * PERCENT_OF_LIVE_MAX && worthwhile).then_some(emptiest)
    }

    /// Writes again what is still needed. Whether that was all.
    fn move_some(&mut self, reclaiming: &mut Reclaiming) -> Result<bool, NoRoom> {
        let number = reclaiming.victim.number;
        // A segment of which only a part was moved gives nothing back; on a full disk that would take what is left for
        // deletions. One that takes at most the half of it gives back more than it took.
        if 2 * reclaiming.victim.live() > self.room.left()? {
            return Err(NoRoom::Full);
        }
        // Forks share records, which seem to lie where they were until the group is committed.
        let mut moving = HashSet::new();
        let mut moved = 0;
        while moved < MOVED_BYTES_MAX
            && let Some(stream) = reclaiming.logs.last()
        {
            let found = self.ids.get(stream).and_then(Weak::upgrade).map(|entry| {
                let bytes_left = MOVED_BYTES_MAX - moved;
                live_in(number, &entry.lock(), reclaiming.from, bytes_left)
            });
            let Some(SearchResult { live, next }) = found else {
                reclaiming.logs.pop();
                continue;
            };
            for live in live {
                moved += self.move_live(live, &mut moving)?;
            }
            match next {
                // The log is locked again after the others had a chance.
                Some(next) if next > reclaiming.from => {
                    reclaiming.from = next;
                    return Ok(false);
                }
                _ => {
                    reclaiming.from = Position(0);
                    reclaiming.logs.pop();
                }
            }
        }
        while moved < MOVED_BYTES_MAX && reclaiming.logs.is_empty() {
            let Some(stream) = reclaiming.streams.pop() else { return Ok(true) };
            match self.move_stream(stream, number) {
                Ok(bytes) => moved += bytes,
                Err(full) => {
                    reclaiming.streams.push(stream);
                    return Err(full);
                }
            }
        }
        Ok(false)
    }

    /// Writes the messages of records again, but for those in `moving`, where they are from then on. Returns how many
    /// bytes that took.
    fn move_live(&mut self, live: LiveRecords, moving: &mut HashSet<FrameLocation>) -> Result<u32, NoRoom> {
        match live {
            LiveRecords::Kept(kept) => {
                let span = kept.span();
                if !moving.insert(span.place) {
                    return Ok(0);
                }
                let Some(to) = self.write_again(span)? else { return Ok(0) };
                self.afterwards(move || kept.move_to(to));
                Ok(to.bytes)
            }
            LiveRecords::Packed(run, rows) => {
                let (mut moved, mut full) = (Vec::new(), None);
                for (row, span) in rows.into_iter().filter(|(_, span)| moving.insert(span.place)) {
                    match self.write_again(span) {
                        Ok(to) => moved.extend(to.map(|to| (row, to))),
                        Err(no_room) => {
                            full = Some(no_room);
                            break;
                        }
                    }
                }
                let bytes = moved.iter().map(|(_, to)| to.bytes).sum();
                self.afterwards(move || run.move_to(&moved));
                full.map_or(Ok(bytes), Err)
            }
        }
    }

    /// Writes the messages of a record again. `None`: they can not be read, so that they stay where they are, and with
    /// them their segment.
    fn write_again(&mut self, span: RecordSpan) -> Result<Option<RecordSpan>, NoRoom> {
        let RecordSpan { place, bytes } = span;
        let (record, content) = match self.shared.segments.record(place, bytes) {
            Ok(read) => read,
            Err(Failure::Unreadable) => {
                self.shared.note_damage(span);
                self.unmovable.insert(place.segment);
                return Ok(None);
            }
            Err(_) => return Err(NoRoom::Short),
        };
        let record = match record {
            LogRecord::Created { stream, at, ends } => {
                LogRecord::Moved { stream: stream.id, start: stream.tail, at, ends, annotation: None }
            }
            LogRecord::CreatedWith { stream, at, ends, said } => {
                let annotation = said.annotation.map(Box::new);
                LogRecord::Moved { stream: stream.id, start: stream.tail, at, ends, annotation }
            }
            LogRecord::Appended { stream, start, at, ends, said } => {
                let annotation = said.and_then(|said| said.annotation).map(Box::new);
                LogRecord::Moved { stream, start, at, ends, annotation }
            }
            other => other,
        };
        let LogRecord::Moved { stream, .. } = record else { return Ok(None) };
        self.ensure(content.len() + bytes as usize, 0, true)?;
        let (place, bytes) = self.write_unkept(&record, &content, Some(stream))?;
        Ok(Some(RecordSpan { place, bytes }))
    }

    /// Writes the state of a stream again, or its end. Returns how many bytes that took.
    fn move_stream(&mut self, stream: StreamId, from: u32) -> Result<u32, NoRoom> {
        if self.session_log.contains(stream) {
            return self.move_session(stream, from);
        }
        let Some(entry) = self.ids.get(&stream).and_then(Weak::upgrade) else {
            return self.move_end(stream, from);
        };
        // What is decided and not done would be written as if it had never been asked for, behind where it is written.
        if entry.lock().underway > 0 {
            self.commit().map_err(NoRoom::Broken)?;
        }
        let (state, earliest) = {
            let entry = entry.lock();
            // Without what was trimmed since, a log that is read from where it began then would have a hole. One that has
            // just begun has no head yet; it was written behind this segment.
            let is_written = entry.head.as_ref().is_none_or(|head| {
                let oldest = head.content.span().place.segment.min(head.copy.span().place.segment);
                oldest > from && head.earliest == entry.log.earliest()
            });
            let state = !is_written && entry.state != State::Removed;
            (state.then(|| Box::new(StreamRecord::of(&entry))), entry.log.earliest())
        };
        let Some(state) = state else { return self.move_end(stream, from) };
        let head = self.write_state(state, earliest)?;
        let bytes = head.content.span().bytes + head.copy.span().bytes;
        self.afterwards(move || entry.lock().head = Some(head));
        Ok(bytes)
    }

    /// The end of a stream is needed as long as another segment has anything of it.
    fn move_end(&mut self, stream: StreamId, from: u32) -> Result<u32, NoRoom> {
        let Some(grave) = self.tombstones.get(&stream).cloned() else { return Ok(0) };
        if !self.is_elsewhere(stream, from) {
            self.tombstones.remove(&stream);
            self.ids.remove(&stream);
            self.forks.remove(&stream);
            return Ok(0);
        }
        if grave.place().segment != from {
            return Ok(0);
        }
        self.ensure(0, 0, true)?;
        self.write_end(stream)?;
        Ok(grave.bytes())
    }

    /// Whether another segment has anything of a stream or session.
    pub(super) fn is_elsewhere(&self, stream: StreamId, from: u32) -> bool {
        let left = self.shared.segments.all();
        left.iter().any(|segment| segment.number != from && segment.streams.lock().contains(&stream))
    }

    /// Removes a segment that nobody needs, once what replaces it is synced.
    fn give_up(&mut self, reclaiming: Reclaiming) -> io::Result<()> {
        let (victim, thorough) = (reclaiming.victim.clone(), reclaiming.thorough);
        self.commit()?;
        if victim.live() > 0 && !thorough && !self.unmovable.contains(&victim.number) {
            self.reclaiming = Some(Reclaiming::thorough(victim, self.ids.keys().copied().collect()));
            return Ok(());
        }
        if victim.live() > 0 {
            tracing::error!(segment = victim.number, live = victim.live(), "a segment has to stay");
            self.unmovable.insert(victim.number);
            return Ok(());
        }
        self.sync_all()?;
        if let Err(error) = self.shared.segments.remove(victim.number) {
            tracing::warn!(segment = victim.number, %error, "can not remove a file of the store; trying again");
            self.look_again = false;
            self.reclaiming = Some(Reclaiming { stuck_at: Some(Instant::now()), ..reclaiming });
            return Ok(());
        }
        self.shared.segments.sync_folder()?;
        self.shared.observer.damaged(self.shared.damage.forget(victim.number));
        self.shared.observer.reclaimed(victim.capacity.into());
        self.unmovable.remove(&victim.number);
        Ok(())
    }
}
