//! Reclaiming room: the segment with the least bytes in use is emptied, by writing its records in use again, and removed.
//!
//! Replay must give the same result without that segment. So it is necessary to write again the messages in use, the state of
//! each stream that was written there, and the end of a stream as long as another segment has anything of the stream. This is
//! written together with other changes.

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
use super::victim::{LiveRecords, Reclaiming, SearchResult, find_live};
use crate::store::entry::State;
use crate::stream::{Failure, Position};

/// The maximum bytes that are moved between two groups of changes, which wait that long.
const MOVED_BYTES_MAX: u32 = 256 * 1024;

/// How often garbage is looked for.
const SEARCH_INTERVAL: Duration = Duration::from_millis(100);

/// A segment with a greater share of bytes in use, in percent, is not emptied, because that would gain little.
const LIVE_PERCENT_MAX: u64 = 90;

/// The maximum size of all full segments, in percent of their bytes in use.
const PERCENT_OF_LIVE_MAX: u64 = 110;

impl Committer {
    /// Does a part of the work, if there is any. The records that it writes are committed with the group.
    pub(super) fn reclaim(&mut self) -> io::Result<()> {
        let look = self.search_again || self.searched_at.elapsed() >= SEARCH_INTERVAL;
        if self.reclaiming.is_none() && look {
            self.search_again = false;
            self.searched_at = Instant::now();
            // Changes that are underway are not in the logs of streams yet.
            self.commit()?;
            self.reclaiming = self.victim().map(|victim| Reclaiming::of(victim, &self.forks));
        }
        let due = self.reclaiming.take_if(|reclaiming| reclaiming.pause().is_zero());
        let Some(mut reclaiming) = due else { return Ok(()) };
        match self.move_batch(&mut reclaiming) {
            Ok(true) => {
                self.search_again = true;
                self.remove_victim(reclaiming)
            }
            Ok(false) => {
                self.reclaiming = Some(reclaiming);
                Ok(())
            }
            // There is no room to move records to. Deletions may make some.
            Err(NoRoom::Full | NoRoom::Short) => Ok(()),
            Err(NoRoom::Broken(error)) => Err(error),
        }
    }

    /// The full segment with the least bytes in use, if all of them together have too much garbage.
    fn victim(&self) -> Option<Arc<Segment>> {
        let active = self.room.active();
        let full: Vec<_> =
            self.shared.segments.all().into_iter().filter(|one| one.number != active.number).collect();
        let (bytes, live) = full.iter().fold((0, 0), |(bytes, live), segment| {
            (bytes + u64::from(segment.capacity), live + segment.live())
        });
        self.shared.observer.sized(bytes + u64::from(active.capacity), live + active.live());
        let movable = full.into_iter().filter(|one| one.live() == 0 || !self.unmovable.contains(&one.number));
        let emptiest = movable.min_by_key(|segment| segment.live())?;
        let worthwhile = emptiest.live() * 100 <= u64::from(emptiest.capacity) * LIVE_PERCENT_MAX;
        (bytes * 100 > live * PERCENT_OF_LIVE_MAX && worthwhile).then_some(emptiest)
    }

    /// Writes records in use again, up to a limit. Returns whether that was all.
    fn move_batch(&mut self, reclaiming: &mut Reclaiming) -> Result<bool, NoRoom> {
        let number = reclaiming.victim.number;
        // A segment that is only partly emptied gives nothing back, and on a full disk it would use up the room that is left
        // for deletions. A segment whose records in use take at most half of that room gives back more than it takes.
        if 2 * reclaiming.victim.live() > self.room.left()? {
            return Err(NoRoom::Full);
        }
        // Forks share records, and moved ones keep their old location until the group is committed.
        let mut moving = HashSet::new();
        let mut moved = 0;
        while moved < MOVED_BYTES_MAX
            && let Some(stream) = reclaiming.logs.last()
        {
            let found = self.ids.get(stream).and_then(Weak::upgrade).map(|entry| {
                let bytes_left = MOVED_BYTES_MAX - moved;
                find_live(number, &entry.lock(), reclaiming.from, bytes_left)
            });
            let Some(SearchResult { live, next }) = found else {
                reclaiming.logs.pop();
                continue;
            };
            for live in live {
                moved += self.move_live(live, &mut moving)?;
            }
            match next {
                // The stream is locked again later, after others could use it.
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

    /// Writes messages of records again, except of records in `moving`, and adds the records to it. Returns the bytes written.
    fn move_live(&mut self, live: LiveRecords, moving: &mut HashSet<FrameLocation>) -> Result<u32, NoRoom> {
        match live {
            LiveRecords::Kept(kept) => {
                let span = kept.span();
                if !moving.insert(span.place) {
                    return Ok(0);
                }
                let Some(to) = self.write_again(span)? else { return Ok(0) };
                self.run_after_sync(move || kept.move_to(to));
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
                self.run_after_sync(move || run.move_to(&moved));
                full.map_or(Ok(bytes), Err)
            }
        }
    }

    /// Writes the messages of a record again. `None` if they cannot be read; then they stay where they are, and their segment
    /// stays, too.
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

    /// Writes the state of a stream again, or its end. Returns the bytes written.
    fn move_stream(&mut self, stream: StreamId, from: u32) -> Result<u32, NoRoom> {
        if self.session_log.contains(stream) {
            return self.move_session(stream, from);
        }
        let Some(entry) = self.ids.get(&stream).and_then(Weak::upgrade) else {
            return self.move_end(stream, from);
        };
        // The state includes changes that are decided and not done, and would come after their records in the log.
        if entry.lock().underway > 0 {
            self.commit().map_err(NoRoom::Broken)?;
        }
        let (state, trimmed) = {
            let entry = entry.lock();
            // If messages were trimmed since the state was written, a log that is restored from that state would have a hole. A
            // stream without a head is new, and its state is in a later segment.
            let is_written = entry.head.as_ref().is_none_or(|head| {
                let oldest = head.content.span().place.segment.min(head.copy.span().place.segment);
                oldest > from && head.trimmed == entry.log.trimmed()
            });
            let state = !is_written && entry.state != State::Removed;
            (state.then(|| Box::new(StreamRecord::of(&entry))), entry.log.trimmed())
        };
        let Some(state) = state else { return self.move_end(stream, from) };
        let head = self.write_state(state, trimmed)?;
        let bytes = head.content.span().bytes + head.copy.span().bytes;
        self.run_after_sync(move || entry.lock().head = Some(head));
        Ok(bytes)
    }

    /// Writes the end of a stream again if another segment has anything of the stream; otherwise forgets the stream. Returns
    /// the bytes written.
    fn move_end(&mut self, stream: StreamId, from: u32) -> Result<u32, NoRoom> {
        let Some(tombstone) = self.tombstones.get(&stream).cloned() else { return Ok(0) };
        if !self.is_elsewhere(stream, from) {
            self.tombstones.remove(&stream);
            self.ids.remove(&stream);
            self.forks.remove(&stream);
            return Ok(0);
        }
        if tombstone.place().segment != from {
            return Ok(0);
        }
        self.ensure(0, 0, true)?;
        self.write_end(stream)?;
        Ok(tombstone.bytes())
    }

    /// Whether a segment other than `from` has anything of a stream or session.
    pub(super) fn is_elsewhere(&self, stream: StreamId, from: u32) -> bool {
        let left = self.shared.segments.all();
        left.iter().any(|segment| segment.number != from && segment.streams.lock().contains(&stream))
    }

    /// Removes the emptied segment after syncing what replaces it. If records in use are left, searches all logs once, or
    /// leaves the segment.
    fn remove_victim(&mut self, reclaiming: Reclaiming) -> io::Result<()> {
        let (victim, thorough) = (reclaiming.victim.clone(), reclaiming.thorough);
        self.commit()?;
        if victim.live() > 0 && !thorough && !self.unmovable.contains(&victim.number) {
            self.reclaiming = Some(Reclaiming::thorough(victim, self.ids.keys().copied().collect()));
            return Ok(());
        }
        if victim.live() > 0 {
            tracing::error!(
                segment = victim.number,
                live = victim.live(),
                "a file of the store cannot be reclaimed, because records in use in it cannot be moved"
            );
            self.unmovable.insert(victim.number);
            return Ok(());
        }
        self.sync_all()?;
        if let Err(error) = self.shared.segments.remove(victim.number) {
            tracing::warn!(segment = victim.number, %error, "cannot remove a file of the store; trying again");
            self.search_again = false;
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
