//! Tenants that share a hub behave as tenants that have a hub each: random operations in the same names, done on both.

use std::collections::BTreeSet;
use std::fmt::Debug;

use bytes::Bytes;
use futures_util::FutureExt;

use super::*;
use crate::stream::{Annotation, Append, ContentType, Filter, MessageLimit, QoS, Tenant};

const OPERATIONS: usize = 100_000;

const TENANTS: [&str; 3] = ["acme", "acme2", "default"];

/// Names that clients may use, some of which look like those of other tenants.
const NAMES: [&str; 8] = ["a", "b", "a/b", "a/b/c", "acme/a", "$SYS/x", "tenant/acme/a", "+"];

const FILTERS: [&str; 10] = ["#", "+", "a/#", "+/b", "a/+", "+/#", "$SYS/#", "a", "acme/+", "+/acme/+"];

/// A client of a tenant.
struct Client {
    tenant: Tenant,
    /// The shared hub and its own one, with the names and filters of this client in each.
    hubs: [Arc<Hub>; 2],
    names: [Vec<StreamName>; 2],
    filters: [Vec<Filter>; 2],
    subscribers: [Subscriber; 2],
}

/// What a client can see of an outcome: no epochs, which differ between hubs.
type Seen = Result<Vec<String>, String>;

/// An operation, for a failure of the test: its kind, a choice within it, and the names and the filter that it may use.
type RandomOperation = (u8, bool, [&'static str; 3]);

fn failed(error: impl Debug) -> String {
    format!("{error:?}")
}

impl Client {
    fn of(tenant: &str, shared: &Arc<Hub>) -> Self {
        let hubs = [shared.clone(), hub().2];
        let subscribers = hubs.clone().map(|hub| hub.subscriber(tenant));
        let tenant = Tenant::parse(tenant).unwrap();
        let tenants = [tenant.clone(), Tenant::default()];
        let names = |of: &Tenant| NAMES.iter().map(|text| name(text).of_tenant(of)).collect();
        let filter = |text: &&str| Filter::parse(text).unwrap();
        let filters = |of: &Tenant| FILTERS.iter().map(filter).map(|filter| filter.of_tenant(of)).collect();
        let (names, filters) = (tenants.each_ref().map(names), tenants.each_ref().map(filters));
        Self { tenant, hubs, names, filters, subscribers }
    }

    /// Does one random operation on both hubs. Returns what it was, and what the client sees of each outcome.
    async fn act(&self, random: &mut fastrand::Rng, number: usize) -> (RandomOperation, [Seen; 2]) {
        let (kind, coin) = (random.u8(0..15), random.bool());
        let [one, other] = [(); 2].map(|()| random.usize(0..NAMES.len()));
        let filter = random.usize(0..FILTERS.len());
        let operation = (kind, coin, [NAMES[one], NAMES[other], FILTERS[filter]]);
        let mut seen = Vec::new();
        for side in [0, 1] {
            let (hub, name, other) = (&self.hubs[side], &self.names[side][one], &self.names[side][other]);
            let (filter, subscriber) = (&self.filters[side][filter], &self.subscribers[side]);
            let message = Bytes::from(format!("{} {number}", self.tenant));
            seen.push(match kind {
                0 => {
                    let fork = coin.then(|| (other.clone(), None, 0));
                    let creation = Creation { body: message, fork, ..Creation::default() };
                    let created = hub.create(name, creation).await;
                    created.map(|created| vec![format!("{}", created.fresh)]).map_err(failed)
                }
                1..=3 => {
                    let append = Append::of_any_type(message, ContentType::octet_stream(), 8);
                    let append = if coin { append.or_create() } else { append };
                    let annotation = Annotation {
                        publisher: "client".into(),
                        qos: QoS::AtLeastOnce,
                        retain: kind == 3,
                        expires_at: None,
                        is_text: false,
                        content_type: None,
                        response_topic: None,
                        correlation: None,
                        user_properties: Vec::new(),
                    };
                    let append = Append { annotation: Some(Arc::new(annotation)), ..append };
                    let appended = hub.publish(name, append).await;
                    appended.map(|appended| vec![format!("{:?}", appended.tail.position)]).map_err(failed)
                }
                4 | 14 => hub.delete(name).await.map(|()| Vec::new()).map_err(failed),
                5 => {
                    let batch = hub.read(name, Start::Earliest).await;
                    batch.map(|batch| batch.pieces.iter().map(text_of).collect()).map_err(failed)
                }
                6 => {
                    let limit = MessageLimit { bytes_max: 1000, count_max: 10 };
                    let read = hub.messages(name, Start::Earliest, limit).await;
                    read.map(|read| read.messages.iter().map(|one| text_of(&one.bytes)).collect())
                        .map_err(failed)
                }
                7 => {
                    let described = hub.describe(name).await;
                    described.map(|stream| vec![format!("{:?}", stream.tail.position)]).map_err(failed)
                }
                8 => {
                    let requested = [name, other].map(|stream| RequestedStream {
                        stream: stream.clone(),
                        progress: Some(crate::stream::Progress::Earliest),
                        history: 0,
                        times: false,
                        withheld: false,
                    });
                    let mut reader = hub.multi_reader(requested.to_vec());
                    let batch = reader.read(1000).await.map_err(failed);
                    batch.map(|batch| batch.updates.iter().map(shown).collect())
                }
                9 => {
                    let retained = hub.retained(name).await;
                    let shown = |retained: Option<crate::stream::Message>| {
                        retained.iter().map(|message| text_of(&message.bytes)).collect()
                    };
                    retained.map(shown).map_err(failed)
                }
                10 => hub.clear_retained(name).await.map(|()| Vec::new()).map_err(failed),
                11 => Ok(names_of(hub, filter).await),
                12 => {
                    if coin {
                        subscriber.add(filter.clone())
                    } else {
                        subscriber.remove(filter)
                    }
                    Ok(Vec::new())
                }
                _ => {
                    let changed = subscriber.changed(usize::MAX).now_or_never().unwrap_or_default();
                    Ok(changed.iter().map(|name| name.local().to_owned()).collect())
                }
            });
        }
        (operation, [seen.remove(0), seen.remove(0)])
    }
}

fn text_of(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn shown(update: &StreamUpdate) -> String {
    let messages = match &update.update {
        Some(Update::Batch(batch)) => batch.pieces.iter().map(text_of).collect(),
        Some(Update::Gap(_)) => vec!["gap".to_owned()],
        None => vec!["missing".to_owned()],
    };
    format!("{}: {messages:?}", update.stream.local())
}

/// The names that a subscription with the filter would find.
async fn names_of(hub: &Hub, filter: &Filter) -> Vec<String> {
    let (mut walk, mut names) = (StreamWalk::over([filter]), BTreeSet::new());
    while let Some(streams) = hub.next_streams(&mut walk).await {
        let matching = streams.into_iter().filter(|(name, _)| filter.matches(name));
        names.extend(matching.map(|(name, _)| name.local().to_owned()));
    }
    names.into_iter().collect()
}

#[tokio::test(start_paused = true)]
async fn tenants_that_share_a_hub_see_what_they_would_see_if_each_had_its_own() {
    let (_, _, shared) = hub();
    let clients = TENANTS.map(|tenant| Client::of(tenant, &shared));
    let mut random = fastrand::Rng::with_seed(20);
    let mut told = 0;
    for number in 0..OPERATIONS {
        let client = random.choice(clients.iter()).unwrap();
        let (operation, [seen, alone]) = client.act(&mut random, number).await;
        assert_eq!(seen, alone, "{operation:?} by {}", client.tenant);
        for text in seen.iter().flatten() {
            let of_others = clients.iter().filter(|other| other.tenant != client.tenant);
            let leaks = of_others.filter(|other| text.contains(&format!("{} ", other.tenant))).count();
            assert_eq!(leaks, 0, "{operation:?} by {}: {text}", client.tenant);
            told += 1;
        }
    }
    assert!(told > OPERATIONS / 10, "the clients see enough to see something wrong: {told}");
    let streams: usize = clients.iter().map(|client| client.hubs[1].counts().streams).sum();
    assert_eq!(shared.counts().streams, streams);
}

/// The streams of other tenants cost a wildcard of the default tenant one page, however many they are.
#[tokio::test(start_paused = true)]
async fn a_walk_over_all_streams_passes_over_those_of_tenants() {
    let (_, _, hub) = hub();
    let acme = Tenant::parse("acme").unwrap();
    for number in 0..2000 {
        hub.create(&name(&number.to_string()).of_tenant(&acme), Creation::default()).await.unwrap();
    }
    for text in ["!", "a", "b"] {
        hub.create(&name(text), Creation::default()).await.unwrap();
    }
    let all = Filter::parse("#").unwrap();
    let (mut walk, mut pages) = (StreamWalk::over([&all]), 0);
    while hub.next_streams(&mut walk).await.is_some() {
        pages += 1;
    }
    assert!(pages <= 3, "{pages} pages");
    assert_eq!(names_of(&hub, &all).await, ["!", "a", "b"]);
    assert_eq!(names_of(&hub, &all.of_tenant(&acme)).await.len(), 2000);
}
