//! Devices that read all streams that a filter matches.

use super::*;

impl World {
    /// Registers a device that has read all that the streams of a filter have now.
    fn filtering(&self, id: &str, text: &str) -> ClientId {
        self.registered(id, &["push"], |device| {
            device.interests.clear();
            let read_up_to = Some(self.now);
            device.filters = vec![FilterInterest { filter: filter(text), read_up_to, news: None }];
        })
    }

    /// An append to any stream, now.
    fn append_to(&self, name: &str, position: u64) {
        self.stream_moved(name, Some(at(1, position)), Some(self.now));
    }

    fn reads(&self, id: &ClientId, name: &str) {
        let start = Start::Tail;
        self.devices.polled(id, [(&stream(name), start)].into_iter(), false, self.now);
    }
}

#[test]
fn a_device_is_woken_by_the_streams_of_its_filter_and_by_no_other() {
    let mut world = World::new(vec![policy("push")]);
    let phone = world.filtering("phone", "news/+");
    world.pass(seconds(1));
    world.append_to("news/a/b", 1);
    world.append_to("other", 1);
    assert_eq!(world.woken(), None);
    world.append_to("news/b", 1);
    world.report(&world.order(), ok());
    world.append_to("news/c", 1);
    assert_eq!(world.woken(), None, "one wake is outstanding");
    world.reads(&phone, "news/x");
    world.pass(GRACE);
    assert_eq!(world.woken(), None, "a poll of one of them reads all");
    world.append_to("news/b", 2);
    world.pass(seconds(10));
    assert_eq!(world.woken().as_deref(), Some("push"));
}

#[test]
fn a_poll_of_another_stream_reads_nothing_of_a_filter() {
    let mut world = World::new(vec![policy("push")]);
    let phone = world.filtering("phone", "news/#");
    world.pass(seconds(1));
    world.append_to("news/a", 1);
    world.report(&world.order(), ok());
    world.reads(&phone, "other");
    world.pass(seconds(10));
    assert_eq!(world.woken().as_deref(), Some("push"));
    // A client of a session has all of its streams.
    world.devices.polled(&phone, std::iter::empty(), true, world.now);
    world.pass(seconds(10));
    assert_eq!(world.woken(), None);
}

#[test]
fn appends_that_arrive_in_another_order_than_that_of_their_times_are_news() {
    let mut world = World::new(vec![policy("push")]);
    let phone = world.filtering("phone", "news/#");
    let early = world.now + seconds(1);
    world.pass(seconds(2));
    world.append_to("news/a", 1);
    world.report(&world.order(), ok());
    world.reads(&phone, "news/a");
    world.stream_moved("news/b", Some(at(1, 1)), Some(early));
    world.pass(seconds(10));
    assert_eq!(world.woken().as_deref(), Some("push"));
}

#[test]
fn an_append_visits_only_the_devices_of_a_filter_that_sleep() {
    let mut world = World::new(vec![policy("push")]);
    let phones: Vec<_> =
        (0..700).map(|number| world.filtering(&format!("phone{number}"), "news/#")).collect();
    let own = world.filtering("own", "own/#");
    world.pass(seconds(1));
    world.append_to("news/a", 1);
    let orders = world.orders();
    assert_eq!(orders.len(), phones.len());
    orders.iter().for_each(|order| world.report(order, ok()));
    let waiting = |text| {
        let target = ReadTarget::Filter(filter(text));
        world.devices.table.lock().readers.waiting(&target, None, 1000)
    };
    assert_eq!((waiting("news/#"), waiting("own/#")), (Vec::new(), vec![own]));
    world.reads(&phones[3], "news/a");
    assert_eq!(waiting("news/#"), [phones[3].clone()]);
}

#[test]
fn what_was_read_before_a_restart_is_known_after_it() {
    let mut world = World::new(vec![policy("push")]);
    let phone = world.filtering("phone", "news/#");
    world.pass(seconds(1));
    world.append_to("news/a", 1);
    world.report(&world.order(), ok());
    world.reads(&phone, "news/a");
    let appended_at = world.now;
    let restarted = |newest: SystemTime| {
        let mut device = world.devices.table.lock().devices.get(&phone).unwrap().clone();
        device.filters.iter_mut().for_each(|interest| interest.news = None);
        let mut other = World::new(vec![policy("push")]);
        other.now = world.now + seconds(60);
        let mut table = other.devices.table.lock();
        table.put(device, None);
        table.readers.found(&stream("news/a"), newest);
        other.devices.schedule(&mut table, &phone, other.now);
        drop(table);
        other.woken()
    };
    assert_eq!(restarted(appended_at), None);
    assert_eq!(restarted(appended_at + seconds(1)).as_deref(), Some("push"));
}

#[test]
fn a_device_that_registers_again_still_has_to_read_what_is_new() {
    let mut world = World::new(vec![policy("push")]);
    let phone = world.filtering("phone", "news/#");
    world.pass(seconds(1));
    world.append_to("news/a", 1);
    let mut table = world.devices.table.lock();
    let device = table.devices.get(&phone).unwrap().clone();
    assert_eq!(table.put(device, None), (Vec::new(), Vec::new()));
    world.devices.schedule(&mut table, &phone, world.now);
    drop(table);
    assert_eq!(world.woken().as_deref(), Some("push"));
}

#[test]
fn the_last_device_of_a_filter_ends_it() {
    let world = World::new(vec![policy("push")]);
    let (one, other) = (world.filtering("one", "news/#"), world.filtering("other", "news/#"));
    let mut table = world.devices.table.lock();
    let target = ReadTarget::Filter(filter("news/#"));
    assert_eq!(table.take(&one), []);
    assert!(table.readers.has(&target));
    assert_eq!(table.take(&other), std::slice::from_ref(&target));
    assert!(!table.readers.has(&target));
}

#[test]
fn a_session_that_ends_has_read_what_it_was_sent_and_nothing_else() {
    let mut world = World::new(vec![policy("push")]);
    let phone = world.filtering("phone", "news/#");
    let connect = |world: &World| world.devices.polled(&phone, std::iter::empty(), true, world.now);
    // It is not subscribed to `news/z`, and `news/new` was created after it subscribed.
    let leave = |world: &World, a: u64| {
        let read_up_to = |name: &StreamName| match name.as_str() {
            "news/a" => Some(Start::At(at(1, a))),
            "news/new" => Some(Start::Earliest),
            _ => None,
        };
        world.devices.session_ended(&phone, &read_up_to, world.now);
    };
    connect(&world);
    world.pass(seconds(1));
    world.append_to("news/a", 1);
    world.append_to("news/z", 1);
    leave(&world, 1);
    world.pass(seconds(10));
    assert_eq!(world.woken(), None, "it has all of its streams");
    connect(&world);
    world.append_to("news/a", 3);
    connect(&world);
    leave(&world, 2);
    world.pass(seconds(10));
    assert_eq!(world.woken().as_deref(), Some("push"), "the last message of news/a was lost on the way");
    connect(&world);
    leave(&world, 3);
    world.append_to("news/new", 1);
    leave(&world, 3);
    world.pass(seconds(10));
    assert_eq!(world.woken().as_deref(), Some("push"), "news/new was not sent");
    // More streams than are remembered, of which the newest were sent.
    connect(&world);
    for number in 0..20 {
        world.append_to(&format!("news/z/{number}"), 1);
    }
    leave(&world, 3);
    world.pass(seconds(10));
    assert_eq!(world.woken(), None);
}
