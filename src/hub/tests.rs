//! Tests of the sweep on simulated time.

mod in_place;
mod tenants;

use std::num::NonZeroU64;
use std::task::{Context, Waker};

use tokio::time::advance;

use super::*;
use crate::clock::{Clock, ReusableSleep, SimulatedTime};
use crate::store::Memory;
use crate::stream::{Lifetime, Start, StreamName};

const HOUR: Duration = Duration::from_secs(3600);
const DAYS_400: Duration = Duration::from_secs(400 * 24 * 3600);

fn name(text: &str) -> StreamName {
    StreamName::parse(text).unwrap()
}

async fn create(hub: &Hub, stream: &str, lifetime: Lifetime) {
    let creation = Creation { lifetime: Some(lifetime), ..Creation::default() };
    hub.create(&name(stream), creation).await.unwrap();
}

/// Creates a hub with a running sweep, on time that the test moves.
fn hub() -> (&'static SimulatedTime, Clock, Arc<Hub>) {
    let time = SimulatedTime::start();
    let (store, metrics, clock) = (Arc::new(Memory::new()), Arc::new(Metrics::new()), time.clock());
    let hub = Arc::new(Hub::new(store, Arc::new(Limits::default()), metrics, clock));
    let sweeper = hub.clone();
    tokio::spawn(async move { sweeper.sweep().await });
    (time, clock, hub)
}

/// Lets one sweep run.
async fn a_second_later() {
    advance(SWEEP_INTERVAL).await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

/// Whether a waiting reader of this stream is told of its end within a second after `happens` runs.
async fn is_told(hub: &Arc<Hub>, stream: &str, happens: impl FnOnce()) -> bool {
    let settings = PollSettings { hold: HOUR, client: None, credentials: None, open: None };
    let reader = hub.stream_reader(&name(stream), Start::Earliest);
    let PollStart::Held(mut held) = hub.begin_poll(reader, settings).await.unwrap() else {
        panic!("the poll is answered at once")
    };
    let mut timer = ReusableSleep::default();
    let mut is_answered = || held.poll_answer(&mut timer, &mut Context::from_waker(Waker::noop())).is_ready();
    assert!(!is_answered());
    happens();
    a_second_later().await;
    is_answered()
}

#[tokio::test(start_paused = true)]
async fn a_suspend_counts_towards_lifetimes_once_it_is_over() {
    let (time, clock, hub) = hub();
    a_second_later().await;
    create(&hub, "idle for 8 h", Lifetime::Idle(8 * HOUR)).await;
    create(&hub, "idle for 9 h", Lifetime::Idle(9 * HOUR)).await;
    create(&hub, "ends in 9 h", Lifetime::Until(clock.wall() + 9 * HOUR)).await;
    create(&hub, "ends in 8 h", Lifetime::Until(clock.wall() + 8 * HOUR)).await;
    assert!(is_told(&hub, "ends in 8 h", || time.suspend(8 * HOUR)).await);
    assert_eq!(hub.counts().streams, 2, "the two streams of 9 h");
    assert!(is_told(&hub, "ends in 9 h", || time.suspend(HOUR)).await);
    assert_eq!(hub.counts().streams, 0);
}

#[tokio::test(start_paused = true)]
async fn a_sweep_that_sleeps_is_woken_for_a_stream_that_ends_sooner() {
    let (_, clock, hub) = hub();
    let seconds_later = 5 * SWEEP_INTERVAL;
    for lifetime in
        [Lifetime::Idle(seconds_later), Lifetime::Until(clock.wall() + 3 * HOUR + 13 * SWEEP_INTERVAL)]
    {
        create(&hub, "later", Lifetime::Idle(100 * HOUR)).await;
        advance(HOUR).await;
        a_second_later().await;
        create(&hub, "sooner", lifetime).await;
        for _ in 0..7 {
            a_second_later().await;
        }
        assert_eq!(hub.counts().streams, 1, "{lifetime:?}");
        advance(HOUR).await;
    }
}

#[tokio::test(start_paused = true)]
async fn setting_the_wall_clock_moves_only_ends_given_as_a_time_of_day() {
    let (time, clock, hub) = hub();
    a_second_later().await;
    create(&hub, "idle", Lifetime::Idle(HOUR)).await;
    create(&hub, "until", Lifetime::Until(clock.wall() + HOUR)).await;
    assert!(!is_told(&hub, "until", || time.set_back(DAYS_400)).await);
    assert_eq!(hub.counts().streams, 2);
    assert!(is_told(&hub, "until", || time.set_forward(DAYS_400 + HOUR)).await);
    assert_eq!(hub.counts().streams, 1, "only the idle stream is left");
    time.set_forward(DAYS_400);
    a_second_later().await;
    assert_eq!(hub.counts().streams, 1, "only the idle stream is left");
    time.suspend(HOUR);
    a_second_later().await;
    assert_eq!(hub.counts().streams, 0);
}

/// The clock is paused: nothing waits for a timer between the end of a token and the answer.
#[tokio::test(start_paused = true)]
async fn a_held_poll_whose_token_no_longer_stands_is_answered_at_once_and_others_are_not() {
    let (_, _, hub) = hub();
    create(&hub, "s", Lifetime::default()).await;
    let mut timers: [ReusableSleep; 2] = Default::default();
    let [revoked, other] = [1, 2].map(|mark| CredentialMark(NonZeroU64::new(mark).unwrap(), 0));
    let hold = async |credentials| {
        let settings = PollSettings { hold: HOUR, credentials: Some(credentials), ..PollSettings::default() };
        match hub.begin_poll(hub.stream_reader(&name("s"), Start::Earliest), settings).await.unwrap() {
            PollStart::Held(held) => held,
            PollStart::Answered(_) => panic!("the poll is answered at once"),
        }
    };
    let mut polls = [hold(revoked).await, hold(other).await];
    let mut answered = || {
        let mut context = Context::from_waker(Waker::noop());
        let mut timers = timers.iter_mut();
        polls.each_mut().map(|poll| poll.poll_answer(timers.next().unwrap(), &mut context).is_ready())
    };
    assert_eq!(answered(), [false, false]);
    hub.end_polls(|mark| mark == revoked);
    assert_eq!(answered(), [true, false]);
}
