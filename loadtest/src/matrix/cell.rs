//! [`Cell`]: one reader through one network.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use fastrand::Rng;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};

use super::contender::Contender;
use super::fallback::Fallback;
use super::row::Row;
use super::{Matrix, MatrixError};
use crate::client::Client;
use crate::network::{Middlebox, Profile};
use crate::readers::follow;
use crate::recorder::{Reception, Recorder};
use crate::streams::stream_name;
use crate::target::Target;
use crate::wire::{Dialer, Meter, Totals};
use crate::workload::Workload;

/// A reader, its middlebox and its stream. A drop ends the reader and the middlebox.
pub(super) struct Cell {
    network: Profile,
    contender: Contender,
    middlebox: Middlebox,
    recorder: Arc<Recorder>,
    reception: Arc<Mutex<Reception>>,
    fallback: Option<Arc<Fallback>>,
    _reading: JoinSet<()>,
}

impl Cell {
    /// Starts a reader of stream `number` through the network, from the beginning of the stream.
    pub(super) fn start(
        number: u32,
        network: Profile,
        contender: Contender,
        server: &Target,
        workload: &Arc<Workload>,
        wanted: &Matrix,
        start: &watch::Sender<Option<Instant>>,
    ) -> Result<Self, MatrixError> {
        let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let middlebox = Middlebox::start(&network.clone().counted(), any, server.address)?;
        let recorder = Arc::new(Recorder::new(workload.clone(), std::iter::once(number))?);
        let reception = Arc::new(Mutex::new(Reception::new(workload, number)));
        let mut random = Rng::with_seed(wanted.seed ^ u64::from(number));
        let client = Client {
            number,
            stream: stream_name(workload.plan.run, number),
            offset: None,
            phase: random.f64(),
            random,
            target: Target { address: middlebox.address(), mqtt: None, ..server.clone() },
            dialer: Dialer::default(),
            meter: Arc::new(Meter::new(Arc::new(Totals::default()), false)),
            recorder: recorder.clone(),
            reception: reception.clone(),
            start: start.subscribe(),
            connected: None,
        };
        let mut reading = JoinSet::new();
        let fallback = match contender.strategy(wanted.scale) {
            Some(strategy) => {
                reading.spawn(follow(client, strategy));
                None
            }
            None => {
                let fallback = Arc::new(Fallback::default());
                reading.spawn(fallback.clone().read(client, wanted.scale));
                Some(fallback)
            }
        };
        Ok(Self { network, contender, middlebox, recorder, reception, fallback, _reading: reading })
    }

    /// Waits until all messages have arrived.
    pub(super) async fn complete(&self) {
        self.recorder.complete().await;
    }

    /// Returns the figures until now.
    pub(super) fn row(&self, workload: &Workload) -> Row {
        let latency = self.recorder.latency();
        let millis = |micros: u64| (!latency.is_empty()).then_some(micros as f64 / 1e3);
        let counts = self.reception.lock().counts(workload, &workload.plan.window(), Duration::MAX);
        Row {
            network: self.network.name.clone(),
            source: self.network.source.clone(),
            reader: self.contender.name().to_owned(),
            deliveries: counts,
            p50_millis: millis(latency.value_at_quantile(0.5)),
            p95_millis: millis(latency.value_at_quantile(0.95)),
            longest_millis: millis(latency.max()),
            passed: self.middlebox.passed(),
            form: match &self.fallback {
                Some(fallback) => fallback.form(),
                None => self.contender.name().to_owned(),
            },
            changes: self.fallback.as_ref().map(|fallback| fallback.changes()).unwrap_or_default(),
            troubles: self.recorder.troubles.all(),
        }
    }
}
