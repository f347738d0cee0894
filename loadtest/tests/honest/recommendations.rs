//! The written questions of src/advice/cases.toml: what `recommend` says by formula is the best in simulation, too.

use serde::Deserialize;
use serde_json::Value;

use crate::world::{Loadtest, alone};

#[derive(Deserialize)]
struct Cases {
    case: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    question: String,
    best: Vec<String>,
    hours: u32,
    not_simulated: Option<String>,
}

/// How much more a recommended strategy may cost than the best simulated one.
const DEARER: f64 = 1.05;

/// Forms that the simulation has no model of.
const NOT_SIMULATED: [&str; 8] =
    ["--without", "push", "--without", "sms", "--without", "mqtt", "--without", "direct-poll"];

async fn answer(arguments: &[&str]) -> Value {
    let ended = Loadtest::new_without_output(arguments).built_for_users().run().await;
    assert_eq!(ended.code, Some(0));
    serde_json::from_str(&ended.said).unwrap()
}

fn kept(answer: &Value) -> Vec<&str> {
    answer["kept"].as_array().unwrap().iter().map(|choice| choice["strategy"].as_str().unwrap()).collect()
}

/// Returns the cost that the question is about.
fn cost(answer: &Value, strategy: &str, question: &str) -> f64 {
    let choices = answer["kept"].as_array().unwrap();
    let choice = choices.iter().find(|choice| choice["strategy"] == strategy).unwrap();
    let energy = choice["energy"].as_array().unwrap();
    let energy = energy.iter().find(|energy| energy["radio"] == answer["radio"]).unwrap();
    let cost = match question.split_once("--cheapest-by ") {
        Some((_, by)) if by.starts_with("requests") => &choice["requestsPerClientHour"],
        Some(_) => &choice["bytesPerClientHour"],
        None => &energy["joulesPerClientHour"],
    };
    cost.as_f64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an optimised command, which LOADTEST_BINARY names; tests/run honest sets it"]
async fn what_is_recommended_is_the_best_in_simulation() {
    let Cases { case: cases } = toml::from_str(include_str!("../../src/advice/cases.toml")).unwrap();
    assert_eq!(cases.len(), 12);
    for Case { question, best, hours, not_simulated } in cases {
        let words = question.split('\'').enumerate().flat_map(|(index, part)| match index % 2 {
            0 => part.split_whitespace().collect(),
            _ => vec![part],
        });
        let words: Vec<&str> =
            ["recommend", "--json"].into_iter().chain(words).chain(NOT_SIMULATED).collect();
        let by_formula = answer(&words).await;
        let hours = hours.to_string();
        let simulated = answer(&[&words[..], &["--simulate", &hours]].concat()).await;
        let sources = simulated["kept"].as_array().unwrap().iter().map(|choice| &choice["source"]);
        let is_simulated = sources.into_iter().all(|source| source == "simulated");
        assert!(is_simulated || not_simulated.is_some(), "{question}: {simulated:#}");
        let (recommended, least) = (kept(&by_formula)[0], kept(&simulated)[0]);
        if not_simulated.is_none() {
            assert_eq!(recommended, best[0], "{question}");
        }
        let [own, of_best] = [recommended, least].map(|strategy| cost(&simulated, strategy, &question));
        println!("{question}: {recommended} costs {own:.1}, and {least} {of_best:.1} in simulation");
        assert!(own <= DEARER * of_best, "{question}: {recommended} costs {own}, and {least} {of_best}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an optimised command, which LOADTEST_BINARY names; tests/run honest sets it"]
async fn the_default_command_begins_with_a_verdict_in_which_strategies_differ() {
    let _turn = alone().await;
    let short =
        ["--clients", "20", "--rate", "2", "--seconds", "0.5", "--warm-up", "0.2", "--late-after", "1m"];
    let ended = Loadtest::new(&[&short[..], &["--repeat", "2", "--day-phones", "2"]].concat());
    let ended = ended.built_for_users().run().await;
    assert_eq!(ended.code, Some(0));
    assert!(ended.said.starts_with("On a simulated day with a message every 10 min, "), "{}", ended.said);
    assert!(ended.said.contains("the least of a phone's battery") && ended.said.contains("; sse takes "));
    assert!(ended.said.contains("Of the server, as measured here, "), "{}", ended.said);
    let report = ended.report();
    assert_eq!(report.day.unwrap().rows.len(), 6);
    assert!(report.runs.iter().all(|run| !run.bands.is_empty()));
    assert!(ended.page("report").contains("On a simulated day"));
}
