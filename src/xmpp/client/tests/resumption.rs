//! Stream management and client state (XEP-0198, XEP-0352).

use std::sync::atomic::Ordering;

use super::*;
use crate::store::CountedMemory;

const PING: &str =
    "<iq xmlns='jabber:client' type='get' id='pong' to='b.example'><ping xmlns='urn:xmpp:ping'/></iq>";
const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";

impl World {
    /// A client whose connection is lost after it has subscribed `a` and was notified of the message `1`. Returns the id of its stream, in
    /// which it has sent three stanzas and was sent four.
    async fn lost_client(&self) -> String {
        let mut client = self.connect();
        client.log_in(&self.token()).await;
        let id = client.enable().await;
        client.publish("a", "0").await;
        client.subscribe("a").await;
        client.publish("a", "1").await;
        client.received(">1</json>").await;
        drop(client);
        self.all_are_gone().await;
        id
    }

    /// Publishes from another connection.
    async fn publish(&self, content: &str) {
        let mut other = self.connect();
        other.log_in(&self.token_of("eve")).await;
        other.publish("a", content).await;
        drop(other);
        self.all_are_gone().await;
    }

    async fn authenticated(&self, token: &str) -> Client {
        let mut client = self.connect();
        client.authenticate(token).await;
        client
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_resumed_within_five_minutes_by_its_subject_alone() {
    let world = World::start();
    let sweeper = world.front.clone();
    tokio::spawn(async move { sweeper.sweep().await });
    let id = world.lost_client().await;
    world.publish("2").await;
    sleep(290 * SECOND).await;
    let mut stranger = world.authenticated(&world.token_of("eve")).await;
    assert!(stranger.resume(&id, 4).await.contains("<item-not-found"));
    drop(stranger);
    let mut client = world.authenticated(&world.token()).await;
    let resumed = client.resume(&id, 4).await;
    assert!(resumed.contains("<resumed") && resumed.contains("h='3'"), "{resumed}");
    assert!(client.received("<json").await.contains(">2</json>"), "what was acknowledged came again");
    drop(client);
    world.all_are_gone().await;

    sleep(302 * SECOND).await;
    assert_eq!(world.front.streams.suspended(), 0);
    let mut client = world.authenticated(&world.token()).await;
    assert!(client.resume(&id, 5).await.contains("<item-not-found"));
    // It may begin anew.
    client.bind().await;
    client.enable().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_client_has_not_handled_is_made_from_the_log_again() {
    let world = World::start();
    let id = world.lost_client().await;
    let mut client = world.authenticated(&world.token()).await;
    client.resume(&id, 3).await;
    client.received(">1</json>").await;
    // It counts as the fourth stanza again.
    client.send("<a xmlns='urn:xmpp:sm:3' h='4'/>").await;
    client.publish("a", "2").await;
    assert!(client.received("<json").await.contains(">2</json>"));
    assert_eq!(world.front.metrics.resumed.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_resumed_elsewhere_ends_with_a_conflict() {
    let world = World::start();
    let mut first = world.connect();
    first.log_in(&world.token()).await;
    let id = first.enable().await;
    first.publish("a", "0").await;
    first.subscribe("a").await;
    let mut second = world.authenticated(&world.token()).await;
    assert!(second.resume(&id, 2).await.contains("h='2'"));
    first.received("<conflict").await;
    second.publish("a", "1").await;
    second.received(">1</json>").await;
    assert_eq!(world.front.metrics.clients.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_expires_leaves_a_stream_and_one_that_is_revoked_ends_it() {
    for is_revoked in [false, true] {
        let world = World::start();
        let mut client = world.connect();
        client.log_in(&world.token()).await;
        let id = client.enable().await;
        if is_revoked {
            world.revoke("anna");
            client.received("<not-authorized").await;
        } else {
            client.received("<reset").await;
        }
        drop(client);
        sleep(2 * SECOND).await;
        let mut again = world.authenticated(&world.token()).await;
        assert_eq!(again.resume(&id, 0).await.contains("<resumed"), !is_revoked);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_waits_to_be_resumed_ends_when_its_token_is_revoked() {
    let world = World::start();
    let id = world.lost_client().await;
    world.revoke("anna");
    sleep(2 * SECOND).await;
    // Issued after the revocation, and so of somebody who may have it.
    let mut client = world.authenticated(&world.token()).await;
    assert!(client.resume(&id, 4).await.contains("<item-not-found"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_closes_its_stream_or_breaks_the_rules_cannot_resume_it() {
    let world = World::start();
    for (end, told) in [
        ("<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>", "<close"),
        ("<a xmlns='urn:xmpp:sm:3' h='1'/>", "<handled-count-too-high"),
        ("<", "<not-well-formed"),
    ] {
        let mut client = world.connect();
        client.log_in(&world.token()).await;
        let id = client.enable().await;
        client.send(end).await;
        client.received(told).await;
        let mut again = world.authenticated(&world.token()).await;
        assert!(again.resume(&id, 0).await.contains("<item-not-found"), "{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn stream_management_is_enabled_once_and_behind_the_login() {
    let world = World::with(Limits { xmpp_resumable_per_client_max: 1, ..Limits::default() });
    let mut client = world.authenticated(&world.token()).await;
    client.send(ENABLE).await;
    client.received("<unexpected-request").await;
    client.bind().await;
    client.send("<r xmlns='urn:xmpp:sm:3'/>").await;
    client.received("<unexpected-request").await;
    client.enable().await;
    client.send(ENABLE).await;
    client.received("<unexpected-request").await;
    client.send(PING).await;
    client.received("id='pong'").await;
    client.send("<r xmlns='urn:xmpp:sm:3'/>").await;
    client.received("<a xmlns='urn:xmpp:sm:3' h='1'/>").await;
    // There is no room for another stream that can be resumed.
    let mut other = world.connect();
    other.log_in(&world.token()).await;
    other.send(ENABLE).await;
    other.received("<enabled xmlns='urn:xmpp:sm:3'/>").await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_acknowledges_nothing_is_sent_a_bounded_number_of_messages() {
    let world = World::start();
    let mut client = world.connect();
    client.log_in(&world.token()).await;
    client.enable().await;
    client.publish("a", "0").await;
    client.subscribe("a").await;
    for number in 1..=400 {
        world.append("a", &number.to_string()).await;
    }
    client.received(">256</json>").await;
    client.send(PING).await;
    let mut last = String::new();
    while !last.contains("id='pong'") {
        last = client.received("").await;
        assert!(!last.contains(">321</json>"));
    }
    client.send("<a xmlns='urn:xmpp:sm:3' h='200'/>").await;
    client.received(">400</json>").await;
}

#[tokio::test(start_paused = true)]
async fn messages_wait_for_an_inactive_client_until_it_is_active_or_a_minute_has_passed() {
    let world = World::start();
    let mut client = world.connect();
    client.log_in(&world.token()).await;
    client.publish("a", "0").await;
    client.subscribe("a").await;
    client.send("<inactive xmlns='urn:xmpp:csi:0'/>").await;
    client.send(PING).await;
    client.received("id='pong'").await;
    let begin = Instant::now();
    world.append("a", "1").await;
    client.received(">1</json>").await;
    assert_eq!(begin.elapsed().as_secs(), 60);
    world.append("a", "2").await;
    sleep(SECOND).await;
    world.append("a", "3").await;
    client.send("<active xmlns='urn:xmpp:csi:0'/>").await;
    client.send(PING).await;
    // They come before the answer (XEP-0352, section 5.1).
    for expected in [">2</json>", ">3</json>", "id='pong'"] {
        assert!(client.received(" id='").await.contains(expected), "{expected}");
    }
    assert_eq!(begin.elapsed().as_secs(), 61);
}

#[tokio::test(start_paused = true)]
async fn a_stream_outlives_a_connection_that_is_lost_while_it_is_resumed() {
    let world = World::start();
    let id = world.lost_client().await;
    for times in 1..4 {
        let mut client = world.authenticated(&world.token()).await;
        client.send(&format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='3'/>")).await;
        drop(client);
        in_time("the stream is resumed", async {
            while world.front.metrics.resumed.get() < times {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        world.all_are_gone().await;
    }
    let mut client = world.authenticated(&world.token()).await;
    client.resume(&id, 3).await;
    client.received(">1</json>").await;
}

#[tokio::test(start_paused = true)]
async fn connections_that_resume_one_stream_at_once_have_it_one_after_the_other() {
    let world = World::start();
    let mut first = world.connect();
    first.log_in(&world.token()).await;
    let id = first.enable().await;
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(world.authenticated(&world.token()).await);
    }
    let begin = Instant::now();
    for other in &mut others {
        other.send(&format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>")).await;
    }
    for other in &mut others {
        let said = other.received("urn:xmpp:sm:3").await;
        assert!(said.contains("<resumed"), "{said}");
    }
    assert!(begin.elapsed() < SECOND);
    assert_eq!(world.front.metrics.clients.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_cannot_be_stored_when_it_is_resumed_may_be_resumed_later() {
    let store = Arc::new(CountedMemory::keeping_sessions());
    let world = World::with_store(Limits::default(), store.clone());
    let id = world.lost_client().await;
    store.is_full.store(true, Ordering::Relaxed);
    let mut client = world.authenticated(&world.token()).await;
    assert!(client.resume(&id, 3).await.contains("<failed"));
    store.is_full.store(false, Ordering::Relaxed);
    // This client may begin anew, and another one of its subject go on.
    client.bind().await;
    let mut other = world.authenticated(&world.token()).await;
    assert!(other.resume(&id, 3).await.contains("<resumed"));
    other.received(">1</json>").await;
    assert_eq!(world.front.metrics.resumed.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asks_again_what_was_handled_makes_the_gateway_store_nothing() {
    let store = Arc::new(CountedMemory::keeping_sessions());
    let world = World::with_store(Limits::default(), store.clone());
    let mut client = world.connect();
    client.log_in(&world.token()).await;
    client.enable().await;
    client.send(PING).await;
    client.received("id='pong'").await;
    let mut changes = Vec::new();
    for _ in 0..3 {
        client.send("<r xmlns='urn:xmpp:sm:3'/>").await;
        client.received("<a xmlns='urn:xmpp:sm:3' h='1'/>").await;
        changes.push(store.session_changes.load(Ordering::Relaxed));
    }
    assert_eq!(changes, [2, 2, 2], "once for the stream, and once for the stanza");
}

#[tokio::test(start_paused = true)]
async fn a_client_is_served_after_it_became_active_without_a_subscription_that_had_messages() {
    let world = World::start();
    let mut client = world.connect();
    client.log_in(&world.token()).await;
    for stream in ["a", "b"] {
        client.publish(stream, "0").await;
        client.subscribe(stream).await;
    }
    client.send("<inactive xmlns='urn:xmpp:csi:0'/>").await;
    client.send(PING).await;
    client.received("id='pong'").await;
    for stream in ["a", "b"] {
        world.append(stream, "1").await;
    }
    sleep(SECOND).await;
    client.unsubscribe("a").await;
    let begin = Instant::now();
    client.send("<active xmlns='urn:xmpp:csi:0'/>").await;
    client.send(PING).await;
    client.received(">1</json>").await;
    client.received("id='pong'").await;
    assert!(begin.elapsed() < SECOND);
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_full_nothing_is_acknowledged_that_a_restart_would_lose() {
    let store = Arc::new(CountedMemory::keeping_sessions());
    let world = World::with_store(Limits::default(), store.clone());
    let mut client = world.connect();
    client.log_in(&world.token()).await;
    let id = client.enable().await;
    client.publish("a", "0").await;
    client.subscribe("a").await;
    client.send("<r xmlns='urn:xmpp:sm:3'/>").await;
    client.received("<a xmlns='urn:xmpp:sm:3' h='2'/>").await;
    world.append("a", "1").await;
    client.received(">1</json>").await;
    store.is_full.store(true, Ordering::Relaxed);
    let item = "<publish node='a'><item><json xmlns='urn:xmpp:json:0'>2</json></item></publish>";
    let publish = format!("<pubsub xmlns='http://jabber.org/protocol/pubsub'>{item}</pubsub>");
    client
        .send(&format!("<iq xmlns='jabber:client' type='set' id='full' to='b.example'>{publish}</iq>"))
        .await;
    assert!(client.received("id='full'").await.contains("<resource-constraint"));
    client.send("<r xmlns='urn:xmpp:sm:3'/>").await;
    client.received("<a xmlns='urn:xmpp:sm:3' h='2'/>").await;
    // A new stream cannot be resumed, and its client is told so.
    let mut other = world.connect();
    other.log_in(&world.token()).await;
    other.send(ENABLE).await;
    other.received("<enabled xmlns='urn:xmpp:sm:3'/>").await;
    drop((client, other));
    world.all_are_gone().await;
    store.is_full.store(false, Ordering::Relaxed);
    // At this gateway the stream goes on with everything, and after a restart with what was stored: the client sends the rest again.
    let again = world.again(store);
    again.front.load().await.unwrap();
    let mut client = again.connect();
    client.authenticate(&again.token()).await;
    let resumed = client.resume(&id, 4).await;
    assert!(resumed.contains("<resumed") && resumed.contains("h='2'"), "{resumed}");
    client.publish("a", "2").await;
    // Nobody knows what had arrived of what was sent before.
    while !client.received("</json>").await.contains(">2</json>") {}
}

#[tokio::test(start_paused = true)]
async fn a_drain_leaves_the_streams_of_its_clients_to_be_resumed() {
    let store = Arc::new(CountedMemory::keeping_sessions());
    let world = World::with_store(Limits::default(), store.clone());
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = world.connect();
        client.log_in(&world.token()).await;
        let id = client.enable().await;
        client.publish("a", "0").await;
        client.subscribe("a").await;
        clients.push((client, id));
    }
    world.append("a", "1").await;
    let hub = world.front.hub.clone();
    let begin = Instant::now();
    tokio::spawn(async move { hub.drain().await });
    let mut ids = Vec::new();
    for (mut client, id) in clients {
        client.received("<system-shutdown").await;
        ids.push(id);
    }
    assert!(begin.elapsed() <= world.front.limits.drain_spread.get());
    world.all_are_gone().await;
    world.append("a", "2").await;
    let again = world.again(store);
    again.front.load().await.unwrap();
    for id in ids {
        let mut client = again.connect();
        client.authenticate(&again.token()).await;
        // Each was sent the message before the drain, and has not acknowledged it.
        client.resume(&id, 2).await;
        client.received(">1</json>").await;
        client.received(">2</json>").await;
    }
}
