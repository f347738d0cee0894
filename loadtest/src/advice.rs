//! The command `recommend`: finds the cheapest strategies that meet a latency target.

use crate::cli::Promised;
use crate::model::candidate::Overheads;
use crate::model::network::NetworkError;
use crate::model::radio::RadioError;
use crate::model::recommend::{Recommendation, Source, recommend};

/// Why `recommend` has no result.
#[derive(Debug, thiserror::Error)]
pub enum AdviceError {
    /// From `--network`.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// From `--radio`.
    #[error(transparent)]
    Radio(#[from] RadioError),
}

/// Result of `recommend`, with a remark for the user.
pub struct Advice {
    /// The strategies, cheapest first.
    pub recommendation: Recommendation,
    /// Set if the given report has no run that fits the promise.
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
             {:?}, and the promise is for {} over {:?}",
            report.workload.rate,
            report.workload.network.as_deref().unwrap_or("none"),
            promise.load.rate,
            promise.network.name
        )
    });
    Ok(Advice { recommendation, note })
}
