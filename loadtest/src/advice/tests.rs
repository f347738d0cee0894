//! The written cases of cases.toml: each question has the answer that it should have by formula, in plain sentences. The test `honest` of
//! this package simulates them.

use clap::Parser;
use serde::Deserialize;

use super::*;
use crate::cli::documented::words;
use crate::cli::{Cli, Command};

#[derive(Debug, Deserialize)]
struct Cases {
    case: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    question: String,
    best: Vec<String>,
    why: String,
    #[serde(rename = "hours")]
    _hours: u32,
    not_simulated: Option<String>,
}

/// Strategies that the simulation has no model of.
const NOT_SIMULATED: [&str; 5] = ["push:", "sms", "mqtt", "xmpp", "direct-poll"];

fn asked(question: &str) -> Promised {
    let line = ["loadtest", "recommend"].into_iter().chain(words(question));
    let Some(Command::Recommend(wanted)) = Cli::parse_from(line).command else { panic!("{question}") };
    *wanted
}

#[test]
fn each_written_question_has_its_answer() {
    let Cases { case: cases } = toml::from_str(include_str!("cases.toml")).unwrap();
    assert_eq!(cases.len(), 12);
    for Case { question, best, why, not_simulated, .. } in cases {
        let Recommendation { kept, alike, verdict, .. } = advise(&asked(&question)).unwrap().recommendation;
        let answer: Vec<_> = kept.iter().take(alike).map(|choice| choice.strategy.as_str()).collect();
        assert_eq!(answer, best, "{question}: {verdict}\n{why}");
        let has_no_model = |strategy: &&String| NOT_SIMULATED.iter().any(|form| strategy.starts_with(form));
        assert_eq!(best.iter().any(|best| has_no_model(&best)), not_simulated.is_some(), "{question}");
        assert!(verdict.starts_with(&format!("Use {}", best[0])) && verdict.ends_with('.'), "{verdict}");
    }
}

/// Words of this program that a text may not leave unexplained.
#[test]
fn an_answer_explains_its_words() {
    let question = "--clients 50000 --rate '1 per 10 min' --p95 5s --network carrier-5min --network nginx";
    let text = advise(&asked(question)).unwrap().recommendation.to_string();
    for word in ["Pareto", "percentile", "hop", "jitter", "client-hour"] {
        assert!(!text.contains(word), "{word}: {text}");
    }
    for explained in [
        "arrives within:",
        "battery:",
        "measured (",
        "simulated (",
        "predicted (",
        "50 000 clients with an LTE radio",
    ] {
        assert!(text.contains(explained), "{explained}: {text}");
    }
    for strategy in ["- long-poll:55s: it takes", "mqtt is out: protocols other than HTTP", "sms is out:"] {
        assert!(text.contains(strategy), "{strategy}: {text}");
    }
}

/// The gateway pings a WebSocket when it sends a heartbeat, and both restart with each message. Pings at times of their own woke the radio
/// nearly twice as often.
#[test]
fn a_websocket_wakes_the_radio_as_rarely_as_a_poll_that_is_held_as_long() {
    let joules = |reader: &str| {
        let network = Network {
            name: "lab".into(),
            radio: "LTE".into(),
            round_trip: 0.1,
            jitter: 0.0,
            loss: 0.0,
            nat_idle: None,
            behind: None,
        };
        let simulation = Simulation {
            day: Day::within(network, Duration::from_secs(2 * 3600)),
            phones: 1,
            reader: reader.parse().unwrap(),
            every: Duration::from_secs(300),
            seed: 3,
            keeps_trace: false,
        };
        let outcome = simulation.run().unwrap();
        assert!(outcome.published > 10 && outcome.lost() == 0);
        outcome.joules.values().sum::<f64>()
    };
    let (socket, poll) = (joules("websocket:55s"), joules("long-poll:55s"));
    assert!((socket / poll - 1.0).abs() < 0.03, "{socket} J, {poll} J");
}
