//! The descriptions of the API that the gateway serves, and what testing it by them has found.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::authorization::pollgate;
use crate::world::{Connection, Gateway, delete, get, put, request};

/// The path of a description with a value for each of its parameters.
fn filled_in(path: &str) -> String {
    path.replace("{stream}", "a/b").replace(['{', '}'], "")
}

/// The methods that a description has for a path.
fn described(methods: &Value) -> BTreeSet<String> {
    let methods = methods.as_object().unwrap().keys().filter(|key| *key != "parameters");
    methods.map(|method| method.to_uppercase()).collect()
}

fn listed(text: &str) -> BTreeSet<String> {
    text.split(", ").map(str::to_owned).collect()
}

#[tokio::test]
async fn each_resource_has_the_methods_that_are_described() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    pollgate(&["keygen", key.to_str().unwrap()]);
    let gateway = Gateway::start(&["--auth", key.to_str().unwrap(), "--xmpp-domain", "example.org"]).await;
    let answer = gateway.send(get("/openapi.json")).await.expect(200);
    assert_eq!(answer.header("content-type"), "application/json");
    let description = answer.json();
    let paths = description["paths"].as_object().unwrap();
    assert!(paths.len() > 20, "{paths:?}");
    for (path, methods) in paths {
        let answer = gateway.send(request("OPTIONS", filled_in(path))).await.expect(204);
        assert_eq!(listed(answer.header("allow")), described(methods), "{path}");
    }
    let of_connections = gateway.send(get("/asyncapi.json")).await.expect(200).json();
    for (name, channel) in of_connections["channels"].as_object().unwrap() {
        let address = channel["address"].as_str().filter(|address| address.starts_with("/v1/"));
        assert!(address.is_none_or(|address| paths.contains_key(address)), "{name}");
    }
}

#[tokio::test]
async fn the_admin_listener_describes_its_resources() {
    let gateway = Gateway::start(&[]).await;
    let description = gateway.ask_admin("/openapi.json").await.expect(200).json();
    let paths = description["paths"].as_object().unwrap();
    let resources = gateway.ask_admin("/nothing").await.expect(404).text();
    let (_, resources) = resources.trim_end().split_once("there are ").unwrap();
    let described = paths.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(listed(&resources.replace(" and ", ", ")), described);
    let mut admin = Connection::open(gateway.admin).await;
    for method in ["QUERY", "PATCH"] {
        admin.send(request(method, "/live")).await.expect(405);
    }
}

#[tokio::test]
async fn an_impossible_name_of_a_subscription_is_malformed() {
    let gateway = Gateway::start(&[]).await;
    let path = |rest: &str| format!("/v1/stream/__ds/subscriptions/{rest}");
    let long = "x".repeat(257);
    for rest in ["%C2%9B", "%", "", &long, "%0A/claim", "%C2%9B/streams/a"] {
        for request in [get(path(rest)), delete(path(rest)), request("OPTIONS", path(rest))] {
            let answer = gateway.send(request).await.expect(400);
            assert_eq!(answer.problem(), "malformed", "{rest}");
        }
    }
    let refused = gateway.send(request("OPTIONS", path("a/streams/b//c"))).await.expect(400);
    assert_eq!(refused.problem(), "stream-name");
    assert_eq!(gateway.send(get(path("a/b"))).await.expect(501).problem(), "reserved");
}

#[tokio::test]
async fn seconds_are_numbers_in_each_form() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/s").json("[1]")).await.expect(201);
    for wrong in ["timeout=9007199254740992", "timeout=x", "heartbeat=-1", "heartbeat="] {
        for form in ["", "offset=-1&live=long-poll&", "offset=-1&live=sse&"] {
            let refused = gateway.send(get(format!("/v1/stream/s?{form}{wrong}"))).await.expect(400);
            assert_eq!(refused.problem(), "malformed", "{form}{wrong}");
        }
    }
}
