//! Push (XEP-0357): a client that is gone or inactive is woken for what it has not got.

use super::*;
use crate::hub::{AppPolicy, ClientId, CredentialKind, DeviceView, Verdict, WakeOrder};

const CHANNEL: &str = "<x xmlns='jabber:x:data'>\
    <field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>\
    <field var='app'><value>push</value></field><field var='credential'><value>token</value></field></x>";

/// A gateway that can wake devices, whose wakes the test takes.
fn waking_world() -> World {
    World::start().offer_wakes()
}

/// The request that makes a client the device `node`.
pub(in crate::xmpp) fn enable(node: &str) -> String {
    let enable = format!("<enable xmlns='urn:xmpp:push:0' jid='b.example' node='{node}'>{CHANNEL}</enable>");
    format!("<iq xmlns='jabber:client' type='set' id='push'>{enable}</iq>")
}

impl World {
    pub(in crate::xmpp) fn offer_wakes(self) -> Self {
        self.front.hub.devices().offer(vec![AppPolicy {
            name: "push".into(),
            provider: "webhook",
            credential: CredentialKind::Token,
            public_key: None,
            min_interval: SECOND,
            burst: 10,
            per_day: None,
            tenant_per_day: None,
            prefixes: Vec::new(),
            ttl: HOUR,
        }]);
        let hub = self.front.hub.clone();
        tokio::spawn(async move { hub.follow_device_streams().await });
        self
    }

    /// The next wake, which its provider accepts.
    pub(in crate::xmpp) async fn woken(&self) -> WakeOrder {
        let hub = &self.front.hub;
        in_time("a wake is due", async {
            loop {
                if let Some(order) = hub.take_wakes(1).await.pop() {
                    let clock = self.front.clock;
                    hub.devices().report(&order, &Verdict::Ok { id: None }, clock.now(), clock.wall());
                    return order;
                }
                sleep(Duration::from_millis(100)).await;
            }
        })
        .await
    }

    /// Nothing is woken within ten seconds, in which clients need not answer pings.
    pub(in crate::xmpp) async fn is_not_woken(&self) {
        for _ in 0..10 {
            assert!(self.front.hub.take_wakes(1).await.is_empty());
            sleep(SECOND).await;
        }
    }

    fn device(&self, id: &str) -> Option<DeviceView> {
        let auth = &self.front.auth;
        let grants = auth.token(self.token().as_bytes(), Principal(1), self.front.clock.wall()).unwrap();
        self.front.hub.device(&ClientId::parse(id).unwrap().of_subject(grants.subject().unwrap()))
    }

    /// A client with a stream that can be resumed, which has subscribed to `a` and enabled push. Returns it with the id of its stream.
    async fn pushed_client(&self) -> (Client, String) {
        let mut client = self.connect();
        client.log_in(&self.token()).await;
        let id = client.enable().await;
        client.publish("a", "0").await;
        client.subscribe("a").await;
        client.enable_push("phone", CHANNEL).await;
        (client, id)
    }
}

impl Client {
    /// Sends a request about push to the account, and returns the answer.
    async fn push(&mut self, request: &str) -> String {
        let id = fastrand::u64(..);
        self.send(&format!("<iq xmlns='jabber:client' type='set' id='{id}'>{request}</iq>")).await;
        self.received(&format!("id='{id}'")).await
    }

    async fn try_enable(&mut self, node: &str, form: &str) -> String {
        self.push(&format!("<enable xmlns='urn:xmpp:push:0' jid='b.example' node='{node}'>{form}</enable>"))
            .await
    }

    async fn enable_push(&mut self, node: &str, form: &str) {
        let said = self.try_enable(node, form).await;
        assert!(said.contains("type='result'"), "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_connection_is_lost_is_woken_for_a_message_and_goes_on() {
    let world = waking_world();
    let (mut client, id) = world.pushed_client().await;
    world.append("a", "1").await;
    client.received(">1</json>").await;
    client.send("<a xmlns='urn:xmpp:sm:3' h='4'/>").await;
    world.is_not_woken().await;
    drop(client);
    world.all_are_gone().await;
    world.is_not_woken().await;
    world.append("a", "2").await;
    assert_eq!(world.woken().await.device.chosen(), "phone");
    let mut client = world.connect();
    client.authenticate(&world.token()).await;
    client.resume(&id, 4).await;
    assert!(world.device("phone").unwrap().outstanding.is_none(), "it has come");
    client.received(">2</json>").await;
    world.append("a", "3").await;
    client.received(">3</json>").await;
    world.is_not_woken().await;
    // What it has not acknowledged may not have arrived.
    drop(client);
    world.all_are_gone().await;
    world.woken().await;
}

#[tokio::test(start_paused = true)]
async fn an_inactive_client_is_woken_and_what_it_acknowledges_confirms_that() {
    let world = waking_world();
    let (mut client, _) = world.pushed_client().await;
    client.send("<inactive xmlns='urn:xmpp:csi:0'/>").await;
    client.push("<ping xmlns='urn:xmpp:ping'/>").await;
    world.append("a", "1").await;
    world.woken().await;
    assert!(world.device("phone").unwrap().outstanding.is_some());
    client.received(">1</json>").await;
    client.send("<a xmlns='urn:xmpp:sm:3' h='5'/>").await;
    client.push("<ping xmlns='urn:xmpp:ping'/>").await;
    let device = world.device("phone").unwrap();
    assert!(device.outstanding.is_none() && !device.is_pending);
    client.send("<active xmlns='urn:xmpp:csi:0'/>").await;
    client.push("<ping xmlns='urn:xmpp:ping'/>").await;
    world.append("a", "2").await;
    world.is_not_woken().await;
    // Nor is it sent anything while it is not available.
    client.send("<presence xmlns='jabber:client' type='unavailable'/>").await;
    client.push("<ping xmlns='urn:xmpp:ping'/>").await;
    world.append("a", "3").await;
    world.woken().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_without_acknowledgements_has_got_what_it_was_sent_if_it_leaves_itself() {
    for leaves in [true, false] {
        let world = waking_world();
        let mut client = world.connect();
        client.log_in(&world.token()).await;
        client.publish("a", "0").await;
        client.subscribe("a").await;
        client.enable_push("phone", CHANNEL).await;
        world.append("a", "1").await;
        client.received(">1</json>").await;
        if leaves {
            client.send("<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>").await;
            client.received("<close").await;
        }
        drop(client);
        world.all_are_gone().await;
        match leaves {
            true => world.is_not_woken().await,
            false => drop(world.woken().await),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_follows_the_subscriptions_of_its_client_and_is_deleted_with_the_last() {
    let world = waking_world();
    let mut client = world.connect();
    client.log_in(&world.token()).await;
    let said = client.try_enable("phone", CHANNEL).await;
    assert!(said.contains("<not-acceptable"), "it would read nothing: {said}");
    let (mut client, _) = world.pushed_client().await;
    let streams = || {
        let streams = world.device("phone").map(|device| device.streams).unwrap_or_default();
        streams.into_iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>()
    };
    client.publish("b", "0").await;
    client.subscribe("b").await;
    assert_eq!(streams(), ["a", "b"]);
    client.unsubscribe("a").await;
    assert_eq!(streams(), ["b"]);
    client.unsubscribe("b").await;
    assert!(world.device("phone").is_none());
    client.subscribe("a").await;
    assert!(world.device("phone").is_none(), "push has ended");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_would_not_be_woken_for_a_stream_is_told_so() {
    let world = waking_world();
    let (mut client, _) = world.pushed_client().await;
    for number in 1..=64 {
        world.append_first(&format!("s{number}")).await;
        client.subscribe(&format!("s{number}")).await;
    }
    assert_eq!(world.device("phone").unwrap().streams.len(), 64);
    let last = "<pubsub xmlns='http://jabber.org/protocol/pubsub'><subscribe node='s64' jid='anna@b.example'/></pubsub>";
    client.send(&format!("<iq xmlns='jabber:client' type='set' id='last' to='b.example'>{last}</iq>")).await;
    assert!(client.received("id='last'").await.contains("<resource-constraint"));
}

#[tokio::test(start_paused = true)]
async fn push_is_for_devices_of_the_own_subject() {
    let world = waking_world();
    let (mut anna, _) = world.pushed_client().await;
    let mut eve = world.connect();
    eve.authenticate(&world.token_of("eve")).await;
    eve.bind().await;
    let said = eve.try_enable("phone", "").await;
    assert!(said.contains("<item-not-found"), "{said}");
    eve.push("<disable xmlns='urn:xmpp:push:0' jid='b.example' node='phone'/>").await;
    assert!(world.device("phone").is_some());
    // The device of anna needs no form again.
    anna.enable_push("phone", "").await;
    for (request, condition) in [
        ("<enable xmlns='urn:xmpp:push:0' jid='push.example' node='phone'/>", "<item-not-found"),
        ("<enable xmlns='urn:xmpp:push:0' node='phone'/>", "<bad-request"),
        ("<enable xmlns='urn:xmpp:push:0' jid='b.example'/>", "<not-acceptable"),
        ("<enable xmlns='urn:xmpp:push:0' jid='b.example' node='no space'/>", "<not-acceptable"),
    ] {
        let said = anna.push(request).await;
        assert!(said.contains(condition), "{request}: {said}");
    }
    let unknown = anna.try_enable("phone", &CHANNEL.replace(">push<", ">other<")).await;
    assert!(unknown.contains("<item-not-found"), "{unknown}");
    anna.push("<disable xmlns='urn:xmpp:push:0' jid='b.example'/>").await;
    assert!(world.device("phone").is_none());
    drop(anna);
    world.append("a", "1").await;
    world.is_not_woken().await;
}

#[tokio::test(start_paused = true)]
async fn the_account_tells_whether_it_can_be_woken() {
    for can_wake in [true, false] {
        let world = if can_wake { waking_world() } else { World::start() };
        let mut client = world.connect();
        client.log_in(&world.token()).await;
        let query = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
        client
            .send(&format!("<iq xmlns='jabber:client' type='get' id='7' to='anna@b.example'>{query}</iq>"))
            .await;
        assert_eq!(client.received("id='7'").await.contains("urn:xmpp:push:0"), can_wake);
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_is_that_of_its_stream_after_a_restart() {
    let store = Arc::new(crate::store::CountedMemory::keeping_sessions());
    let world = World::with_store(Limits::default(), store.clone()).offer_wakes();
    let (client, id) = world.pushed_client().await;
    drop(client);
    world.all_are_gone().await;
    let again = world.again(store).offer_wakes();
    again.front.hub.load_devices().await.unwrap();
    again.front.load().await.unwrap();
    let mut client = again.connect();
    client.authenticate(&again.token()).await;
    client.resume(&id, 3).await;
    again.append("a", "1").await;
    client.received(">1</json>").await;
    again.is_not_woken().await;
    drop(client);
    again.all_are_gone().await;
    again.woken().await;
}
