//! Tests of the clock over steps, suspends and restarts, and of the timer.

use std::future::poll_fn;
use std::time::Duration;

use tokio::time::advance;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const DAYS_400: Duration = Duration::from_secs(400 * 24 * 3600);
const SINCE_1970: Duration = Duration::from_secs(56 * 365 * 24 * 3600);

#[tokio::test(start_paused = true)]
async fn it_passes_with_tokio_and_over_suspends_and_nobody_sets_it() {
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
    assert_eq!(offset.from_wall(clock.wall()), clock.now());
    let timer = Instant::now();
    assert_eq!(clock.text(timer + HOUR), rfc3339(clock.wall() + HOUR));
    assert_eq!(clock.text(timer - HOUR), rfc3339(clock.wall() - HOUR));
}

#[tokio::test(start_paused = true)]
async fn a_later_clock_goes_on_by_what_is_known_of_the_time_between() {
    // What happens between the two clocks while an hour passes, and how much the later one says has passed.
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
        // It goes on like any other.
        advance(HOUR).await;
        time.set_forward(DAYS_400);
        assert_eq!(clock.now(), last.now + passed + HOUR, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_before_a_clock_was_set_is_not_long_ago() {
    let time = SimulatedTime::start();
    time.set_back(SINCE_1970);
    let unset = time.clock().reading();
    time.reboot();
    time.set_forward(SINCE_1970);
    let clock = time.resume(&unset);
    assert_eq!((clock.now(), clock.wall()), (unset.now, unset.wall + SINCE_1970));
}

async fn rings_at(alarm: &mut ReusableSleep, since: Instant, seconds: u64) {
    let until = since + Duration::from_secs(seconds);
    in_time("the alarm rings", poll_fn(|context| alarm.poll(context, until))).await;
    assert_eq!(Instant::now().duration_since(since).as_secs(), seconds);
}

fn is_pending(alarm: &mut ReusableSleep, context: &mut Context<'_>, until: Instant) -> Poll<bool> {
    Poll::Ready(alarm.poll(context, until).is_pending())
}

#[tokio::test(start_paused = true)]
async fn it_rings_when_it_was_set_to_last() {
    let (mut alarm, since) = (ReusableSleep::default(), Instant::now());
    rings_at(&mut alarm, since, 5).await;
    rings_at(&mut alarm, since, 7).await;
    let late = since + Duration::from_secs(100);
    assert!(poll_fn(|context| is_pending(&mut alarm, context, late)).await);
    rings_at(&mut alarm, since, 10).await;
    let soon = since + Duration::from_secs(11);
    assert!(poll_fn(|context| is_pending(&mut alarm, context, soon)).await);
    rings_at(&mut alarm, since, 20).await;
    rings_at(&mut alarm, since, 20).await;
}
