//! The function library itself, as a gateway calls it.

use std::cell::Cell;
use std::future::ready;

use redis::Value;
use serde_json::json;

use crate::server::Engine;
use crate::world::{get, post, put, until};

/// The name of the library, with which those of its functions begin.
fn library_of(engine: &Engine) -> String {
    let libraries = format!("{:?}", engine.ask::<Value>("FUNCTION LIST"));
    let at = libraries.find("pollgate_").expect("the library is loaded");
    libraries[at..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// A gateway sends a call again if it got no answer, and cannot know whether the engine had made it.
#[tokio::test]
async fn a_call_that_is_sent_again_is_done_once_and_gets_the_same_answer() {
    let engine = Engine::volatile().await;
    let gateway = engine.gateway("one").await;
    gateway.send(put("/v1/stream/s").json("")).await.expect(201);
    let client = redis::Client::open(engine.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut ask =
        async |command: &redis::Cmd| -> Value { command.query_async(&mut connection).await.unwrap() };
    let text = |value: Value| -> String { redis::from_redis_value(value).unwrap() };

    let keys = ask(redis::cmd("KEYS").arg("pollgate:*meta:s")).await;
    let [key]: [String; 1] = redis::from_redis_value::<Vec<String>>(keys).unwrap().try_into().unwrap();
    let partition = key.strip_suffix("meta:s").unwrap();
    let library = library_of(&engine);

    let mut append = redis::cmd("FCALL");
    append.arg(format!("{library}_append")).arg(1).arg(partition);
    append.arg(&["s", "1800000000000", "1800000000000", "another gateway", "77"]);
    for number in ["1", "2"] {
        let messages = ["declared", "application/json", number, "j", "1", "1", "", "", ""];
        append.arg(&messages).arg(&["", "0", "0", "", "0", "0", "", "", "", "", "", "", "0"]);
    }
    let first = ask(&append).await;
    assert_eq!(ask(&append).await, first);
    assert_eq!(gateway.send(get("/v1/stream/s")).await.expect(200).json(), json!([1, 2]));
    let Value::Array(verdicts) = first else { panic!("{first:?}") };
    for verdict in verdicts {
        let Value::Array(verdict) = verdict else { panic!("{verdict:?}") };
        assert_eq!(text(verdict[0].clone()), "new");
    }
    // The next append of that gateway is another call.
    gateway.send(post("/v1/stream/s").json("3")).await.expect(204);
    assert_eq!(ask(&append).await, ask(&append).await);
    assert_eq!(gateway.send(get("/v1/stream/s")).await.expect(200).json(), json!([1, 2, 3]));
}

/// INFO takes a tenth of the time of an append.
#[tokio::test]
async fn a_primary_looks_once_which_history_it_has_and_not_in_each_call() {
    let engine = Engine::volatile().await;
    let gateway = engine.gateway("one").await;
    gateway.send(put("/v1/stream/s").json("")).await.expect(201);
    let (calls, before) = (engine.calls("fcall"), engine.calls("info"));
    for _ in 0..50 {
        gateway.send(post("/v1/stream/s").json("1")).await.expect(204);
    }
    let (calls, asked) = (engine.calls("fcall") - calls, engine.calls("info") - before);
    // The test itself asks three times.
    assert!(calls >= 50 && asked < 10, "{asked} times in {calls} calls");
}

#[tokio::test]
async fn a_gateway_whose_lease_to_sweep_has_passed_to_another_one_changes_nothing() {
    let engine = Engine::volatile().await;
    let gateway = engine.gateway("one").await;
    gateway.send(put("/v1/stream/s").header("stream-ttl", "1000").json("1")).await.expect(201);
    let runs = || engine.ask::<u64>("EXISTS pollgate:{gateways}:runs");
    until("the gateway has said that it is alive", async || runs() == 1).await;
    gateway.kill().await;
    let library = library_of(&engine);
    let call = |function: &str, partition: &str, arguments: &str| {
        engine.ask::<Value>(&format!("FCALL {library}_{function} 1 {partition} {arguments}"))
    };
    let lease = |run: &str, millis: u32| -> u64 {
        let answer = call("lease", "pollgate:{gateways}:", &format!("{run}~1 {run} {millis}"));
        redis::from_redis_value::<String>(answer).unwrap().parse().unwrap()
    };
    // That of the gateway that was killed has to end first.
    let passes_to = async |run: &str, millis: u32| {
        let number = Cell::new(0);
        let passes = || {
            number.set(lease(run, millis));
            ready(number.get() > 0)
        };
        until("the lease passes", passes).await;
        number.get()
    };
    let (former, current) = (passes_to("former", 1).await, passes_to("current", 600_000).await);
    assert!(current > former && lease("former", 600_000) == 0);

    let [key]: [String; 1] = engine.ask::<Vec<String>>("KEYS pollgate:*meta:s").try_into().unwrap();
    let partition = key.strip_suffix("meta:s").unwrap();
    let sweep = |now: u64, lease: u64| {
        call("sweep", partition, &format!("{now} {now} {lease} +inf +inf +inf +inf keep"))
    };
    let long_after = 4_000_000_000_000;
    sweep(0, current);
    assert_eq!(sweep(long_after, former), Value::Array(Vec::new()));
    assert_eq!(engine.ask::<u64>(&format!("EXISTS {key}")), 1);
    let forget = |lease: u64| {
        let [run]: [String; 1] =
            engine.ask::<Vec<String>>("ZRANGE pollgate:{gateways}:runs 0 -1").try_into().unwrap();
        call("forget_runs", "pollgate:{gateways}:", &format!("{lease} {long_after} {run}"));
        runs()
    };
    assert_eq!(forget(former), 1);

    sweep(long_after, current);
    assert_eq!(engine.ask::<u64>(&format!("EXISTS {key}")), 0);
    assert_eq!(forget(current), 0);
}
