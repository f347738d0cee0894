//! Recommendations for promises over several networks, with budgets and measured runs.

use super::*;
use crate::model::network::Networks;
use crate::report::fixture;

fn promise(network: &str, p95: f64, rate: f64) -> Promise {
    Promise {
        p95: Duration::from_secs_f64(p95),
        load: Load { rate, message_bytes: 256.0, round_trip: Duration::from_millis(100) },
        round_trip_p99: Duration::from_secs(1),
        network: Networks::default().get(network).unwrap().clone(),
        requests_max: None,
        energy_max: None,
        wake_delays: WakeDelays::default(),
        cheapest_by: Cost::Energy("LTE".to_owned()),
    }
}

fn by_formula(promise: &Promise) -> Recommendation {
    recommend(promise, None, &Overheads::default(), &Radios::default())
}

fn names(recommendation: &Recommendation) -> Vec<&str> {
    recommendation.kept.iter().map(|choice| choice.strategy.as_str()).collect()
}

#[test]
fn rare_messages_are_cheapest_with_rare_heartbeats() {
    // A hold that each message restarts wakes the radio less often than a ping that runs independently of messages.
    let recommendation = by_formula(&promise("cellular-direct", 2.0, 1.0 / 600.0));
    let names = names(&recommendation);
    assert_eq!(names[..3], ["long-poll:200s", "websocket:200s", "mqtt:200s"]);
    assert_eq!(names.last(), Some(&"short-poll:2s"));
    assert!(recommendation.to_string().contains("--hold-max 200s"));
    let rejected: Vec<_> =
        recommendation.rejected.iter().map(|rejected| rejected.strategy.as_str()).collect();
    assert_eq!(rejected, ["push:fcm", "push:web", "sms"], "a push is not that quick");
    assert!(recommendation.kept.iter().all(|choice| choice.source == Source::Predicted));
}

#[test]
fn messages_that_may_be_late_are_cheapest_in_batches() {
    // One message per second keeps the radio on; a poll every ten minutes lets it sleep.
    let recommendation = by_formula(&promise("unknown", 600.0, 1.0));
    assert_eq!(names(&recommendation)[0], "short-poll:620s");
}

#[test]
fn a_phone_that_sleeps_takes_least_for_rare_messages_that_a_push_is_quick_enough_for() {
    let recommendation = by_formula(&promise("cellular-direct", 5.0, 1.0 / 600.0));
    let names = names(&recommendation);
    assert_eq!(names[..3], ["push:fcm", "push:web", "long-poll:200s"]);
    assert!(!names.contains(&"sms"), "a phone gets five SMS a day at most");
    let [push, _, poll] = &recommendation.kept[..3] else { panic!() };
    let joules = |choice: &Choice| choice.figures.energy[0].joules_per_client_hour;
    assert!(joules(push) < 0.5 * joules(poll), "{} {}", push.figures, poll.figures);
    // A WebSocket that stays open needs the fewest requests.
    let by_requests = Promise { cheapest_by: Cost::Requests, ..promise("cellular-direct", 5.0, 1.0 / 600.0) };
    let by_requests = by_formula(&by_requests);
    assert_eq!(self::names(&by_requests)[0], "websocket:200s");
}

#[test]
fn a_phone_that_sleeps_is_no_choice_for_frequent_messages() {
    let recommendation = by_formula(&promise("cellular-direct", 60.0, 0.2));
    assert!(recommendation.kept.iter().all(|choice| choice.strategy != "push:fcm"), "{recommendation}");
    assert!(recommendation.to_string().contains("no push:fcm: its p95 is 1"), "{recommendation}");
    // The radio hardly sleeps, and each wake costs two requests.
    let place = |name: &str| recommendation.kept.iter().position(|choice| choice.strategy == name);
    assert!(place("push:web") > place("short-poll:62s"), "{recommendation}");
}

#[test]
fn an_sms_is_a_choice_for_a_message_a_day_and_says_what_it_costs() {
    let rare = promise("cellular-direct", 30.0, 1.0 / 86_400.0);
    let recommendation = by_formula(&rare);
    let sms = recommendation.kept.last().unwrap();
    assert_eq!(sms.strategy, "sms", "it costs money");
    assert!(sms.reasons.iter().any(|reason| reason.contains("it costs 1.0 SMS a day")), "{sms:?}");
    assert!(sms.figures.to_string().contains("0.0 wakes/h"), "{}", sms.figures);
    let late =
        Promise { wake_delays: WakeDelays { sms: Duration::from_secs(60), ..WakeDelays::default() }, ..rare };
    assert!(!names(&by_formula(&late)).contains(&"sms"));
}

#[test]
fn only_polls_work_behind_a_buffering_proxy() {
    let recommendation = by_formula(&promise("buffering-proxy", 2.0, 0.01));
    assert_eq!(names(&recommendation), ["long-poll:25s", "short-poll:2s"]);
    let reasons: Vec<_> = recommendation.rejected.iter().map(|rejected| rejected.strategy.as_str()).collect();
    assert_eq!(reasons, ["sse", "ndjson", "websocket", "mqtt", "push:fcm", "push:web", "sms"]);
}

#[test]
fn a_rejection_by_a_budget_states_the_figure() {
    let mut promise = promise("buffering-proxy", 2.0, 0.01);
    promise.requests_max = Some(500.0);
    let recommendation = by_formula(&promise);
    assert_eq!(names(&recommendation), ["long-poll:25s"]);
    let rejected =
        recommendation.rejected.iter().find(|rejected| rejected.strategy == "short-poll:2s").unwrap();
    assert_eq!(rejected.reason, "it asks 1800 times an hour, and 500 are allowed");
    promise.energy_max = Some(100.0);
    let text = by_formula(&promise).to_string();
    assert!(text.starts_with("Nothing keeps this promise."), "{text}");
    assert!(text.contains("J an hour, and 100 are allowed"), "{text}");
}

#[test]
fn no_strategy_keeps_an_impossible_latency() {
    let recommendation = by_formula(&promise("none", 0.01, 0.2));
    assert!(recommendation.kept.is_empty());
    assert!(recommendation.to_string().contains("its p95 is 50.0ms, and 10.0ms is promised"));
}

#[test]
fn measured_runs_replace_predictions_where_they_match() {
    let report = fixture::report();
    let with =
        |promise: &Promise| recommend(promise, Some(&report), &Overheads::default(), &Radios::default());
    let asked = promise("none", 6.0, report.workload.rate);
    let recommendation = with(&asked);
    // The fixture's runs of the gateway; strategies that were not measured have figures by formula.
    let source = |name: &str| {
        recommendation.kept.iter().find(|choice| choice.strategy == name).map(|choice| choice.source)
    };
    assert_eq!(source("sse"), Some(Source::Measured));
    assert_eq!(source("short-poll:1s"), Some(Source::Measured));
    assert_eq!(source("long-poll:55s"), Some(Source::Predicted));
    assert_eq!(recommendation.kept.iter().filter(|choice| choice.strategy == "sse").count(), 1);
    // A report of another rate or network does not match.
    for other in
        [promise("none", 6.0, 2.0 * report.workload.rate), promise("nginx", 6.0, report.workload.rate)]
    {
        assert!(with(&other).kept.iter().all(|choice| choice.source == Source::Predicted));
    }
}
