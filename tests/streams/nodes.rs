//! A resume token over many streams belongs to no process: another process with the same store continues from it.

use serde_json::json;

use super::ask::{Ask, Envelope};
use crate::world::{Gateway, post, put};

#[tokio::test]
async fn a_long_poll_continues_at_another_process_after_a_kill() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = ["--store", directory.path().to_str().unwrap()];
    let gateway = Gateway::start(&store).await;
    let streams: Vec<_> = (0..20).map(|n| format!("s/{n}")).collect();
    for name in &streams[1..] {
        gateway.send(put(format!("/v1/stream/{name}")).json("[0]")).await.expect(201);
    }
    // 1. A client knows that one stream is missing, and has read the others.
    let ask = Ask::of(&streams).earliest();
    let first = ask.poll(&mut gateway.connect().await).await;
    assert_eq!((first.batches.len(), first.up_to_date), (20, true));
    let ask = Ask::of(&streams).behind(&first.resume.unwrap()).long_poll();
    // 2. A kill interrupts its poll.
    let mut connection = gateway.connect().await;
    let request = ask.request();
    let cut = tokio::spawn(async move { connection.try_send(request).await });
    gateway.until_held(1).await;
    gateway.kill().await;
    assert!(cut.await.unwrap().is_err());
    // 3. Messages are appended at another process, and a poll with the old resume token returns only these.
    let gateway = Gateway::start(&store).await;
    for name in ["s/7", "s/0", "s/7"] {
        gateway.send(post(format!("/v1/stream/{name}?create=1")).json("[1]")).await.expect(204);
    }
    let mut envelope = ask.poll(&mut gateway.connect().await).await;
    envelope.batches.sort_by(|one, other| one.stream.cmp(&other.stream));
    let found: Vec<_> = envelope.batches.iter().map(|news| (&*news.stream, news.data.clone())).collect();
    assert_eq!(found, [("s/0", vec![json!(1)]), ("s/7", vec![json!(1), json!(1)])]);
    // 4. The next poll is held there.
    let mut connection = gateway.connect().await;
    let request = ask.behind(&envelope.resume.unwrap()).request();
    let held = tokio::spawn(async move { connection.send(request).await });
    gateway.until_held(1).await;
    gateway.send(post("/v1/stream/s/19").json("2")).await.expect(204);
    assert_eq!(Envelope::of(&held.await.unwrap()).streams(), ["s/19"]);
}
