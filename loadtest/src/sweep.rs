//! The command `sweep`: one comparison per rate, and their trade-offs.

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::cli::SweepOptions;
use crate::compare::compare;
use crate::data::Report;
use crate::report::sweep::Sweep;
use crate::run::RunError;
use crate::servers::ServerError;

/// Content of `sweep.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Swept {
    /// The points and their fronts.
    pub sweep: Sweep,
    /// The full reports, one per rate, in the same order.
    pub reports: Vec<Report>,
}

/// Result of a sweep.
pub struct Outcome {
    /// All that was measured.
    pub swept: Swept,
    /// The first failure, if any run failed; its figures are missing.
    pub failure: Option<RunError>,
}

/// Runs a comparison per rate, with energy figures on `radio`. A `stop` of true ends it early. Fails if the gateway cannot be
/// used at all; a later failure is in the outcome.
pub async fn sweep(
    wanted: &SweepOptions,
    radio: &str,
    stop: watch::Receiver<bool>,
) -> Result<Outcome, ServerError> {
    let (mut reports, mut failure) = (Vec::new(), None);
    for (number, rate) in (1..).zip(&wanted.rate) {
        if *stop.borrow() {
            break;
        }
        eprintln!("{rate} messages a second to each stream ({number} of {})", wanted.rate.len());
        let outcome = compare(&wanted.at(*rate), stop.clone()).await?;
        reports.push(outcome.report);
        failure = failure.or(outcome.failure);
        if failure.as_ref().is_some_and(RunError::is_of_the_server) {
            break;
        }
    }
    let runs: Vec<_> = reports.iter().map(|report| (report.workload.rate, report.runs.clone())).collect();
    Ok(Outcome { swept: Swept { sweep: Sweep::new(radio, &runs), reports }, failure })
}
