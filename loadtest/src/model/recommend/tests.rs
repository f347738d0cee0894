//! Recommendations for promises over several networks, with budgets and measured runs.

use super::*;
use crate::model::network::Networks;
use crate::report::fixture;

fn promise(network: &str, p95: f64, rate: f64) -> Promise {
    Promise {
        clients: 1000,
        p95: Duration::from_secs_f64(p95),
        rate,
        message_bytes: 256.0,
        networks: vec![Networks::default().get(network).unwrap().clone()],
        round_trip: Some(Duration::from_millis(100)),
        round_trip_p99: None,
        requests_max: None,
        energy_max: None,
        wake_delays: WakeDelays::default(),
        cheapest_by: Cost::Energy,
        radio: Radios::default().radio(None).unwrap().clone(),
        without: Vec::new(),
        origin: None,
    }
}

fn with_report(promise: &Promise, measured: Option<&Report>) -> Recommendation {
    let basis = Basis { measured, overheads: &Overheads::default(), radios: &Radios::default() };
    recommend(promise, basis, None)
}

fn by_formula(promise: &Promise) -> Recommendation {
    with_report(promise, None)
}

/// Returns the strategies that do not keep the promise.
fn rejected(recommendation: &Recommendation) -> Vec<&str> {
    let unfit = recommendation.others.iter().filter(|other| !other.keeps);
    unfit.map(|other| other.strategy.as_str()).collect()
}

fn other<'a>(recommendation: &'a Recommendation, strategy: &str) -> &'a Other {
    recommendation.others.iter().find(|other| other.strategy == strategy).unwrap()
}

fn names(recommendation: &Recommendation) -> Vec<&str> {
    recommendation.kept.iter().map(|choice| choice.strategy.as_str()).collect()
}

#[test]
fn rare_messages_are_cheapest_with_rare_heartbeats() {
    // A hold or a heartbeat that each message restarts wakes the radio less often than a ping that runs independently of messages.
    let recommendation = by_formula(&promise("cellular-direct", 2.0, 1.0 / 600.0));
    let names = names(&recommendation);
    assert_eq!(names[..3], ["websocket:200s", "long-poll:200s", "mqtt:200s"]);
    assert_eq!(names.last(), Some(&"short-poll:1900ms"));
    assert!(recommendation.to_string().contains("--hold-max 200s"));
    assert_eq!(rejected(&recommendation), ["push:fcm", "push:web", "sms"], "a push is not that quick");
    assert!(recommendation.kept.iter().all(|choice| choice.source == Source::Predicted));
}

#[test]
fn messages_that_may_be_late_are_cheapest_in_batches() {
    // One message per second keeps the radio on; a poll every ten minutes lets it sleep.
    let recommendation = by_formula(&promise("unknown", 600.0, 1.0));
    assert_eq!(names(&recommendation)[0], "short-poll:630s");
}

#[test]
fn a_phone_that_sleeps_takes_least_for_rare_messages_that_a_push_is_quick_enough_for() {
    let recommendation = by_formula(&promise("cellular-direct", 5.0, 1.0 / 600.0));
    let names = names(&recommendation);
    assert_eq!(names[..3], ["push:fcm", "push:web", "long-poll:200s"]);
    assert!(!names.contains(&"sms"), "a phone gets five SMS a day at most");
    let [push, _, poll] = &recommendation.kept[..3] else { panic!() };
    let joules = |choice: &Choice| choice.figures.energy[0].joules_per_client_hour;
    assert!(joules(push) < 0.5 * joules(poll), "{push:?} {poll:?}");
    assert_eq!(recommendation.alike, 2);
    assert!(
        recommendation.verdict.starts_with("Use push:fcm or push:web, which cost the same: the phone"),
        "{recommendation}"
    );
    // A WebSocket that stays open needs the fewest requests.
    let by_requests = Promise { cheapest_by: Cost::Requests, ..promise("cellular-direct", 5.0, 1.0 / 600.0) };
    let by_requests = by_formula(&by_requests);
    assert_eq!(self::names(&by_requests)[0], "websocket:200s");
}

#[test]
fn a_phone_that_sleeps_is_no_choice_for_frequent_messages() {
    let recommendation = by_formula(&promise("cellular-direct", 60.0, 0.2));
    assert!(recommendation.kept.iter().all(|choice| choice.strategy != "push:fcm"), "{recommendation}");
    let reason = &other(&recommendation, "push:fcm").reason;
    assert!(reason.starts_with("95 of 100 messages arrive within 2.9 min"), "{reason}");
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
    assert_eq!(other(&recommendation, "sms").reason, "each SMS costs money");
    let late =
        Promise { wake_delays: WakeDelays { sms: Duration::from_secs(60), ..WakeDelays::default() }, ..rare };
    assert!(!names(&by_formula(&late)).contains(&"sms"));
}

#[test]
fn only_polls_work_behind_a_buffering_proxy() {
    let recommendation = by_formula(&promise("buffering-proxy", 2.0, 0.01));
    assert_eq!(names(&recommendation), ["long-poll:25s", "short-poll:1900ms"]);
    assert_eq!(
        rejected(&recommendation),
        ["sse", "ndjson", "websocket", "mqtt", "push:fcm", "push:web", "sms"]
    );
}

#[test]
fn a_rejection_by_a_budget_states_the_figure() {
    let mut promise = promise("buffering-proxy", 2.0, 0.01);
    promise.requests_max = Some(500.0);
    let recommendation = by_formula(&promise);
    assert_eq!(names(&recommendation), ["long-poll:25s"]);
    let reason = &other(&recommendation, "short-poll:1900ms").reason;
    assert_eq!(reason, "it sends 1800 requests an hour, and 500 are allowed");
    promise.energy_max = Some(100.0);
    let text = by_formula(&promise).to_string();
    assert!(text.starts_with("No strategy keeps this promise"), "{text}");
    assert!(text.contains("J an hour, and 100 are allowed"), "{text}");
}

#[test]
fn no_strategy_keeps_an_impossible_latency() {
    let recommendation = by_formula(&promise("none", 0.01, 0.02));
    assert!(recommendation.kept.is_empty());
    let reason = &other(&recommendation, "sse").reason;
    assert_eq!(reason, "95 of 100 messages arrive within 310 ms, and 10 ms is promised");
}

#[test]
fn measured_runs_replace_predictions_where_they_match() {
    let report = fixture::report();
    let with = |promise: &Promise| with_report(promise, Some(&report));
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

#[test]
fn each_other_strategy_has_a_change_for_which_it_is_the_best() {
    let asked = promise("cellular-direct", 5.0, 1.0 / 600.0);
    let recommendation = by_formula(&asked);
    let best_with = |strategy: &str| other(&recommendation, strategy).best_with.as_deref();
    assert_eq!(best_with("websocket:200s"), Some("--p95 2s"));
    // The change holds: asked so, it is the best.
    let changed = by_formula(&Promise { p95: Duration::from_secs(2), ..asked.clone() });
    assert_eq!(names(&changed)[0], "websocket:200s");
    // The path without the part that blocks it.
    let nginx = Networks::default().get("nginx").unwrap().clone();
    let networks = vec![asked.networks[0].clone(), nginx];
    let blocked = by_formula(&Promise { networks, ..asked });
    let mqtt = other(&blocked, "mqtt");
    assert!(mqtt.reason.contains("protocols other than HTTP are blocked"), "{mqtt:?}");
    assert_eq!(mqtt.works_with.as_deref(), Some("a path without nginx"));
    assert!(blocked.to_string().contains("It keeps the promise with a path without nginx"), "{blocked}");
}

#[test]
fn a_sleeping_radio_delays_a_message_by_its_promotion() {
    let of = |rate| {
        let recommendation = by_formula(&promise("cellular-direct", 5.0, rate));
        let choice = recommendation.kept.into_iter().find(|choice| choice.strategy == "websocket:200s");
        choice.unwrap().figures.p95.as_secs_f64()
    };
    // One way takes 50 ms, and LTE wakes up within 260 ms. A message a second lets it never sleep.
    assert!((of(1.0 / 600.0) - 0.3101).abs() < 1e-6, "{}", of(1.0 / 600.0));
    assert!((of(1.0) - 0.05).abs() < 1e-6, "{}", of(1.0));
}

#[test]
fn an_origin_is_polled_once_for_all_clients_and_makes_messages_later() {
    let asked =
        Promise { origin: Some(Duration::from_secs(5)), clients: 50_000, ..promise("nginx", 20.0, 0.01) };
    let recommendation = by_formula(&asked);
    let of = |strategy: &str| {
        let choice = recommendation.kept.iter().find(|choice| choice.strategy.starts_with(strategy));
        choice.unwrap_or_else(|| panic!("no {strategy}: {recommendation}"))
    };
    assert_eq!(of("long-poll").api_requests_per_second, Some(0.2));
    assert!(of("long-poll").figures.p95 > Duration::from_millis(4750));
    // 95 % of the interval, of a round trip, and the way are within 20 s.
    let direct = of("direct-poll:20s");
    assert_eq!(direct.api_requests_per_second.unwrap().round(), 2488.0);
    assert_eq!(direct.server, ServerLoad::NONE);
    assert!(recommendation.to_string().contains("API: requests/s"));
}

#[test]
fn forms_that_are_out_of_the_question_are_not_mentioned() {
    let without = ["push", "sms", "sse"].map(str::to_owned).to_vec();
    let text = by_formula(&Promise { without, ..promise("cellular-direct", 5.0, 1.0 / 600.0) }).to_string();
    assert!(!text.contains("push:fcm") && !text.contains("sms") && !text.contains("sse"), "{text}");
    assert!(text.contains("ndjson"), "{text}");
}

#[test]
fn what_a_simulation_loses_is_no_choice() {
    let asked = promise("cellular-direct", 2.0, 1.0 / 600.0);
    let basis = Basis { measured: None, overheads: &Overheads::default(), radios: &Radios::default() };
    let loses = |choice: &Choice| match form(&choice.strategy) {
        "long-poll" => Some(Simulated::Lost { lost: 13, published: 13 }),
        "websocket" => Some(Simulated::Delivered(choice.figures.clone())),
        _ => None,
    };
    let recommendation = recommend(&asked, basis, Some(&loses));
    assert_eq!(recommendation.kept[0].strategy, "websocket:200s");
    assert_eq!(recommendation.kept[0].source, Source::Simulated);
    assert_eq!(
        other(&recommendation, "long-poll:200s").reason,
        "it was simulated, and lost 13 of 13 messages"
    );
}

#[test]
fn the_answer_is_also_json() {
    let json = serde_json::to_value(by_formula(&promise("nginx", 5.0, 1.0 / 600.0))).unwrap();
    assert_eq!(json["kept"][0]["source"], "predicted");
    assert!(json["kept"][0]["p95Seconds"].as_f64().unwrap() > 0.0);
    assert!(json["kept"][0]["server"]["requestsPerSecond"].as_f64().unwrap() > 0.0);
    assert!(json["others"][0]["reason"].is_string());
}
