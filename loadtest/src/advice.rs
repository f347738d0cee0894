//! The command `recommend`.

use crate::cli::Promised;
use crate::model::candidate::Overheads;
use crate::model::network::NetworkError;
use crate::model::radio::RadioError;
use crate::model::recommend::{Recommendation, Source, recommend};

/// Why nothing can be recommended.
#[derive(Debug, thiserror::Error)]
pub enum AdviceError {
    /// Of `--network`.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Of `--radio`.
    #[error(transparent)]
    Radio(#[from] RadioError),
}

/// What was found, and what the user should know about it.
pub struct Advice {
    /// Strategies, the cheapest first.
    pub recommendation: Recommendation,
    /// The report that was given had nothing to say.
    pub note: Option<String>,
}

/// Finds the cheapest strategies that keep the promise.
pub fn advise(wanted: &Promised) -> Result<Advice, AdviceError> {
    let radios = wanted.radios.clone().unwrap_or_default();
    let promise = wanted.promise(radios.named(wanted.radio.as_deref())?)?;
    let recommendation = recommend(&promise, wanted.report.as_ref(), &Overheads::default(), &radios);
    let is_measured = recommendation.kept.iter().any(|choice| choice.source == Source::Measured);
    let note = wanted.report.as_ref().filter(|_| !is_measured).map(|report| {
        format!(
            "the report has no run that keeps this promise: it was measured at {} messages a second over the network \
             {:?}, and {} over {:?} are asked for",
            report.workload.rate,
            report.workload.network.as_deref().unwrap_or("none"),
            promise.load.rate,
            promise.network.name
        )
    });
    Ok(Advice { recommendation, note })
}
