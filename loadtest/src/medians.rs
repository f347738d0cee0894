//! Merges repeated runs: each figure is the median of the repeats; counts of messages are summed, so that a loss in one repeat
//! stays visible.

use serde_json::Value;

use crate::data::{Deliveries, Latency, Run};
use crate::report::columns::set_bands;

/// Returns the merged run; `None` for an empty slice.
pub fn median(runs: &[Run]) -> Option<Run> {
    let mut in_order: Vec<&Run> = runs.iter().collect();
    // A run in which nothing arrived is slower than any other.
    let p50 = |run: &Run| run.latency.as_ref().map_or(f64::INFINITY, |latency| latency.p50);
    in_order.sort_by(|one, other| p50(one).total_cmp(&p50(other)));
    let middle = *in_order.get(runs.len().checked_sub(1)? / 2)?;
    if runs.len() == 1 {
        return Some(middle.clone());
    }
    let repeats = runs.len();
    let values: Vec<Value> = runs.iter().filter_map(|run| serde_json::to_value(run).ok()).collect();
    let merged = of_values(&serde_json::to_value(middle).ok()?, &values.iter().collect::<Vec<_>>());
    let mut run: Run = serde_json::from_value(merged).ok()?;
    run.latency = run
        .latency
        .zip(middle.latency.as_ref())
        .map(|(medians, middle)| Latency { cdf: middle.cdf.clone(), ..medians });
    run.deliveries = runs.iter().map(|run| run.deliveries).sum::<Deliveries>();
    run.interrupted = runs.iter().any(|run| run.interrupted);
    run.notes = notes(runs.iter().flat_map(|run| &run.notes), repeats);
    set_bands(&mut run, runs);
    Some(run)
}

/// Returns each kind of note once, with the number of rounds that had it. Notes that differ by their figures alone are of one kind.
fn notes<'a>(all: impl Iterator<Item = &'a String>, repeats: usize) -> Vec<String> {
    let mut kinds: Vec<(String, &str, usize)> = Vec::new();
    for note in all {
        let kind: String = note.chars().filter(|letter| !letter.is_ascii_digit()).collect();
        match kinds.iter_mut().find(|(known, ..)| *known == kind) {
            Some((_, _, count)) => *count += 1,
            None => kinds.push((kind, note, 1)),
        }
    }
    kinds.into_iter().map(|(_, note, count)| format!("in {count} of {repeats} rounds: {note}")).collect()
}

/// Returns the middle figure, or the mean of the two middle ones; `None` for an empty list.
pub fn median_of(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let low = figures.get(figures.len().checked_sub(1)? / 2)?;
    let high = figures.get(figures.len() / 2)?;
    Some(low + (high - low) / 2.0)
}

/// Replaces each number of `middle` by its median over `all`. A value that is not a number, or that is in none of them, is
/// kept.
fn of_values(middle: &Value, all: &[&Value]) -> Value {
    match middle {
        Value::Number(number) => {
            let figures = all.iter().filter_map(|value| value.as_f64()).collect();
            let Some(median) = median_of(figures) else { return middle.clone() };
            if number.is_u64() { Value::from(median.round() as u64) } else { Value::from(median) }
        }
        Value::Object(fields) => {
            let of_field = |(name, value): (&String, &Value)| {
                let same: Vec<&Value> = all.iter().filter_map(|other| other.get(name)).collect();
                (name.clone(), of_values(value, &same))
            };
            Value::Object(fields.iter().map(of_field).collect())
        }
        Value::Array(items) => {
            let of_item = |(at, value): (usize, &Value)| {
                let same: Vec<&Value> = all.iter().filter_map(|other| other.get(at)).collect();
                of_values(value, &same)
            };
            Value::Array(items.iter().enumerate().map(of_item).collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(p50: f64, lost: u64, joules: f64) -> Run {
        serde_json::from_value(json!({
            "server": "pollgate",
            "strategy": "sse",
            "interrupted": false,
            "deliveries": Deliveries { intended: 10, delivered: 10 - lost, lost, ..Deliveries::default() },
            "latency": {"mean": p50, "p50": p50, "p90": 0.0, "p95": 0.0, "p99": 0.0, "p999": 0.0, "max": 0.0,
                        "cdf": [[p50, 1.0]]},
            "requests": {"perClientHour": 1.0, "emptyPerClientHour": 0.0, "perDelivery": 1.0},
            "bytes": {"up": 0.0, "down": 0.0, "upWithPackets": 0.0, "downWithPackets": 0.0},
            "connections": 3, "serverCost": null,
            "energy": [{"radio": "LTE", "joulesPerClientHour": joules, "batteryPerDay": 0.0}],
            "prediction": null, "generatorCores": 0.1, "lateSends": 0.0, "notes": [],
        }))
        .unwrap()
    }

    #[test]
    fn figures_are_medians_and_messages_are_sums() {
        let runs = [run(9.0, 0, 5.0), run(2.0, 1, 7.0), run(4.0, 0, 6.0)];
        let median = median(&runs).unwrap();
        let latency = median.latency.unwrap();
        assert_eq!((latency.p50, latency.cdf), (4.0, vec![(4.0, 1.0)]));
        assert_eq!((median.deliveries.intended, median.deliveries.lost), (30, 1));
        assert_eq!((median.energy[0].joules_per_client_hour, median.connections), (6.0, 3));
        assert_eq!(super::median(&runs[..2]).unwrap().latency.unwrap().p50, 5.5);
        assert!(super::median(&[]).is_none());
    }

    #[test]
    fn a_median_over_runs_of_which_most_delivered_nothing_has_no_latency() {
        let silent = Run { latency: None, ..run(1.0, 10, 5.0) };
        let one = [silent.clone(), run(4.0, 0, 5.0), run(6.0, 0, 5.0)];
        assert_eq!(median(&one).unwrap().latency.unwrap().p50, 5.0);
        assert!(median(&[silent.clone(), silent, run(4.0, 0, 5.0)]).unwrap().latency.is_none());
    }
}
