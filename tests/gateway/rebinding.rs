//! A host whose name has another address later: each connection is made to an address that was checked for it, so that the name of a
//! public host cannot lead into the gateway's network.
//!
//! The names of hosts come from a file, which only the gateway's process sees in the place of `/etc/hosts`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::net::TcpListener;

use crate::authorization::{Protected, pollgate};
use crate::world::{Gateway, get, post, put, until};

const HOST: &str = "rebind.test";

/// Runs a command with another file in the place of `/etc/hosts`.
const WITH_HOSTS: &str = r#"mount --bind "$0" /etc/hosts && exec "$@""#;

/// The first address is allowed, as a public one would be, and the other one is not.
const ALLOWED: &str = "127.0.0.2";
const INTERNAL: &str = "127.0.0.3";

/// A server that closes each connection, and counts them.
async fn counting(address: &str, port: u16) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((address, port)).await.unwrap();
    let (port, count) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let connections = count.clone();
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            connections.fetch_add(1, Ordering::SeqCst);
        }
    });
    (port, count)
}

fn point_to(hosts: &Path, address: &str) {
    std::fs::write(hosts, format!("{address} {HOST}\n")).unwrap();
}

/// Starts a gateway with authorization, so that it may not reach its own machine, and with a file of hosts.
async fn start(hosts: &Path) -> Protected {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    pollgate(&["keygen", &path("key")]);
    std::fs::write(path("auth.toml"), "key_file = 'key'\n").unwrap();
    let under = ["unshare", "--map-root-user", "--mount", "bash", "-c", WITH_HOSTS, hosts.to_str().unwrap()];
    let arguments = ["--auth", &path("auth.toml"), "--outbound-allow", &format!("{ALLOWED}/32")];
    let gateway = Gateway::start_under(&under.map(str::to_owned), &arguments).await;
    Protected { gateway: gateway.expect("unshare may mount"), folder }
}

#[tokio::test]
async fn webhooks_and_origins_do_not_follow_a_name_to_an_internal_address() {
    let hosts = tempfile::NamedTempFile::new().unwrap();
    let (port, allowed) = counting(ALLOWED, 0).await;
    let (_, internal) = counting(INTERNAL, port).await;
    point_to(hosts.path(), ALLOWED);
    let world = start(hosts.path()).await;
    let everything = ["--create", "#", "--append", "#", "--manage", "#", "--read", "#"];
    let token = world.token(&everything);
    let origin = put("/v1/stream/feed")
        .header("content-type", "application/json")
        .header("stream-origin", format!("https://{HOST}:{port}/feed"))
        .header("stream-origin-interval", "1")
        .header("stream-origin-poll", "always");
    world.send(Some(&token), origin).await.expect(201);
    let is_tried = |before: usize| allowed.load(Ordering::SeqCst) > before;
    until("the origin is polled", async || is_tried(0)).await;
    let webhook = json!({"type": "webhook", "pattern": "jobs/*", "webhook": {"url": format!("https://{HOST}:{port}/hook")}});
    world.send(Some(&token), put("/v1/stream/__ds/subscriptions/push").json(webhook)).await.expect(201);
    world.send(Some(&token), post("/v1/stream/jobs/1?create=1").json("1")).await.expect(204);
    let webhooks = async |outcome: &str| {
        let metrics = world.gateway.ask_admin("/metrics").await.text();
        let outcome = format!("outcome=\"{outcome}\"");
        metrics.lines().any(|line| line.contains("purpose=\"webhook\"") && line.contains(&outcome))
    };
    until("a webhook was tried", async || webhooks("failed").await).await;

    point_to(hosts.path(), INTERNAL);
    until("the origin is refused", async || {
        let read = world.send(Some(&token), get("/v1/stream/feed?offset=now")).await.expect(200);
        read.header("stream-origin-status").contains("reason=address-refused")
    })
    .await;
    until("the webhook is refused", async || webhooks("refused").await).await;
    assert_eq!(internal.load(Ordering::SeqCst), 0, "nothing was sent to the internal address");
    // The name is looked up again, and the address that it has then is used.
    let before = allowed.load(Ordering::SeqCst);
    point_to(hosts.path(), ALLOWED);
    until("the origin is polled again", async || is_tried(before)).await;
    assert_eq!(internal.load(Ordering::SeqCst), 0);
}
