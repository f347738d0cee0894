//! The gateway of a scenario through its crashes, drains and restarts, and what all of the scenario share.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use fastrand::Rng;
use parking_lot::Mutex;
use pollgate::budget::Budget;
use pollgate::clock::Clock;
use pollgate::config::{MqttAddress, Settings, StorePlace};
use pollgate::server::{Running, Server};
use pollgate::store::{Disk, DiskOptions};
use pollgate::stream::SyncPolicy;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::scenario::{Blow, LinkPlan, Scenario};
use super::store::FailingStore;
use super::truth::Truth;
use crate::servers::Scratch;
use crate::simulate::SimulationError;
use crate::simulate::group::{LISTEN, MORNING};
use crate::simulate::trace::Trace;

/// Smallest files that the store allows, so that a scenario has several.
const SEGMENT_BYTES: u32 = 16 * 1024;

/// How long a gateway whose store is broken goes on before it is restarted.
const BROKEN_FOR: Duration = Duration::from_secs(2);

/// The number of the gateway in the trace. Clients are numbered from 1.
pub(super) const GATEWAY: u32 = 0;

/// A flag that is set once. It wakes its waiters in the order in which they began to wait; tokio's `watch` wakes them in a random order.
#[derive(Debug, Default)]
pub(super) struct Flag {
    is_set: AtomicBool,
    waiters: Notify,
}

impl Flag {
    fn set(&self) {
        self.is_set.store(true, Ordering::Relaxed);
        self.waiters.notify_waiters();
    }

    pub(super) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Relaxed)
    }

    pub(super) async fn wait(&self) {
        let mut notified = pin!(self.waiters.notified());
        notified.as_mut().enable();
        if !self.is_set() {
            notified.await;
        }
    }
}

/// A running scenario: the process of the gateway with its clock and store, and the record of all messages.
pub(super) struct World {
    pub(super) scenario: Scenario,
    pub(super) truth: Arc<Mutex<Truth>>,
    pub(super) trace: Arc<Trace>,
    began: Instant,
    clock: Clock,
    directory: Scratch,
    process: Mutex<Option<Process>>,
    random: Mutex<Rng>,
    /// Notified when a store asks that its process be killed.
    kill: Arc<Notify>,
    /// Nothing fails any more.
    pub(super) calm: Arc<Flag>,
}

/// A process of the gateway.
struct Process {
    running: Arc<Running>,
    store: Arc<FailingStore>,
    dead: Arc<Flag>,
    is_draining: bool,
}

impl World {
    pub(super) fn new(scenario: Scenario, directory: Scratch, random: Rng, keeps_trace: bool) -> Self {
        Self {
            scenario,
            truth: Arc::default(),
            trace: Arc::new(Trace::new(keeps_trace)),
            began: Instant::now(),
            clock: Clock::of_tokio(SystemTime::UNIX_EPOCH + MORNING),
            directory,
            process: Mutex::default(),
            random: Mutex::new(random),
            kill: Arc::default(),
            calm: Arc::default(),
        }
    }

    /// A generator for a part of the scenario.
    pub(super) fn random(&self) -> Rng {
        self.random.lock().fork()
    }

    pub(super) fn note(&self, who: u32, what: &str) {
        self.trace.note(self.began.elapsed(), who, what, 0);
    }

    /// The gateway, if it accepts connections, and whether its process has died since.
    pub(super) fn gateway(&self) -> Option<(Arc<Running>, Arc<Flag>)> {
        let process = self.process.lock();
        let process = process.as_ref().filter(|process| !process.is_draining)?;
        Some((process.running.clone(), process.dead.clone()))
    }

    pub(super) fn links(&self) -> LinkPlan {
        self.scenario.links
    }

    /// Starts a process of the gateway with what the one before has left on the disk.
    pub(super) async fn start(&self) -> Result<(), SimulationError> {
        let options = DiskOptions {
            segment_bytes: SEGMENT_BYTES,
            cache_bytes: self.random.lock().u64(0..32 * 1024),
            ..DiskOptions::new(SyncPolicy::Never)
        };
        let (observer, now) = (Arc::new(()), self.clock.now());
        let opened = Disk::open_within(self.directory.path(), options, observer, &Budget::unlimited(), now);
        let (disk, _) = opened.map_err(std::io::Error::other)?;
        let plan = self.scenario.store;
        let (trace, began) = (self.trace.clone(), self.began);
        let note = Box::new(move |what: &str| trace.note(began.elapsed(), GATEWAY, what, 0));
        let (kill, truth) = (self.kill.clone(), self.truth.clone());
        let store = FailingStore::new(disk, plan, self.random(), kill, truth, note);
        let store = Arc::new(store);
        let mut settings = Settings {
            store: StorePlace::Memory,
            listen: LISTEN,
            admin: LISTEN,
            mqtt: MqttAddress::Off,
            ..Settings::default()
        };
        settings.limits.read_bytes_max = self.scenario.read_bytes_max;
        settings.limits.tail_bytes_max = settings.limits.tail_bytes_max.min(self.scenario.read_bytes_max);
        let server = Server::bind_simulated(&settings, self.clock)?.over(store.clone());
        let running = Arc::new(server.start().await?);
        store.fail(!self.calm.is_set());
        let process = Process { running, store, dead: Arc::default(), is_draining: false };
        *self.process.lock() = Some(process);
        self.note(GATEWAY, "starts");
        Ok(())
    }

    /// Kills the process: its connections close, and nothing that it still does has an effect.
    fn kill(&self, why: &str) {
        if let Some(process) = self.process.lock().take() {
            self.note(GATEWAY, why);
            process.store.kill();
            process.dead.set();
        }
    }

    /// Ends the gateway. Its tasks may live on, but they do nothing more to the files.
    pub(super) fn end(&self) {
        self.kill("ends");
    }

    /// Does what the scenario does to the gateway. At the end the gateway runs, and nothing fails any more.
    pub(super) async fn suffer(&self) -> Result<(), SimulationError> {
        let end = self.began + self.scenario.faults_last;
        let blows = self.scenario.blows.iter().map(|(at, blow)| (self.began + *at, Some(*blow)));
        for (at, blow) in blows.chain([(end, None)]) {
            self.until(at).await?;
            match blow {
                Some(blow) => self.strike(blow).await?,
                None => break,
            }
        }
        if let Some(process) = self.process.lock().as_ref() {
            process.store.fail(false);
        }
        self.note(GATEWAY, "all is calm");
        self.calm.set();
        let was_killed = timeout(Duration::ZERO, self.kill.notified()).await.is_ok();
        if was_killed || self.is_broken() {
            self.kill("is restarted");
            self.start().await?;
        }
        Ok(())
    }

    /// Waits, and meanwhile restarts the gateway when its store asks for that.
    async fn until(&self, at: Instant) -> Result<(), SimulationError> {
        loop {
            tokio::select! {
                biased;
                () = self.kill.notified() => {
                    self.kill("is killed at an append");
                    let down = Duration::from_millis(self.random.lock().u64(0..3000));
                    sleep(down).await;
                    self.start().await?;
                }
                () = self.broken() => {
                    self.kill("is restarted, as its store is broken");
                    self.start().await?;
                }
                () = sleep_until(at) => return Ok(()),
            }
        }
    }

    /// Completes some time after the store has broken.
    async fn broken(&self) {
        loop {
            sleep(BROKEN_FOR).await;
            if self.is_broken() {
                return;
            }
        }
    }

    fn is_broken(&self) -> bool {
        self.process.lock().as_ref().is_some_and(|process| process.store.is_broken())
    }

    async fn strike(&self, blow: Blow) -> Result<(), SimulationError> {
        match blow {
            Blow::Kill(down) => {
                self.kill("is killed");
                sleep(down).await;
                self.start().await?;
            }
            Blow::Drain(down) => {
                self.note(GATEWAY, "drains");
                let running = {
                    let mut process = self.process.lock();
                    process.as_mut().map(|process| {
                        process.is_draining = true;
                        process.running.clone()
                    })
                };
                if let Some(running) = running {
                    running.drain().await;
                }
                self.kill("has drained");
                sleep(down).await;
                self.start().await?;
            }
            Blow::Step(milliseconds) => {
                self.note(GATEWAY, &format!("time of day steps by {milliseconds} ms"));
                self.clock.step_wall(milliseconds);
            }
            Blow::Full(time) => {
                self.set_full(true);
                sleep(time).await;
                self.set_full(false);
            }
        }
        Ok(())
    }

    fn set_full(&self, is_full: bool) {
        self.note(GATEWAY, if is_full { "storage is full" } else { "storage has room" });
        if let Some(process) = self.process.lock().as_ref() {
            process.store.is_full.store(is_full, Ordering::Relaxed);
        }
    }
}
