//! Finds the cheapest strategy that keeps a promise, with reasons, from measured figures or the formulas.

use std::cmp::Ordering;
use std::fmt;
use std::time::Duration;

use super::asleep::{WakeBy, WakeDelays};
use super::candidate::{Figures, Load, Overheads};
use super::network::Network;
use super::radio::Radios;
use super::settings::proposals;
use crate::data::{Deliveries, Report, Run};

/// The promise: a latency, its limits on cost, and the path.
#[derive(Debug, Clone)]
pub struct Promise {
    /// 95th percentile of the latency that must be kept.
    pub p95: Duration,
    /// The messages and the round trip.
    pub load: Load,
    /// The slowest round trip that must not count as a failure.
    pub round_trip_p99: Duration,
    /// The path between client and gateway.
    pub network: Network,
    /// Maximum requests per client-hour.
    pub requests_max: Option<f64>,
    /// Maximum joules per client-hour, on the radio of `cheapest_by` or else the first one.
    pub energy_max: Option<f64>,
    /// How long a wake by push or SMS takes.
    pub wake_delays: WakeDelays,
    /// Cost to minimize.
    pub cheapest_by: Cost,
}

/// Cost to minimize. Equal costs are ordered by the other two, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cost {
    /// Joules per client-hour on the named radio.
    Energy(String),
    /// Requests per client-hour.
    Requests,
    /// Bytes per client-hour.
    Bytes,
}

/// Result of [`recommend`]. Its text form is the output of the command.
#[derive(Debug, Clone)]
pub struct Recommendation {
    /// Strategies that keep the promise, cheapest first; SMS come last.
    pub kept: Vec<Choice>,
    /// Strategies that do not keep the promise.
    pub rejected: Vec<Rejected>,
}

/// A strategy that keeps the promise.
#[derive(Debug, Clone)]
pub struct Choice {
    /// The strategy as on the command line.
    pub strategy: String,
    /// Its cost and latency.
    pub figures: Figures,
    /// Origin of the figures.
    pub source: Source,
    /// Reasons for its settings.
    pub reasons: Vec<String>,
}

/// A strategy that does not keep the promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The strategy as on the command line, or only the form if it cannot work at all.
    pub strategy: String,
    /// Why it is rejected.
    pub reason: String,
}

/// Origin of figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A run of a report.
    Measured,
    /// The formulas of the cost model.
    Predicted,
}

/// Ranks the strategies that the network allows and the measured ones.
///
/// A measured run replaces the formula's figures if it has the same strategy on the gateway, the same network (`none` if it has
/// no network) and a rate within 10 %.
pub fn recommend(
    promise: &Promise,
    measured: Option<&Report>,
    overheads: &Overheads,
    radios: &Radios,
) -> Recommendation {
    let runs = fitting_runs(promise, measured);
    let mut choices = Vec::new();
    let mut rejected = Vec::new();
    let Promise { network, load, p95, round_trip_p99, wake_delays, .. } = promise;
    for proposal in proposals(network, load, *p95, *round_trip_p99, radios, *wake_delays) {
        match proposal {
            Ok((candidate, reasons)) => {
                let figures = candidate.figures(&promise.load, overheads, radios);
                let strategy = candidate.to_string();
                choices.push(Choice { strategy, figures, source: Source::Predicted, reasons });
            }
            Err(refusal) => {
                rejected.push(Rejected { strategy: refusal.form.to_owned(), reason: refusal.reason });
            }
        }
    }
    for run in runs {
        if !run.deliveries.are_comparable() {
            let Deliveries { intended, lost, .. } = run.deliveries;
            choices.retain(|choice| choice.strategy != run.strategy);
            let reason = format!("it was measured, and lost {lost} of {intended} messages");
            rejected.push(Rejected { strategy: run.strategy.clone(), reason });
            continue;
        }
        let figures = measured_figures(run);
        match choices.iter_mut().find(|choice| choice.strategy == run.strategy) {
            Some(choice) => (choice.figures, choice.source) = (figures, Source::Measured),
            None if rejected.iter().any(|refused| is_form(&run.strategy, &refused.strategy)) => {}
            None => choices.push(Choice {
                strategy: run.strategy.clone(),
                figures,
                source: Source::Measured,
                reasons: vec!["it was measured with these settings".to_owned()],
            }),
        }
    }
    let mut kept = Vec::new();
    for choice in choices {
        match promise.broken_by(&choice.figures) {
            None => kept.push(choice),
            Some(reason) => rejected.push(Rejected { strategy: choice.strategy, reason }),
        }
    }
    // An SMS costs money, which no other cost weighs up.
    let by_sms = |choice: &Choice| choice.strategy == WakeBy::Sms.to_string();
    kept.sort_by(|a, b| {
        by_sms(a).cmp(&by_sms(b)).then_with(|| promise.cheapest_by.order(&a.figures, &b.figures))
    });
    Recommendation { kept, rejected }
}

fn fitting_runs<'a>(promise: &Promise, measured: Option<&'a Report>) -> impl Iterator<Item = &'a Run> {
    let fitting = measured.filter(|report| {
        let workload = &report.workload;
        let network = workload.network.as_deref().unwrap_or("none");
        network == promise.network.name && (workload.rate / promise.load.rate - 1.0).abs() <= 0.1
    });
    let runs = fitting.into_iter().flat_map(|report| &report.runs);
    runs.filter(|run| run.server == "pollgate" && !run.interrupted)
}

fn is_form(strategy: &str, form: &str) -> bool {
    strategy.split(':').next() == Some(form)
}

fn measured_figures(run: &Run) -> Figures {
    Figures {
        p95: Duration::try_from_secs_f64(run.latency.p95 / 1e6).unwrap_or(Duration::MAX),
        requests_per_client_hour: run.requests.per_client_hour,
        bytes_per_client_hour: run.bytes.up_with_packets + run.bytes.down_with_packets,
        energy: run.energy.clone(),
        wakes_per_client_hour: run.wakes.as_ref().map_or(0.0, |wakes| wakes.per_client_hour),
    }
}

impl Promise {
    /// Returns why the figures break the promise; the first reason if there are several.
    fn broken_by(&self, figures: &Figures) -> Option<String> {
        let requests = figures.requests_per_client_hour;
        let joules = self.cheapest_by.joules(figures);
        if figures.p95 > self.p95 {
            return Some(format!("its p95 is {:.1?}, and {:.1?} is promised", figures.p95, self.p95));
        }
        if let Some(max) = self.requests_max.filter(|&max| requests > max) {
            return Some(format!("it asks {requests:.0} times an hour, and {max:.0} are allowed"));
        }
        match (self.energy_max, joules) {
            (Some(max), Some(joules)) if joules > max => {
                Some(format!("it takes {joules:.0} J an hour, and {max:.0} are allowed"))
            }
            (Some(_), None) => Some("its energy is not known, and a bound is set".to_owned()),
            _ => None,
        }
    }
}

impl Cost {
    /// Returns the joules on this cost's radio, or the first one.
    fn joules(&self, figures: &Figures) -> Option<f64> {
        let named = match self {
            Self::Energy(radio) => figures.energy.iter().find(|energy| energy.radio == *radio),
            Self::Requests | Self::Bytes => figures.energy.first(),
        };
        named.map(|energy| energy.joules_per_client_hour)
    }

    fn order(&self, a: &Figures, b: &Figures) -> Ordering {
        // Unknown energy sorts last.
        let joules = |figures| self.joules(figures).unwrap_or(f64::INFINITY);
        let energy = joules(a).total_cmp(&joules(b));
        let requests = a.requests_per_client_hour.total_cmp(&b.requests_per_client_hour);
        let bytes = a.bytes_per_client_hour.total_cmp(&b.bytes_per_client_hour);
        match self {
            Self::Energy(_) => energy.then(requests).then(bytes),
            Self::Requests => requests.then(energy).then(bytes),
            Self::Bytes => bytes.then(energy).then(requests),
        }
    }
}

impl fmt::Display for Recommendation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kept.is_empty() {
            writeln!(f, "Nothing keeps this promise.")?;
        }
        for (place, choice) in (1..).zip(&self.kept) {
            writeln!(f, "{place}. {}  ({})", choice.strategy, choice.source)?;
            writeln!(f, "   {}", choice.figures)?;
            for reason in &choice.reasons {
                writeln!(f, "   - {reason}")?;
            }
        }
        for rejected in &self.rejected {
            writeln!(f, "no {}: {}", rejected.strategy, rejected.reason)?;
        }
        Ok(())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Measured => "measured",
            Self::Predicted => "predicted by formula",
        })
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kilobytes = self.bytes_per_client_hour / 1000.0;
        let requests = self.requests_per_client_hour;
        write!(f, "p95 {:.1?}, {requests:.0} requests/h, {kilobytes:.1} kB/h", self.p95)?;
        for energy in &self.energy {
            write!(f, ", {} {:.0} J/h", energy.radio, energy.joules_per_client_hour)?;
        }
        if self.wakes_per_client_hour > 0.0 {
            write!(f, ", {:.1} wakes/h", self.wakes_per_client_hour)?;
        }
        let battery = self.energy.iter().map(|energy| energy.battery_per_day).reduce(f64::max);
        battery.map_or(Ok(()), |share| write!(f, ", at most {:.1} % of a battery a day", 100.0 * share))
    }
}

#[cfg(test)]
mod tests;
