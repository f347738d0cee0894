//! The command `sweep`: a comparison under each rate, and the trade-off of them.

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::cli::Sweeping;
use crate::compare::compare;
use crate::data::Report;
use crate::report::sweep::Sweep;
use crate::run::RunError;
use crate::servers::ServerError;

/// What `sweep.json` holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Swept {
    /// The points and their fronts.
    pub sweep: Sweep,
    /// All that was measured, one entry a rate, in the same order.
    pub reports: Vec<Report>,
}

/// What came of a sweep.
pub struct Outcome {
    /// Whatever was measured.
    pub swept: Swept,
    /// Why some of it is missing, if it is: the first failure.
    pub failure: Option<RunError>,
}

/// Compares under one rate after the other, with energies on `radio`. `stop` turning true ends it early. Fails if there
/// is no server to begin with; what fails later is in the outcome.
pub async fn sweep(
    wanted: &Sweeping,
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
