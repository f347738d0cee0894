//! One client against all others: its share of the memory, of the streams and of the producers, chains of forks, and the memory
//! of deleted streams.

use std::net::IpAddr;

use crate::measure::{lowest_memory, mib};
use crate::world::{Connection, Gateway, alone, delete, get, post, put, until};

/// Opens a connection from one of this machine's addresses.
async fn client(gateway: &Gateway, last: u8) -> Connection {
    Connection::open_from(IpAddr::from([127, 0, 0, last]), gateway.address).await
}

#[tokio::test]
async fn an_address_cannot_exceed_its_share_of_the_memory_and_others_continue() {
    let _turn = alone().await;
    let gateway = Gateway::start(&["--memory-max", "64M", "--limit", "principal_share_percent=25"]).await;
    let mut greedy = client(&gateway, 1).await;
    let mut accepted = 0;
    let refused = loop {
        let append = post(format!("/v1/stream/greedy/{}?create=1", accepted / 4)).text(vec![b'x'; 1 << 20]);
        let answer = greedy.send(append).await;
        if answer.status != 204 {
            break answer.expect(507);
        }
        accepted += 1;
        assert!(accepted < 17, "16 MiB are its share");
    };
    assert_eq!(refused.problem(), "share-used-up");
    assert!(accepted >= 12, "{accepted} MiB were accepted");
    // The other connection was closed, since the refused body was not read.
    let mut greedy = client(&gateway, 1).await;
    let large = greedy.send(put("/v1/stream/greedy/new").text(vec![b'x'; 1 << 20])).await.expect(507);
    assert_eq!(large.problem(), "share-used-up");
    let mut modest = client(&gateway, 2).await;
    modest.send(post("/v1/stream/modest?create=1").text(vec![b'x'; 1 << 20])).await.expect(204);
    modest.send(get("/v1/stream/greedy/0?offset=-1")).await.expect(200);
    let mut greedy = client(&gateway, 1).await;
    for n in 0..5 {
        greedy.send(delete(format!("/v1/stream/greedy/{n}"))).await;
    }
    greedy.send(post("/v1/stream/greedy/again?create=1").text(vec![b'x'; 1 << 20])).await.expect(204);
}

#[tokio::test]
async fn an_address_cannot_exceed_its_share_of_the_streams() {
    let gateway = Gateway::start(&["--limit", "streams_max=20"]).await;
    let (mut greedy, mut modest) = (client(&gateway, 1).await, client(&gateway, 2).await);
    for n in 0..10 {
        greedy.send(post(format!("/v1/stream/{n}?create=1")).text("x")).await.expect(204);
    }
    let refused = greedy.send(post("/v1/stream/more?create=1").text("x")).await.expect(429);
    assert_eq!(refused.problem(), "share-of-streams-used-up");
    assert!(!refused.header("retry-after").is_empty());
    greedy.send(put("/v1/stream/1").text("")).await.expect(200);
    for n in 10..20 {
        modest.send(put(format!("/v1/stream/{n}")).text("")).await.expect(201);
    }
    let mut third = client(&gateway, 3).await;
    assert_eq!(third.send(put("/v1/stream/20").text("")).await.expect(507).problem(), "streams-max");
    modest.send(delete("/v1/stream/19")).await.expect(204);
    third.send(put("/v1/stream/20").text("")).await.expect(201);
    let principals = gateway.metric("pollgate_principals").await;
    assert!(principals >= 3.0, "{principals}");
}

#[tokio::test]
async fn a_chain_of_forks_ends_and_thousands_of_forks_cost_little_each() {
    let _turn = alone().await;
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for store in ["memory", directory.path().to_str().unwrap()] {
        let gateway = Gateway::start(&["--store", store, "--sync", "never"]).await;
        let mut connection = gateway.connect().await;
        connection.send(put("/v1/stream/f0").json(r#"[1,2,3]"#)).await.expect(201);
        let fork = |of: usize, name: String| {
            put(format!("/v1/stream/{name}")).header("stream-forked-from", format!("/v1/stream/f{of}"))
        };
        for n in 0..16 {
            connection.send(fork(n, format!("f{}", n + 1))).await.expect(201);
            connection.send(post(format!("/v1/stream/f{}", n + 1)).json("4")).await.expect(204);
        }
        let refused = connection.send(fork(16, "f17".into())).await.expect(409);
        assert_eq!(refused.problem(), "fork-too-deep");
        let last = connection.send(get("/v1/stream/f16?offset=-1")).await.expect(200);
        assert_eq!(last.json().as_array().map(Vec::len), Some(19));
        let before = gateway.memory_bytes();
        let forks = 500;
        for n in 0..forks {
            connection.send(fork(15, format!("wide/{n}"))).await.expect(201);
        }
        let each = (gateway.memory_bytes().saturating_sub(before)) / forks;
        println!("{store}: {each} bytes for each of {forks} forks of a chain of 15");
        assert!(each < 8 * 1024, "{each} bytes for each fork");
        // If the chain is deleted from its source on, the names stay; with the last fork everything is released.
        for n in 0..16 {
            connection.send(delete(format!("/v1/stream/f{n}"))).await.expect(204);
        }
        connection.send(get("/v1/stream/f3?offset=-1")).await.expect(410);
        for n in 0..forks {
            connection.send(delete(format!("/v1/stream/wide/{n}"))).await.expect(204);
        }
        connection.send(delete("/v1/stream/f16")).await.expect(204);
        connection.send(get("/v1/stream/f3?offset=-1")).await.expect(404);
        assert_eq!(gateway.metric("pollgate_streams").await as usize, 0);
    }
}

#[tokio::test]
async fn foreign_producers_leave_room_for_an_honest_one() {
    let _turn = alone().await;
    let gateway = Gateway::start(&[]).await;
    let mut hostile = client(&gateway, 1).await;
    let append = |id: String| {
        let append = post("/v1/stream/s?create=1").json("1").header("producer-id", id);
        append.header("producer-epoch", 0).header("producer-seq", 0)
    };
    let long = "p".repeat(257);
    hostile.send(append(long.clone())).await.expect(400);
    hostile.send(append(long[..256].into())).await.expect(200);
    for n in 1..5000 {
        hostile.send(append(n.to_string())).await.expect(200);
    }
    let refused = hostile.send(append("one more".into())).await.expect(429);
    assert_eq!(refused.problem(), "too-many-producers");
    let mut honest = client(&gateway, 2).await;
    honest.send(append("honest".into())).await.expect(200);
    let retry = honest.send(append("honest".into())).await.expect(204);
    assert_eq!(retry.header("producer-seq"), "0");
    honest.send(post("/v1/stream/s").json("1").header("stream-seq", long)).await.expect(400);
}

#[tokio::test]
async fn deleted_streams_leave_no_memory_behind() {
    let _turn = alone().await;
    let gateway = Gateway::start(&[]).await;
    let mut connection = gateway.connect().await;
    let mut come_and_go = async |count: usize| {
        for n in 0..count {
            let create = put(format!("/v1/stream/short/{n}")).header("stream-ttl", 86_400);
            connection.send(create.text("x")).await.expect(201);
        }
        for n in 0..count {
            connection.send(delete(format!("/v1/stream/short/{n}"))).await.expect(204);
        }
        let held = "pollgate_memory_held_bytes{account=\"streams\"}";
        until("all is given back", async || gateway.metric(held).await == 0.0).await;
    };
    // Buffers and tables, which stay.
    come_and_go(1000).await;
    let before = lowest_memory(&gateway).await;
    come_and_go(9000).await;
    println!("{:.2} MiB, and {:.2} MiB after 9 000 more", mib(before), mib(gateway.memory_bytes()));
    // What a stream with a lifetime leaves in the agenda without being removed is about 100 bytes.
    until("the memory is back", async || gateway.memory_bytes() < before + 512 * 1024).await;
}
