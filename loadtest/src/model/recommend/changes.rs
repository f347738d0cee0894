//! Why the other strategies are not recommended, and which change of the question would make each of them the best.
//!
//! The changes are searched: the question is asked again with one option changed, the smallest changes first, then with a second one.

use std::time::Duration;

use super::text::{cost_in_words, period, time};
use super::{Basis, Choice, Cost, Other, Promise, Rejected, form, rank};

/// Latencies that are tried, in seconds.
const LATENCIES: [f64; 15] =
    [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];

/// Seconds between two messages that are tried.
const PERIODS: [f64; 10] = [0.1, 1.0, 5.0, 10.0, 60.0, 300.0, 600.0, 3600.0, 21_600.0, 86_400.0];

/// A changed question.
struct Change {
    /// The change as options of the command line.
    options: String,
    promise: Promise,
}

/// The answer to a changed question: the forms that keep the promise, of which the first ones are the best.
struct Answer {
    options: String,
    kept: Vec<String>,
    alike: usize,
}

impl Answer {
    fn to(change: Change, basis: Basis<'_>) -> Self {
        let (kept, _) = rank(&change.promise, basis);
        let alike = change.promise.alike(&kept);
        let kept = kept.iter().map(|choice| form(&choice.strategy).to_owned()).collect();
        Self { options: change.options, kept, alike }
    }

    fn kept(&self) -> &[String] {
        &self.kept
    }

    fn best(&self) -> &[String] {
        self.kept.get(..self.alike).unwrap_or_default()
    }
}

/// Returns the strategies that are not among the best, in the order of their cost, and then the rejected ones.
pub(super) fn others(
    promise: &Promise,
    basis: Basis<'_>,
    kept: &[Choice],
    alike: usize,
    rejected: Vec<Rejected>,
) -> Vec<Other> {
    let answers: Vec<Answer> = changes(promise).into_iter().map(|change| Answer::to(change, basis)).collect();
    let change = |strategy: &str, among: fn(&Answer) -> &[String]| {
        let found = answers.iter().find(|answer| among(answer).iter().any(|kept| kept == form(strategy)));
        found.map(|answer| answer.options.clone())
    };
    let best = kept.first();
    let dearer = kept.iter().skip(alike).map(|choice| Other {
        keeps: true,
        reason: match best {
            Some(best) => cost_in_words(promise, choice, best),
            None => String::new(),
        },
        works_with: None,
        best_with: change(&choice.strategy, Answer::best),
        strategy: choice.strategy.clone(),
    });
    let unfit = rejected.into_iter().map(|rejected| Other {
        keeps: false,
        works_with: change(&rejected.strategy, Answer::kept),
        best_with: change(&rejected.strategy, Answer::best),
        strategy: rejected.strategy,
        reason: rejected.reason,
    });
    dearer.chain(unfit).collect()
}

/// Returns the changed questions, those with one change first.
fn changes(promise: &Promise) -> Vec<Change> {
    let asleep = ["push".to_owned(), "sms".to_owned()];
    let connected = Promise { without: [&promise.without[..], &asleep].concat(), ..promise.clone() };
    let single = single_changes(promise);
    let only_connected =
        Change { options: "--without push --without sms".to_owned(), promise: connected.clone() };
    let both = single_changes(&connected).into_iter().map(|change| Change {
        options: format!("{}, {}", only_connected.options, change.options),
        promise: change.promise,
    });
    let both: Vec<_> = both.collect();
    single.into_iter().chain([only_connected]).chain(both).collect()
}

fn single_changes(promise: &Promise) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut add = |options: String, promise: Promise| changes.push(Change { options, promise });
    for seconds in nearest_first(LATENCIES, promise.p95.as_secs_f64()) {
        let p95 = Duration::from_secs_f64(seconds);
        add(format!("--p95 {}", time(p95).replace(' ', "")), Promise { p95, ..promise.clone() });
    }
    for seconds in nearest_first(PERIODS, promise.rate.recip()) {
        add(
            format!("--rate '1 per {}'", period(seconds)),
            Promise { rate: seconds.recip(), ..promise.clone() },
        );
    }
    for (name, cheapest_by) in
        [("energy", Cost::Energy), ("requests", Cost::Requests), ("bytes", Cost::Bytes)]
    {
        if cheapest_by != promise.cheapest_by {
            add(format!("--cheapest-by {name}"), Promise { cheapest_by, ..promise.clone() });
        }
    }
    for (index, network) in promise.networks.iter().enumerate() {
        let mut networks = promise.networks.clone();
        networks.remove(index);
        let what = if networks.is_empty() {
            "--network none".to_owned()
        } else {
            format!("a path without {}", network.name)
        };
        if network.name != "none" {
            add(what, Promise { networks, ..promise.clone() });
        }
    }
    changes
}

/// Returns the values other than the present one, those that differ by the smallest factor first.
fn nearest_first<const N: usize>(mut values: [f64; N], present: f64) -> impl Iterator<Item = f64> {
    let distance = move |value: f64| (value / present).ln().abs();
    values.sort_by(|a, b| distance(*a).total_cmp(&distance(*b)));
    values.into_iter().filter(move |value| distance(*value) > 0.05)
}
