//! Sessions in requests: their order, their repetitions and their times. The clock is paused, so what is measured is what timers wait for.

mod order;
mod stored;

use std::future::poll_fn;

use tokio::task::JoinHandle;

use super::*;
use crate::clock::{ReusableSleep, in_time};
use crate::limits::Limits;
use crate::stream::{Append, AppendType, ContentType, CreateIfMissing, StreamName};
use crate::xmpp::client::ClientSession;
use crate::xmpp::client::tests::World as ClientWorld;

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const CLIENT: Principal = Principal(1);
const EMPTY: &str = "<body xmlns='http://jabber.org/protocol/httpbind'/>";

/// A front whose clients log in with tokens.
struct World {
    clients: ClientWorld,
    front: Arc<BoshFront>,
}

impl World {
    fn start() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        Self::of(ClientWorld::with(limits))
    }

    fn of(clients: ClientWorld) -> Self {
        let front = Arc::new(BoshFront::new(clients.front.clone()));
        tokio::spawn(front.clone().run());
        Self { clients, front }
    }

    /// Sends a body from a connection of its own.
    fn send(&self, body: &str) -> JoinHandle<String> {
        let mut request = self.front.begin(body.as_bytes(), CLIENT);
        tokio::spawn(async move {
            let mut timer = ReusableSleep::default();
            let response = poll_fn(|cx| request.poll_response(&mut timer, cx)).await;
            String::from_utf8(response.to_vec()).unwrap()
        })
    }

    async fn open(&self, attributes: &str) -> Client<'_> {
        let body = format!(
            "<body xmlns='http://jabber.org/protocol/httpbind' rid='1000' to='b.example' {attributes}/>"
        );
        let opened = in_time("the session opens", self.send(&body)).await.unwrap();
        assert!(opened.contains("PLAIN"), "{opened}");
        let (_, sid) = opened.split_once(" sid='").unwrap();
        Client { world: self, sid: sid[..32].to_owned(), rid: 1000, opened }
    }

    /// A client that has logged in.
    async fn log_in(&self, attributes: &str) -> Client<'_> {
        use base64::Engine;
        let message =
            base64::engine::general_purpose::STANDARD.encode(format!("\0anna\0{}", self.clients.token()));
        let mut client = self.open(attributes).await;
        let auth =
            format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{message}</auth>");
        assert!(client.said(&auth).await.contains("<success"));
        let restart = client.next(" xmlns:xmpp='urn:xmpp:xbosh' xmpp:restart='true'", "");
        assert!(in_time("the features", restart).await.unwrap().contains("<bind"));
        let bind = "<iq xmlns='jabber:client' id='1' type='set'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>r</resource></bind></iq>";
        assert!(client.said(bind).await.contains("anna@b.example/r"));
        client
    }

    /// Appends to a stream, which is created.
    async fn append(&self, stream: &str, json: &str) {
        let content_type = AppendType::Declared(ContentType::parse("application/json").unwrap());
        let append = Append { content_type, create: Some(CreateIfMissing::default()), ..Append::default() };
        let append = append.with_body(Bytes::from(json.to_owned()), 9).unwrap();
        self.front.clients.hub.publish(&StreamName::parse(stream).unwrap(), append).await.unwrap();
    }
}

struct Client<'a> {
    world: &'a World,
    sid: String,
    rid: u64,
    opened: String,
}

impl Client<'_> {
    fn send(&self, rid: u64, attributes: &str, payload: &str) -> JoinHandle<String> {
        let head =
            format!("<body xmlns='http://jabber.org/protocol/httpbind' rid='{rid}' sid='{}'", self.sid);
        self.world.send(&format!("{head}{attributes}>{payload}</body>"))
    }

    /// Sends the next request.
    fn next(&mut self, attributes: &str, payload: &str) -> JoinHandle<String> {
        self.rid += 1;
        self.send(self.rid, attributes, payload)
    }

    /// Sends the next request, and returns its response.
    async fn said(&mut self, payload: &str) -> String {
        in_time("a response", self.next("", payload)).await.unwrap()
    }

    async fn subscribe(&mut self, stream: &str) {
        let subscribe = format!(
            "<iq xmlns='jabber:client' id='s' type='set' to='b.example'><pubsub xmlns='http://jabber.org/protocol/pubsub'><subscribe node='{stream}' jid='anna@b.example/r'/></pubsub></iq>"
        );
        let said = self.said(&subscribe).await;
        assert!(said.contains("subscribed"), "{said}");
    }
}

fn ping(id: u32) -> String {
    format!("<iq xmlns='jabber:client' id='p{id}' type='get'><ping xmlns='urn:xmpp:ping'/></iq>")
}

async fn response(request: JoinHandle<String>) -> String {
    in_time("a response", request).await.unwrap()
}

/// Lets all tasks go on that can.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

fn has_ended_with(condition: &str) -> impl Fn(&str) -> bool {
    let text = format!("type='terminate' condition='{condition}'");
    move |response| response.contains(&text)
}

#[tokio::test(start_paused = true)]
async fn a_session_is_opened_within_the_limits_of_the_gateway() {
    let world = World::start();
    let client = world.open("wait='300' hold='5' ver='1.6' ack='1'").await;
    for said in [
        "wait='60'",
        "hold='1'",
        "requests='2'",
        "polling='2'",
        "inactivity='60'",
        "maxpause='120'",
        "ack='1000'",
        "from='b.example'",
        "ver='1.11'",
        "xmpp:restartlogic='true'",
    ] {
        assert!(client.opened.contains(said), "{said}: {}", client.opened);
    }
    assert!(world.open("wait='10' hold='0'").await.opened.contains("requests='1'"));
    let refused = |attributes: &str| {
        world.send(&format!("<body xmlns='http://jabber.org/protocol/httpbind' {attributes}/>"))
    };
    for (attributes, condition) in [
        ("rid='1'", "improper-addressing"),
        ("rid='1' to='c.example'", "host-unknown"),
        ("to='b.example'", "bad-request"),
        ("rid='1' sid='00000000000000000000000000000001'", "item-not-found"),
    ] {
        let said = response(refused(attributes)).await;
        assert!(has_ended_with(condition)(&said), "{attributes}: {said}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_until_there_is_something_or_its_time_is_over() {
    let world = World::start();
    world.append("a", "0").await;
    let mut client = world.log_in("hold='1' wait='40'").await;
    client.subscribe("a").await;
    let begin = Instant::now();
    assert_eq!(client.said("").await, EMPTY);
    assert_eq!(begin.elapsed().as_secs(), 40);
    let waiting = client.next("", "");
    sleep(10 * SECOND).await;
    let begin = Instant::now();
    world.append("a", "[1,2]").await;
    let said = response(waiting).await;
    assert!(begin.elapsed() < SECOND && said.matches("<item ").count() == 2, "{said}");
    // What came while no request waited is sent to the next one.
    world.append("a", "3").await;
    assert!(client.said("").await.contains(">3<"));
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_connection_is_lost_waits_on_over_another_one() {
    let world = World::start();
    world.append("a", "0").await;
    let mut client = world.log_in("hold='1'").await;
    client.subscribe("a").await;
    let lost = client.next("", "");
    settle().await;
    lost.abort();
    settle().await;
    world.append("a", "1").await;
    assert!(response(client.send(client.rid, "", "")).await.contains(">1<"));
    // The connection before may only seem to be lost, or the two requests have overtaken each other: the client may read either response, so both
    // are the same, and nothing that comes later is in one of them.
    let before = client.next("", "");
    settle().await;
    let again = client.send(client.rid, "", "");
    assert_eq!((response(before).await, response(again).await), (EMPTY.to_owned(), EMPTY.to_owned()));
    let next = client.next("", "");
    settle().await;
    world.append("a", "2").await;
    assert!(response(next).await.contains(">2<"), "the next request waits, and is no violation");
    assert_eq!(world.front.clients.metrics.bosh_repeated.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_when_its_client_stays_away() {
    let world = World::start();
    let mut client = world.log_in("hold='1'").await;
    let metrics = &world.front.clients.metrics;
    // While a request waits, the client is there.
    client.said("").await;
    sleep(55 * SECOND).await;
    client.said("").await;
    assert_eq!(metrics.bosh_sessions.get(), 1);
    sleep(62 * SECOND).await;
    assert_eq!((metrics.bosh_sessions.get(), metrics.clients.get(), metrics.bosh_lost.get()), (0, 0, 1));
    assert!(has_ended_with("item-not-found")(&client.said("").await));
    assert_eq!((world.front.sessions.len(), world.front.counts.lock().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_client_may_pause() {
    let world = World::start();
    let mut client = world.log_in("hold='1'").await;
    let begin = Instant::now();
    // Its response has no payload.
    assert_eq!(response(client.next(" pause='120'", &ping(1))).await, EMPTY);
    assert!(begin.elapsed() < SECOND);
    sleep(118 * SECOND).await;
    assert!(client.said("").await.contains("p1"));
    // The pause is over with the next request.
    sleep(62 * SECOND).await;
    assert!(has_ended_with("item-not-found")(&client.said("").await));
    // It may also be shorter than the session would last without it.
    let mut short = world.log_in("hold='1'").await;
    response(short.next(" pause='10'", "")).await;
    sleep(12 * SECOND).await;
    assert!(has_ended_with("item-not-found")(&short.said("").await));
    let mut other = world.log_in("hold='1'").await;
    assert!(has_ended_with("policy-violation")(&response(other.next(" pause='121'", "")).await));
}

#[tokio::test(start_paused = true)]
async fn a_polling_client_is_answered_at_once_and_has_to_wait_itself() {
    let world = World::start();
    let mut client = world.log_in("hold='0'").await;
    let begin = Instant::now();
    sleep(2 * SECOND).await;
    assert_eq!(client.said("").await, EMPTY);
    sleep(2 * SECOND).await;
    assert_eq!(client.said("").await, EMPTY);
    assert!(client.said(&ping(1)).await.contains("p1"));
    assert_eq!(client.said("<presence xmlns='jabber:client'/>").await, EMPTY);
    assert_eq!(client.said("").await, EMPTY, "the request before had something");
    assert!(begin.elapsed() < 5 * SECOND);
    assert!(has_ended_with("policy-violation")(&client.said("").await));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asks_for_more_than_it_may_is_refused() {
    let world = World::start();
    // A request without anything in it, although one waits.
    let mut client = world.log_in("hold='1'").await;
    let waiting = client.next("", "");
    settle().await;
    assert!(has_ended_with("policy-violation")(&client.said("").await));
    assert!(has_ended_with("policy-violation")(&response(waiting).await));
    // One more than it may have under way.
    let mut client = world.log_in("hold='1'").await;
    let _waiting = client.next("", "");
    let _early = client.send(client.rid + 2, "", "");
    settle().await;
    assert!(has_ended_with("policy-violation")(&response(client.send(client.rid + 3, "", "")).await));
    // Far ahead.
    let client = world.log_in("hold='1'").await;
    assert!(has_ended_with("item-not-found")(&response(client.send(client.rid + 3, "", "")).await));
}

#[tokio::test(start_paused = true)]
async fn a_client_ends_its_session_behind_its_last_stanzas() {
    let world = World::start();
    let mut client = world.log_in("hold='1'").await;
    let waiting = client.next("", "");
    settle().await;
    let last = response(client.next(" type='terminate'", &ping(1))).await;
    assert!(last.contains("type='terminate'>") && last.contains("p1"), "{last}");
    assert_eq!(response(waiting).await, EMPTY);
    assert_eq!(world.front.clients.metrics.bosh_sessions.get(), 0);
    assert_eq!(response(client.send(client.rid, " type='terminate'", &ping(1))).await, last);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_log_in_is_closed_after_fifteen_seconds() {
    let world = World::start();
    let mut client = world.open("hold='1'").await;
    let begin = Instant::now();
    let said = client.said("").await;
    assert!(has_ended_with("remote-stream-error")(&said) && said.contains("<connection-timeout"), "{said}");
    assert!(begin.elapsed() <= 16 * SECOND);
    let large = "x".repeat(LOGIN_BYTES_MAX);
    let mut client = world.open("hold='1'").await;
    assert!(has_ended_with("policy-violation")(&client.said(&format!("<a xmlns='b'>{large}</a>")).await));
    let mut client = world.open("hold='1'").await;
    let said = client.said(&ping(1)).await;
    assert!(has_ended_with("remote-stream-error")(&said) && said.contains("<not-authorized"), "{said}");
    assert_eq!(world.front.clients.metrics.logins_failed.get(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_within_a_second_of_expiry_and_of_revocation() {
    for is_revoked in [false, true] {
        let world = World::start();
        let issued = Instant::now();
        let mut client = world.log_in("hold='1'").await;
        let (auth, clock) = (&world.front.clients.auth, world.front.clients.clock);
        let (due, condition) = if is_revoked {
            sleep(10 * SECOND).await;
            let revocation = serde_json::from_str("{\"sub\":\"anna\"}").unwrap();
            auth.revoke(vec![auth.checked_revocation(revocation, clock.wall()).unwrap()], clock.wall());
            (Instant::now(), "<not-authorized")
        } else {
            (issued + 60 * MINUTE, "<reset")
        };
        let said = loop {
            let said = client.said("").await;
            if said != EMPTY {
                break said;
            }
        };
        assert!(has_ended_with("remote-stream-error")(&said) && said.contains(condition), "{said}");
        let off = Instant::now().max(due) - Instant::now().min(due);
        assert!(off <= SECOND + Duration::from_millis(2), "{condition}: {off:?} off");
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_all_sessions_and_opens_no_others() {
    let world = World::start();
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(world.log_in("hold='1'").await);
    }
    let waiting: Vec<_> = clients.iter_mut().map(|client| client.next("", "")).collect();
    settle().await;
    let hub = world.front.clients.hub.clone();
    let begin = Instant::now();
    tokio::spawn(async move { hub.drain().await });
    for request in waiting {
        assert!(has_ended_with("system-shutdown")(&response(request).await));
    }
    let spread = world.front.clients.limits.drain_spread.get();
    assert!(begin.elapsed() > spread / 2 && begin.elapsed() <= spread, "{:?}", begin.elapsed());
    let opened = world.send("<body xmlns='http://jabber.org/protocol/httpbind' rid='1' to='b.example'/>");
    assert!(has_ended_with("system-shutdown")(&response(opened).await));
}

#[tokio::test(start_paused = true)]
async fn sessions_have_a_limit_in_all_and_for_each_address() {
    let world =
        World::with(Limits { bosh_sessions_per_address_max: 2, bosh_sessions_max: 3, ..Limits::default() });
    let _open = [world.open("").await, world.open("").await];
    let open = |address| {
        let mut request = world.front.begin(
            b"<body xmlns='http://jabber.org/protocol/httpbind' rid='1' to='b.example'/>",
            Principal(address),
        );
        async move {
            let mut timer = ReusableSleep::default();
            let said = poll_fn(|cx| request.poll_response(&mut timer, cx)).await;
            String::from_utf8(said.to_vec()).unwrap()
        }
    };
    assert!(has_ended_with("policy-violation")(&open(1).await));
    assert!(open(2).await.contains(" sid='"));
    assert!(has_ended_with("policy-violation")(&open(3).await));
    sleep(20 * SECOND).await;
    assert!(open(1).await.contains(" sid='"));
}

/// Each is allocated for every session, in classes of the allocator of 64 bytes. `benches/held_bosh.py` measures the whole.
#[test]
fn a_session_fits_into_small_allocations() {
    let counts = 2 * size_of::<usize>();
    assert!(size_of::<BoshSession>() + counts <= 384, "{}", size_of::<BoshSession>());
    assert!(size_of::<ClientSession>() <= 448, "{}", size_of::<ClientSession>());
}
