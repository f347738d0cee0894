//! What a client and a tenant may store, and the number of streams, hold in sum for all gateways on one engine.

use std::cell::{Cell, RefCell};
use std::process::Command;

use crate::server::Engine;
use crate::world::{Gateway, Request, delete, get, post, put, until};

/// The clients of these tests have one address, and so one share.
async fn pair(engine: &Engine, limits: &[&str]) -> [Gateway; 2] {
    let arguments: Vec<&str> = limits.iter().flat_map(|limit| ["--limit", limit]).collect();
    [engine.gateway_with("one", &arguments).await, engine.gateway_with("other", &arguments).await]
}

async fn create(gateway: &Gateway, number: usize) -> u16 {
    gateway.send(put(format!("/v1/stream/s{number}")).json("")).await.status.as_u16()
}

/// Creates streams at both gateways in turn until one is refused. Returns how many there are, and why.
async fn until_refused(gateways: &[Gateway; 2], status: u16) -> (usize, String) {
    let (count, refused) = (Cell::new(0), RefCell::new(String::new()));
    // Not at once, as many more may be created until the next sweep.
    until("no more streams may be created", async || {
        let number = count.get();
        let answer = gateways[number % 2].send(put(format!("/v1/stream/s{number}")).json("")).await;
        if answer.status == 201 {
            count.set(number + 1);
            return false;
        }
        refused.replace(answer.expect(status).text());
        true
    })
    .await;
    (count.get(), refused.into_inner())
}

#[tokio::test]
async fn the_number_of_streams_is_limited_in_sum_and_so_are_those_of_one_client() {
    for (limits, status, word) in [
        (&["streams_max=20", "principal_share_percent=100"][..], 507, "streams-max"),
        (&["streams_max=2000", "principal_share_percent=1"][..], 429, "share-of-streams-used-up"),
    ] {
        let engine = Engine::volatile().await;
        let gateways = pair(&engine, limits).await;
        let (count, refused) = until_refused(&gateways, status).await;
        assert!(count >= 20 && refused.contains(word), "{count}: {refused}");
        until("both refuse", async || {
            create(&gateways[0], count).await == status && create(&gateways[1], count).await == status
        })
        .await;
        // What exists goes on.
        gateways[1].send(post("/v1/stream/s0").json("1")).await.expect(204);
        for number in 0..count {
            gateways[0].send(delete(format!("/v1/stream/s{number}"))).await.expect(204);
        }
        until("there is room", async || create(&gateways[1], 0).await == 201).await;
    }
}

#[tokio::test]
async fn the_bytes_in_the_streams_of_one_client_are_limited_in_sum() {
    let engine = Engine::start(&["--save", "", "--maxmemory", "200mb"]).await;
    let gateways = pair(&engine, &["principal_share_percent=1"]).await;
    for (gateway, number) in [(&gateways[0], 0), (&gateways[1], 1)] {
        assert_eq!(create(gateway, number).await, 201);
    }
    let body = format!("\"{}\"", "x".repeat(100_000));
    let append = async |gateway: &Gateway, number: usize| {
        gateway.send(post(format!("/v1/stream/s{number}")).json(&*body)).await
    };
    let mut sent = 0;
    let refused = loop {
        let answer = append(&gateways[sent % 2], sent % 2).await;
        if answer.status == 507 {
            break answer.text();
        }
        answer.expect(204);
        sent += 1;
    };
    assert!(sent >= 20 && refused.contains("share-used-up"), "{sent}: {refused}");
    // Reading goes on, and what is deleted makes room.
    gateways[1].send(get("/v1/stream/s0?offset=-1")).await.expect(200);
    for (number, gateway) in gateways.iter().enumerate() {
        gateway.send(delete(format!("/v1/stream/s{number}"))).await.expect(204);
    }
    assert_eq!(create(&gateways[1], 1).await, 201);
    let appended = async || append(&gateways[0], 1).await.status == 204;
    until("there is room", appended).await;
}

fn pollgate(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_pollgate")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn the_quotas_of_a_tenant_hold_in_sum_and_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    pollgate(&["keygen", &path("key")]);
    let quotas =
        "[[tenant]]\nname = 'many'\nstreams_max = 20\n[[tenant]]\nname = 'large'\nbytes_max = 100_000\n";
    std::fs::write(path("auth.toml"), format!("key_file = 'key'\n{quotas}")).unwrap();
    let token = |tenant: &str| {
        let rights = ["--read", "#", "--append", "#", "--create", "#", "--manage", "#", "--tenant", tenant];
        format!("Bearer {}", pollgate(&[&["token", "--key-file", &path("key")], &rights[..]].concat()))
    };
    let (many, large, other) = (token("many"), token("large"), token("other"));
    let engine = Engine::volatile().await;
    let auth = path("auth.toml");
    let arguments = ["--auth", &auth];
    let gateways =
        [engine.gateway_with("one", &arguments).await, engine.gateway_with("other", &arguments).await];
    let send = async |number: usize, token: &str, request: Request| {
        gateways[number % 2].send(request.header("authorization", token)).await
    };

    let create = async |number: usize, token: &str| {
        send(number, token, put(format!("/v1/stream/s{number}")).json("")).await
    };
    let count = Cell::new(0);
    until("the tenant may create no more", async || {
        let answer = create(count.get(), &many).await;
        if answer.status == 201 {
            count.set(count.get() + 1);
            return false;
        }
        assert_eq!(answer.expect(507).problem(), "tenant-streams-max");
        true
    })
    .await;
    assert!(count.get() >= 20, "{}", count.get());
    create(0, &other).await.expect(201);
    for number in 0..count.get() {
        send(number, &many, delete(format!("/v1/stream/s{number}"))).await.expect(204);
    }
    until("there is room", async || create(0, &many).await.status == 201).await;

    let body = format!("\"{}\"", "x".repeat(5000));
    let append = async |number: usize, token: &str| {
        send(number, token, post(format!("/v1/stream/s{}?create=1", number % 2)).json(&*body)).await
    };
    let sent = Cell::new(0);
    until("the tenant may append no more", async || {
        let answer = append(sent.get(), &large).await;
        if answer.status == 204 {
            sent.set(sent.get() + 1);
            return false;
        }
        assert_eq!(answer.expect(507).problem(), "tenant-full");
        true
    })
    .await;
    assert!(sent.get() >= 20, "{}", sent.get());
    append(0, &other).await.expect(204);
    send(0, &large, get("/v1/stream/s0?offset=-1")).await.expect(200);
    for number in 0..2 {
        send(number, &large, delete(format!("/v1/stream/s{number}"))).await.expect(204);
    }
    until("there is room again", async || append(0, &large).await.status == 204).await;
}
