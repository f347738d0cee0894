//! What a subscription does, without IO, how it is stored, and what counts for its memory.

use std::time::{Duration, SystemTime};

use super::record::{ChangedPart, change, restore, session_name};
use super::state::{Link, SubscriptionState, WakePhase};
use super::*;
use crate::budget::{Account, Bounds, Budget};
use crate::clock::{Clock, in_time};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::store::Memory;
use crate::stream::{Append, ContentType, Epoch, Failure, Offset, Position, Shortage, StoredSession};

const LEASE: Duration = Duration::from_secs(10);

fn name(text: &str) -> StreamName {
    StreamName::parse(text).unwrap()
}

fn at(epoch: u64, position: u64) -> Offset {
    Offset { epoch: Epoch(epoch), position: Position(position) }
}

fn now(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

fn of(wake_by: WakeBy, pattern: &str) -> SubscriptionState {
    let config = SubscriptionConfig {
        wake_by,
        pattern: Some(Glob::parse(pattern).unwrap()),
        streams: Vec::new(),
        lease_ttl_ms: 10_000,
        description: None,
    };
    SubscriptionState::new(config, Tenant::default(), 7, "2026-01-01T00:00:00Z".to_owned())
}

fn webhook() -> SubscriptionState {
    of(WakeBy::Webhook("https://a.example/".to_owned()), "events/*")
}

fn pull() -> SubscriptionState {
    of(WakeBy::PullWake("wakes".to_owned()), "events/*")
}

/// A subscription with two messages in `events/a`.
fn pending(mut state: SubscriptionState) -> SubscriptionState {
    assert!(state.observe(&name("events/a"), Some(at(1, 2))));
    state
}

fn said(wake_id: &str, generation: u64, acks: &[(&str, Offset)], is_done: bool) -> Settlement {
    let acks = acks.iter().map(|(stream, offset)| (name(stream), offset.to_string())).collect();
    Settlement { wake_id: wake_id.to_owned(), generation, acks, is_done }
}

#[test]
fn a_stream_that_appears_is_pending_with_its_first_message_and_one_that_existed_is_not() {
    let mut state = webhook();
    assert!(!state.observe(&name("other"), Some(at(1, 2))), "the pattern does not match it");
    assert!(state.observe(&name("events/a"), Some(at(1, 0))));
    assert!(state.first_pending().is_none());
    state.observe(&name("events/a"), Some(at(1, 1)));
    assert_eq!(state.first_pending(), Some(&name("events/a")));
    state.links.insert(name("events/b"), Link::new(true, Some(at(3, 9)), Some(at(3, 9))));
    state.links.retain(|stream, _| *stream == name("events/b"));
    assert!(state.first_pending().is_none());
    assert!(!state.observe(&name("events/b"), Some(at(3, 10))));
    assert!(state.first_pending().is_some());
}

#[test]
fn a_stream_that_was_made_again_is_new_and_a_deleted_one_is_not_linked() {
    let mut state = webhook();
    state.links.insert(name("events/a"), Link::new(true, Some(at(1, 5)), Some(at(1, 5))));
    assert!(state.observe(&name("events/a"), Some(at(2, 3))));
    assert_eq!(state.links[&name("events/a")].acked, None);
    assert!(state.first_pending().is_some());
    assert!(state.observe(&name("events/a"), None));
    assert!(state.links.is_empty());
    // A stream that is linked before it exists waits for its creation.
    state.links.insert(name("later"), Link::new(true, None, None));
    assert!(!state.observe(&name("later"), None));
    assert!(!state.observe(&name("later"), Some(at(4, 1))));
    assert!(state.first_pending().is_some());
}

#[test]
fn a_wake_does_not_cause_another_one_by_its_message() {
    let mut state = of(WakeBy::PullWake("events/wakes".to_owned()), "**");
    assert!(!state.observe(&name("events/wakes"), Some(at(1, 1))));
    assert!(state.observe(&name("events/other"), Some(at(1, 1))));
    let of_tenant = name("a").of_tenant(&Tenant::parse("acme").unwrap());
    assert!(!state.observe(&of_tenant, Some(at(1, 1))), "names of tenants never cross");
}

#[test]
fn there_is_one_wake_at_a_time_and_each_has_a_new_generation() {
    let mut state = pending(webhook());
    assert!(state.is_due(now(0)));
    state.wake("w1".to_owned(), now(0));
    assert!(!state.is_due(now(0)) && state.next_due() == Some(now(0) + LEASE));
    state.observe(&name("events/a"), Some(at(1, 3)));
    assert!(!state.is_due(now(9)));
    assert!(!state.lapse(now(9)) && state.lapse(now(10)));
    assert!(state.is_due(now(10)));
    state.wake("w2".to_owned(), now(10));
    assert_eq!(state.generation, 2);
    // The first worker is fenced, by its id and by its generation.
    for (wake_id, generation) in [("w1", 1), ("w1", 2), ("w2", 1)] {
        let outcome = state.settle(&said(wake_id, generation, &[], true), now(11));
        assert_eq!(outcome, Err(SubscriptionError::Fenced));
    }
    assert!(state.settle(&said("w2", 2, &[("events/a", at(1, 3))], true), now(11)).is_ok());
    assert!(!state.is_due(now(11)) && state.next_due().is_none());
    assert_eq!(state.settle(&said("w2", 2, &[], true), now(11)), Err(SubscriptionError::Fenced));
}

#[test]
fn what_the_holder_says_extends_its_lease_until_it_is_done() {
    let mut state = pending(webhook());
    state.wake("w".to_owned(), now(0));
    assert!(state.settle(&said("w", 1, &[("events/a", at(1, 1))], false), now(8)).is_ok());
    assert!(!state.lapse(now(17)));
    // A lease that is over is over, also before anyone has noticed.
    assert_eq!(state.settle(&said("w", 1, &[], false), now(18)), Err(SubscriptionError::Fenced));
    assert!(state.lapse(now(18)) && state.is_due(now(18)), "the second message is pending");
}

#[test]
fn acks_are_taken_all_or_none() {
    let mut state = pending(webhook());
    state.links.insert(name("events/b"), Link::new(false, Some(at(5, 4)), Some(at(5, 6))));
    state.wake("w".to_owned(), now(0));
    for (stream, offset) in [
        ("events/b", at(5, 3)),
        ("events/b", at(5, 7)),
        ("events/b", at(4, 5)),
        ("events/b", Offset::ZERO),
        ("events/c", at(1, 1)),
    ] {
        let acks = [("events/a", at(1, 2)), (stream, offset)];
        let outcome = state.settle(&said("w", 1, &acks, true), now(1));
        assert!(
            matches!(outcome, Err(SubscriptionError::InvalidOffset { .. })),
            "{stream} {offset}: {outcome:?}"
        );
        assert_eq!(state.links[&name("events/a")].acked, None);
    }
    for text in ["-1", "now", ""] {
        let acks = vec![(name("events/a"), text.to_owned())];
        let outcome = state.settle(&Settlement { acks, ..said("w", 1, &[], true) }, now(1));
        assert!(matches!(outcome, Err(SubscriptionError::InvalidOffset { .. })), "{text}");
    }
    let acks = [("events/a", at(1, 2)), ("events/b", at(5, 6)), ("events/b", at(5, 4))];
    assert!(state.settle(&said("w", 1, &acks, true), now(1)).is_ok());
    assert_eq!(state.links[&name("events/b")].acked, Some(at(5, 6)));
    assert!(state.first_pending().is_none());
}

#[test]
fn a_worker_claims_a_wake_and_others_are_told_who_has_it() {
    let mut state = pull();
    assert_eq!(state.claim("one", "w0".to_owned(), now(0)), Err(SubscriptionError::NoPendingWork));
    let mut state = pending(state);
    state.wake("w1".to_owned(), now(0));
    assert!(state.next_due().is_none(), "a wake waits for a worker without end");
    state.claim("one", "unused".to_owned(), now(5)).unwrap();
    assert_eq!((held(&state), state.generation), (Some("w1"), 1));
    let busy = SubscriptionError::AlreadyClaimed { holder: "one".to_owned(), generation: 1 };
    assert_eq!(state.claim("two", "w2".to_owned(), now(14)), Err(busy));
    // The lease of the first one is over, so there is another wake.
    state.claim("two", "w2".to_owned(), now(15)).unwrap();
    assert_eq!((held(&state), state.generation), (Some("w2"), 2));
    assert_eq!(state.settle(&said("w1", 1, &[], true), now(15)), Err(SubscriptionError::Fenced));
    let refused = pending(webhook()).claim("one", "w".to_owned(), now(0));
    assert!(matches!(refused, Err(SubscriptionError::Invalid(_))));
}

fn held(state: &SubscriptionState) -> Option<&str> {
    views::held_wake(state)
}

#[test]
fn a_delivery_that_is_done_acknowledges_what_it_showed() {
    let mut state = pending(webhook());
    state.wake("w".to_owned(), now(0));
    state.observe(&name("events/a"), Some(at(1, 3)));
    let shown = [(name("events/a"), at(1, 2))];
    let changed = state.delivered(1, DeliveryOutcome::Done, &shown, now(1), 0.5);
    assert_eq!(changed, Some(vec![name("events/a")]));
    assert!(state.is_due(now(1)), "the message that came later is pending");
    assert_eq!(state.delivered(1, DeliveryOutcome::Done, &shown, now(1), 0.5), None);
    state.wake("w2".to_owned(), now(1));
    assert_eq!(state.delivered(1, DeliveryOutcome::Done, &shown, now(1), 0.5), None, "it is of another wake");
}

#[test]
fn failed_deliveries_are_repeated_ever_later_each_with_a_wake_of_its_own() {
    let mut state = pending(webhook());
    let (mut time, mut delays) = (now(0), Vec::new());
    for attempt in 1..=9 {
        assert!(state.is_due(time));
        state.wake(format!("w{attempt}"), time);
        assert_eq!(state.generation, attempt);
        let failed = DeliveryOutcome::Failed { retry_after: None };
        assert!(state.delivered(attempt, failed, &[], time, 0.5).is_some());
        let due = state.next_due().unwrap();
        assert!(!state.is_due(due - Duration::from_millis(1)) && state.is_due(due));
        delays.push(due.duration_since(time).unwrap().as_secs());
        time = due;
    }
    assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    state.wake("w10".to_owned(), time);
    let failed = DeliveryOutcome::Failed { retry_after: Some(Duration::from_secs(300)) };
    state.delivered(10, failed, &[], time, 0.5);
    assert_eq!(state.next_due(), Some(time + Duration::from_secs(300)));
    for (random, millis) in [(0.0, 800), (1.0, 1200)] {
        let mut state = pending(webhook());
        state.postpone(None, now(0), random);
        assert_eq!(state.next_due(), Some(now(0) + Duration::from_millis(millis)));
    }
}

#[test]
fn a_delivery_without_a_response_in_time_keeps_its_lease() {
    let mut state = pending(webhook());
    state.wake("w".to_owned(), now(0));
    state.delivered(1, DeliveryOutcome::Unanswered, &[], now(5), 0.5);
    assert!(state.settle(&said("w", 1, &[("events/a", at(1, 2))], true), now(9)).is_ok());
}

#[test]
fn a_subscription_comes_back_from_the_store_as_it_was() {
    let tenant = Tenant::parse("acme").unwrap();
    let mut state = SubscriptionState { tenant: tenant.clone(), ..pending(webhook()) };
    state.links.insert(name("b").of_tenant(&tenant), Link::new(true, Some(at(2, 3)), None));
    state.links.values_mut().for_each(|link| link.tail = None);
    state.wake("w".to_owned(), now(0));
    let client = session_name(&tenant, "jobs/of day");
    let stored = |change: crate::stream::SessionChange| StoredSession {
        client: change.client,
        entries: change.entries.into_iter().filter_map(|(key, value)| Some((key, value?))).collect(),
    };
    let everything = stored(change(client.clone(), &state, ChangedPart::Everything));
    let (of_tenant, id, restored) = restore(&everything).unwrap();
    assert_eq!((of_tenant, id.as_str(), restored), (tenant.clone(), "jobs/of day", Some(state.clone())));
    // A link that is gone is removed from the store; others are not written.
    let gone = name("b").of_tenant(&tenant);
    state.links.remove(&gone);
    let part = change(client, &state, ChangedPart::Wake(std::slice::from_ref(&gone)));
    assert!(!part.anew && part.entries.len() == 2 && part.entries[1].1.is_none());
    // The session of an MQTT client is none.
    assert!(restore(&StoredSession { client: "subscription/x".into(), entries: Vec::new() }).is_none());
    let damaged = StoredSession { entries: everything.entries[..1].to_vec(), ..everything };
    assert!(matches!(restore(&damaged), Some((_, _, None))));
}

#[test]
fn phases_are_stored_in_a_form_that_stays() {
    let stored = r#"{"Held":{"wake_id":"w","worker":null,"begun":{"secs_since_epoch":5,"nanos_since_epoch":0},"until":{"secs_since_epoch":6,"nanos_since_epoch":0}}}"#;
    let seconds = |count| SystemTime::UNIX_EPOCH + Duration::from_secs(count);
    let held =
        WakePhase::Held { wake_id: "w".to_owned(), worker: None, begun: seconds(5), until: seconds(6) };
    assert_eq!(serde_json::from_str::<WakePhase>(stored).unwrap(), held);
    assert_eq!(serde_json::to_string(&held).unwrap(), stored);
}

/// Creates subscriptions of one client until one is refused. Returns their names, and why it is refused.
async fn fill(table: &Arc<SubscriptionTable>, client: u64) -> (Vec<String>, SubscriptionError) {
    let mut created = Vec::new();
    loop {
        let (id, config) = (format!("{client}-{}", created.len()), pull().config);
        match table.create(Tenant::default(), id.clone(), config, Principal(client)).await {
            Ok(_) => created.push(id),
            Err(error) => return (created, error),
        }
    }
}

#[tokio::test]
async fn subscriptions_take_from_the_memory_budget_until_they_are_deleted() {
    const MIB: u64 = 1024 * 1024;
    let budget = Budget::new(Bounds { memory_max: MIB, streams_max: 9, share_percent: 50 });
    let store = Arc::new(Memory::within(budget.clone()));
    let (limits, metrics) = (Arc::new(Limits::default()), Arc::new(Metrics::new()));
    let hub = Arc::new(Hub::new(store, limits, metrics, Clock::start()).within(budget.clone()));
    let keys = WebhookKeys::random().unwrap();
    let (table, _due) = SubscriptionTable::open(&hub, keys, "http://localhost").await.unwrap();
    let held = || budget.usage().accounts[Account::Subscriptions as usize];
    let refused = |shortage| SubscriptionError::Store(Failure::OverBudget(shortage));

    let (mut created, why) = fill(&table, 1).await;
    assert_eq!(why, refused(Shortage::Share), "one client has half of the memory");
    assert!((MIB / 2 - 8192..=MIB / 2).contains(&held()), "{}", held());
    let (of_other, why) = fill(&table, 2).await;
    assert_eq!(why, refused(Shortage::Memory));
    assert!((MIB / 100 * 85 - 8192..=MIB / 100 * 85).contains(&held()), "{}", held());
    created.extend(of_other);

    // Links count too.
    let links = (0..100).map(|number| name(&format!("link/{number}"))).collect();
    let linked = table.relink(&Tenant::default(), &created[0], links, None).await;
    assert_eq!(linked, Err(refused(Shortage::Memory)));

    for id in &created {
        table.delete(&Tenant::default(), id).await.unwrap();
    }
    assert_eq!(held(), 0);
    assert_eq!(fill(&table, 1).await.1, refused(Shortage::Share));
}

#[tokio::test]
async fn an_outcome_counts_for_the_wake_of_its_request_and_not_for_a_later_subscription_of_the_name() {
    let (limits, metrics) = (Arc::new(Limits::default()), Arc::new(Metrics::new()));
    let hub = Arc::new(Hub::new(Arc::new(Memory::new()), limits, metrics, Clock::start()));
    let keys = WebhookKeys::random().unwrap();
    let (table, mut due) = SubscriptionTable::open(&hub, keys, "http://localhost").await.unwrap();
    let tenant = Tenant::default();
    let mut deliveries = Vec::new();
    for round in 0..2 {
        table.delete(&tenant, "jobs").await.unwrap();
        let config = webhook().config;
        table.create(tenant.clone(), "jobs".to_owned(), config, Principal::GATEWAY).await.unwrap();
        let append = Append::of_any_type("x".into(), ContentType::octet_stream(), 1).or_create();
        hub.publish(&name(&format!("events/{round}")), append).await.unwrap();
        deliveries.push(due.recv().await.unwrap());
    }
    assert_eq!(deliveries[0].wake.generation, deliveries[1].wake.generation);
    table.complete_delivery(&deliveries[0], DeliveryOutcome::Done).await;
    assert!(!table.begin_delivery(&deliveries[0]).await);
    assert!(table.begin_delivery(&deliveries[1]).await);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_waits_for_its_turn_to_visit_all_streams_is_answered_and_wakes_meanwhile() {
    let (limits, metrics) = (Arc::new(Limits::default()), Arc::new(Metrics::new()));
    let hub = Arc::new(Hub::new(Arc::new(Memory::new()), limits, metrics, Clock::start()));
    let keys = WebhookKeys::random().unwrap();
    let (table, mut due) = SubscriptionTable::open(&hub, keys, "http://localhost").await.unwrap();
    let turns = table.shared.later_walks.clone();
    let all_turns = turns.acquire_many_owned(WALKS_MAX as u32).await.unwrap();
    let tenant = Tenant::default();
    table.create(tenant.clone(), "jobs".to_owned(), webhook().config, Principal::GATEWAY).await.unwrap();
    for _ in 0..9 {
        tokio::task::yield_now().await;
    }
    in_time("the view", table.describe(&tenant, "jobs")).await.unwrap();
    let append = Append::of_any_type("x".into(), ContentType::octet_stream(), 1).or_create();
    hub.publish(&name("events/a"), append).await.unwrap();
    in_time("the wake", due.recv()).await.unwrap();
    drop(all_turns);
    // It gives its turn back.
    let turns = table.shared.later_walks.clone();
    let _all = in_time("all turns", turns.acquire_many_owned(WALKS_MAX as u32)).await.unwrap();
}
