//! A store that fails: the store on disk, whose operations take long, fail, or are the last thing that their process does.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{Thread, current, park};
use std::time::{Duration, SystemTime};

use fastrand::Rng;
use parking_lot::Mutex;
use pollgate::store::Disk;
use pollgate::stream::{
    Append, AppendError, AppendType, Appended, Batch, ChangeError, Create, CreateError, Created, Description,
    Epoch, Failure, Filter, Message, MessageLimit, Messages, NewsListener, ReadError, ReadLimit,
    SessionChange, SessionNames, SessionPage, Snapshot, Start, Store, StreamName, StreamPage, Work,
};
use tokio::sync::Notify;
use tokio::task::unconstrained;
use tokio::time::sleep;

use super::scenario::StorePlan;
use super::truth::Truth;

/// How long the committer of the store on disk may take is real time, in which simulated time must not pass. So its operations are
/// waited for, and what they take in simulated time is drawn.
pub(super) struct FailingStore {
    /// `None` once the process is killed: nothing that its tasks still do has an effect.
    disk: Mutex<Option<Arc<Disk>>>,
    plan: StorePlan,
    random: Mutex<Rng>,
    is_failing: AtomicBool,
    pub(super) is_full: AtomicBool,
    is_broken: AtomicBool,
    /// Notified when the process is to be killed now.
    kill: Arc<Notify>,
    truth: Arc<Mutex<Truth>>,
    /// Writes to the trace.
    note: Note,
}

pub(super) type Note = Box<dyn Fn(&str) + Send + Sync>;

/// What happens at an append.
#[derive(Debug)]
enum Fate {
    Fails(Failure),
    /// The process is killed before it.
    KilledBefore,
    /// The process is killed after it.
    KilledAfter,
    Succeeds,
}

impl FailingStore {
    pub(super) fn new(
        disk: Disk,
        plan: StorePlan,
        random: Rng,
        kill: Arc<Notify>,
        truth: Arc<Mutex<Truth>>,
        note: Note,
    ) -> Self {
        Self {
            disk: Mutex::new(Some(Arc::new(disk))),
            plan,
            random: Mutex::new(random),
            is_failing: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
            is_broken: AtomicBool::new(false),
            kill,
            truth,
            note,
        }
    }

    /// Begins or ends to fail. A store that is broken stays so.
    pub(super) fn fail(&self, is_failing: bool) {
        self.is_failing.store(is_failing, Ordering::Relaxed);
        if !is_failing {
            self.is_full.store(false, Ordering::Relaxed);
        }
    }

    /// Whether the store accepts nothing more until it is opened again.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed)
    }

    /// Ends the process's access to the files, as a kill does.
    pub(super) fn kill(&self) {
        // The drop waits for the change that is being made.
        *self.disk.lock() = None;
    }

    fn disk(&self) -> Option<Arc<Disk>> {
        self.disk.lock().clone()
    }

    fn chance(&self, share: f64) -> bool {
        self.is_failing.load(Ordering::Relaxed) && share > 0.0 && self.random.lock().f64() < share
    }

    async fn delay(&self) {
        if self.chance(self.plan.slow) {
            let most = if self.chance(0.1) { 4000 } else { 400 };
            let milliseconds = self.random.lock().u64(1..most);
            sleep(Duration::from_millis(milliseconds)).await;
        }
    }

    fn fate(&self) -> Fate {
        if self.is_broken() {
            return Fate::Fails(Failure::Broken);
        }
        if self.is_full.load(Ordering::Relaxed) {
            return Fate::Fails(Failure::Full);
        }
        if self.chance(self.plan.fails) {
            return Fate::Fails(if self.chance(0.5) { Failure::Full } else { Failure::Short });
        }
        if self.chance(self.plan.kills) {
            return if self.chance(0.5) { Fate::KilledBefore } else { Fate::KilledAfter };
        }
        if self.chance(self.plan.breaks) {
            self.is_broken.store(true, Ordering::Relaxed);
            return Fate::Fails(Failure::Broken);
        }
        Fate::Succeeds
    }

    /// Does an operation. If the process is killed in it, it never returns.
    fn step<'a, T: Send + 'a>(&'a self, operation: impl FnOnce(&Disk) -> T + Send + 'a) -> Work<'a, T> {
        Box::pin(async move {
            self.delay().await;
            let Some(disk) = self.disk() else { return pending().await };
            let outcome = operation(&disk);
            drop(disk);
            self.delay().await;
            if self.disk.lock().is_none() {
                return pending().await;
            }
            outcome
        })
    }

    async fn die<T>(&self) -> T {
        self.kill.notify_one();
        pending().await
    }
}

/// Waits for work of other threads while simulated time stands still.
fn wait<T>(work: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(current())));
    // A task whose budget is used up would wait for its next turn.
    let (mut work, mut context) = (pin!(unconstrained(work)), Context::from_waker(&waker));
    loop {
        match work.as_mut().poll(&mut context) {
            Poll::Ready(done) => return done,
            Poll::Pending => park(),
        }
    }
}

/// The messages of an append as they were sent.
fn content(append: &Append) -> Vec<u8> {
    match &append.content_type {
        AppendType::OfStream { body, .. } if append.payload.is_empty() => body.to_vec(),
        _ if !append.payload.shape().is_json() => append.payload.bytes().to_vec(),
        // Values with commas between them.
        _ => [b"[", &append.payload.bytes()[..], b"]"].concat(),
    }
}

impl Store for FailingStore {
    fn create<'a>(
        &'a self,
        name: &'a StreamName,
        create: Create,
        now: SystemTime,
    ) -> Work<'a, Result<Created, CreateError>> {
        self.step(move |disk| wait(disk.create(name, create, now)))
    }

    fn append<'a>(
        &'a self,
        name: &'a StreamName,
        append: Box<Append>,
        now: SystemTime,
    ) -> Work<'a, Result<Appended, AppendError>> {
        Box::pin(async move {
            self.delay().await;
            let fate = self.fate();
            (self.note)(&format!("append to {name}: {fate:?}"));
            match fate {
                Fate::Fails(failure) => return Err(AppendError::Failed(failure)),
                Fate::KilledBefore => return self.die().await,
                Fate::KilledAfter | Fate::Succeeds => {}
            }
            let Some(disk) = self.disk() else { return pending().await };
            let sent = content(&append);
            let outcome = wait(disk.append(name, append, now));
            drop(disk);
            if outcome.as_ref().is_ok_and(|appended| !appended.duplicate) {
                self.truth.lock().store(name.as_str(), &sent);
            }
            if let Fate::KilledAfter = fate {
                return self.die().await;
            }
            self.delay().await;
            if self.disk.lock().is_none() {
                return pending().await;
            }
            outcome
        })
    }

    fn read<'a>(
        &'a self,
        name: &'a StreamName,
        start: Start,
        limit: ReadLimit,
        now: SystemTime,
    ) -> Work<'a, Result<Batch, ReadError>> {
        self.step(move |disk| wait(disk.read(name, start, limit, now)))
    }

    fn known(&self, name: &StreamName, start: Start, limit: ReadLimit, now: SystemTime) -> Option<Batch> {
        self.disk()?.known(name, start, limit, now)
    }

    fn messages<'a>(
        &'a self,
        name: &'a StreamName,
        start: Start,
        limit: MessageLimit,
        now: SystemTime,
    ) -> Work<'a, Result<Messages, ReadError>> {
        self.step(move |disk| wait(disk.messages(name, start, limit, now)))
    }

    fn peek<'a>(
        &'a self,
        name: &'a StreamName,
        start: Start,
        limit: MessageLimit,
        now: SystemTime,
    ) -> Work<'a, Result<Messages, ReadError>> {
        self.step(move |disk| wait(disk.peek(name, start, limit, now)))
    }

    fn retained<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<Option<Message>, ReadError>> {
        self.step(move |disk| wait(disk.retained(name, now)))
    }

    fn clear_retained<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<(), ChangeError>> {
        self.step(move |disk| wait(disk.clear_retained(name, now)))
    }

    fn describe<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<Description, ChangeError>> {
        self.step(move |disk| wait(disk.describe(name, now)))
    }

    fn snapshot<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<Snapshot, ReadError>> {
        self.step(move |disk| wait(disk.snapshot(name, now)))
    }

    fn delete<'a>(&'a self, name: &'a StreamName, now: SystemTime) -> Work<'a, Result<(), ChangeError>> {
        self.step(move |disk| wait(disk.delete(name, now)))
    }

    fn change_session(&self, change: SessionChange) -> Work<'_, Result<(), Failure>> {
        // Not delayed before: changes are made in the order of the calls.
        let done = self.disk().map(|disk| wait(disk.change_session(change)));
        Box::pin(async move { if let Some(done) = done { done } else { pending().await } })
    }

    fn session_page<'a>(
        &'a self,
        names: SessionNames<'a>,
        after: Option<&'a str>,
    ) -> Work<'a, Result<SessionPage, Failure>> {
        self.step(move |disk| wait(disk.session_page(names, after)))
    }

    fn outlives_process(&self) -> bool {
        true
    }

    fn attach(&self, name: &StreamName) -> Option<Epoch> {
        self.disk()?.attach(name)
    }

    fn detach(&self, name: &StreamName, epoch: Epoch, now: SystemTime) {
        self.disk().iter().for_each(|disk| disk.detach(name, epoch, now));
    }

    fn attach_all(&self, filter: &Filter) {
        self.disk().iter().for_each(|disk| disk.attach_all(filter));
    }

    fn detach_all(&self, filter: &Filter) {
        self.disk().iter().for_each(|disk| disk.detach_all(filter));
    }

    fn follow_wall(&self, now: SystemTime, wall: SystemTime) {
        self.disk().iter().for_each(|disk| disk.follow_wall(now, wall));
    }

    fn sweep(&self, now: SystemTime) -> Work<'_, Result<Vec<StreamName>, Failure>> {
        self.step(move |disk| wait(disk.sweep(now)))
    }

    fn page<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a StreamName>,
        now: SystemTime,
    ) -> Work<'a, Result<StreamPage, Failure>> {
        self.step(move |disk| wait(disk.page(prefix, after, now)))
    }

    fn streams(&self) -> usize {
        self.disk().map_or(0, |disk| disk.streams())
    }

    fn tell(&self, listener: Arc<dyn NewsListener>) {
        self.disk().iter().for_each(|disk| disk.tell(listener.clone()));
    }

    fn has_failed(&self) -> bool {
        self.is_broken() || self.disk().is_some_and(|disk| disk.has_failed())
    }

    fn is_damaged(&self) -> bool {
        self.disk().is_some_and(|disk| disk.is_damaged())
    }

    fn close<'a>(&'a self) -> Work<'a, ()> {
        Box::pin(async move {
            let disk = self.disk();
            disk.iter().for_each(|disk| wait(disk.close()));
        })
    }
}
