//! The tour of the README: create, publish, short poll, long poll, server-sent events.

use crate::world::{Gateway, get, post, put};

#[tokio::test]
async fn a_message_reaches_every_form_and_one_offset_works_on_all() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/room/1").json("")).await.expect(201);
    gateway.send(post("/v1/stream/room/1").json(r#"{"n":1}"#)).await.expect(204);

    let short = gateway.send(get("/v1/stream/room/1")).await.expect(200);
    assert_eq!(short.text(), r#"[{"n":1}]"#);

    let target = format!("/v1/stream/room/1?live=long-poll&offset={}", short.next_offset());
    let mut connection = gateway.connect().await;
    let held = tokio::spawn(async move { connection.send(get(target)).await });
    gateway.until_held(1).await;
    gateway.send(post("/v1/stream/room/1").json(r#"[{"n":2},{"n":3}]"#)).await.expect(204);
    let long = held.await.unwrap().expect(200);
    assert_eq!(long.text(), r#"[{"n":2},{"n":3}]"#);

    let target = format!("/v1/stream/room/1?live=sse&offset={}", long.next_offset());
    let mut events = gateway.connect().await.events(target).await;
    assert_eq!(events.control().await["upToDate"], true);
    gateway.send(post("/v1/stream/room/1").json(r#"{"n":4}"#)).await.expect(204);
    assert_eq!(events.data().await.replace('\n', ""), r#"[{"n":4}]"#);
    let cursor = events.control().await["streamNextOffset"].as_str().unwrap().to_owned();

    let rest = gateway.send(get(format!("/v1/stream/room/1?offset={cursor}"))).await.expect(200);
    assert_eq!((rest.text().as_str(), rest.next_offset()), ("[]", cursor));
}
