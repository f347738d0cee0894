//! Compares measured figures with the formulas, for the strategies that have formulas.

use std::time::Duration;

use crate::data::{Latency, Prediction, Requests};
use crate::measured::ratio;
use crate::model::prediction::{Predicted, long_poll, short_poll};
use crate::strategies::Strategy;

/// Returns the prediction and its deviation; `None` for a strategy without a formula. `round_trip` is the mean round trip of
/// publishing in the same run, since it depends on the load of the machine, and `None` if nothing was published. `rate` is the rate that the schedule has actually
/// drawn, since a short run deviates by chance. The gap between an answer and the next long poll at the server is one round
/// trip, since clients poll again at once. The formulas count latency from the arrival of a message at the server, the
/// comparison from the intended publish time: so half a round trip, the message's own way to the server, is added.
pub fn prediction(
    strategy: Strategy,
    rate: f64,
    round_trip: Option<Duration>,
    requests: &Requests,
    latency: Option<&Latency>,
) -> Option<Prediction> {
    let round_trip = round_trip?;
    let Predicted { requests_per_client_hour, mean_latency, .. } = match strategy {
        Strategy::ShortPoll(interval) => short_poll(interval, rate, round_trip),
        Strategy::LongPoll(hold) => long_poll(hold, rate, round_trip, round_trip),
        Strategy::Sse(_)
        | Strategy::Ndjson(_)
        | Strategy::WebSocket(_)
        | Strategy::Mqtt(_)
        | Strategy::XmppWebSocket
        | Strategy::XmppBosh
        | Strategy::Wake(_) => return None,
    };
    let mean_latency = (mean_latency + round_trip / 2).as_secs_f64() * 1e6;
    Some(Prediction {
        requests_per_client_hour,
        mean_latency,
        requests_deviation: deviation(requests.per_client_hour, requests_per_client_hour),
        latency_deviation: latency.and_then(|latency| deviation(latency.mean, mean_latency)),
    })
}

fn deviation(measured: f64, predicted: f64) -> Option<f64> {
    ratio(measured - predicted, predicted)
}
