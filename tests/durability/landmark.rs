//! Streams that are created and deleted in each cycle, so that there is always room to reclaim; checks that creation and
//! deletion survive.

use crate::world::{Form, Gateway, Kind, Place, Publisher, Reader, delete, get};

const MEBIBYTES: usize = 3;

/// Creates, fills and closes the stream of this cycle, and deletes the stream of the previous cycle.
pub(crate) async fn move_on(gateway: &Gateway, cycle: usize) {
    let mut stream = Publisher::create(gateway, &name(cycle), Kind::Binary).await;
    for content in content(cycle).chunks(1024 * 1024) {
        stream.append(content.to_vec()).await;
    }
    stream.close().await;
    if cycle > 1 {
        let before = place(gateway, cycle - 1);
        gateway.send(delete(before.path)).await.expect(204);
    }
}

/// Checks that the stream of this cycle is complete and that the previous one is gone.
pub(crate) async fn expect(gateway: &Gateway, cycle: usize) {
    let mut reader = Reader::open(&place(gateway, cycle), Form::ShortPoll, "-1").await.expect("it is there");
    let rest = reader.rest().await.expect("all of it");
    assert!(rest == content(cycle), "the stream of cycle {cycle} is another one");
    gateway.send(get(place(gateway, cycle - 1).path)).await.expect(404);
}

fn name(cycle: usize) -> String {
    format!("landmark/{cycle}")
}

fn place(gateway: &Gateway, cycle: usize) -> Place {
    let path = format!("/v1/stream/{}", name(cycle));
    Place { address: gateway.address, path, kind: Kind::Binary }
}

fn content(cycle: usize) -> Vec<u8> {
    let byte = cycle.to_le_bytes()[0];
    vec![byte; MEBIBYTES * 1024 * 1024]
}
