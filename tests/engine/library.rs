//! The function library itself, as a gateway calls it.

use redis::Value;
use serde_json::json;

use crate::server::Engine;
use crate::world::{get, post, put};

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
    let libraries = format!("{:?}", ask(&redis::cmd("FUNCTION").arg("LIST").to_owned()).await);
    let at = libraries.find("pollgate_").expect("the library is loaded");
    let library: String = libraries[at..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();

    let mut append = redis::cmd("FCALL");
    append.arg(format!("{library}_append")).arg(1).arg(partition);
    append.arg(&["s", "1800000000000", "1800000000000", "another gateway", "77"]);
    for number in ["1", "2"] {
        let messages = ["declared", "application/json", number, "j", "1", "1", "", "", ""];
        append.arg(&messages).arg(&["", "0", "0", "", "0", "0", "", "", "", "", "", "0"]);
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
