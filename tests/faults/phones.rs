//! Phones that sleep, behind a push service that fails in every way, and a gateway that is killed meanwhile: every phone
//! has the message in the end, none is removed, and none has two wakes at a time.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::measure::mib;
use crate::world::{Connection, Gateway, alone, get, post, put};

/// How many phones there are, unless `PHONES` says otherwise: ten thousand take seven minutes, most of it the minute for which a phone
/// is left alone after a refusal.
const PHONES: usize = 1000;

const STREAM: &str = "/v1/stream/news";

/// Requests at the same time while phones register.
const AT_ONCE: usize = 16;

/// Hang detector for the whole scenario.
const PATIENCE: Duration = Duration::from_secs(900);

/// What one gateway may take per phone, with its store in memory: what the limits say, and as much again for the tables.
const BYTES_PER_PHONE_MAX: u64 = 8 * 1024;

/// What the push service and the phones know.
#[derive(Default)]
struct Phones {
    /// The wake that a phone has received and not confirmed.
    outstanding: Mutex<HashMap<String, String>>,
    has_message: Mutex<HashMap<String, usize>>,
    /// Wakes that came while another one was outstanding.
    doubled: Mutex<Vec<String>>,
    requests: Mutex<usize>,
}

/// Answers a wake: well two times out of three, else with a failure, garbage, or not in time. A phone gets a wake if the answer is a
/// success, and sometimes although it is not.
async fn answer(
    request: Request<Incoming>,
    phones: Arc<Phones>,
    woken: mpsc::UnboundedSender<String>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let wake: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let (device, id) =
        (wake["device"].as_str().unwrap_or_default(), wake["wake"].as_str().unwrap_or_default());
    *phones.requests.lock().unwrap() += 1;
    let (status, arrives) = match fastrand::u32(..30) {
        0..20 => (201, true),
        20 => (500, false),
        21 => (503, true),
        22 => (429, false),
        23 => (200, true),
        24 => (408, true),
        // A refusal ends the round of a phone, which is a minute then.
        25 if fastrand::u32(..20) == 0 => (400, false),
        26 => {
            sleep(Duration::from_secs(12)).await;
            (201, fastrand::bool())
        }
        27 => (408, false),
        28 => (502, true),
        _ => (599, false),
    };
    if arrives {
        let before = phones.outstanding.lock().unwrap().insert(device.to_owned(), id.to_owned());
        if before.is_some_and(|before| before != id) {
            phones.doubled.lock().unwrap().push(device.to_owned());
        }
        let _ended = woken.send(device.to_owned());
    }
    let garbage: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(100).collect();
    let response = Response::builder().status(status).header("retry-after", "1");
    Ok(response.body(Full::from(garbage)).unwrap())
}

/// Starts the push service. Returns its address, and the phones that it wakes.
async fn push_service(phones: Arc<Phones>) -> (SocketAddr, mpsc::UnboundedReceiver<String>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, (sender, woken)) = (listener.local_addr().unwrap(), mpsc::unbounded_channel());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            let (phones, sender) = (phones.clone(), sender.clone());
            let service = service_fn(move |request| answer(request, phones.clone(), sender.clone()));
            connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
        }
    });
    (address, woken, tasks)
}

/// A phone that was woken reads everything, and says so with another poll. The gateway may be away for a moment.
async fn poll(phone: String, gateway: Arc<RwLock<SocketAddr>>, offset: String, phones: Arc<Phones>) {
    sleep(Duration::from_millis(fastrand::u64(..2000))).await;
    let request = async |offset: &str| {
        let address = *gateway.read().unwrap();
        let mut connection = Connection::try_open(address).await.ok()?;
        let answer =
            connection.try_send(get(format!("{STREAM}?offset={offset}&client={phone}"))).await.ok()?;
        let next = answer.headers.get("stream-next-offset")?.to_str().ok()?.to_owned();
        (answer.status == 200).then_some((answer.body, next))
    };
    // The port of a gateway that was killed may be another program's by now, which does not answer.
    let read = async |offset: &str| timeout(Duration::from_secs(10), request(offset)).await.ok()?;
    let mut offset = offset;
    loop {
        // From here on another wake is no second one.
        phones.outstanding.lock().unwrap().remove(&phone);
        let Some((body, next)) = read(&offset).await else {
            sleep(Duration::from_millis(200)).await;
            continue;
        };
        if body.as_ref() == b"[]" {
            return;
        }
        *phones.has_message.lock().unwrap().entry(phone.clone()).or_default() += 1;
        offset = next;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_phone_gets_a_message_through_a_failing_push_service_and_kills() {
    let count = std::env::var("PHONES").map_or(PHONES, |text| text.parse().expect("PHONES is a number"));
    let _turn = alone().await;
    let (folder, phones) = (tempfile::tempdir().unwrap(), Arc::new(Phones::default()));
    let (service, mut woken, _tasks) = push_service(phones.clone()).await;
    let (secret, config, store) =
        (folder.path().join("secret"), folder.path().join("config.toml"), folder.path().join("store"));
    std::fs::write(&secret, "a secret of the webhook").unwrap();
    let app = format!(
        "[[wake]]\nname = \"push\"\nkind = \"webhook\"\nurl = \"http://{service}/\"\nkey_file = {secret:?}\nmin_interval = \"0s\"\n"
    );
    std::fs::write(&config, app).unwrap();
    let arguments = [
        "--config",
        config.to_str().unwrap(),
        "--store",
        store.to_str().unwrap(),
        "--sync",
        "never",
        "--limit",
        "connections_per_second_max=100000",
        "--limit",
        "wakes_per_second_max=2000",
        "--limit",
        "principal_share_percent=100",
    ];
    let mut gateway = Gateway::start(&arguments).await;
    let start = gateway.send(put(STREAM).json("")).await.expect(201).next_offset();
    let fresh = gateway.memory_bytes();
    stream::iter(0..AT_ONCE)
        .for_each_concurrent(AT_ONCE, async |part| {
            let mut connection = gateway.connect().await;
            for number in (part..count).step_by(AT_ONCE) {
                let channels = json!([{"app": "push", "credential": format!("token-{number}")}]);
                // Escalation is off, so that one wake is outstanding until the phone polls.
                let body = json!({"streams": {"news": null}, "channels": channels, "escalate_after": 0});
                connection.send(put(format!("/v1/devices/phone{number}")).json(body)).await.expect(201);
            }
        })
        .await;
    let registered = gateway.memory_bytes();
    let address = Arc::new(RwLock::new(gateway.address));

    let begun = Instant::now();
    gateway.send(post(STREAM).json("1")).await.expect(204);
    let mut polls = JoinSet::new();
    let mut kills = 0;
    let has_all = || phones.has_message.lock().unwrap().len() == count;
    while !has_all() {
        assert!(begun.elapsed() < PATIENCE, "{} phones have it", phones.has_message.lock().unwrap().len());
        let have = phones.has_message.lock().unwrap().len();
        if have > count / 4 * (kills + 1) && kills < 3 {
            gateway.kill().await;
            gateway = Gateway::start(&arguments).await;
            *address.write().unwrap() = gateway.address;
            kills += 1;
        }
        while let Ok(phone) = woken.try_recv() {
            polls.spawn(poll(phone, address.clone(), start.clone(), phones.clone()));
        }
        while polls.try_join_next().is_some() {}
        sleep(Duration::from_millis(20)).await;
    }
    let took = begun.elapsed();
    while polls.join_next().await.is_some() {}
    let ended = gateway.memory_bytes();
    let (requests, doubled) = (*phones.requests.lock().unwrap(), phones.doubled.lock().unwrap().len());
    println!(
        "{count} phones woken through failures and {kills} kills in {took:.0?} with {requests} requests; bytes a phone: {}; \
         MiB: fresh {:.1}, registered {:.1}, in the end {:.1}",
        registered.saturating_sub(fresh) / count as u64,
        mib(fresh),
        mib(registered),
        mib(ended),
    );
    assert_eq!((kills, doubled), (3, 0), "no phone gets a second wake before it polls");
    let known = stream::iter(0..100).then(async |number| {
        let device = gateway
            .send(get(format!("/v1/devices/phone{}", number * (count / 100))))
            .await
            .expect(200)
            .json();
        device["channels"][0]["state"] == "active"
    });
    assert!(known.collect::<Vec<_>>().await.into_iter().all(|is_active| is_active), "no phone is removed");
    assert!(registered - fresh < BYTES_PER_PHONE_MAX * count as u64);
    assert!(ended < registered + BYTES_PER_PHONE_MAX * count as u64, "memory is flat");
}
