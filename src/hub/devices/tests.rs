//! Devices on a clock that the test moves: when they are woken, over which channel, and what the answers of providers change.

mod answers;
mod budgets;
mod changes;
mod filters;
mod receipts;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::app::{AppPolicy, Credential, CredentialKind, Verdict};
use super::channel::{Channel, QuietHours};
use super::device::{Device, GRACE, WakeOrder};
use super::interest::{FilterInterest, Interest};
use super::readers::ReadTarget;
use super::record;
use super::table::Devices;
use crate::hub::ClientId;
use crate::hub::subscriber::Subscribers;
use crate::metrics::Metrics;
use crate::stream::{Epoch, Filter, Offset, Position, Principal, Start, StoredSession, StreamName};

const START: Duration = Duration::from_secs(1_800_000_000);

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn policy(name: &str) -> AppPolicy {
    AppPolicy {
        name: name.into(),
        provider: "webhook",
        credential: CredentialKind::Token,
        public_key: None,
        min_interval: seconds(10),
        burst: 100,
        per_day: None,
        tenant_per_day: None,
        prefixes: Vec::new(),
        ttl: seconds(3600),
    }
}

fn stream(name: &str) -> StreamName {
    StreamName::parse(name).unwrap()
}

fn filter(text: &str) -> Filter {
    Filter::parse(text).unwrap()
}

fn at(epoch: u64, position: u64) -> Offset {
    Offset { epoch: Epoch(epoch), position: Position(position) }
}

/// Whatever a test does, the devices in each state are counted right.
impl Drop for World {
    fn drop(&mut self) {
        let table = self.devices.table.lock();
        let is_counted = table.devices.in_state() == table.devices.counted_in_state();
        assert!(is_counted || std::thread::panicking());
    }
}

/// A table with one clock, which is also the time of day unless the test sets that.
struct World {
    devices: Devices,
    now: SystemTime,
    wall_ahead: Duration,
    /// How long ago a device held a poll.
    seen: Option<Duration>,
}

impl World {
    fn new(apps: Vec<AppPolicy>) -> Self {
        let metrics = Metrics::new();
        let devices = Devices::new(metrics.wakes().clone(), Subscribers::default().unlisted(), 1000);
        devices.offer(apps);
        let now = SystemTime::UNIX_EPOCH + START;
        Self { devices, now, wall_ahead: Duration::ZERO, seen: None }
    }

    /// Registers a device that has read `news` up to 5, with a channel for each of the apps.
    fn device(&self, id: &str, apps: &[&str]) -> ClientId {
        self.registered(id, apps, |_| {})
    }

    fn registered(&self, id: &str, apps: &[&str], change: impl FnOnce(&mut Device)) -> ClientId {
        let id = ClientId::parse(id).unwrap();
        let offset = Some(at(1, 5));
        let channel = |app: &&str| Channel::new(Arc::from(*app), credential(&id, app), self.wall());
        let mut device = Device {
            principal: Principal(1),
            interests: vec![Interest { stream: stream("news"), offset, tail: offset }],
            filters: Vec::new(),
            credentials: None,
            channels: apps.iter().map(channel).collect(),
            quiet: None,
            escalate_after: seconds(60),
            expires_at: self.now + seconds(30 * 24 * 3600),
            outstanding: None,
            silence: Default::default(),
            connections: 0,
            seen_at: None,
            charged: 0,
            asked_for: false,
            id: id.clone(),
        };
        change(&mut device);
        let mut table = self.devices.table.lock();
        table.put(device, None);
        self.devices.recount(&table);
        id
    }

    fn wall(&self) -> SystemTime {
        self.now + self.wall_ahead
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// An append moves the tail of `news`.
    fn append(&self, position: u64) {
        self.moved(Some(at(1, position)));
    }

    fn moved(&self, tail: Option<Offset>) {
        self.stream_moved("news", tail, None);
    }

    fn stream_moved(&self, name: &str, tail: Option<Offset>, appended_at: Option<SystemTime>) {
        for target in self.devices.moved(&stream(name), tail, appended_at) {
            let mut after = None;
            while let Some(last) = self.devices.visit(&target, after.as_ref(), self.now) {
                after = Some(last);
            }
        }
    }

    fn orders(&self) -> Vec<WakeOrder> {
        let seen = self.seen;
        self.devices.take_due(self.now, self.wall(), usize::MAX, &move |_| seen)
    }

    /// The app over which the one device is woken now.
    fn woken(&self) -> Option<String> {
        let orders = self.orders();
        assert!(orders.len() <= 1, "{orders:?}");
        orders.first().map(|order| order.app.to_string())
    }

    fn order(&self) -> WakeOrder {
        self.orders().pop().expect("a wake is due")
    }

    fn report(&self, order: &WakeOrder, verdict: Verdict) {
        self.devices.report(order, &verdict, self.now, self.wall());
    }

    fn poll(&self, id: &ClientId, position: u64) {
        let start = Start::At(at(1, position));
        self.devices.polled(id, [(&stream("news"), start)].into_iter(), false, self.now);
    }

    /// The states of the channels of a device.
    fn gone(&self, id: &ClientId) -> Vec<bool> {
        self.devices
            .table
            .lock()
            .devices
            .get(id)
            .unwrap()
            .channels
            .iter()
            .map(|channel| channel.is_gone)
            .collect()
    }
}

fn credential(id: &ClientId, app: &str) -> Credential {
    Credential::Token(format!("{}-{app}", id.as_str()).into())
}

fn ok() -> Verdict {
    Verdict::Ok { id: None }
}

#[test]
fn a_sleeping_device_is_woken_by_an_append_and_not_again_before_it_polls() {
    let mut world = World::new(vec![policy("push")]);
    let phone = world.device("phone", &["push"]);
    assert_eq!(world.woken(), None);
    world.append(6);
    let order = world.order();
    assert_eq!((&order.device, &*order.app), (&phone, "push"));
    world.report(&order, ok());
    for position in 7..20 {
        world.append(position);
        assert_eq!(world.woken(), None, "one wake is outstanding");
        world.pass(seconds(1));
    }
    world.poll(&phone, 19);
    world.pass(GRACE);
    assert_eq!(world.woken(), None, "it has read everything");
    world.append(20);
    assert_eq!(world.woken().as_deref(), Some("push"));
}

#[test]
fn a_device_that_was_woken_and_has_not_read_everything_is_woken_again() {
    let mut world = World::new(vec![policy("push")]);
    let phone = world.device("phone", &["push"]);
    world.append(9);
    world.report(&world.order(), ok());
    world.poll(&phone, 5);
    assert_eq!(world.woken(), None, "it may be about to go on");
    world.pass(GRACE);
    assert_eq!(world.woken().as_deref(), Some("push"));
}

#[test]
fn a_connected_device_is_not_woken_until_it_has_been_away_for_a_moment() {
    let mut world = World::new(vec![policy("push")]);
    let phone = world.device("phone", &["push"]);
    assert!(world.devices.connected(&phone));
    world.append(6);
    assert_eq!(world.woken(), None);
    world.pass(seconds(3600));
    world.devices.disconnected(&phone, world.now);
    assert_eq!(world.woken(), None, "a reconnect is no reason to wake");
    world.pass(GRACE);
    assert_eq!(world.woken().as_deref(), Some("push"));
}

#[test]
fn a_device_that_holds_a_poll_is_not_woken() {
    let mut world = World::new(vec![policy("push")]);
    world.device("phone", &["push"]);
    world.seen = Some(Duration::ZERO);
    world.append(6);
    for _ in 0..10 {
        assert_eq!(world.woken(), None);
        world.pass(seconds(5));
    }
    world.seen = Some(seconds(1));
    assert_eq!(world.woken(), None, "the poll has just ended");
    world.seen = Some(seconds(6));
    world.pass(seconds(5));
    assert_eq!(world.woken().as_deref(), Some("push"));
}

#[test]
fn a_wake_without_a_poll_goes_on_to_the_next_channel_and_the_last_one_ends_it() {
    let mut world = World::new(vec![policy("push"), policy("vendor"), policy("sms")]);
    world.device("phone", &["push", "vendor", "sms"]);
    world.append(6);
    for app in ["push", "vendor", "sms"] {
        let order = world.order();
        assert_eq!(&*order.app, app);
        world.report(&order, ok());
        world.pass(seconds(59));
        assert_eq!(world.woken(), None);
        world.pass(seconds(1));
    }
    assert_eq!(world.woken(), None);
    world.pass(seconds(24 * 3600));
    assert_eq!(world.woken(), None, "only another append starts again");
    world.append(7);
    assert_eq!(world.woken().as_deref(), Some("push"));
}

#[test]
fn a_silent_device_is_woken_less_and_less_often() {
    let mut world = World::new(vec![policy("push")]);
    world.device("phone", &["push"]);
    let mut pauses = Vec::new();
    let mut last = world.now;
    for position in 0..3000 {
        world.append(6 + position);
        if let Some(order) = world.orders().pop() {
            world.report(&order, ok());
            pauses.push(world.now.duration_since(last).unwrap().as_secs());
            last = world.now;
        }
        world.pass(seconds(60));
    }
    assert!(pauses.windows(2).skip(1).all(|pair| pair[1] > pair[0]), "{pauses:?}");
    assert!(pauses.len() < 13, "{pauses:?}");
}

#[test]
fn escalation_that_is_off_waits_until_the_provider_drops_the_wake() {
    let mut world = World::new(vec![policy("push"), policy("sms")]);
    world.registered("phone", &["push", "sms"], |device| device.escalate_after = Duration::ZERO);
    world.append(6);
    world.report(&world.order(), ok());
    for _ in 0..100 {
        world.pass(seconds(3600));
        assert_eq!(world.woken(), None);
    }
    world.append(7);
    assert_eq!(world.woken().as_deref(), Some("push"));
}

#[test]
fn a_stream_that_was_created_again_is_pending_and_one_that_is_gone_is_not() {
    let world = World::new(vec![policy("push")]);
    world.device("phone", &["push"]);
    world.moved(None);
    assert_eq!(world.woken(), None);
    world.moved(Some(at(2, 0)));
    assert_eq!(world.woken().as_deref(), Some("push"));
}

#[test]
fn a_device_is_woken_for_a_stream_that_was_deleted_and_created_again() {
    let mut world = World::new(vec![policy("push")]);
    world.device("phone", &["push"]);
    world.append(6);
    world.report(&world.order(), ok());
    world.moved(None);
    world.pass(seconds(3600));
    assert_eq!(world.woken(), None, "nothing is new");
    world.moved(Some(at(2, 1)));
    assert_eq!(world.woken().as_deref(), Some("push"));
}

#[test]
fn a_device_that_does_not_register_again_is_forgotten() {
    let mut world = World::new(vec![policy("push")]);
    let phone = world.device("phone", &["push"]);
    world.pass(seconds(30 * 24 * 3600));
    world.append(6);
    assert_eq!(world.woken(), None);
    assert!(!world.devices.table.lock().devices.contains(&phone));
    assert!(world.devices.is_empty());
    assert_eq!(world.devices.take_unsaved(10), std::slice::from_ref(&phone));
    assert!(world.devices.stored_form(&phone).is_none());
}

#[test]
fn a_record_restores_everything_that_a_restart_needs() {
    let world = World::new(vec![policy("push"), policy("sms")]);
    let phone = world.registered("phone", &["push", "sms"], |device| {
        device.quiet = Some(QuietHours { from: 1, to: 2, utc_offset: -60 });
        device.interests.push(Interest { stream: stream("a/b"), offset: None, tail: None });
        let read_up_to = Some(SystemTime::UNIX_EPOCH);
        device.filters.push(FilterInterest { filter: filter("c/#"), read_up_to, news: None });
        device.credentials = Some(Box::new([1, 2]));
    });
    world.append(6);
    world.report(&world.order(), ok());
    let device = world.devices.table.lock().devices.get(&phone).unwrap().clone();
    let change = record::change(&phone, record::encoded(&device));
    let entries = change.entries.into_iter().map(|(key, value)| (key, value.unwrap())).collect();
    let restored = record::decoded(&StoredSession { client: change.client.clone(), entries }).unwrap();
    let mut expected = device;
    expected.interests.iter_mut().for_each(|interest| interest.tail = None);
    (expected.seen_at, expected.charged) = (None, 0);
    assert_eq!(restored, expected);
    // A record from before devices had filters.
    let old = StoredSession { client: change.client.clone(), entries: Vec::new() };
    let whole =
        record::encoded(&Device { filters: Vec::new(), credentials: None, ..expected.clone() }).unwrap();
    let entries = vec![(bytes::Bytes::from_static(b"d"), whole.slice(..whole.len() - 2))];
    let restored = record::decoded(&StoredSession { entries, ..old }).unwrap();
    assert_eq!(restored, Device { filters: Vec::new(), credentials: None, ..expected });
    assert_eq!(record::decoded(&StoredSession { client: "\0device/x".into(), entries: Vec::new() }), None);
}

#[test]
fn a_wake_that_was_asked_for_is_sent_although_nothing_is_new() {
    let mut world = World::new(vec![policy("push")]);
    let phone = world.registered("phone", &["push"], |device| device.asked_for = true);
    world.devices.schedule(&mut world.devices.table.lock(), &phone, world.now);
    let order = world.order();
    world.report(&order, ok());
    world.poll(&phone, 5);
    world.pass(seconds(3600));
    assert_eq!(world.woken(), None);
}

#[test]
fn credentials_are_checked_and_never_shown() {
    let secret = Credential::Token("+31600000001".into());
    assert_eq!(format!("{secret:?}"), format!("Credential({})", secret.hint()));
    assert_eq!(secret.hint().len(), 8);
    let phone = |text: &str| Credential::Token(text.into()).is_of(CredentialKind::Phone);
    assert!(phone("+31600000001") && phone("+1234567"));
    for text in ["", "+", "31600000001", "+123456", "+1234567890123456", "+31 6000000", "+3160000000x"] {
        assert!(!phone(text), "{text}");
    }
}

#[test]
fn each_of_many_readers_of_a_stream_is_woken_once_and_visited_once() {
    let mut world = World::new(vec![policy("push")]);
    let phones: Vec<_> = (0..700).map(|number| world.device(&format!("phone{number}"), &["push"])).collect();
    for position in 6..9 {
        world.append(position);
    }
    let orders = world.orders();
    assert_eq!(orders.len(), phones.len());
    orders.iter().for_each(|order| world.report(order, ok()));
    world.append(9);
    let waiting = |world: &World| {
        let news = ReadTarget::Stream(stream("news"));
        world.devices.table.lock().readers.waiting(&news, None, 1000).len()
    };
    assert_eq!(waiting(&world), 0, "an append visits no device that is woken");
    world.poll(&phones[0], 9);
    assert_eq!(waiting(&world), 1);
    world.poll(&phones[1], 6);
    world.pass(seconds(10));
    let again = world.orders();
    assert_eq!(
        again.iter().map(|order| &order.device).collect::<Vec<_>>(),
        [&phones[1]],
        "its tail is up to date"
    );
}

#[test]
fn a_poll_is_stored_only_if_it_says_something_new() {
    let mut world = World::new(vec![policy("push")]);
    let phone = world.device("phone", &["push"]);
    let stored = |world: &World| world.devices.take_unsaved(10).len();
    world.poll(&phone, 5);
    assert_eq!(stored(&world), 0, "the same offset");
    world.append(7);
    world.poll(&phone, 6);
    assert_eq!(stored(&world), 1, "another offset");
    world.append(8);
    world.pass(GRACE);
    let _order = world.order();
    assert_eq!(stored(&world), 1, "a wake");
    world.poll(&phone, 6);
    assert_eq!(stored(&world), 1, "the wake is confirmed");
    world.poll(&phone, 6);
    assert_eq!(stored(&world), 0);
}

#[test]
fn the_devices_in_each_state_are_counted() {
    let world = World::new(vec![policy("push")]);
    let phone = world.device("phone", &["push"]);
    world.device("other", &["push"]);
    assert_eq!(world.devices.states(), [0, 0, 0, 2], "asleep");
    world.append(6);
    assert_eq!(world.devices.states(), [0, 0, 2, 0], "pending");
    assert_eq!(world.orders().len(), 2);
    assert_eq!(world.devices.states(), [0, 2, 0, 0], "woken");
    assert!(world.devices.connected(&phone));
    assert_eq!(world.devices.states(), [1, 1, 0, 0], "connected");
    world.devices.disconnected(&phone, world.now);
    assert_eq!(world.devices.states(), [0, 2, 0, 0]);
}
