//! Sessions in a store that outlives the gateway: while it is full, over a drain, and while the keys of tokens are not known.

use std::sync::atomic::Ordering;

use super::*;
use crate::store::CountedMemory;
use crate::xmpp::client::tests::push::enable;

/// A store, and a gateway on it.
fn stored() -> (Arc<CountedMemory>, World) {
    let store = Arc::new(CountedMemory::keeping_sessions());
    let world = World::of(ClientWorld::with_store(Limits::default(), store.clone()));
    (store, world)
}

/// What a client knows of its session, which goes on elsewhere.
struct Left {
    sid: String,
    rid: u64,
}

impl Client<'_> {
    fn leave(self) -> Left {
        Left { sid: self.sid, rid: self.rid }
    }
}

impl World {
    /// A gateway that goes on with the store of this one.
    async fn again(self, store: &Arc<CountedMemory>) -> Self {
        let world = Self::of(self.clients.again(store.clone()));
        world.front.load().await.unwrap();
        world
    }

    fn offer_wakes(self) -> Self {
        Self { clients: self.clients.offer_wakes(), ..self }
    }

    fn come(&self, Left { sid, rid }: Left) -> Client<'_> {
        Client { world: self, sid, rid, opened: String::new() }
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_full_clients_are_answered_and_what_they_publish_is_refused() {
    let (store, world) = stored();
    let mut client = world.log_in("hold='1'").await;
    store.is_full.store(true, Ordering::Relaxed);
    let publish = "<iq xmlns='jabber:client' id='p' type='set' to='b.example'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='a'><item><json xmlns='urn:xmpp:json:0'>1</json></item></publish></pubsub></iq>";
    let refused = client.said(publish).await;
    assert!(refused.contains("<resource-constraint"), "{refused}");
    assert_eq!(response(client.send(client.rid, "", publish)).await, refused);
    assert!(client.said(&ping(1)).await.contains("p1"));
    // With room again, the session is stored with the next response.
    store.is_full.store(false, Ordering::Relaxed);
    let last = client.said(publish).await;
    assert!(last.contains("type='result'"), "{last}");
    let left = client.leave();
    let again = world.again(&store).await;
    let mut client = again.come(left);
    assert_eq!(response(client.send(client.rid, "", publish)).await, last);
    assert!(client.said(&ping(2)).await.contains("p2"));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_not_stored_at_the_end_ends_with_its_gateway() {
    for unstored in [1, 2] {
        let (store, world) = stored();
        world.append("a", "0").await;
        let mut client = world.log_in("hold='1' wait='20'").await;
        client.subscribe("a").await;
        store.is_full.store(true, Ordering::Relaxed);
        for number in 0..unstored {
            assert!(client.said(&ping(number)).await.contains("type='result'"));
        }
        store.is_full.store(false, Ordering::Relaxed);
        let left = client.leave();
        let again = world.again(&store).await;
        let begin = Instant::now();
        let ended = again.come(left).said(&ping(9)).await;
        assert!(has_ended_with("item-not-found")(&ended), "{ended}");
        assert!(begin.elapsed() <= 20 * SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_answers_the_requests_that_wait_and_their_sessions_go_on_after_it() {
    let (store, world) = stored();
    world.append("a", "0").await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = world.log_in("hold='1'").await;
        client.subscribe("a").await;
        clients.push(client);
    }
    let waiting: Vec<_> = clients.iter_mut().map(|client| client.next("", "")).collect();
    settle().await;
    let hub = world.front.clients.hub.clone();
    tokio::spawn(async move { hub.drain().await });
    let begin = Instant::now();
    for request in waiting {
        assert_eq!(response(request).await, EMPTY);
    }
    assert!(begin.elapsed() <= world.front.clients.limits.drain_spread.get());
    // A client that asks the same gateway again may be left without an answer.
    let lost: Vec<_> = clients.iter_mut().map(|client| client.next("", "")).collect();
    settle().await;
    lost.iter().for_each(JoinHandle::abort);
    settle().await;
    let left: Vec<_> = clients.into_iter().map(Client::leave).collect();
    let again = world.again(&store).await;
    again.append("a", "1").await;
    for left in left {
        let mut client = again.come(left);
        assert!(response(client.send(client.rid, "", "")).await.contains(">1<"));
        assert!(client.said(&ping(1)).await.contains("p1"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_a_minute_for_the_keys_of_an_issuer() {
    let (store, world) = stored();
    let client = world.log_in("hold='1'").await;
    let left = client.leave();
    // The issuers of this gateway have other keys, which nobody fetches.
    let issuer =
        "[[issuer]]\nname = 'https://id.example'\naudience = 'g'\njwks_url = 'https://id.example/keys'\n";
    std::fs::write(world.clients.folder.path().join("auth.toml"), issuer).unwrap();
    let again = world.again(&store).await;
    let begin = Instant::now();
    let mut client = again.come(left);
    let waiting = client.next("", &ping(1));
    sleep(59 * SECOND).await;
    assert!(!waiting.is_finished());
    assert!(has_ended_with("item-not-found")(&response(waiting).await));
    assert!(begin.elapsed() <= 62 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_device_of_a_client_is_that_of_its_session_after_a_restart() {
    let (store, world) = stored();
    let world = world.offer_wakes();
    world.append("a", "0").await;
    let mut client = world.log_in("hold='1'").await;
    client.subscribe("a").await;
    assert!(client.said(&enable("phone")).await.contains("type='result'"));
    let left = client.leave();
    let world = world.again(&store).await.offer_wakes();
    world.front.clients.hub.load_devices().await.unwrap();
    world.append("a", "1").await;
    let mut client = world.come(left);
    assert!(client.said("").await.contains(">1<"));
    world.clients.is_not_woken().await;
    let last = client.next(" type='terminate'", "");
    assert!(response(last).await.contains("terminate"));
    world.append("a", "2").await;
    assert_eq!(world.clients.woken().await.device.chosen(), "phone");
}
