//! [`Readers`]: the readers of a process. They connect before the run starts, and read until they are dropped.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::client::Client;
use crate::data::{Deliveries, Energy};
use crate::generator::{GeneratorError, Job};
use crate::model::radio::Radios;
use crate::recorder::{Reception, Recorder};
use crate::strategies::Strategy;
use crate::streams::stream_name;
use crate::wire::{Dialer, Meter, Totals, WireError};
use crate::workload::Workload;

/// Clients that record the time of each packet for the energy model. The others only count, which bounds memory.
const TRACED_CLIENTS: u32 = 200;

/// Time limit for all clients to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// Time limit to connect through a hostile network, which may block some clients for ever: their missing messages are part of
/// the measurement.
const HOSTILE_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Pause between a broken connection and the next.
const BACK_OFF: Duration = Duration::from_millis(100);

/// The readers of a process and their measurements.
pub struct Readers {
    /// Records the received messages.
    pub recorder: Arc<Recorder>,
    /// Counts requests and bytes.
    pub totals: Arc<Totals>,
    receptions: Vec<Arc<Mutex<Reception>>>,
    traced: Vec<Arc<Meter>>,
    start: watch::Sender<Option<Instant>>,
    _tasks: JoinSet<()>,
}

impl Readers {
    /// Connects the readers of a share, and waits until all are connected.
    pub async fn connect(job: &Job, workload: &Arc<Workload>) -> Result<Self, GeneratorError> {
        let numbers = || (0..job.plan.clients).filter(|number| job.is_mine(*number));
        let streams = numbers().map(|number| number % job.plan.streams.max(1));
        let recorder = Arc::new(Recorder::new(workload.clone(), streams)?);
        let (totals, start) = (Arc::new(Totals::default()), watch::Sender::new(None));
        let (connected, mut all_connected) = mpsc::channel(1);
        let (mut receptions, mut traced, mut tasks) = (Vec::new(), Vec::new(), JoinSet::new());
        for number in numbers() {
            let stream = number % job.plan.streams.max(1);
            let mut random = Rng::with_seed(job.plan.seed ^ u64::from(number));
            let meter = Arc::new(Meter::new(totals.clone(), number < TRACED_CLIENTS));
            let client = Client {
                number,
                stream: stream_name(job.plan.run, stream),
                offset: None,
                phase: random.f64(),
                random,
                target: job.reading.clone(),
                dialer: Dialer::new(&job.reading)
                    .map_err(|error| GeneratorError::NotConnected(error.to_string()))?,
                meter: meter.clone(),
                recorder: recorder.clone(),
                reception: Arc::new(Mutex::new(Reception::new(workload, stream))),
                start: start.subscribe(),
                connected: Some(connected.clone()),
            };
            receptions.push(client.reception.clone());
            traced.extend((number < TRACED_CLIENTS).then_some(meter));
            tasks.spawn(follow(client, job.strategy));
        }
        drop(connected);
        // Nothing is ever sent: the channel closes when the last client drops its sender.
        let patience = if job.is_hostile { HOSTILE_CONNECT_TIMEOUT } else { CONNECT_TIMEOUT };
        let all = timeout(patience, all_connected.recv()).await;
        if all.is_err() && job.is_hostile {
            for _waiting in 0..all_connected.sender_strong_count() {
                recorder.troubles.note(format!("no way to read within {patience:?} of the first try"));
            }
        } else if all.is_err() {
            let troubles = recorder.troubles.all().into_keys().collect::<Vec<_>>().join("; ");
            return Err(GeneratorError::NotConnected(troubles));
        }
        Ok(Self { recorder, totals, receptions, traced, start, _tasks: tasks })
    }

    /// Tells the readers that the run starts at `start`.
    pub fn begin(&self, start: Instant) {
        self.start.send_replace(Some(start));
    }

    /// Returns the counts of all readers. A missing message does not count as lost if it was intended for `had_time` or later.
    pub fn deliveries(&self, workload: &Workload, had_time: Duration) -> Deliveries {
        let window = workload.plan.window();
        self.receptions.iter().map(|one| one.lock().counts(workload, &window, had_time)).sum()
    }

    /// Computes the radio energy of one client from the packets of the traced clients. Returns `None` if no client is traced.
    pub fn energy(&self, radios: &Radios, began: Instant, horizon: Duration) -> Option<Vec<Energy>> {
        let packets = self.traced.iter().filter_map(|meter| meter.packets(began, horizon));
        (!self.traced.is_empty()).then(|| radios.energy(packets, horizon))
    }
}

/// Reads, and reconnects at the last offset after every end or error.
pub(crate) async fn follow(mut client: Client, strategy: Strategy) {
    loop {
        let began = Instant::now();
        let ended = strategy.read(&mut client).await;
        let is_by_rule = matches!(ended, Ok(()) | Err(WireError::Closed));
        if let Err(error) = ended {
            client.recorder.troubles.note(format!("reading: {error}"));
        }
        // An immediate end also needs the pause: otherwise a network that blocks everything would get requests in a tight loop.
        if !is_by_rule || began.elapsed() < BACK_OFF {
            sleep(BACK_OFF).await;
        }
    }
}
