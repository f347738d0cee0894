//! The rules that the Rust client and the JavaScript client have in common: `rules.json`, which
//! `tests/browser/rules.test.js` reads too.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use pollgate::clock::Clock;
use pollgate_client::{
    Client, Data, Form, Item, Message, PublishError, Settings, Start, Subscription, Token,
};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::reading::{builder, client, next, only, settings};
use crate::world::{Gateway, delete, get, post, until};

fn rules(kind: &str) -> Vec<Value> {
    let rules: Value = serde_json::from_str(include_str!("rules.json")).unwrap();
    rules[kind].as_array().unwrap().clone()
}

fn list(rule: &Value, name: &str) -> Vec<Value> {
    rule[name].as_array().cloned().unwrap_or_default()
}

fn text<'a>(rule: &'a Value, name: &str) -> &'a str {
    rule[name].as_str().unwrap()
}

/// How a proxy responds to the appends to one stream.
#[derive(Default)]
struct Script {
    /// To the first requests.
    answers: VecDeque<Value>,
    /// A condition and a status.
    refuses: Value,
    requests: usize,
    /// The tokens of the requests.
    tokens: Vec<String>,
}

/// A proxy in front of a gateway, with a script for each stream; closed when dropped.
struct Proxy {
    address: SocketAddr,
    scripts: Arc<Mutex<HashMap<String, Script>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The connection is closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("no answer")]
struct NoAnswer;

impl Proxy {
    async fn start(gateway: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let scripts = Arc::new(Mutex::new(HashMap::<String, Script>::new()));
        let read = scripts.clone();
        let task = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let scripts = read.clone();
                let service = service_fn(move |request| answer(gateway, scripts.clone(), request));
                let serving = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service);
                tokio::spawn(serving);
            }
        });
        Self { address, scripts, task }
    }

    fn script(&self, stream: &str, script: Script) {
        self.scripts.lock().insert(stream.to_owned(), script);
    }

    fn requests(&self, stream: &str) -> usize {
        self.scripts.lock().get(stream).map_or(0, |script| script.requests)
    }
}

async fn answer(
    gateway: SocketAddr,
    scripts: Arc<Mutex<HashMap<String, Script>>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, NoAnswer> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| NoAnswer)?.to_bytes();
    let stream = head.uri.path().rsplit('/').next().unwrap_or_default();
    let token =
        head.headers.get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let step = scripts.lock().get_mut(stream).map_or(Value::Null, |script| {
        script.tokens.extend(token.map(str::to_owned));
        script.step(&body)
    });
    if let Some(status) = step["status"].as_u64() {
        let length = step["page"].as_u64().unwrap_or(10) as usize;
        let page = if status == 204 { String::new() } else { "<".repeat(length) };
        return Ok(Response::builder().status(status as u16).body(page.into()).unwrap());
    }
    if step == "drop" {
        return Err(NoAnswer);
    }
    let mut forwarded = post(head.uri.to_string()).body(body);
    for (name, value) in head.headers.iter().filter(|(name, _)| *name != "host" && *name != "content-length")
    {
        forwarded = forwarded.header(name.as_str(), value.to_str().unwrap());
    }
    let answer = crate::world::Connection::open(gateway).await.send(forwarded).await;
    if step == "lose" {
        return Err(NoAnswer);
    }
    let mut response = Response::builder().status(answer.status);
    for (name, value) in answer.headers.iter().filter(|(name, _)| *name != "connection") {
        response = response.header(name, value);
    }
    Ok(response.body(answer.body.into()).unwrap())
}

impl Script {
    fn step(&mut self, body: &[u8]) -> Value {
        self.requests += 1;
        let contains =
            |text: &str| text.is_empty() || body.windows(text.len()).any(|part| part == text.as_bytes());
        let is_refused = self.refuses["longer"].as_u64().is_some_and(|most| body.len() as u64 > most)
            || self.refuses["containing"].as_str().is_some_and(contains);
        if is_refused { self.refuses.clone() } else { self.answers.pop_front().unwrap_or_default() }
    }
}

/// The rule for each of its statuses.
fn by_status(rule: &Value) -> Vec<Value> {
    let statuses = list(rule, "statuses");
    if statuses.is_empty() {
        return vec![rule.clone()];
    }
    let with = |status: Value| {
        let mut rule = rule.clone();
        rule["name"] = format!("{}: {status}", text(&rule, "name")).into();
        for outcome in
            rule["outcomes"].as_array_mut().unwrap().iter_mut().filter(|outcome| **outcome == "refused")
        {
            *outcome = status.clone();
        }
        if rule["refuses"].is_object() {
            rule["refuses"]["status"] = status;
        } else {
            rule["answers"] = serde_json::json!([{ "status": status }]);
        }
        rule
    };
    statuses.into_iter().map(with).collect()
}

fn outcome(published: Result<(), PublishError>) -> Value {
    match published {
        Ok(()) => "kept".into(),
        Err(PublishError::Refused(refusal)) => refusal.status.into(),
        Err(error) => error.to_string().into(),
    }
}

#[tokio::test]
async fn publishing() {
    let gateway = Gateway::start(&[]).await;
    let proxy = Proxy::start(gateway.address).await;
    let rules: Vec<Value> = rules("publishing").iter().flat_map(by_status).collect();
    join_all(rules.iter().enumerate().map(async |(index, rule)| {
        let stream = format!("rule-{index}");
        let script = Script {
            answers: list(rule, "answers").into(),
            refuses: rule["refuses"].clone(),
            ..Script::default()
        };
        proxy.script(&stream, script);
        let (client, _) = client(proxy.address, settings());
        let producer = client.producer(&stream, "application/json");
        let publish = async |messages: Vec<Value>| {
            join_all(messages.iter().map(|message| producer.publish(message.to_string()))).await
        };
        let mut outcomes = publish(list(rule, "publish")).await;
        if rule["forget"] == true {
            gateway.send(delete(format!("/v1/stream/{stream}"))).await.expect(204);
        }
        outcomes.extend(publish(list(rule, "then")).await);
        let outcomes: Value = outcomes.into_iter().map(outcome).collect();
        assert_eq!(outcomes, rule["outcomes"], "{}", rule["name"]);
        let stored = gateway.send(get(format!("/v1/stream/{stream}"))).await.json();
        assert_eq!(stored, rule["stored"], "{}", rule["name"]);
    }))
    .await;
}

#[tokio::test]
async fn tokens() {
    let gateway = Gateway::start(&[]).await;
    let proxy = Proxy::start(gateway.address).await;
    for (index, rule) in rules("tokens").into_iter().enumerate() {
        let stream = format!("token-{index}");
        proxy.script(&stream, Script { answers: list(&rule, "answers").into(), ..Script::default() });
        let (fails, count) = (rule["fails"] == true, AtomicUsize::new(0));
        let token = match rule["fixed"] == true {
            true => Token::new("1").unwrap(),
            false => Token::fetched_by(move || {
                let number = 1 + count.fetch_add(1, Ordering::Relaxed);
                async move { if fails { Err("logged out") } else { Ok(number.to_string()) } }
            }),
        };
        let (builder, _) = builder(&format!("http://{}", proxy.address), settings());
        let client = builder.token(token).build().unwrap();
        let published = client.producer(&stream, "application/json").publish("1").await;
        match published {
            Err(PublishError::Refused(refusal)) if fails => {
                assert!(refusal.detail.contains(text(&rule, "outcome")), "{rule}: {refusal}");
            }
            published => assert_eq!(outcome(published), rule["outcome"], "{}", rule["name"]),
        }
        let sent = proxy.scripts.lock()[&stream].tokens.clone();
        let expected = list(&rule, "sent");
        assert_eq!(sent.len(), expected.len(), "{}: {sent:?}", rule["name"]);
        let is_it = |(sent, expected): (&String, &Value)| expected == "*" || expected == sent;
        assert!(sent.iter().zip(&expected).all(is_it), "{}: {sent:?}", rule["name"]);
    }
}

#[tokio::test]
async fn what_waits_to_be_published_is_bounded_and_further_messages_wait_for_room() {
    let gateway = Gateway::start(&[]).await;
    let proxy = Proxy::start(gateway.address).await;
    let bounds =
        [Settings { publish_messages_max: 4, ..settings() }, Settings { publish_bytes_max: 4, ..settings() }];
    for (index, settings) in bounds.into_iter().enumerate() {
        let stream = format!("bounded-{index}");
        let refuses = serde_json::json!({ "containing": "", "status": 503 });
        proxy.script(&stream, Script { refuses, ..Script::default() });
        let (client, _) = client(proxy.address, settings);
        let producer = client.producer(&stream, "application/json");
        let accepted: Vec<_> = (0..4).map(|number| producer.publish(number.to_string())).collect();
        let waiting = tokio::spawn(producer.publish("4"));
        let cancelled = producer.publish("5");
        until("several attempts", async || proxy.requests(&stream) > 2).await;
        assert!(!waiting.is_finished());
        drop(cancelled);
        proxy.script(&stream, Script::default());
        for outcome in join_all(accepted).await {
            outcome.unwrap();
        }
        waiting.await.unwrap().unwrap();
        assert_eq!(gateway.send(get(format!("/v1/stream/{stream}"))).await.text(), "[0,1,2,3,4]");
    }
}

#[test]
fn a_url_that_cannot_work_fails_at_once() {
    for rule in rules("urls") {
        let error = Client::new(text(&rule, "url")).unwrap_err().to_string();
        assert!(error.contains(text(&rule, "says")) && !error.contains("secret"), "{rule}: {error}");
    }
}

#[tokio::test]
async fn what_cannot_work_says_so_at_once() {
    let (client, _) = client("127.0.0.1:1".parse().unwrap(), settings());
    let published = client.producer("s", "text/plain\r\nx: y").publish("a").await;
    assert_eq!(published, Err(PublishError::Malformed));
    for count in [0, 1001] {
        let streams = (0..count).map(|number| number.to_string());
        let told = next(&mut client.subscribe(streams, Start::now())).await;
        assert!(matches!(told, Item::Refused(_)), "{count}: {told:?}");
    }
}

async fn message(subscription: &mut Subscription) -> Message {
    loop {
        if let Item::Message(message) = next(subscription).await {
            return message;
        }
    }
}

#[tokio::test]
async fn the_case_of_content_types_makes_no_difference() {
    let gateway = Gateway::start(&[]).await;
    let (client, _) = client(gateway.address, only(Form::Sse));
    for (index, rule) in rules("types").into_iter().enumerate() {
        let (stream, content_type) = (format!("type-{index}"), text(&rule, "type"));
        client.producer(&stream, content_type).publish("\"héllo\"").await.unwrap();
        client.producer(&stream, &content_type.to_lowercase()).publish("1").await.unwrap();
        let data = message(&mut client.subscribe([stream], Start::earliest())).await.data;
        match (text(&rule, "kind"), &data) {
            ("json", Data::Json(_)) | ("binary", Data::Binary(_)) => {
                assert_eq!(data.bytes(), "\"héllo\"".as_bytes())
            }
            ("text", Data::Text(text)) => assert_eq!(text, "\"héllo\"1"),
            _ => panic!("{rule}: {data:?}"),
        }
    }
}

#[tokio::test]
async fn the_last_messages_come_first_then_those_that_follow_each_with_its_offset() {
    let gateway = Gateway::start(&[]).await;
    for (index, rule) in rules("history").into_iter().enumerate() {
        for form in Form::ALL {
            let path = format!("/v1/stream/history-{index}-{form}");
            let append = async |body: &str| {
                let request = post(format!("{path}?create=1")).header("content-type", text(&rule, "type"));
                gateway.send(request.body(body.to_owned())).await.expect(204);
            };
            for body in list(&rule, "appends") {
                append(body.as_str().unwrap()).await;
            }
            let (client, _) = client(gateway.address, Settings { times: true, ..only(form) });
            let start = Start::history(rule["history"].as_u64().unwrap());
            let mut subscription = client.subscribe([format!("history-{index}-{form}")], start);
            let mut expected: Vec<String> =
                list(&rule, "data").iter().map(|text| text.as_str().unwrap().to_owned()).collect();
            let mut messages = Vec::new();
            for _ in &expected {
                messages.push(message(&mut subscription).await);
            }
            while subscription.resume_token().is_none() {
                drop(timeout(Duration::from_millis(1), subscription.next()).await);
            }
            append("5").await;
            expected.push("5".to_owned());
            messages.push(message(&mut subscription).await);
            for (at, message) in messages.iter().enumerate() {
                assert_eq!(message.data.bytes(), expected[at].as_bytes(), "{rule} by {form}");
                let offset = message.offset.unwrap();
                let rest = gateway.send(get(format!("{path}?offset={offset}"))).await.text();
                let following = &expected[at + 1..];
                let is_json = text(&rule, "type").contains("json");
                let following =
                    if is_json { format!("[{}]", following.join(",")) } else { following.concat() };
                assert_eq!(rest, following, "{rule} behind {offset}");
                let age = Clock::start().wall().duration_since(message.time.unwrap()).unwrap_or_default();
                assert!(age < Duration::from_secs(60), "{age:?}");
            }
        }
    }
}
