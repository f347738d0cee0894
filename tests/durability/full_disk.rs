//! The disk is full, and later has room again.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::crew::{Crew, Stream};
use crate::home::Home;
use crate::image::Image;
use crate::readers::expect_all;
use crate::stored;
use crate::world::{
    Answer, Form, Gateway, Kind, Place, Publisher, Reader, alone, delete, get, post, put, until,
};

const MEBIBYTES: u64 = 64;
const PUBLISHERS: usize = 8;
const SIZE: usize = 64 * 1024;

/// Size of the file that is removed to make room. At least a quarter of it must become usable for messages.
const BALLAST_BYTES: usize = 12 * 1024 * 1024;
const ROOM_MESSAGES: u64 = (BALLAST_BYTES / SIZE / 4) as u64;

/// Time limit of a refusal.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A stream that is deleted to make room.
const BULK: &str = "/v1/stream/bulk";
const BULK_MEBIBYTES: usize = 16;

/// A stream with one held poll.
const QUIET: &str = "/v1/stream/quiet";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_appends_until_there_is_room_again() {
    let _turn = alone().await;
    let image = Image::create(MEBIBYTES);
    let folder = image.path().join("store");
    let ballast = image.path().join("ballast");
    std::fs::write(&ballast, vec![0; BALLAST_BYTES]).expect("there is room yet");
    let gateway = Gateway::start(&stored(&folder, "always")).await;
    write_bulk(&gateway).await;
    let poll = hold(&gateway).await;
    for stream in Stream::of(PUBLISHERS) {
        stream.create(&gateway).await;
    }
    let home = Home::default();
    home.is(&gateway);
    let mut crew = Crew::start(&home, PUBLISHERS, |_| SIZE);

    until_refused(&mut crew).await;
    expect_bulk(&gateway).await;
    std::fs::remove_file(&ballast).expect("our file");
    let after_removal = crew.more(ROOM_MESSAGES).await;

    until_refused(&mut crew).await;
    gateway.send(delete(BULK)).await.expect(204);
    let after_delete = crew.more(ROOM_MESSAGES).await;
    let append = post(QUIET).json(1);
    until("an append between those of the others", async || gateway.send(append.clone()).await.status == 204)
        .await;
    assert_eq!(poll.await.expect("it was held over all of it").expect(200).text(), "[1]");

    until_refused(&mut crew).await;
    let streams = crew.streams.clone();
    let ledger = crew.stop().await;
    println!(
        "full disk of {MEBIBYTES} MiB: {} messages of {SIZE} bytes acknowledged; appends again {after_removal:.0?} \
         after a file was removed, {after_delete:.0?} after a stream was deleted",
        ledger.total()
    );
    expect_all(&gateway, &streams, &ledger).await;
    gateway.kill().await;
    let gateway = Gateway::start(&stored(&folder, "always")).await;
    expect_all(&gateway, &streams, &ledger).await;
    gateway.send(get(BULK)).await.expect(404);
}

/// Creates a stream that is large enough to make room when it is deleted.
async fn write_bulk(gateway: &Gateway) {
    let mut bulk = Publisher::create(gateway, "bulk", Kind::Binary).await;
    for _ in 0..BULK_MEBIBYTES {
        bulk.append(vec![7; 1024 * 1024]).await;
    }
}

/// Reads the whole stream.
async fn expect_bulk(gateway: &Gateway) {
    let place = Place { address: gateway.address, path: BULK.into(), kind: Kind::Binary };
    let mut reader = Reader::open(&place, Form::ShortPoll, "-1").await.expect("the stream is there");
    reader.expect(&vec![7; BULK_MEBIBYTES * 1024 * 1024]).await;
}

/// Holds a poll on a stream without appends.
async fn hold(gateway: &Gateway) -> JoinHandle<Answer> {
    gateway.send(put(QUIET).json("")).await.expect(201);
    let mut connection = gateway.connect().await;
    let poll = get(format!("{QUIET}?offset=now&live=long-poll&timeout=55"));
    let poll = tokio::spawn(async move { connection.try_send(poll).await.expect("an answer") });
    gateway.until_held(1).await;
    poll
}

/// Waits until each publisher was refused at least five times, and checks the refusals.
async fn until_refused(crew: &mut Crew) {
    crew.ledger.forget_refusals();
    until("the disk is full for all", async || {
        let refusals = crew.ledger.refusals();
        let often = |publisher| refusals.iter().filter(|refused| refused.publisher == publisher).count() >= 5;
        (0..PUBLISHERS).all(often)
    })
    .await;
    let refusals = crew.ledger.refusals();
    crew.check();
    let told: BTreeSet<_> = refusals.iter().map(|one| (one.status, one.content_type.as_str())).collect();
    assert_eq!(told, BTreeSet::from([(507, "application/problem+json")]));
    let slowest = refusals.iter().map(|one| one.after).max().expect("some");
    assert!(slowest.is_below(AT_ONCE), "refused after {slowest:?}");
}
