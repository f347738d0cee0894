//! What streams take of the memory budget, and what their messages take.

use std::sync::Arc;
use std::time::Duration;

use pollgate::budget::{Account, Bounds, Budget};
use pollgate::store::Memory;
use pollgate::stream::{Annotation, Append, ContentType, Create, Producer, ProducerId, Retention};

use crate::suite::{World, annotated, append, fork_of, json, name, noon, numbers, producer, raw};

/// A world, and the bytes in its account of streams.
fn world() -> (World, impl Fn() -> u64) {
    world_with(Account::Streams)
}

/// A world, and the bytes in one of its accounts.
fn world_with(account: Account) -> (World, impl Fn() -> u64) {
    let budget = Budget::new(Bounds::NONE);
    let world = World::with(Box::new(Memory::within(Arc::clone(&budget))));
    (world, move || budget.usage().accounts[account as usize])
}

#[tokio::test]
async fn a_stream_is_charged_for_itself_and_for_its_producers_until_it_ends() {
    let (world, bytes) = world();
    world.open("s").await;
    let own = bytes();
    assert!(own > 0);
    world.open("t").await;
    assert_eq!(bytes(), 2 * own, "streams with names of the same length take the same");
    world.push("s", 0..1000).await;
    assert_eq!(bytes(), 2 * own, "messages have an account of their own");
    let id = ProducerId::from("x".repeat(1000));
    let by = |sequence| Append {
        producer: producer(0, sequence).map(|producer| Producer { id: id.clone(), ..producer }),
        ..append(json(), numbers([sequence]))
    };
    world.append("s", by(0)).await.unwrap();
    let with_producer = bytes();
    assert!(with_producer > 2 * own + 1000, "{with_producer}");
    world.append("s", by(1)).await.unwrap();
    assert_eq!(bytes(), with_producer, "a producer is charged once");
    for stream in ["s", "t"] {
        world.store.delete(&name(stream), noon()).await.unwrap();
    }
    assert_eq!(bytes(), 0);
}

#[tokio::test]
async fn a_long_name_is_charged_with_about_its_length() {
    let (world, bytes) = world();
    world.open("s").await;
    let short = bytes();
    world.open(&"n".repeat(500)).await;
    let long = bytes() - short;
    assert!((short + 499..short + 1000).contains(&long), "{long} {short}");
}

#[tokio::test]
async fn messages_are_charged_with_their_bytes_and_little_more() {
    let (world, bytes) = world_with(Account::Messages);
    world.open("s").await;
    // Many of them are in sealed runs.
    for number in 0..5000 {
        world.push("s", [1_000_000_000 + number]).await;
    }
    assert!((50_000..1_000_000).contains(&bytes()), "{}", bytes());
    world.store.delete(&name("s"), noon()).await.unwrap();
    assert_eq!(bytes(), 0);
}

#[tokio::test]
async fn a_fork_is_charged_for_its_references_to_what_it_shares() {
    let (world, bytes) = world();
    let blob = || ContentType::parse("application/octet-stream").unwrap();
    for stream in ["short", "large"] {
        world.create(stream, Create::open(blob())).await.unwrap();
    }
    // Runs of the log are sealed by their size.
    static MEGABYTE: [u8; 1 << 20] = [0; 1 << 20];
    world.append("short", append(blob(), raw(&MEGABYTE[..1]))).await.unwrap();
    for _ in 0..16 {
        world.append("large", append(blob(), raw(&MEGABYTE))).await.unwrap();
    }
    let fork = async |source: &str, fork: &str| {
        let before = bytes();
        let create = Create { fork: fork_of(source, None, 0).fork, ..Create::open(blob()) };
        world.create(fork, create).await.unwrap();
        bytes() - before
    };
    let (of_short, of_large) = (fork("short", "fork1").await, fork("large", "fork2").await);
    assert!(of_large > of_short, "{of_large} {of_short}");
    assert!(of_large < of_short + 1024, "its content is charged to the source: {of_large} {of_short}");
}

/// Nothing is shared. The fork has its source in the history of its offsets and in that of its appends, in 16 bytes each.
#[tokio::test]
async fn a_fork_is_charged_for_its_source() {
    let (world, bytes) = world();
    world.open("source").await;
    let source = bytes();
    world.create("a fork", fork_of("source", None, 0)).await.unwrap();
    assert_eq!(bytes(), 2 * source + 2 * 16);
}

#[tokio::test]
async fn a_retained_message_is_charged_to_its_stream_once_it_is_no_longer_in_the_log() {
    let (world, bytes) = world();
    let retention = Some(Retention { messages_max: Some(1), ..Retention::default() });
    world.create("s", Create { retention, ..Create::open(json()) }).await.unwrap();
    let own = bytes();
    world.append("s", annotated(numbers([1_000_000_000_000]), "ada", true)).await.unwrap();
    assert_eq!(bytes(), own, "it is the first message of the log");
    world.push("s", [2]).await;
    let kept = bytes();
    assert!(kept >= own + 13, "{kept} {own}");
    world.push("s", [3]).await;
    assert_eq!(bytes(), kept);
    world.append("s", annotated(numbers([4]), "ada", true)).await.unwrap();
    assert_eq!(bytes(), own, "a newer one replaces it");
    let soon = world.now + Duration::from_secs(10);
    let mut expiring = annotated(numbers([5]), "ada", true);
    let annotation = expiring.annotation.take().map(Arc::unwrap_or_clone);
    expiring.annotation = annotation.map(|said| Annotation { expires_at: Some(soon), ..said }.into());
    world.append("s", expiring).await.unwrap();
    world.push("s", [6]).await;
    assert!(bytes() > own);
    assert_eq!(world.store.retained(&name("s"), soon).await.unwrap(), None);
    assert_eq!(bytes(), own, "it has expired");
}
