//! Removes streams and messages that have expired.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;

use super::{Moment, Streams, Structure};
use crate::store::entry::{SWEEP_AGAIN, State};
use crate::store::log::Content;
use crate::stream::{Epoch, StreamName};

/// The table is shrunk when this many more streams were removed than are left.
pub(super) const TABLE_MIN: usize = 1024;

/// Limits of one sweep: streams that it ends, and streams that it visits.
pub(super) const SWEEP_ENDED_MAX: usize = 1000;
const SWEEP_VISITS_MAX: usize = 16_000;

/// A time that never comes, of a sweep without anything to do.
const NEVER: Duration = Duration::from_secs(1 << 40);

impl Structure {
    /// When the sweep has something to do. Streams that end at a time of day make it due always, since that may be set at any moment.
    fn due(&self) -> Option<SystemTime> {
        if self.ended.is_empty() && self.dated.is_empty() {
            self.agenda.first().map(|(due, _)| *due)
        } else {
            Some(SystemTime::UNIX_EPOCH)
        }
    }

    /// Tells who waits for the next sweep if it is due sooner than it was said to be.
    pub(super) fn is_due(&mut self, at: SystemTime) {
        if self.next_sweep.take_if(|told| at < *told).is_some() {
            self.sooner.notify_one();
        }
    }
}

impl<C: Content> Streams<C> {
    /// When the sweep has something to do next. From now on, [`sweep_sooner`](Self::sweep_sooner) tells of a sooner time.
    pub(in crate::store) fn next_sweep(&self) -> Option<SystemTime> {
        let mut structure = self.structure.lock();
        let due = structure.due();
        structure.next_sweep = Some(due.unwrap_or(SystemTime::UNIX_EPOCH + NEVER));
        due
    }

    /// The notification of a sweep that is due before the time that was last returned.
    pub(in crate::store) fn sweep_sooner(&self) -> Arc<Notify> {
        self.structure.lock().sooner.clone()
    }

    /// Removes the stream if its lifetime is over at `now`.
    pub(in crate::store) fn end(&self, name: &StreamName, now: SystemTime) {
        let mut structure = self.structure.lock();
        let at = self.moment(now);
        let ended = self.find(name).is_ok_and(|entry| entry.lock().may_end(at));
        if ended {
            let ended_ids = self.remove(&mut structure, name);
            structure.ended_ids.extend(ended_ids);
            structure.ended.push(name.clone());
            structure.is_due(SystemTime::UNIX_EPOCH);
        }
    }

    /// Removes streams and messages that have expired by `now`, up to a limit. Returns the streams that ended by themselves
    /// since the last sweep.
    pub(in crate::store) fn sweep(&self, now: SystemTime) -> Vec<StreamName> {
        let mut guard = self.structure.lock();
        let structure = &mut *guard;
        let at = self.moment(now);
        self.end_dated(structure, at);
        for _ in 0..SWEEP_VISITS_MAX {
            let is_due = structure.agenda.first().is_some_and(|(due, _)| *due <= now);
            if !is_due || structure.ended.len() >= SWEEP_ENDED_MAX {
                break;
            }
            let Some((_, name)) = structure.agenda.pop_first() else { break };
            let Ok(found) = self.find(&name) else { continue };
            let mut entry = found.lock();
            entry.scheduled = None;
            if entry.may_end(at) {
                drop(entry);
                let ended_ids = self.remove(structure, &name);
                structure.ended_ids.extend(ended_ids);
                structure.ended.push(name);
            } else if matches!(entry.state, State::Live | State::Begun) {
                entry.trim(now);
                let due = entry.due(now).map(|due| due.max(now + SWEEP_AGAIN));
                structure.schedule(&mut entry, due);
            }
        }
        if structure.removed > self.table.len() + TABLE_MIN {
            structure.removed = 0;
            self.table.shrink_to_fit();
        }
        std::mem::take(&mut structure.ended)
    }

    /// Removes the streams whose end at a time of day has come. A stream with a change underway stays for the next sweep.
    fn end_dated(&self, structure: &mut Structure, at: Moment) {
        let mut later = Vec::new();
        while structure.dated.first().is_some_and(|(end, _)| *end <= at.wall)
            && structure.ended.len() + later.len() < SWEEP_ENDED_MAX
        {
            let Some((end, name)) = structure.dated.pop_first() else { break };
            let Ok(found) = self.find(&name) else { continue };
            let entry = found.lock();
            let (is_there, may_end) = (matches!(entry.state, State::Live | State::Begun), entry.may_end(at));
            drop(entry);
            if may_end {
                let ended_ids = self.remove(structure, &name);
                structure.ended_ids.extend(ended_ids);
                structure.ended.push(name);
            } else if is_there {
                later.push((end, name));
            }
        }
        structure.dated.extend(later);
    }

    /// The creation epochs of the streams that ended by themselves since the last call.
    pub(in crate::store) fn take_ended_ids(&self) -> Vec<Epoch> {
        std::mem::take(&mut self.structure.lock().ended_ids)
    }
}
