//! What single steps of a reader change: its patience, what it has learned, and the time in which its user was busy.

use super::*;

fn policy(settings: Settings, known: Known) -> (Policy, Instant) {
    let now = Instant::now();
    (Policy::new(settings, known, Rng::with_seed(7), now), now)
}

/// Begins the next attempt, when it is due.
fn begin(policy: &mut Policy, mut now: Instant) -> Instant {
    while let Step::Wait(until) = policy.next(now) {
        now = until;
    }
    policy.begin(now);
    now
}

/// The delay before the next attempt.
fn delay(policy: &mut Policy, now: Instant) -> Duration {
    begin(policy, now) - now
}

#[test]
fn patience_counts_from_the_begin_of_an_attempt_and_not_from_its_decision() {
    let (mut policy, now) = policy(Settings::default(), Known::default());
    assert_eq!(policy.next(now), Step::Read);
    let later = now + seconds(10);
    policy.begin(later);
    assert_eq!(policy.attempt().deadline(), later + seconds(5));
    policy.connected(later);
    assert_eq!(policy.attempt().deadline(), later + seconds(2));
}

#[test]
fn a_connection_that_opens_slowly_is_given_more_time_for_its_first_envelope() {
    for (opened, within) in [(millis(400), seconds(2)), (seconds(2), seconds(8)), (seconds(4), seconds(10))] {
        let (mut policy, start) = policy(Settings::default(), Known::default());
        let now = begin(&mut policy, start) + opened;
        policy.connected(now);
        assert_eq!(policy.attempt().deadline(), now + within);
    }
}

#[test]
fn a_slow_network_is_given_more_time() {
    let settings = Settings::default();
    let (mut policy, start) = policy(settings.clone(), Known::default());
    let now = begin(&mut policy, start);
    assert_eq!(policy.attempt().mute_after, settings.heartbeat_min.mul_f64(1.5));
    policy.connected(now);
    policy.answered(now + seconds(3));
    policy.envelope(true, now + seconds(3));
    policy.ended(End::Clean, now + seconds(10));
    begin(&mut policy, now + seconds(10));
    let attempt = policy.attempt();
    // Four round trips for the first envelope, and one more than usual for a heartbeat.
    assert_eq!(attempt.patience, seconds(12));
    assert_eq!(attempt.mute_after, settings.heartbeat_min.mul_f64(1.5) + seconds(3));
}

#[test]
fn each_poll_without_a_response_is_followed_by_a_more_patient_one() {
    let settings = Settings { forms: vec![Form::ShortPoll], ..Settings::default() };
    let (mut policy, mut now) = policy(settings, Known::default());
    let mut patience = Vec::new();
    for _ in 0..5 {
        now = begin(&mut policy, now);
        patience.push(policy.attempt().patience.as_secs());
        policy.connected(now);
        now = policy.attempt().deadline();
        policy.ended(End::Mute, now);
    }
    assert_eq!(patience, [5, 10, 20, 30, 30]);
}

#[test]
fn each_probe_without_a_response_is_followed_by_a_more_patient_one() {
    let (mut policy, mut now) = policy(Settings::default(), Known::default());
    let mut patience = Vec::new();
    for _ in 0..3 {
        now = begin(&mut policy, now);
        policy.connected(now);
        policy.ended(End::NoEnvelope, now);
        now = begin(&mut policy, now);
        assert_eq!(policy.attempt().form, Form::ShortPoll);
        patience.push(policy.attempt().patience.as_secs());
        policy.connected(now);
        policy.ended(End::Mute, now);
    }
    assert_eq!(patience, [5, 10, 20]);
}

#[test]
fn a_form_that_the_reader_leaves_has_not_failed() {
    let (mut policy, start) = policy(Settings::default(), Known::default());
    let now = begin(&mut policy, start);
    policy.connected(now);
    policy.ended(End::Left, now);
    assert_eq!((policy.next(now), policy.attempt().form), (Step::Read, Form::WebSocket));
}

#[test]
fn a_long_life_without_an_envelope_is_no_success() {
    let settings = Settings { envelope_timeout: seconds(30), ..Settings::default() };
    for envelopes in [0, 1] {
        let (mut policy, start) = policy(settings.clone(), Known::default());
        let now = begin(&mut policy, start);
        policy.connected(now);
        (0..envelopes).for_each(|_| policy.envelope(true, now));
        policy.ended(End::Cut, now + seconds(10));
        assert_eq!(policy.known().form, (envelopes > 0).then_some(Form::WebSocket));
    }
}

#[test]
fn the_first_envelope_proves_no_heartbeat() {
    let settings = Settings { envelope_timeout: seconds(30), ..Settings::default() };
    let (mut policy, start) = policy(settings, Known::default());
    let now = begin(&mut policy, start);
    policy.connected(now);
    policy.envelope(true, now + seconds(15));
    assert_eq!(policy.known().heartbeat_lo, None);
    policy.envelope(true, now + seconds(30));
    assert_eq!(policy.known().heartbeat_lo, Some(15));
}

#[test]
fn a_connection_that_ends_while_the_user_is_busy_says_nothing_about_its_form() {
    let settings = Settings::default();
    // From this time on the gateway may have given the reader up.
    for (busy, is_excused) in [(settings.stable_after, true), (settings.stable_after - millis(1), false)] {
        let (mut policy, mut now) = policy(settings.clone(), Known::default());
        let mut delays = Vec::new();
        for _ in 0..3 {
            now = begin(&mut policy, now);
            policy.connected(now);
            policy.envelope(false, now + millis(1));
            // The life of the connection alone is too short to be an excuse.
            policy.handed_over(now + millis(1) - busy, now + millis(1));
            policy.ended(End::Cut, now + millis(2));
            now += millis(2);
            delays.push(delay(&mut policy, now));
        }
        let at_once = delays.iter().all(|delay| *delay <= millis(100));
        assert_eq!(at_once, is_excused, "{busy:?}: {delays:?}");
        let next = if is_excused { Form::WebSocket } else { Form::ShortPoll };
        assert_eq!(policy.attempt().form, next, "{busy:?}");
    }
}

#[test]
fn silence_counts_from_the_moment_at_which_the_user_takes_a_message() {
    let (mut policy, start) = policy(Settings::default(), Known::default());
    let now = begin(&mut policy, start);
    policy.connected(now);
    policy.envelope(false, now + millis(1));
    let taken = now + seconds(20);
    policy.handed_over(now + seconds(1), taken);
    assert_eq!(policy.attempt().deadline(), taken + policy.attempt().mute_after);
}

#[test]
fn what_was_learned_is_told_once_and_whole() {
    let mut simulation = Simulation::new(Settings::default());
    let fresh = simulation.policy.take_learned();
    assert_eq!(fresh, Some(Known { hold: Some(25), ..Known::default() }));
    assert_eq!(simulation.policy.take_learned(), None);
    simulation.run(|attempt, since| nat(seconds(60), attempt, since), seconds(3600));
    let learned = simulation.policy.take_learned().expect("a form works");
    assert_eq!(learned.form, Some(Form::WebSocket));
    let (proven, failed) = (learned.heartbeat_lo.unwrap(), learned.heartbeat_hi.unwrap());
    assert!(proven < 60 && (60..=70).contains(&failed), "{learned:?}");

    let settings = Settings { forms: vec![Form::LongPoll], ..Settings::default() };
    let mut simulation = Simulation::new(settings);
    simulation.run(open, seconds(60));
    let learned = simulation.policy.take_learned().expect("a form works");
    assert_eq!((learned.form, learned.hold_proven), (Some(Form::LongPoll), Some(25)));
}

#[test]
fn a_live_form_that_has_lived_long_enough_is_opened_again_within_a_tenth_of_a_second() {
    let (mut policy, mut now) = policy(Settings::default(), Known::default());
    let mut delays = Vec::new();
    for _ in 0..4 {
        now = begin(&mut policy, now);
        policy.connected(now);
        policy.envelope(true, now + seconds(1));
        policy.envelope(true, now + seconds(5));
        now += seconds(5);
        policy.ended(End::Cut, now);
        delays.push(delay(&mut policy, now));
    }
    assert!(delays.iter().all(|delay| *delay > Duration::ZERO && *delay <= millis(100)), "{delays:?}");
    assert_eq!(policy.attempt().form, Form::WebSocket);
}

#[test]
fn a_short_poll_that_ends_at_the_tail_is_followed_by_the_next_one_after_the_interval() {
    let settings = Settings { forms: vec![Form::ShortPoll], ..Settings::default() };
    for (up_to_date, wait) in [(true, settings.interval), (false, Duration::ZERO)] {
        let (mut policy, start) = policy(settings.clone(), Known::default());
        let now = begin(&mut policy, start);
        policy.connected(now);
        policy.envelope(up_to_date, now);
        policy.ended(End::Clean, now);
        assert_eq!(delay(&mut policy, now), wait);
    }
}

#[test]
fn how_a_long_poll_ends_decides_the_hold_of_the_next_one() {
    let settings = Settings { forms: vec![Form::LongPoll], ..Settings::default() };
    for (first_byte, end, after, hold) in [
        // It may have died at any time within its hold.
        (None, End::Mute, seconds(30), 20),
        (None, End::Cut, seconds(20), 16),
        (None, End::Refused(504), seconds(10), 8),
        // The response had begun, so that the hold was borne.
        (Some(seconds(10)), End::Cut, seconds(11), 25),
        (Some(seconds(10)), End::Mute, seconds(15), 25),
    ] {
        let (mut policy, start) = policy(settings.clone(), Known::default());
        let now = begin(&mut policy, start);
        policy.connected(now);
        if let Some(first_byte) = first_byte {
            policy.alive(now + first_byte);
        }
        policy.ended(end, now + after);
        begin(&mut policy, now + after);
        assert_eq!(policy.attempt().hold, seconds(hold), "{end:?} after {after:?}");
    }
}

#[test]
fn a_refused_long_poll_is_suspect() {
    let settings = Settings { forms: vec![Form::LongPoll, Form::ShortPoll], ..Settings::default() };
    let (mut policy, start) = policy(settings, Known::default());
    let now = begin(&mut policy, start);
    policy.connected(now);
    policy.ended(End::Refused(400), now);
    assert_eq!((policy.next(now), policy.attempt().form), (Step::Read, Form::ShortPoll));
}

#[test]
fn the_reason_of_a_change_says_how_the_form_failed() {
    for (end, reason) in [
        (End::NotUpgraded, Reason::NotUpgraded),
        (End::Refused(400), Reason::Refused(400)),
        (End::NoEnvelope, Reason::NoEnvelope),
        (End::Cut, Reason::Cut),
    ] {
        let (mut policy, start) = policy(Settings::default(), Known::default());
        let now = begin(&mut policy, start);
        policy.connected(now);
        policy.ended(end, now);
        // The probe shows that the network works.
        let now = begin(&mut policy, now);
        policy.connected(now);
        policy.envelope(false, now);
        policy.ended(End::Clean, now);
        begin(&mut policy, now);
        let last = policy.take_events().pop();
        assert_eq!(last, Some(Event::Form { from: Some(Form::WebSocket), to: Form::Sse, reason }));
    }
}

#[test]
fn a_form_that_works_is_learned_when_it_is_another_one_than_before() {
    let (mut policy, start) = policy(Settings::default(), Known::default());
    let now = begin(&mut policy, start);
    policy.take_learned();
    policy.connected(now);
    for (after, is_new) in [(6, true), (7, false)] {
        policy.envelope(true, now + seconds(after));
        assert_eq!(policy.take_learned().is_some(), is_new, "after {after} s");
    }
}
