//! Measures what the events of each form cost the gateway on this machine.

use std::time::Duration;

use tokio::sync::watch;

use super::events::heartbeats;
use crate::client::addressed;
use crate::data;
use crate::generators::Task;
use crate::model::radio::Radios;
use crate::model::server_load::EventCosts;
use crate::run::{RunError, run};
use crate::servers::{Running, Server, Storage};
use crate::simulate::Reader;
use crate::strategies::Strategy;
use crate::streams::{self, stream_name};
use crate::wire::{Connection, Transport, WireError, open};
use crate::workload::Plan;

/// Connections of a generator process, which has a descriptor for each.
const CLIENTS_A_PROCESS: u32 = 9000;

/// Messages a second, over all clients, of the run in which other events prevail.
const QUIET_RATE: f64 = 10.0;

/// Connections that are opened to measure what one costs.
const CONNECTIONS: u32 = 2000;

/// Bytes of a message.
const MESSAGE_BYTES: usize = 100;

/// Time before the measured one.
const WARM_UP: Duration = Duration::from_secs(2);

/// Latest send that is not late: what the gateway takes does not depend on the moment of a message.
const LATE_AFTER: Duration = Duration::from_secs(1);

/// Runs of a gateway with real clients.
#[derive(Debug)]
pub struct Bench {
    /// The gateway's program.
    pub server: Server,
    /// Clients of the runs that measure what an event costs.
    pub clients: u32,
    /// Messages a second, over all clients.
    pub rate: f64,
    /// Measured time of each run.
    pub measured: Duration,
    /// A value of true ends a run.
    pub stop: watch::Receiver<bool>,
}

/// The events of a run that cost something, and what they cost together.
struct Sum {
    messages: f64,
    others: f64,
    micros: f64,
}

/// A form with settings at which the wanted event prevails.
fn variant(strategy: Strategy, period: Duration) -> Strategy {
    match strategy {
        Strategy::ShortPoll(_) => Strategy::ShortPoll(period),
        Strategy::Sse(_) => Strategy::Sse(Some(period)),
        Strategy::Ndjson(_) => Strategy::Ndjson(Some(period)),
        Strategy::WebSocket(_) => Strategy::WebSocket(Some(period)),
        _ => Strategy::LongPoll(period),
    }
}

impl Bench {
    /// One run with `clients` clients, each with a stream of its own, and `rate` messages a second over all of them.
    pub async fn run(&self, strategy: Strategy, clients: u32, rate: f64) -> Result<data::Run, RunError> {
        let plan = Plan {
            clients,
            streams: clients,
            rate: rate / f64::from(clients.max(1)),
            message_bytes: MESSAGE_BYTES,
            warm_up: WARM_UP,
            measured: self.measured,
            seed: 1,
            run: fastrand::u64(..),
        };
        let task = Task {
            plan,
            strategy,
            radios: Radios::default(),
            late_after: LATE_AFTER,
            clients_a_process: CLIENTS_A_PROCESS,
            network: None,
            transport: Transport::default(),
        };
        run(&self.server, &task, self.stop.clone()).await
    }

    /// Measures the costs of a form by two runs: one in which messages prevail, and one in which requests or heartbeats do. A new response
    /// of a live form costs what `response` says. `None` if they cannot be told apart.
    pub async fn costs(&self, reader: Reader, response: f64) -> Result<Option<EventCosts>, RunError> {
        let strategy = reader.strategy().unwrap_or(Strategy::WebSocket(None));
        let busy = self.sum(variant(strategy, Duration::from_secs(50)), self.rate).await?;
        let short = if matches!(strategy, Strategy::LongPoll(_)) { 2 } else { 1 };
        let quiet = self.sum(variant(strategy, Duration::from_secs(short)), QUIET_RATE).await?;
        let determinant = busy.messages * quiet.others - quiet.messages * busy.others;
        let message = (busy.micros * quiet.others - quiet.micros * busy.others) / determinant;
        let other = (busy.messages * quiet.micros - quiet.messages * busy.micros) / determinant;
        let is_poll = matches!(strategy, Strategy::ShortPoll(_) | Strategy::LongPoll(_));
        let (request, heartbeat) = if is_poll { (other, 0.0) } else { (response, other) };
        let costs = EventCosts { message, request, heartbeat };
        Ok(Some(costs).filter(|costs| costs.message > 0.0 && other > 0.0))
    }

    /// Measures what a connection costs in microseconds that is opened for one request and closed, besides the request.
    pub async fn connection(&self) -> Result<f64, RunError> {
        let running =
            self.server.start(Strategy::ShortPoll(Duration::from_secs(1)), &Storage::Memory).await?;
        let cost = self.connection_to(&running).await;
        let address = running.target.address;
        running.end().await;
        cost.map_err(|error| RunError::NoServer(self.server.kind(), address, error))
    }

    async fn connection_to(&self, running: &Running) -> Result<f64, WireError> {
        let (target, run) = (&running.target, fastrand::u64(..));
        streams::create(target, run, 1, None).await?;
        let dialect = target.dialect.http().ok_or(WireError::Closed)?;
        let poll = || addressed(dialect.poll(&stream_name(run, 0), None, None), target);
        let processor = || running.process.as_ref().map(|process| process.family().processor_time());
        let mut kept = Connection::over(open(target.address).await?).await?;
        let mut spent = [0.0, 0.0];
        for (spent, is_kept) in spent.iter_mut().zip([true, false]) {
            let before = processor();
            for _ in 0..CONNECTIONS {
                if is_kept {
                    kept.exchange(poll()?).await?;
                } else {
                    Connection::over(open(target.address).await?).await?.exchange(poll()?).await?;
                }
            }
            let took = processor().zip(before).map(|(after, before)| after.saturating_sub(before));
            *spent = took.map_or(0.0, |took| took.as_secs_f64() * 1e6 / f64::from(CONNECTIONS));
        }
        let [request, with_connection] = spent;
        Ok((with_connection - request).max(0.0))
    }

    async fn sum(&self, strategy: Strategy, rate: f64) -> Result<Sum, RunError> {
        let run = self.run(strategy, self.clients, rate).await?;
        let client_seconds = f64::from(self.clients) * self.measured.as_secs_f64();
        let each = |hourly: f64| hourly * client_seconds / 3600.0;
        let others = match strategy {
            Strategy::ShortPoll(_) => each(run.requests.per_client_hour),
            Strategy::LongPoll(_) => each(run.requests.empty_per_client_hour),
            _ => {
                let heartbeat = strategy.heartbeat().unwrap_or(Duration::from_secs(15));
                client_seconds * heartbeats(heartbeat, rate / f64::from(self.clients))
            }
        };
        let micros = run.server_cost.as_ref().map_or(0.0, |cost| cost.cpu_per_client_second * client_seconds);
        Ok(Sum { messages: run.deliveries.delivered as f64, others, micros })
    }
}
