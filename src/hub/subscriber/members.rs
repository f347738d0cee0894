//! [`Member`]: a subscriber as publishers see it, with the set of streams marked for it. [`Members`]: the
//! subscribers that share a filter.
//!
//! A mark is a state, not an event: a stream that changes twice before its subscriber reads it is marked
//! once. So a slow subscriber costs at most one mark per stream, and at most `marks_max` in total. Changes
//! beyond that set a single overflow flag, and the subscriber must then check all streams that its filters
//! match.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::runtime::Handle;
use tokio::task::consume_budget;
use tokio::time::Instant;

use crate::hub::in_place::{PUBLISHER_DELIVERIES_MAX, deliver};
use crate::hub::signal::Signal;
use crate::stream::{Filter, StreamName};

/// One subscriber, as publishers and operators see it.
#[derive(Debug)]
pub(in crate::hub) struct Member {
    /// Distinguishes subscribers with the same client name; later ones have higher numbers.
    pub(super) number: u64,
    pub(super) client: Arc<str>,
    pub(super) since: Instant,
    pub(super) filters: Mutex<Filters>,
    pub(super) delivered: AtomicU64,
    pub(in crate::hub) marks: Signal<Marks>,
}

/// The marked streams. The one that has waited longest is first, so that busy streams do not starve quiet
/// ones. A single mark takes no allocation, since most subscribers have none or one.
#[derive(Debug)]
pub(in crate::hub) struct Marks {
    /// The stream that has waited longest. `None`: there are no marks.
    first: Option<StreamName>,
    /// The marks behind the first one, if there are any.
    others: Option<Box<OtherMarks>>,
    /// Maximum number of marks at once.
    max: u32,
    /// A stream has changed that could not be marked.
    overflow: bool,
}

/// The marks of a subscriber behind its first one.
#[derive(Debug, Default)]
struct OtherMarks {
    order: VecDeque<StreamName>,
    marked: HashSet<StreamName>,
}

/// The subscribers of one filter. A clone shares them, so a publisher marks them without holding the lock of
/// a table.
#[derive(Debug, Clone, Default)]
pub(in crate::hub) enum Members {
    #[default]
    None,
    /// Most filters have one subscriber.
    One(Arc<Member>),
    /// Two or more subscribers, by their numbers.
    Many(Arc<BTreeMap<u64, Arc<Member>>>),
}

/// The filters of a subscriber, sorted. Most subscribers have one, which takes no allocation.
#[derive(Debug, Default)]
pub(super) struct Filters(SmallVec<[Filter; 1]>);

impl Filters {
    /// Adds a filter. Returns whether it is new.
    pub(super) fn insert(&mut self, filter: &Filter) -> bool {
        let place = self.0.binary_search(filter);
        if let Err(at) = place {
            self.0.insert(at, filter.clone());
        }
        place.is_err()
    }

    /// Removes a filter. Returns whether it existed.
    pub(super) fn remove(&mut self, filter: &Filter) -> bool {
        self.0.binary_search(filter).map(|at| self.0.remove(at)).is_ok()
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Filter> {
        self.0.iter()
    }
}

impl Member {
    pub(super) fn new(number: u64, client: Arc<str>, marks_max: u32) -> Self {
        Self {
            number,
            client,
            since: Instant::now(),
            filters: Mutex::default(),
            delivered: AtomicU64::new(0),
            marks: Signal::new(Marks { first: None, others: None, max: marks_max, overflow: false }),
        }
    }

    pub(super) fn mark(&self, name: &StreamName) {
        self.marks.update(|marks| marks.insert(name));
    }
}

impl Marks {
    pub(in crate::hub) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Whether a stream is marked, or any may have changed.
    pub(super) fn has_changes(&self) -> bool {
        self.overflow || !self.is_empty()
    }

    fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.as_ref().map_or(0, |others| others.order.len())
    }

    fn contains(&self, name: &StreamName) -> bool {
        self.first.as_ref() == Some(name)
            || self.others.as_ref().is_some_and(|others| others.marked.contains(name))
    }

    pub(super) fn insert(&mut self, name: &StreamName) {
        if self.contains(name) {
            return;
        }
        if self.len() >= self.max as usize {
            self.overflow = true;
        } else if self.first.is_none() {
            self.first = Some(name.clone());
        } else {
            let others = self.others.get_or_insert_default();
            others.marked.insert(name.clone());
            others.order.push_back(name.clone());
        }
    }

    /// Notes that any stream may have changed.
    pub(super) fn overflow(&mut self) {
        self.overflow = true;
    }

    pub(super) fn take_overflow(&mut self) -> bool {
        std::mem::take(&mut self.overflow)
    }

    pub(in crate::hub) fn take(&mut self, max: usize) -> Vec<StreamName> {
        if max == 0 {
            return Vec::new();
        }
        let mut taken: Vec<_> = self.first.take().into_iter().collect();
        if let Some(others) = &mut self.others {
            let more = (max - taken.len()).min(others.order.len());
            taken.extend(others.order.drain(..more));
            self.first = others.order.pop_front();
            for name in taken.iter().chain(&self.first) {
                others.marked.remove(name);
            }
        }
        self.others.take_if(|others| others.order.is_empty());
        taken
    }
}

impl Members {
    pub(in crate::hub) fn insert(&mut self, member: &Arc<Member>) {
        match self {
            Self::None => *self = Self::One(member.clone()),
            Self::One(other) => {
                let both = [&*other, member].map(|member| (member.number, member.clone()));
                *self = Self::Many(Arc::new(both.into()));
            }
            Self::Many(members) => {
                Arc::make_mut(members).insert(member.number, member.clone());
            }
        }
    }

    pub(in crate::hub) fn remove(&mut self, member: &Member) {
        match self {
            Self::One(other) if other.number == member.number => *self = Self::None,
            Self::None | Self::One(_) => {}
            Self::Many(members) => {
                Arc::make_mut(members).remove(&member.number);
                let mut left = members.values();
                if let (Some(last), None) = (left.next(), left.next()) {
                    *self = Self::One(last.clone());
                }
            }
        }
    }

    pub(in crate::hub) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    pub(in crate::hub) fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(_) => 1,
            Self::Many(members) => members.len(),
        }
    }

    /// Marks the stream for each of them, and delivers to them in place. For more than [`PUBLISHER_DELIVERIES_MAX`] a task of its own does this
    /// and yields to others.
    pub(in crate::hub) fn mark(&self, name: &StreamName) {
        let members = match self {
            Self::None => return,
            Self::One(member) => return deliver(|| member.mark(name)),
            Self::Many(members) => members,
        };
        match Handle::try_current() {
            Ok(runtime) if members.len() > PUBLISHER_DELIVERIES_MAX => {
                runtime.spawn(mark_all(members.clone(), name.clone()));
            }
            _ => deliver(|| members.values().for_each(|member| member.mark(name))),
        }
    }

    #[cfg(test)]
    pub(super) fn numbers(&self) -> Vec<u64> {
        match self {
            Self::None => Vec::new(),
            Self::One(member) => vec![member.number],
            Self::Many(members) => members.keys().copied().collect(),
        }
    }
}

async fn mark_all(members: Arc<BTreeMap<u64, Arc<Member>>>, name: StreamName) {
    for member in members.values() {
        consume_budget().await;
        deliver(|| member.mark(&name));
    }
}
