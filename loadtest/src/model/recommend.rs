//! Answers which strategy costs least for a promise over a path, and why the others do not: from the formulas, and from measured or
//! simulated figures where there are any.

mod changes;
mod text;

use std::cmp::Ordering;
use std::time::Duration;

use serde::Serialize;

use super::asleep::{WakeBy, WakeDelays};
use super::candidate::{Candidate, Figures, Load, Overheads};
use super::network::Network;
use super::radio::{Radio, Radios};
use super::server_load::ServerLoad;
use super::settings::{ClientPath, proposals, short_poll};
use crate::data::{Deliveries, Report, Run};

/// A question to `recommend`: the load, the latency to keep, the cost to minimise, and the path.
#[derive(Debug, Clone)]
pub struct Promise {
    /// Number of clients.
    pub clients: u32,
    /// 95th percentile of the latency that must be kept.
    pub p95: Duration,
    /// Messages per second to one client.
    pub rate: f64,
    /// Bytes of a message.
    pub message_bytes: f64,
    /// Parts of the path between client and gateway.
    pub networks: Vec<Network>,
    /// Usual round trip, if the user knows it.
    pub round_trip: Option<Duration>,
    /// The slowest round trip that must not count as a failure, if the user knows it.
    pub round_trip_p99: Option<Duration>,
    /// Maximum requests per client-hour.
    pub requests_max: Option<f64>,
    /// Maximum joules per client-hour on `radio`.
    pub energy_max: Option<f64>,
    /// How long a wake by push or SMS takes.
    pub wake_delays: WakeDelays,
    /// Cost to minimize.
    pub cheapest_by: Cost,
    /// The radio of the clients, which the energy is for and which has to wake up before a message arrives.
    pub radio: Radio,
    /// Forms that are left out: `sms`, `push` or `push:fcm`.
    pub without: Vec<String>,
    /// How often the gateway polls an HTTP API for the messages; `None` if they are published to it.
    pub origin: Option<Duration>,
}

/// Default ratio of the 99th percentile of the round trip to the usual round trip.
const ROUND_TRIP_P99_FACTOR: u32 = 10;

/// Cost to minimize. Equal costs are ordered by the other two, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// Joules per client-hour.
    Energy,
    /// Requests per client-hour.
    Requests,
    /// Bytes per client-hour.
    Bytes,
}

/// Costs that differ by less than this share of the least are alike: the formulas agree with a simulation within 3 %.
const ALIKE: f64 = 0.03;

/// A simulated latency is one of a few hundred messages, so it keeps a promise that it exceeds by this share.
const SAMPLING_ERROR: f64 = 0.05;

/// Result of [`recommend`]. Its text form is the output of the command.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Recommendation {
    /// The answer in one sentence.
    pub verdict: String,
    /// The question in one sentence.
    pub question: String,
    /// Name of the radio that the text has the energy of.
    pub radio: String,
    /// Strategies that keep the promise, cheapest first; SMS come last.
    pub kept: Vec<Choice>,
    /// How many of the first ones cost the same, within 3 %.
    pub alike: usize,
    /// The strategies that are not recommended, each with the reason.
    pub others: Vec<Other>,
}

/// A strategy that keeps the promise.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Choice {
    /// The strategy as on the command line.
    pub strategy: String,
    /// What its clients do, in words.
    pub description: String,
    /// Its cost and latency.
    #[serde(flatten)]
    pub figures: Figures,
    /// Origin of these figures.
    pub source: Source,
    /// The part of the latency in which the message waits for the radio, and for the poll of the API that it comes from.
    #[serde(skip)]
    pub waits: Duration,
    /// What all clients cost the gateway: predicted, except for measured bytes of memory per client.
    pub server: ServerLoad,
    /// Requests per second of all clients or of the gateway to the API that messages come from, if they do.
    pub api_requests_per_second: Option<f64>,
    /// Reasons for its settings.
    pub reasons: Vec<String>,
}

/// A strategy that is not recommended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Other {
    /// The strategy as on the command line, or only the form if it cannot work at all.
    pub strategy: String,
    /// Whether it keeps the promise.
    pub keeps: bool,
    /// Why it is not recommended.
    pub reason: String,
    /// A change of the question for which it keeps the promise, if it does not.
    pub works_with: Option<String>,
    /// A change of the question for which it is the best, if there is any.
    pub best_with: Option<String>,
}

/// Origin of figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A run of a report.
    Measured,
    /// A simulated day with the real code.
    Simulated,
    /// The formulas of the cost model.
    Predicted,
}

/// A strategy that does not keep the promise, or cannot work, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rejected {
    strategy: String,
    reason: String,
}

/// What figures are computed from, besides the promise.
#[derive(Debug, Clone, Copy)]
pub struct Basis<'a> {
    /// Measured runs that replace formulas where they fit.
    pub measured: Option<&'a Report>,
    /// Bytes of requests and packets.
    pub overheads: &'a Overheads,
    /// Radios that energy is computed for.
    pub radios: &'a Radios,
}

/// What a simulation says about a strategy.
#[derive(Debug, Clone)]
pub enum Simulated {
    /// Its figures.
    Delivered(Figures),
    /// It lost more than 1 % of the messages, so that figures mean nothing.
    Lost {
        /// Messages that did not arrive.
        lost: u64,
        /// Messages that were published.
        published: u64,
    },
}

/// Simulates a strategy. Returns `None` if there is no model of it.
pub type Simulate<'a> = &'a dyn Fn(&Choice) -> Option<Simulated>;

/// Ranks the strategies that the path allows and the measured ones.
///
/// A measured run replaces the formula's figures if it has the same strategy on the gateway, the same network (`none` if it has
/// no network) and a rate within 10 %. `simulate` replaces those of the strategies that keep the promise by formula.
pub fn recommend(promise: &Promise, basis: Basis<'_>, simulate: Option<Simulate<'_>>) -> Recommendation {
    let (mut kept, mut rejected) = rank(promise, basis);
    if let Some(simulate) = simulate {
        let mut choices = Vec::new();
        for mut choice in kept {
            match simulate(&choice) {
                Some(Simulated::Lost { lost, published }) => {
                    let reason = format!("it was simulated, and lost {lost} of {published} messages");
                    rejected.push(Rejected { strategy: choice.strategy, reason });
                    continue;
                }
                Some(Simulated::Delivered(figures)) => {
                    (choice.figures, choice.source) = (figures, Source::Simulated);
                }
                None => {}
            }
            choices.push(choice);
        }
        kept = promise.keeping(choices, &mut rejected);
    }
    let alike = promise.alike(&kept);
    let others = changes::others(promise, basis, &kept, alike, rejected);
    let mut recommendation = Recommendation {
        verdict: String::new(),
        question: text::question(promise),
        radio: promise.radio.name.clone(),
        kept,
        alike,
        others,
    };
    recommendation.verdict = text::verdict(promise, &recommendation);
    recommendation
}

/// Returns the strategies that keep the promise, cheapest first, and the rejected ones.
fn rank(promise: &Promise, basis: Basis<'_>) -> (Vec<Choice>, Vec<Rejected>) {
    let mut choices = Vec::new();
    let mut rejected = Vec::new();
    let path = promise.path();
    let load = promise.load();
    for proposal in proposals(&path, &load, promise.p95_of_delivery(), promise.wake_delays, basis.radios) {
        match proposal {
            Ok((candidate, reasons)) => choices.push(promise.choice(candidate, &path, basis, reasons)),
            Err(refusal) => {
                rejected.push(Rejected { strategy: refusal.form.to_owned(), reason: refusal.reason });
            }
        }
    }
    choices.extend(promise.direct_poll(&path, basis));
    for run in fitting_runs(promise, &path, basis.measured) {
        let Some(figures) = measured_figures(run) else {
            let Deliveries { intended, lost, .. } = run.deliveries;
            choices.retain(|choice| choice.strategy != run.strategy);
            let reason = format!("it was measured, and lost {lost} of {intended} messages");
            rejected.push(Rejected { strategy: run.strategy.clone(), reason });
            continue;
        };
        match choices.iter_mut().find(|choice| choice.strategy == run.strategy) {
            Some(choice) => (choice.figures, choice.source) = (figures, Source::Measured),
            None if rejected.iter().any(|refused| form(&run.strategy) == refused.strategy) => {}
            None => choices.push(Choice {
                strategy: run.strategy.clone(),
                description: "it was measured with these settings".to_owned(),
                source: Source::Measured,
                waits: Duration::ZERO,
                server: ServerLoad::of(form(&run.strategy), promise.clients, &figures, None),
                api_requests_per_second: promise.api_requests_per_second(),
                figures,
                reasons: Vec::new(),
            }),
        }
    }
    choices.retain(|choice| !promise.leaves_out(&choice.strategy));
    rejected.retain(|refused| !promise.leaves_out(&refused.strategy));
    let kept = promise.keeping(choices, &mut rejected);
    (kept, rejected)
}

/// Returns the form of a strategy as on the command line. Each way to wake a phone is a form of its own.
fn form(strategy: &str) -> &str {
    if strategy.starts_with("push:") { strategy } else { strategy.split(':').next().unwrap_or(strategy) }
}

fn fitting_runs<'a>(
    promise: &Promise,
    path: &ClientPath,
    measured: Option<&'a Report>,
) -> impl Iterator<Item = &'a Run> {
    let fitting = measured.filter(|report| {
        let workload = &report.workload;
        let network = workload.network.as_deref().unwrap_or("none");
        network == path.network.name && (workload.rate / promise.rate - 1.0).abs() <= 0.1
    });
    let runs = fitting.into_iter().flat_map(|report| &report.runs);
    runs.filter(|run| run.server == "pollgate" && run.transport.is_none() && !run.interrupted)
}

/// `None`: the run lost too many messages, so that its figures mean nothing.
fn measured_figures(run: &Run) -> Option<Figures> {
    let latency = run.latency.as_ref().filter(|_| run.deliveries.are_comparable())?;
    Some(Figures {
        p95: Duration::try_from_secs_f64(latency.p95 / 1e6).unwrap_or(Duration::MAX),
        requests_per_client_hour: run.requests.per_client_hour,
        bytes_per_client_hour: run.bytes.up_with_packets + run.bytes.down_with_packets,
        energy: run.energy.clone(),
        wakes_per_client_hour: run.wakes.as_ref().map(|wakes| wakes.per_client_hour),
    })
}

impl Promise {
    /// The combined path.
    pub fn path(&self) -> ClientPath {
        let network = Network::path(&self.networks);
        let usual = self.round_trip.unwrap_or_else(|| network.usual_round_trip());
        let p99 = self.round_trip_p99.unwrap_or(usual * ROUND_TRIP_P99_FACTOR);
        ClientPath { network, round_trip: usual, round_trip_p99: p99, radio: self.radio.clone() }
    }

    fn load(&self) -> Load {
        Load { rate: self.rate, message_bytes: self.message_bytes, round_trip: self.path().round_trip }
    }

    /// 95 % of the time that a message waits for the gateway's next poll of the API that it comes from.
    fn origin_wait(&self) -> Duration {
        self.origin.map_or(Duration::ZERO, |interval| interval.mul_f64(0.95))
    }

    /// What the latency from the gateway to the client may be.
    fn p95_of_delivery(&self) -> Duration {
        self.p95.saturating_sub(self.origin_wait())
    }

    fn api_requests_per_second(&self) -> Option<f64> {
        self.origin.map(|interval| interval.as_secs_f64().recip())
    }

    fn choice(
        &self,
        candidate: Candidate,
        path: &ClientPath,
        basis: Basis<'_>,
        reasons: Vec<String>,
    ) -> Choice {
        let mut figures = candidate.figures(&self.load(), basis.overheads, basis.radios);
        let waits = candidate.promotion(&self.load(), &path.radio) + self.origin_wait();
        figures.p95 += waits;
        let strategy = candidate.to_string();
        let connections = Some(candidate.connections(&self.load()));
        Choice {
            server: ServerLoad::of(form(&strategy), self.clients, &figures, connections),
            api_requests_per_second: self.api_requests_per_second(),
            description: candidate.description(),
            source: Source::Predicted,
            waits,
            strategy,
            figures,
            reasons,
        }
    }

    /// The clients poll the API themselves, without a gateway.
    fn direct_poll(&self, path: &ClientPath, basis: Basis<'_>) -> Option<Choice> {
        self.origin?;
        let (candidate, _) = short_poll(path, self.p95).ok()?;
        let without_gateway = Self { origin: None, ..self.clone() };
        let choice = without_gateway.choice(candidate, path, basis, Vec::new());
        let requests = f64::from(self.clients) * choice.figures.requests_per_client_hour / 3600.0;
        Some(Choice {
            strategy: choice.strategy.replace("short-poll", DIRECT_POLL),
            description: format!(
                "each client asks the API itself, without a gateway: {}",
                choice.description
            ),
            server: ServerLoad::NONE,
            api_requests_per_second: Some(requests),
            ..choice
        })
    }

    fn leaves_out(&self, strategy: &str) -> bool {
        self.without.iter().any(|left_out| {
            let rest = strategy.strip_prefix(left_out.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        })
    }

    /// Returns the choices that keep the promise, cheapest first; adds the others to `rejected`.
    fn keeping(&self, choices: Vec<Choice>, rejected: &mut Vec<Rejected>) -> Vec<Choice> {
        let mut kept = Vec::new();
        for choice in choices {
            match self.broken_by(&choice.figures, choice.source) {
                None => kept.push(choice),
                Some(reason) => rejected.push(Rejected { strategy: choice.strategy, reason }),
            }
        }
        // An SMS costs money, which no other cost weighs up.
        let by_sms = |choice: &Choice| choice.strategy == WakeBy::Sms.to_string();
        kept.sort_by(|a, b| by_sms(a).cmp(&by_sms(b)).then_with(|| self.order(&a.figures, &b.figures)));
        let alike = self.alike(&kept);
        if let Some(alike) = kept.get_mut(..alike) {
            alike.sort_by(|a, b| self.order_of_alike(&a.figures, &b.figures));
        }
        kept
    }

    /// Returns how many of the cheapest ones cost the same.
    fn alike(&self, kept: &[Choice]) -> usize {
        let costs = kept.iter().take_while(|choice| choice.strategy != WakeBy::Sms.to_string());
        let costs: Vec<_> = costs.map_while(|choice| self.cost(&choice.figures)).collect();
        let Some(least) = costs.iter().copied().reduce(f64::min) else { return kept.len().min(1) };
        costs.iter().take_while(|cost| **cost <= least * (1.0 + ALIKE)).count()
    }

    /// Returns why the figures break the promise; the first reason if there are several.
    fn broken_by(&self, figures: &Figures, source: Source) -> Option<String> {
        let requests = figures.requests_per_client_hour;
        let allowed = match source {
            Source::Simulated => self.p95.mul_f64(1.0 + SAMPLING_ERROR),
            Source::Measured | Source::Predicted => self.p95,
        };
        if figures.p95 > allowed {
            let [is, promised] = [figures.p95, self.p95].map(text::time);
            let more = if is == promised { "a little more than " } else { "" };
            return Some(format!("95 of 100 messages arrive within {more}{is}, and {promised} is promised"));
        }
        if let Some(max) = self.requests_max.filter(|&max| requests > max) {
            return Some(format!("it sends {requests:.0} requests an hour, and {max:.0} are allowed"));
        }
        match (self.energy_max, self.joules(figures)) {
            (Some(max), Some(joules)) if joules > max => {
                Some(format!("it takes {joules:.0} J an hour, and {max:.0} are allowed"))
            }
            (Some(_), None) => Some("its energy is not known, and a bound is set".to_owned()),
            _ => None,
        }
    }

    /// Returns the joules per client-hour on the promise's radio.
    fn joules(&self, figures: &Figures) -> Option<f64> {
        figures.of_radio(&self.radio.name).map(|energy| energy.joules_per_client_hour)
    }

    fn cost(&self, figures: &Figures) -> Option<f64> {
        match self.cheapest_by {
            Cost::Energy => self.joules(figures),
            Cost::Requests => Some(figures.requests_per_client_hour),
            Cost::Bytes => Some(figures.bytes_per_client_hour),
        }
    }

    fn order(&self, a: &Figures, b: &Figures) -> Ordering {
        // Unknown cost sorts last.
        let cost = |figures| self.cost(figures).unwrap_or(f64::INFINITY);
        cost(a).total_cmp(&cost(b)).then_with(|| self.order_of_alike(a, b))
    }

    /// Orders figures of equal cost by the other costs.
    fn order_of_alike(&self, a: &Figures, b: &Figures) -> Ordering {
        let joules = |figures| self.joules(figures).unwrap_or(f64::INFINITY);
        let energy = joules(a).total_cmp(&joules(b));
        let requests = a.requests_per_client_hour.total_cmp(&b.requests_per_client_hour);
        let bytes = a.bytes_per_client_hour.total_cmp(&b.bytes_per_client_hour);
        match self.cheapest_by {
            Cost::Energy => requests.then(bytes),
            Cost::Requests => energy.then(bytes),
            Cost::Bytes => energy.then(requests),
        }
    }
}

/// Name of the strategy without a gateway.
const DIRECT_POLL: &str = "direct-poll";

pub(crate) use text::{thousands, time};

#[cfg(test)]
mod tests;
