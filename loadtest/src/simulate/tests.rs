//! Scenarios of simulated days. Each compares with what the network's settings make exact, or with a formula.

use std::time::Duration;

use super::{Day, Network, Outcome, Simulation, group};
use crate::model::prediction;

const HOUR: Duration = Duration::from_secs(3600);

fn network() -> Network {
    Network {
        name: "lab".into(),
        radio: "LTE".into(),
        round_trip: 0.1,
        jitter: 0.0,
        loss: 0.0,
        nat_idle: None,
        behind: None,
    }
}

fn simulation(reader: &str, network: Network, length: Duration) -> Simulation {
    let day = Day::within(network, length);
    let reader = reader.parse().unwrap();
    Simulation { day, phones: 1, reader, every: Duration::from_secs(60), seed: 7, keeps_trace: true }
}

fn assert_whole(outcome: &Outcome) {
    let faults = [outcome.lost(), outcome.refused, outcome.doubled, outcome.reordered, outcome.gaps];
    assert_eq!(faults, [0; 5], "{} published", outcome.published);
    assert!(outcome.published > 0);
}

/// A train ride with two tunnels, to an office.
fn ride() -> Day {
    let networks = "
        [[network]]
        name = \"train\"
        radio = \"LTE\"
        round-trip = 0.15
        jitter = 0.1
        loss = 0.03
        nat-idle = 300
        [[network]]
        name = \"office\"
        radio = \"Wi-Fi\"
        round-trip = 0.02
        nat-idle = 60
    ";
    let part = |from: &str, network: &str| {
        let network = if network.is_empty() { String::new() } else { format!("network = \"{network}\"") };
        format!("[[part]]\nfrom = \"{from}\"\n{network}\n")
    };
    let parts = [
        ("00:00", "train"),
        ("00:10", ""),
        ("00:13", "train"),
        ("00:21", ""),
        ("00:22", "train"),
        ("00:30", "office"),
    ];
    let parts: String = parts.iter().map(|(from, network)| part(from, network)).collect();
    format!("{networks}{parts}").parse::<Day>().unwrap().lasting(Duration::from_secs(45 * 60))
}

/// Fails with the lines around the first one that differs.
#[track_caller]
fn assert_same_trace(first: &Outcome, again: &Outcome) {
    let lines = [first, again].map(|outcome| outcome.trace.lines().collect::<Vec<_>>());
    let differing = lines[0].iter().zip(&lines[1]).position(|(first, again)| first != again);
    let around =
        |lines: &[&str], line: usize| lines[line.saturating_sub(12)..lines.len().min(line + 4)].join("\n");
    if let Some(line) = differing {
        panic!("{}\n\nand again\n\n{}", around(&lines[0], line), around(&lines[1], line));
    }
    assert_eq!(first.digest, again.digest);
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another_one() {
    let _without_programs = crate::PROGRAMS.read();
    let of = |seed| {
        let simulation = simulation("fallback", network(), HOUR);
        Simulation { day: ride(), phones: 5, seed, ..simulation }.run().unwrap()
    };
    let (first, again, other) = (of(1), of(1), of(2));
    assert!(first.trace.lines().count() > 100, "{}", first.trace);
    assert_same_trace(&first, &again);
    assert_ne!(first.digest, other.digest);
}

/// The days on which summer time ends and on which it does not.
#[test]
fn whole_days_of_24_and_25_hours_give_the_same_trace_twice() {
    let _without_programs = crate::PROGRAMS.read();
    let of = |hours: u32| {
        let simulation = simulation("fallback", network(), hours * HOUR);
        let every = Duration::from_secs(600);
        Simulation { day: Day::default().lasting(hours * HOUR), every, ..simulation }.run().unwrap()
    };
    let [short, long] = [24, 25].map(|hours| {
        let (first, again) = (of(hours), of(hours));
        assert_whole(&first);
        assert_same_trace(&first, &again);
        first
    });
    // The same until the 24th hour, and an hour more of the same night.
    let of_24_hours = |line: &&str| line.split(' ').next().unwrap().parse::<f64>().unwrap() < 86_400.0;
    let [until_24, until_25] = [&short, &long].map(|day| day.trace.lines().take_while(of_24_hours).count());
    assert_eq!(until_24, until_25);
    assert!(long.trace.lines().count() > until_25 && long.published > short.published);
}

#[test]
fn long_polls_cost_what_the_formula_says() {
    let (hold, every) = (Duration::from_secs(25), Duration::from_secs(20));
    let simulation = simulation("long-poll:25s", network(), 4 * HOUR);
    let outcome = Simulation { every, ..simulation }.run().unwrap();
    assert_whole(&outcome);
    let round_trip = Duration::from_millis(100);
    let rate = outcome.published as f64 / (4.0 * HOUR.as_secs_f64());
    let predicted = prediction::long_poll(hold, rate, round_trip, round_trip);
    let requests = outcome.requests as f64 / 4.0;
    assert!((requests / predicted.requests_per_client_hour - 1.0).abs() < 0.03, "{requests} {predicted:?}");
    // A message that finds the poll held takes half a round trip, and a millisecond of the clock's precision.
    let [median] = outcome.latencies.quantiles([0.5]).unwrap();
    assert!((50..=52).contains(&median.as_millis()), "{median:?}");
}

#[test]
fn a_nat_that_forgets_makes_long_holds_late_and_short_ones_not() {
    let forgetful = Network { nat_idle: Some(60.0), ..network() };
    let of = |reader: &str| {
        let simulation = simulation(reader, forgetful.clone(), 2 * HOUR);
        Simulation { every: Duration::from_secs(200), ..simulation }.run().unwrap()
    };
    let (short, long) = (of("long-poll:25s"), of("long-poll:240s"));
    assert_whole(&short);
    assert_whole(&long);
    assert_eq!(short.forgotten, 0);
    // The client learns from the first few, and asks for shorter holds.
    assert!((1..10).contains(&long.forgotten), "{}", long.forgotten);
    let worst = |outcome: &Outcome| outcome.latencies.quantiles([1.0]).unwrap()[0];
    assert!(worst(&short) < Duration::from_secs(1), "{:?}", worst(&short));
    assert!(worst(&long) > Duration::from_secs(30), "{:?}", worst(&long));
}

#[test]
fn the_client_that_falls_back_gets_each_message_once_through_tunnels() {
    let simulation = simulation("fallback", network(), HOUR);
    let outcome = Simulation { day: ride(), phones: 3, ..simulation }.run().unwrap();
    assert_whole(&outcome);
    let moved = outcome.trace.lines().filter(|line| line.contains(" enters ")).count();
    assert_eq!(moved, 3 * 6);
    // Nothing arrives while there is no network, but for what was on its way out of the air.
    let in_tunnel = |line: &&str| {
        let seconds: f64 = line.split(' ').next().unwrap().parse().unwrap();
        line.contains(" message ") && (600.1..780.0).contains(&seconds)
    };
    assert_eq!(outcome.trace.lines().filter(in_tunnel).count(), 0);
}

/// A network of which nothing is known but what is behind it.
fn behind(profile: &str) -> Network {
    Network { behind: Some(profile.parse().unwrap()), ..network() }
}

#[test]
fn behind_a_proxy_that_buffers_only_the_client_that_falls_back_is_told_in_time() {
    let of = |reader: &str| simulation(reader, behind("proxy-buffer"), HOUR).run().unwrap();
    let [alone, falling] = ["sse", "fallback"].map(of);
    assert_whole(&falling);
    let median = |outcome: &Outcome| outcome.latencies.quantiles([0.5]).map(|[median]| median);
    assert!(median(&falling).unwrap() < Duration::from_secs(1), "{:?}", median(&falling));
    assert!(median(&alone).is_none_or(|median| median > Duration::from_secs(10)), "{:?}", median(&alone));
}

#[test]
fn nothing_passes_a_captive_portal_until_its_terms_are_accepted() {
    let outcome = simulation("fallback", behind("captive"), HOUR).run().unwrap();
    assert_whole(&outcome);
    let first = outcome.trace.lines().find(|line| line.contains(" message ")).unwrap();
    let seconds: f64 = first.split(' ').next().unwrap().parse().unwrap();
    assert!(seconds > 60.0, "{first}");
}

#[test]
fn a_proxy_that_cuts_idle_responses_makes_the_client_ask_for_shorter_holds() {
    let outcome = simulation("long-poll:4m", behind("proxy-cut-30"), HOUR).run().unwrap();
    assert_whole(&outcome);
    let [median, worst] = outcome.latencies.quantiles([0.5, 1.0]).unwrap();
    assert!(median < Duration::from_secs(1) && worst < Duration::from_secs(60), "{median:?} {worst:?}");
}

/// A day without clients or streams. The task that waits for the day's end sleeps once.
#[test]
fn a_gateway_with_nothing_to_do_sleeps() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let parks = || runtime.metrics().worker_park_count(0);
    let gateway = runtime.block_on(group::gateway(&simulation("websocket", network(), HOUR))).unwrap();
    let before = parks();
    runtime.block_on(async { tokio::time::sleep(24 * HOUR).await });
    let slept = parks() - before;
    assert!(slept < 100, "{slept}");
    drop(gateway);
    runtime.shutdown_background();
}
