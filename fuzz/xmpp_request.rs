//! Fuzzes the stanzas of clients that have logged in. The first byte of an input is the size of the pieces in which the rest arrives.
//! Each request gets one answer, which has its id and comes last; whatever the service sends is XML that a client can read.

use std::sync::Arc;

use fastrand::Rng;
use tokio::runtime::{Builder, Runtime};

use super::jid::Jid;
use super::stanza::Stanza;
use super::xml::{CLIENT, StreamDecoder, StreamEvent, parse_document};
use super::{PubsubService, Requester};
use crate::auth::Authenticator;
use crate::clock::Clock;
use crate::fuzz::{Target, Verdict, fuzz};
use crate::hub::Hub;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::store::Memory;
use crate::stream::Principal;

/// Larger than any input.
const BYTES_MAX: usize = 64 * 1024;

/// Number of inputs that share one store, so that requests find streams that earlier inputs created.
const INPUTS_OF_STORE: u32 = 500;

/// Streams that are read for the subscriptions of a client after each of its stanzas.
const TURNS_MAX: usize = 16;

#[test]
fn xmpp_requests() {
    let target = Target {
        name: "xmpp_request",
        seeds: seeds(),
        words: &[
            b"<iq id='1' type='get' xmlns='jabber:client'>",
            b"<pubsub xmlns='http://jabber.org/protocol/pubsub'>",
            b"<query xmlns='urn:xmpp:mam:2' node='a'/>",
            b"<set xmlns='http://jabber.org/protocol/rsm'><max>2</max><before/></set>",
            b"<items node='a'/>",
            b" node='a'",
            b" id='x'",
            b" type='set'",
            b" type='get'",
            b" max_items='1'",
            b"0000000000000000_0000000000000001",
            b"99999999999999999999",
            b"<item/>",
            b"<json xmlns='urn:xmpp:json:0'>[1]</json>",
            b"<m xmlns='urn:pollgate:0' encoding='base64'>AA==</m>",
            b"&#10;",
            b"/",
            b"+",
            b"#",
            b"$auth",
            "\u{10ffff}".as_bytes(),
        ],
        mend: |bytes, _: &mut Rng| bytes,
        inputs: 5_000,
        allocated_max: (16 * 1024 * 1024, 20_000),
    };
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    // Each clock stays for ever.
    let clock = Clock::start();
    let mut world = World::new(clock);
    fuzz(&target, |input| {
        let Some((size, bytes)) = input.split_first() else { return Verdict::Refused };
        if world.inputs == 0 {
            world = World::new(clock);
        }
        world.inputs -= 1;
        world.check(&runtime, bytes, usize::from(*size).max(1))
    });
}

/// A gateway and what inputs have left in its store.
struct World {
    hub: Arc<Hub>,
    limits: Arc<Limits>,
    metrics: Metrics,
    auth: Arc<Authenticator>,
    clock: Clock,
    inputs: u32,
}

impl World {
    fn new(clock: Clock) -> Self {
        let limits =
            Arc::new(Limits { xmpp_subscriptions_per_jid_max: 4, xmpp_page_max: 8, ..Limits::default() });
        let (metrics, memory) = (Metrics::new(), Arc::new(Memory::default()));
        let hub = Hub::new(memory, limits.clone(), Arc::new(Metrics::new()), clock);
        let auth = Arc::new(Authenticator::open());
        Self { hub: Arc::new(hub), limits, metrics, auth, clock, inputs: INPUTS_OF_STORE }
    }

    fn check(&self, runtime: &Runtime, bytes: &[u8], size: usize) -> Verdict {
        let jid = |text| Jid::parse(text).expect("an address");
        let (hub, limits) = (self.hub.clone(), self.limits.clone());
        let (metrics, name) = (self.metrics.xmpp().clone(), jid("b.example"));
        let (auth, principal) = (self.auth.clone(), Principal(1));
        let service = PubsubService::of_client((hub, limits), metrics, self.clock, auth, name, principal);
        let who =
            Requester { jid: jid("a@b.example/c"), grants: self.auth.anonymous(), principal, place: None };
        let mut decoder = StreamDecoder::new(BYTES_MAX);
        let mut is_answered = false;
        for mut piece in bytes.chunks(size) {
            loop {
                match decoder.next(&mut piece) {
                    Ok(Some(StreamEvent::Stanza(stanza))) => {
                        is_answered |= runtime.block_on(handle(&service, &who, stanza));
                    }
                    Ok(Some(StreamEvent::Opened(_) | StreamEvent::Closed)) => {}
                    Ok(None) => break,
                    Err(_) => return Verdict::Refused,
                }
            }
        }
        if is_answered { Verdict::Accepted } else { Verdict::Refused }
    }
}

/// Handles a stanza, and what is to be sent because of it. Returns whether it was a request.
async fn handle(service: &PubsubService, who: &Requester, stanza: minidom::Element) -> bool {
    let mut sent = Vec::new();
    let mut is_answered = false;
    match Stanza::read(stanza) {
        Ok(Stanza::Request(request)) => {
            let id = request.id.clone();
            sent = service.handle(who, request).await;
            let answers: Vec<_> = sent.iter().filter(|sent| sent.is("iq", CLIENT)).collect();
            assert_eq!(answers, Vec::from_iter(sent.last()));
            assert_eq!(answers[0].attr("id"), Some(&*id));
            is_answered = true;
        }
        Ok(Stanza::Presence { available }) => {
            service.subscriptions.with(|table| table.presence(&who.jid, available));
        }
        Ok(Stanza::Answer | Stanza::Returned(_) | Stanza::Other) | Err(_) => {}
    }
    service.subscriptions.with(|table| {
        assert!(table.of(&who.jid.bare()).len() <= 4);
        table.all_are_due();
    });
    for _ in 0..TURNS_MAX {
        let Some(due) = service.subscriptions.with(|table| table.take_due()) else { break };
        sent.extend(service.deliver(&due).await.into_iter().map(|notification| notification.stanza));
    }
    for stanza in sent {
        let bytes = service.encode(stanza, CLIENT);
        let parsed = parse_document(&bytes, service.limits.xmpp_stanza_bytes_max);
        assert!(bytes.is_empty() || parsed.is_ok(), "{}: {parsed:?}", bytes.escape_ascii());
    }
    is_answered
}

fn seeds() -> Vec<Vec<u8>> {
    let header = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
    let iq = |kind: &str, content: &str| format!("<iq id='1' type='{kind}'>{content}</iq>");
    let pubsub = |kind: &str, content: &str| {
        iq(kind, &format!("<pubsub xmlns='http://jabber.org/protocol/pubsub'>{content}</pubsub>"))
    };
    let publish =
        |payload: &str| pubsub("set", &format!("<publish node='a'><item id='i'>{payload}</item></publish>"));
    let bodies = [
        pubsub("set", "<create node='a/b'/><configure><x xmlns='jabber:x:data' type='submit'><field var='pubsub#max_items'><value>3</value></field></x></configure>"),
        [
            pubsub("set", "<subscribe node='a' jid='a@b.example'/>"),
            publish("<json xmlns='urn:xmpp:json:0'>{\"n\":1}</json>"),
            publish("<m xmlns='urn:pollgate:0' type='text/plain'>x</m>"),
            "<presence type='unavailable'/><presence/>".to_owned(),
        ]
        .concat(),
        [publish("<entry xmlns='x'><y/></entry>"), pubsub("get", "<items node='a' max_items='2'/>")].concat(),
        [
            publish("<json xmlns='urn:xmpp:json:0'>1</json>"),
            iq("set", "<query xmlns='urn:xmpp:mam:2' node='a' queryid='q'><set xmlns='http://jabber.org/protocol/rsm'><max>2</max><before/></set></query>"),
        ]
        .concat(),
        [
            iq("get", "<query xmlns='http://jabber.org/protocol/disco#items'/>"),
            iq("get", "<query xmlns='http://jabber.org/protocol/disco#info' node='a'/>"),
        ]
        .concat(),
        [
            pubsub("get", "<subscriptions/>"),
            pubsub("set", "<unsubscribe node='a' jid='a@b.example'/>"),
            iq("set", "<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><delete node='a'/></pubsub>"),
        ]
        .concat(),
    ];
    let seed = |(index, body): (usize, &String)| {
        let size = u8::try_from(index * 7 + 1).unwrap_or(1);
        [&[size], header.as_bytes(), body.as_bytes()].concat()
    };
    bodies.iter().enumerate().map(seed).collect()
}
