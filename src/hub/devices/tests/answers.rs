//! What the answers of providers change.

use super::*;

#[test]
fn a_failing_provider_is_tried_again_and_then_the_next_channel() {
    let mut world = World::new(vec![policy("push"), policy("sms")]);
    world.device("phone", &["push", "sms"]);
    world.append(6);
    let mut wakes = Vec::new();
    let mut tries = 0;
    while let Some(order) = {
        world.pass(seconds(700));
        world.orders().pop()
    }
    .filter(|order| &*order.app == "push")
    {
        wakes.push(order.wake);
        world.report(&order, Verdict::Retry { after: seconds(1) });
        assert_eq!(world.woken(), if tries == 5 { Some("sms".to_owned()) } else { None });
        tries += 1;
        if tries == 6 {
            break;
        }
    }
    wakes.dedup();
    assert_eq!((tries, wakes.len()), (6, 1), "a retry has the number of its wake");
}

#[test]
fn a_provider_that_fails_all_the_time_is_left_alone_and_loses_nothing() {
    let mut world = World::new(vec![policy("push")]);
    for number in 0..100 {
        world.device(&format!("phone{number}"), &["push"]);
    }
    world.append(6);
    let orders = world.orders();
    assert_eq!(orders.len(), 100);
    for order in &orders {
        world.report(order, Verdict::Retry { after: seconds(1) });
    }
    world.pass(seconds(29));
    assert!(world.orders().is_empty(), "the breaker is open");
    world.pass(seconds(32));
    let probe = world.orders();
    assert_eq!(probe.len(), 1, "one wake probes the provider");
    world.pass(seconds(6));
    assert!(world.orders().is_empty(), "the probe is under way");
    world.report(&probe[0], ok());
    let mut woken = 1;
    for _ in 0..3600 {
        for order in world.orders() {
            world.report(&order, ok());
            woken += 1;
        }
        world.pass(seconds(1));
    }
    assert_eq!(woken, 100);
}

#[test]
fn slowing_down_pauses_all_devices_of_the_app() {
    let mut world = World::new(vec![policy("push")]);
    world.device("one", &["push"]);
    world.device("other", &["push"]);
    world.append(6);
    let orders = world.orders();
    world.report(&orders[0], Verdict::Slow { until: world.wall() + seconds(100) });
    world.report(&orders[1], ok());
    world.device("third", &["push"]);
    world.append(7);
    world.pass(seconds(99));
    assert!(
        world
            .orders()
            .iter()
            .all(|order| order.device != orders[0].device && order.device.as_str() != "third")
    );
    world.pass(seconds(60));
    let woken: Vec<_> = world.orders().iter().map(|order| order.device.as_str().to_owned()).collect();
    assert!(woken.contains(&"third".to_owned()), "{woken:?}");
}

#[test]
fn wrong_settings_skip_the_channel_without_a_word_to_the_provider() {
    let mut world = World::new(vec![policy("push"), policy("sms")]);
    world.device("phone", &["push", "sms"]);
    world.append(6);
    world.report(&world.order(), Verdict::config("no such project"));
    assert_eq!(world.woken().as_deref(), Some("sms"));
    world.device("other", &["push", "sms"]);
    world.append(7);
    let apps: Vec<_> = world.orders().iter().map(|order| order.app.to_string()).collect();
    assert_eq!(apps, ["sms"], "push is not asked for some minutes");
    world.pass(seconds(301));
}

#[test]
fn a_device_that_is_gone_is_removed_once_the_provider_accepts_another() {
    let world = World::new(vec![policy("push"), policy("sms")]);
    let dead = world.device("dead", &["push", "sms"]);
    let alive = world.device("alive", &["push"]);
    world.append(6);
    let orders = world.orders();
    let of = |id: &ClientId| orders.iter().find(|order| order.device == *id).unwrap();
    world.report(of(&dead), Verdict::Gone { since: None });
    assert_eq!(world.gone(&dead), [true, false]);
    assert!(world.devices.take_removed().is_empty(), "nothing proves the settings right so far");
    assert_eq!(world.woken().as_deref(), Some("sms"), "the next channel is tried at once");
    world.report(of(&alive), ok());
    assert_eq!(world.gone(&dead), [false]);
    let removed = world.devices.take_removed();
    assert_eq!(removed.len(), 1);
    assert_eq!((&removed[0].device, &*removed[0].app), (&dead, "push"));
    assert_eq!(removed[0].credential, credential(&dead, "push").hint());
}

#[test]
fn a_provider_that_calls_everybody_gone_removes_nobody_even_after_it_has_recovered() {
    let mut world = World::new(vec![policy("push")]);
    let phones: Vec<_> = (0..50).map(|number| world.device(&format!("phone{number}"), &["push"])).collect();
    world.append(6);
    for order in world.orders() {
        world.report(&order, Verdict::Gone { since: None });
    }
    assert!(phones.iter().all(|phone| world.gone(phone) == [true]));
    let late = world.device("late", &["push"]);
    world.append(7);
    world.pass(seconds(60));
    let order = world.orders().into_iter().find(|order| order.device == late).unwrap();
    world.report(&order, ok());
    assert!(phones.iter().all(|phone| world.gone(phone) == [false]), "all are tried again");
    assert!(world.devices.take_removed().is_empty());
}

#[test]
fn a_device_that_has_registered_again_is_not_gone() {
    let world = World::new(vec![policy("push")]);
    let phone = world.device("phone", &["push"]);
    world.append(6);
    let order = world.order();
    world.report(&order, Verdict::Gone { since: Some(world.wall() - seconds(1)) });
    assert_eq!(world.gone(&phone), [false]);
    world.device("other", &["push"]);
    world.append(7);
    world.report(&world.orders()[0], ok());
    assert!(world.devices.take_removed().is_empty());
}
