//! Budgets of wakes, and quiet hours.

use super::*;

#[test]
fn budgets_bound_the_wakes_of_a_channel_a_day_and_a_tenant() {
    let limited = AppPolicy { min_interval: seconds(180), burst: 3, ..policy("push") };
    let mut world = World::new(vec![limited]);
    let phone = world.device("phone", &["push"]);
    let wakes_in = |world: &mut World, time: u64, first: u64| {
        let mut wakes = 0;
        for second in 0..time {
            world.append(first + second);
            for order in world.orders() {
                world.report(&order, ok());
                wakes += 1;
                world.poll(&phone, 0);
            }
            world.pass(seconds(1));
        }
        wakes
    };
    assert_eq!(wakes_in(&mut world, 100, 10), 3, "a burst");
    assert_eq!(wakes_in(&mut world, 1800, 1000), 10, "and one each three minutes");

    let daily = AppPolicy { min_interval: seconds(1), per_day: Some(4), ..policy("push") };
    let mut world = World::new(vec![daily]);
    world.device("phone", &["push"]);
    assert_eq!(wakes_in(&mut world, 20_000, 10), 4);
    world.pass(seconds(24 * 3600));
    assert_eq!(wakes_in(&mut world, 20_000, 100_000), 4);

    let tenant = AppPolicy { tenant_per_day: Some(5), ..policy("push") };
    let world = World::new(vec![tenant]);
    for number in 0..20 {
        world.device(&format!("phone{number}"), &["push"]);
    }
    world.append(6);
    assert_eq!(world.orders().len(), 5);
}

#[test]
fn a_clock_that_is_set_back_locks_no_channel_for_longer_than_its_budget() {
    let limited = AppPolicy { min_interval: seconds(60), burst: 1, ..policy("push") };
    let mut world = World::new(vec![limited]);
    let phone = world.device("phone", &["push"]);
    world.append(6);
    world.report(&world.order(), ok());
    world.poll(&phone, 5);
    world.now -= seconds(365 * 24 * 3600);
    world.append(7);
    world.orders();
    world.pass(seconds(365 * 24 * 3600));
    world.pass(seconds(61));
    assert_eq!(world.woken().as_deref(), Some("push"));
}

#[test]
fn quiet_hours_follow_the_time_of_day_of_the_device() {
    // The clock starts at 08:00 UTC; the device is an hour ahead.
    let quiet = QuietHours { from: 8 * 60, to: 10 * 60 + 30, utc_offset: 60 };
    let mut world = World::new(vec![policy("push")]);
    world.registered("phone", &["push"], |device| device.quiet = Some(quiet));
    world.append(6);
    assert_eq!(world.woken(), None);
    world.pass(seconds(5399));
    assert_eq!(world.woken(), None);
    world.pass(seconds(1));
    assert_eq!(world.woken().as_deref(), Some("push"));

    // A step of the time of day counts at the next look.
    let mut world = World::new(vec![policy("push")]);
    world.registered("phone", &["push"], |device| device.quiet = Some(quiet));
    world.wall_ahead = seconds(3 * 3600);
    world.append(6);
    assert_eq!(world.woken().as_deref(), Some("push"));

    // Hours that span midnight.
    let night = QuietHours { from: 22 * 60, to: 9 * 60, utc_offset: 0 };
    let mut world = World::new(vec![policy("push")]);
    world.registered("phone", &["push"], |device| device.quiet = Some(night));
    world.append(6);
    assert_eq!(world.woken(), None);
    world.pass(seconds(3600));
    assert_eq!(world.woken().as_deref(), Some("push"));
}
