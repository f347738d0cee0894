//! Tests of the clock across steps, suspends and restarts, and of [`ReusableSleep`].

use std::future::poll_fn;
use std::time::Duration;

use tokio::time::advance;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const DAYS_400: Duration = Duration::from_secs(400 * 24 * 3600);
const SINCE_1970: Duration = Duration::from_secs(56 * 365 * 24 * 3600);

#[tokio::test(start_paused = true)]
async fn now_follows_tokio_and_suspends_but_not_steps() {
    let time = SimulatedTime::start();
    let clock = time.clock();
    let (start, instant) = (clock.now(), clock.instant());
    assert_eq!(clock.wall(), start);
    advance(HOUR).await;
    time.set_back(DAYS_400);
    assert_eq!((clock.now(), clock.wall()), (start + HOUR, start + HOUR - DAYS_400));
    time.suspend(8 * HOUR);
    time.set_forward(2 * DAYS_400);
    assert_eq!((clock.now(), clock.wall()), (start + 9 * HOUR, start + 9 * HOUR + DAYS_400));
    assert_eq!(clock.instant() - instant, 9 * HOUR);
    assert_eq!(clock.at(clock.instant() + HOUR), clock.now() + HOUR);
    let offset = clock.wall_offset();
    assert_eq!(offset.to_wall(clock.now()), clock.wall());
    assert_eq!(offset.to_stored(clock.wall()), clock.now());
    let timer = Instant::now();
    assert_eq!(clock.text(timer + HOUR), rfc3339(clock.wall() + HOUR));
    assert_eq!(clock.text(timer - HOUR), rfc3339(clock.wall() - HOUR));
}

#[tokio::test(start_paused = true)]
async fn a_resumed_clock_adds_the_time_since_its_reading() {
    // What happens between the reading and the resumed clock, an hour later, and how much time the resumed clock adds.
    type Event = fn(&SimulatedTime);
    let cases: [(&str, Event, Duration); 7] = [
        ("nothing", |_| {}, HOUR),
        ("a step forward", |time| time.set_forward(DAYS_400), HOUR),
        ("a step back", |time| time.set_back(DAYS_400), HOUR),
        ("a suspend", |time| time.suspend(8 * HOUR), 9 * HOUR),
        ("a boot", SimulatedTime::reboot, HOUR),
        ("a boot and a step back", |time| (time.reboot(), time.set_back(DAYS_400)).0, Duration::ZERO),
        ("a boot without a clock", |time| (time.reboot(), time.set_back(SINCE_1970)).0, Duration::ZERO),
    ];
    for (what, happens, passed) in cases {
        let time = SimulatedTime::start();
        let last = time.clock().reading();
        happens(time);
        advance(HOUR).await;
        let clock = time.resume(&last);
        assert_eq!(clock.now(), last.now + passed, "{what}");
        // The resumed clock advances like any other.
        advance(HOUR).await;
        time.set_forward(DAYS_400);
        assert_eq!(clock.now(), last.now + passed + HOUR, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn setting_an_unset_clock_adds_no_time() {
    let time = SimulatedTime::start();
    time.set_back(SINCE_1970);
    let unset = time.clock().reading();
    time.reboot();
    time.set_forward(SINCE_1970);
    let clock = time.resume(&unset);
    assert_eq!((clock.now(), clock.wall()), (unset.now, unset.wall + SINCE_1970));
}

async fn fires_at(timer: &mut ReusableSleep, since: Instant, seconds: u64) {
    let until = since + Duration::from_secs(seconds);
    in_time("the timer fires", poll_fn(|context| timer.poll(context, until))).await;
    assert_eq!(Instant::now().duration_since(since).as_secs(), seconds);
}

fn is_pending(timer: &mut ReusableSleep, context: &mut Context<'_>, until: Instant) -> Poll<bool> {
    Poll::Ready(timer.poll(context, until).is_pending())
}

#[tokio::test(start_paused = true)]
async fn it_fires_at_the_latest_deadline() {
    let (mut timer, since) = (ReusableSleep::default(), Instant::now());
    fires_at(&mut timer, since, 5).await;
    fires_at(&mut timer, since, 7).await;
    let late = since + Duration::from_secs(100);
    assert!(poll_fn(|context| is_pending(&mut timer, context, late)).await);
    fires_at(&mut timer, since, 10).await;
    let soon = since + Duration::from_secs(11);
    assert!(poll_fn(|context| is_pending(&mut timer, context, soon)).await);
    fires_at(&mut timer, since, 20).await;
    fires_at(&mut timer, since, 20).await;
}

#[test]
fn delays_double_up_to_their_bound() {
    let backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(60) };
    let bounds = [1, 2, 3, 6, 7, 100, u32::MAX].map(|failures| backoff.bound(failures).as_secs());
    assert_eq!(bounds, [1, 2, 4, 32, 60, 60, 60]);
    assert_eq!(backoff.bound(0), Duration::from_secs(1));
    assert_eq!([0.0, 0.5].map(|random| backoff.full_jitter(3, random).as_secs()), [0, 2]);
    assert_eq!([0.0, 0.5].map(|random| backoff.half_jitter(3, random).as_secs()), [2, 3]);
}
