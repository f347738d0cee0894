//! Simulates and measures the same clients.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::case::{Between, Case, KernelFault};
use super::kernel::{KernelNat, SERVER};
use super::measured::{Reading, publish_all, read_all, readings};
use super::parallel;
use super::row::Row;
use crate::generator::stopped;
use crate::model::settings::HOLD_MAX;
use crate::servers::{Running, ServerError, gateway_with};
use crate::simulate::{Outcome, Reader, Simulation, SimulationError};

/// Simulations of each case: those after the first show what chance does.
const SEEDS: u64 = 5;

/// Time from the creation of the clients to their start.
const RUN_UP: Duration = Duration::from_secs(1);

/// What is simulated and measured.
#[derive(Debug, Clone)]
pub struct Agreement {
    /// The networks.
    pub networks: Vec<Between>,
    /// The strategies, each on every network that lets it through.
    pub readers: Vec<Reader>,
    /// Clients of each strategy on each network.
    pub clients: u32,
    /// How long messages are published.
    pub length: Duration,
    /// Seed of everything that is random.
    pub seed: u64,
}

/// Why nothing could be compared.
#[derive(Debug, thiserror::Error)]
pub enum AgreeError {
    /// The gateway did not start.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A simulation did not run.
    #[error("simulating: {0}")]
    Simulation(#[from] SimulationError),
    /// A socket or a thread could not be had.
    #[error(transparent)]
    System(#[from] io::Error),
    /// The client refused its settings.
    #[error("the client: {0}")]
    Client(#[from] pollgate_client::BuildError),
    /// The user stopped it.
    #[error("stopped before the end")]
    Stopped,
}

/// The figures, and which networks are left out for which reason.
#[derive(Debug)]
pub struct Agreed {
    /// One per strategy and network.
    pub rows: Vec<Row>,
    /// Networks that this machine does not allow.
    pub left_out: Vec<String>,
}

/// A case with what its clients have measured.
type MeasuredCase = (Arc<Case>, Outcome);

impl Agreement {
    /// Simulates and measures. All cases are measured at the same time, since their load is small. A `stop` of true ends it with an
    /// error.
    pub async fn run(&self, mut stop: watch::Receiver<bool>) -> Result<Agreed, AgreeError> {
        let cases: Vec<_> = self.networks.iter().flat_map(|between| self.cases(between)).collect();
        let simulating = cases.clone();
        let simulated = tokio::select! {
            simulated = tokio::task::spawn_blocking(move || simulate(&simulating)) => {
                simulated.map_err(io::Error::other)??
            }
            () = stopped(&mut stop) => return Err(AgreeError::Stopped),
        };
        let of_network = |between: &Between| {
            let name = between.to_string();
            cases.iter().filter(move |case| case.between.to_string() == name).cloned()
        };
        let (mut left_out, mut behind_boxes, mut behind_kernels) = (Vec::new(), Vec::new(), Vec::new());
        for between in &self.networks {
            match between {
                Between::Middlebox(_) => behind_boxes.extend(of_network(between)),
                Between::Kernel(fault) => match KernelNat::new(fault.forgets_after()) {
                    Ok(nat) => {
                        let (fault, cases, stop) = (*fault, of_network(between).collect(), stop.clone());
                        let measuring = move || measure_behind(&Arc::new(nat), fault, cases, &stop);
                        behind_kernels.push(tokio::task::spawn_blocking(measuring));
                    }
                    Err(error) => left_out.push(format!("{between} is left out: {error}")),
                },
            }
        }
        let mut measured = vec![measure(behind_boxes, stop).await];
        for kernel in behind_kernels {
            measured.push(kernel.await.map_err(io::Error::other)?);
        }
        let measured = measured.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
        let rows = cases.iter().zip(simulated).filter_map(|(case, simulated)| {
            let (_, measured) = measured.iter().find(|(of, _)| Arc::ptr_eq(of, case))?;
            Some(Row::new(case.between.to_string(), case.simulation.reader, simulated, measured))
        });
        Ok(Agreed { rows: rows.collect(), left_out })
    }

    fn cases(&self, between: &Between) -> Vec<Arc<Case>> {
        let passing = self.readers.iter().filter(|reader| between.passes(**reader));
        let case = |reader: &Reader| Case::new(between, *reader, self.clients, self.length, self.seed);
        passing.map(|reader| Arc::new(case(reader))).collect()
    }
}

impl KernelFault {
    fn forgets_after(self) -> Option<Duration> {
        match self {
            Self::Forgets(after) => Some(after),
            Self::ChangesAddress(_) => None,
        }
    }
}

/// Simulates each case with several seeds, the first one of which is that of the measured clients.
fn simulate(cases: &[Arc<Case>]) -> Result<Vec<Vec<Outcome>>, SimulationError> {
    parallel::for_each(cases, |case| {
        let seeds = (0..SEEDS).map(|further| case.simulation.seed.wrapping_add(further));
        seeds.map(|seed| Simulation { seed, ..case.simulation.clone() }.run()).collect()
    })
}

/// Starts a gateway with the settings of the simulated one.
async fn gateway(cases: &[Arc<Case>], listen: Option<SocketAddr>) -> Result<Running, ServerError> {
    // All clients connect at the same time.
    let mut settings = ["--limit", "connections_per_second_max=100000"].map(str::to_owned).to_vec();
    let hold = cases.iter().map(|case| case.simulation.reader.settings().hold).max();
    if let Some(hold) = hold.filter(|hold| *hold > HOLD_MAX) {
        settings.extend(["--hold-max".to_owned(), format!("{}s", hold.as_secs())]);
    }
    if let Some(address) = listen {
        settings.extend(["--open".to_owned(), "--listen".to_owned(), address.to_string()]);
    }
    gateway_with(None, &settings).await
}

/// Measures clients behind middleboxes.
async fn measure(
    cases: Vec<Arc<Case>>,
    mut stop: watch::Receiver<bool>,
) -> Result<Vec<MeasuredCase>, AgreeError> {
    if cases.is_empty() {
        return Ok(Vec::new());
    }
    let running = gateway(&cases, None).await?;
    let (address, began, readings) = (running.target.address, Instant::now() + RUN_UP, readings(&cases));
    let (all_published, is_published) = watch::channel(false);
    let (_same_network, changes) = watch::channel(0);
    let publishing = async {
        let published = publish_all(&readings, address, began).await;
        all_published.send_replace(true);
        published
    };
    let reading = read_all(&readings, address, began, &changes, &is_published);
    let ((), outcomes) = tokio::select! {
        both = async { tokio::try_join!(publishing, reading) } => both?,
        () = stopped(&mut stop) => return Err(AgreeError::Stopped),
    };
    running.end().await;
    Ok(cases.into_iter().zip(outcomes).collect())
}

/// Measures clients behind a NAT of the kernel: the gateway and the publishers are on the server's host, the clients on their own.
fn measure_behind(
    nat: &Arc<KernelNat>,
    fault: KernelFault,
    cases: Vec<Arc<Case>>,
    stop: &watch::Receiver<bool>,
) -> Result<Vec<MeasuredCase>, AgreeError> {
    let (readings, (all_published, is_published)) = (readings(&cases), watch::channel(false));
    let (ready, started) = std::sync::mpsc::channel();
    let (reads, mut has_read) = watch::channel(());
    let outcomes = thread::scope(|scope| {
        let (cases, readings, is_published) = (&cases, &readings, &is_published);
        let serving = scope.spawn(move || {
            nat.server.enter()?;
            block_on(async {
                let running = gateway(cases, Some(SocketAddr::new(SERVER, 0))).await?;
                let (address, began) = (running.target.address, Instant::now() + RUN_UP);
                // An error means that the clients' thread has ended.
                let _gone = ready.send((address, began));
                let publishing = async {
                    publish_all(readings, address, began).await?;
                    all_published.send_replace(true);
                    std::future::pending().await
                };
                let published = tokio::select! {
                    published = publishing => published,
                    _ended = has_read.changed() => Ok(()),
                };
                running.end().await;
                published
            })
        });
        let reading = scope.spawn(move || {
            // Dropped at the end, whatever it is.
            let _reads = reads;
            nat.client.enter()?;
            let server = started.recv().map_err(io::Error::other)?;
            let mut stop = stop.clone();
            block_on(async {
                tokio::select! {
                    outcomes = read_behind(nat, fault, readings, server, is_published) => outcomes,
                    () = stopped(&mut stop) => Err(AgreeError::Stopped),
                }
            })
        });
        let outcomes = reading.join().map_err(|_| io::Error::other("the clients have panicked"))?;
        let served: Result<(), AgreeError> =
            serving.join().map_err(|_| io::Error::other("the publishers have panicked"))?;
        served.and(outcomes)
    })?;
    Ok(cases.into_iter().zip(outcomes).collect())
}

/// Reads on the client's host, whose address changes if the fault says so.
async fn read_behind(
    nat: &Arc<KernelNat>,
    fault: KernelFault,
    readings: &[Reading],
    (gateway, began): (SocketAddr, Instant),
    is_published: &watch::Receiver<bool>,
) -> Result<Vec<Outcome>, AgreeError> {
    let (changing, changes) = watch::channel(0);
    let moving = async {
        let KernelFault::ChangesAddress(every) = fault else { return std::future::pending().await };
        for number in 1.. {
            sleep_until(began + every * number).await;
            let nat = nat.clone();
            tokio::task::spawn_blocking(move || nat.change_client_address())
                .await
                .map_err(io::Error::other)??;
            changing.send_replace(number);
        }
        Ok(())
    };
    tokio::select! {
        outcomes = read_all(readings, gateway, began, &changes, is_published) => outcomes,
        moved = moving => moved.map(|()| Vec::new()),
    }
}

/// Runs `work` on this thread, and so on the host that it is on.
fn block_on<T>(work: impl Future<Output = Result<T, AgreeError>>) -> Result<T, AgreeError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
