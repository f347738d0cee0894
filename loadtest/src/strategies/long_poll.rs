//! Long poll: a request that the server holds until a message or the end of the hold, followed by the next at once.

use std::convert::Infallible;
use std::time::Duration;

use crate::client::Client;
use crate::wire::WireError;

/// Polls until an error. The first hold is the rest of a hold that began before the run: otherwise the holds of quiet streams
/// would end together, and a short run would count too few or too many of them.
pub(super) async fn read(client: &mut Client, hold: Duration) -> Result<Infallible, WireError> {
    let mut connection = client.connect().await?;
    client.started().await;
    let age = age(hold, client.recorder.workload.plan.rate, client.random.f64());
    // The wire has whole seconds.
    let mut next = Duration::from_secs_f64((hold - age).as_secs_f64().round());
    loop {
        if connection.is_closed() {
            connection = client.connect().await?;
        }
        client.poll(&mut connection, Some(next)).await?;
        next = hold;
    }
}

/// Returns the age of a held poll at a random time, if each poll is answered by the first message of a Poisson process of
/// `rate` or ends after `hold`. The density falls with the share of polls that reach an age, e^(-rate * age). `chance` is
/// uniform from 0 to 1.
fn age(hold: Duration, rate: f64, chance: f64) -> Duration {
    let answered = -(-rate * hold.as_secs_f64()).exp_m1();
    let seconds =
        if answered > 0.0 { -(-chance * answered).ln_1p() / rate } else { chance * hold.as_secs_f64() };
    Duration::from_secs_f64(seconds).min(hold)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_at_most_the_hold_and_lower_with_more_messages() {
        let hold = Duration::from_secs(25);
        let mean = |rate: f64| {
            let ages = (0..1000).map(|chance| age(hold, rate, f64::from(chance) / 1000.0));
            ages.map(|age| age.as_secs_f64()).sum::<f64>() / 1000.0
        };
        assert_eq!((age(hold, 0.2, 0.0), age(hold, 0.2, 1.0).as_secs_f64().round()), (Duration::ZERO, 25.0));
        // Quiet: half of the hold. Many messages: 1/rate. Between: 1/L - T / (e^(LT) - 1).
        for (rate, expected) in [(0.0, 12.5), (10.0, 0.1), (0.2, 5.0 - 25.0 / (5f64.exp() - 1.0))] {
            assert!((mean(rate) / expected - 1.0).abs() < 0.02, "{rate}: {} {expected}", mean(rate));
        }
    }
}
