//! The decisions of a reader on simulated networks.

mod simulation;
mod steps;

use simulation::{
    Answered, Connected, Envelope, Network, NetworkEvent, Script, Simulation, buffering, captive, down,
    millis, nat, no_websocket, open, script, seconds,
};

use super::*;

#[test]
fn the_first_message_comes_within_two_seconds_and_a_poll_where_everything_is_buffered() {
    let mut simulation = Simulation::new(Settings::default());
    simulation.run(buffering, seconds(50));
    use Form::*;
    let forms = [WebSocket, ShortPoll, Sse, ShortPoll, Ndjson, ShortPoll, LongPoll, LongPoll];
    assert_eq!(simulation.forms()[..8], forms);
    let first = simulation.attempts.iter().find(|attempt| attempt.envelopes > 0).unwrap();
    assert!(first.began + first.took < millis(2_100), "{first:?}");
    let reasons = [Reason::Start, Reason::NoEnvelope, Reason::NoEnvelope, Reason::NoEnvelope];
    let changes = simulation.changes(Duration::ZERO);
    assert_eq!(changes, [WebSocket, Sse, Ndjson, LongPoll].into_iter().zip(reasons).collect::<Vec<_>>());
}

#[test]
fn a_form_that_was_given_up_is_tried_again_ever_more_rarely_and_used_once_it_works() {
    let mut simulation = Simulation::new(Settings::default());
    simulation.run(no_websocket, seconds(3600));
    let tries = simulation.attempts.iter().filter(|attempt| attempt.form == Form::WebSocket);
    let tries: Vec<_> = tries.map(|attempt| attempt.began.as_secs_f64()).collect();
    for (gap, due) in
        tries.windows(2).map(|two| two[1] - two[0]).zip([60.0, 120.0, 240.0, 480.0, 600.0, 600.0])
    {
        assert!((due * 0.9 - 1.0..due * 1.1 + 1.0).contains(&gap), "{gap} s for {due} s: {tries:?}");
    }
    assert_eq!(simulation.policy.form, Some(Form::Sse));
    simulation.run(open, seconds(3600 + 660));
    assert_eq!(simulation.policy.form, Some(Form::WebSocket));
    assert_eq!(simulation.changes(seconds(3600)), [(Form::WebSocket, Reason::Better)]);
}

#[test]
fn a_websocket_that_is_killed_at_once_is_given_up_after_three_tries() {
    fn killer(attempt: &Attempt, since: Duration) -> Script {
        if attempt.form != Form::WebSocket {
            return open(attempt, since);
        }
        let killed = (millis(200), NetworkEvent::End(End::Cut));
        script([(millis(20), Connected), (millis(40), Answered), (millis(41), Envelope), killed])
    }
    let mut simulation = Simulation::new(Settings::default());
    simulation.run(killer, seconds(50));
    use Form::*;
    assert_eq!(simulation.forms()[..5], [WebSocket, WebSocket, WebSocket, ShortPoll, Sse]);
    assert_eq!(simulation.changes(seconds(1)), [(Sse, Reason::Cut)]);
    assert!(simulation.attempts[4].began < seconds(2));
    simulation.run(open, seconds(70));
    assert_eq!(simulation.policy.form, Some(WebSocket));
}

#[test]
fn a_silent_death_after_a_heartbeat_is_tried_again_at_once_in_the_same_form() {
    fn dead_after_a_minute(attempt: &Attempt, since: Duration) -> Script {
        Box::new(open(attempt, since).take_while(|(at, _)| *at < seconds(60)))
    }
    let settings = Settings { forms: vec![Form::Sse, Form::ShortPoll], ..Settings::default() };
    let mut simulation = Simulation::new(settings);
    simulation.run(dead_after_a_minute, seconds(3600));
    assert_eq!(simulation.changes(Duration::ZERO).len(), 1, "{:?}", simulation.events);
    let first = &simulation.attempts[0];
    // Heartbeats come at 15, 30 and 45 s.
    assert!(first.took > seconds(67) && first.took < seconds(68), "{first:?}");
    assert!(simulation.attempts[1].began - first.took < millis(100));
}

#[test]
fn a_form_that_goes_mute_behind_its_first_envelope_is_given_up_and_gets_twice_the_time_later() {
    fn mute(attempt: &Attempt, since: Duration) -> Script {
        let count = if attempt.form.is_live() { 3 } else { usize::MAX };
        Box::new(open(attempt, since).take(count))
    }
    let mut simulation = Simulation::new(Settings::default());
    simulation.run(mute, seconds(200));
    assert_eq!(simulation.forms()[..3], [Form::WebSocket, Form::ShortPoll, Form::Sse]);
    let tries = simulation.attempts.iter().filter(|attempt| attempt.form == Form::WebSocket);
    assert_eq!(tries.count(), 2, "{:?}", simulation.attempts);
    assert_eq!(simulation.policy.envelope_patience(Form::WebSocket), seconds(4));
}

#[test]
fn a_form_whose_heartbeats_never_come_is_given_up_although_bursts_of_messages_do() {
    fn bursts(attempt: &Attempt, since: Duration) -> Script {
        if !attempt.form.is_live() {
            return open(attempt, since);
        }
        Box::new(open(attempt, since).take(3).chain([(millis(50), Envelope)]))
    }
    let settings =
        Settings { forms: vec![Form::Sse, Form::LongPoll, Form::ShortPoll], ..Settings::default() };
    let mut simulation = Simulation::new(settings);
    simulation.run(bursts, seconds(100));
    use Form::*;
    assert_eq!(simulation.forms()[..5], [Sse, Sse, Sse, ShortPoll, LongPoll]);
}

#[test]
fn a_proxy_that_cuts_a_held_poll_does_so_once() {
    fn cuts(limit: Duration, attempt: &Attempt, since: Duration) -> Script {
        if attempt.form.is_live() {
            return script([(millis(20), Connected), (millis(40), NetworkEvent::End(End::Refused(400)))]);
        }
        if attempt.hold < limit {
            return open(attempt, since);
        }
        script([(millis(20), Connected), (limit, NetworkEvent::End(End::Refused(504)))])
    }
    for (network, cut_at) in [
        ((|attempt, since| cuts(seconds(10), attempt, since)) as Network, 10),
        (|attempt, since| cuts(seconds(20), attempt, since), 20),
        (|attempt, since| cuts(seconds(100), attempt, since), 100),
    ] {
        let mut simulation = Simulation::new(Settings::default());
        simulation.run(network, seconds(6 * 3600));
        let held: Vec<_> =
            simulation.attempts.iter().filter(|attempt| attempt.form == Form::LongPoll).collect();
        let errors =
            held.iter().filter(|attempt| attempt.envelopes == 0 && attempt.took >= seconds(cut_at)).count();
        assert_eq!(errors, usize::from(cut_at < 25));
        assert_eq!(held.last().unwrap().hold, seconds((cut_at * 8 / 10).min(25)));
        let known = simulation.policy.known();
        let mut next = Simulation::with_known(Settings::default(), known);
        next.run(network, seconds(50));
        assert_eq!(next.forms()[0], Form::LongPoll, "what was learned is used");
        let (_current, finished) = next.attempts.split_last().unwrap();
        assert!(finished.iter().all(|attempt| attempt.envelopes > 0), "{finished:?}");
    }
}

#[test]
fn a_gateway_that_is_away_says_nothing_about_forms() {
    let mut simulation = Simulation::new(Settings::default());
    simulation.run(open, seconds(10)).run(down, seconds(600)).run(captive, seconds(1200));
    let (restarts, portals): (Vec<_>, Vec<_>) = simulation
        .events
        .iter()
        .filter(|(_, event)| !matches!(event, Event::Form { .. }))
        .partition(|(_, event)| matches!(event, Event::Restart { .. }));
    assert!((20..50).contains(&restarts.len()) && (20..50).contains(&portals.len()), "they are backed off");
    simulation.run(open, seconds(1300));
    assert_eq!(simulation.changes(seconds(1)), []);
    assert_eq!(simulation.policy.form, Some(Form::WebSocket));
}

#[test]
fn a_form_that_has_worked_is_given_up_only_when_it_fails_twice() {
    fn once_dead(attempt: &Attempt, since: Duration) -> Script {
        // The socket dies at 100 s, and what comes next meets a gateway that is about to be there.
        if since < seconds(100) {
            return Box::new(open(attempt, since).take_while(move |(at, _)| since + *at < seconds(100)));
        }
        if attempt.form == Form::WebSocket && since < seconds(114) {
            script([(millis(20), Connected)])
        } else {
            open(attempt, since)
        }
    }
    let mut simulation = Simulation::new(Settings { heartbeat_max: seconds(15), ..Settings::default() });
    simulation.run(once_dead, seconds(200));
    assert_eq!(simulation.forms(), [Form::WebSocket, Form::WebSocket, Form::ShortPoll, Form::WebSocket]);
    assert_eq!(simulation.changes(Duration::ZERO).len(), 1);
    simulation.run(buffering, seconds(220));
    let forms: Vec<_> = simulation.forms().split_off(4);
    assert_eq!(forms[..5], [Form::WebSocket, Form::ShortPoll, Form::WebSocket, Form::ShortPoll, Form::Sse]);
    assert_eq!(simulation.changes(seconds(200))[0], (Form::Sse, Reason::NoEnvelope));
}

#[test]
fn what_answers_every_form_but_polls_with_patience_or_pages_is_found_out() {
    for (network, reason) in [
        (
            (|attempt, since| match attempt.form {
                Form::WebSocket => {
                    script([(millis(20), Connected), (millis(40), NetworkEvent::End(End::Restart(None)))])
                }
                _ => open(attempt, since),
            }) as Network,
            Reason::Refused(503),
        ),
        (
            |attempt, since| {
                if attempt.form == Form::WebSocket { captive(attempt, since) } else { open(attempt, since) }
            },
            Reason::NoEnvelope,
        ),
    ] {
        let mut simulation = Simulation::new(Settings::default());
        simulation.run(network, seconds(30));
        assert_eq!(simulation.changes(millis(1)), [(Form::Sse, reason)]);
    }
}

#[test]
fn the_heartbeat_of_a_nat_is_found_and_kept() {
    for (limit, network) in [
        (60, (|attempt, since| nat(seconds(60), attempt, since)) as Network),
        (240, |attempt, since| nat(seconds(240), attempt, since)),
    ] {
        let mut simulation = Simulation::new(Settings::default());
        simulation.run(network, seconds(24 * 3600));
        let heartbeats: Vec<_> =
            simulation.attempts.iter().map(|attempt| attempt.heartbeat.as_secs()).collect();
        assert!(heartbeats.len() <= 11, "ten to search, and the one that stays: {heartbeats:?}");
        let last = *heartbeats.last().unwrap();
        assert!(last * 10 >= limit * 8 && last < limit, "{heartbeats:?}");
        let above = simulation.attempts.iter().filter(|attempt| attempt.heartbeat >= seconds(limit));
        let above: Duration = above.map(|attempt| attempt.took).sum();
        assert!(above <= seconds(limit) * 5, "{above:?} in a day: {heartbeats:?}");
        assert!(simulation.attempts.iter().all(|attempt| attempt.form == Form::WebSocket));
    }
}

#[test]
fn a_proxy_that_closes_silent_sockets_does_so_once() {
    fn proxy(limit: Duration, attempt: &Attempt, since: Duration) -> Script {
        let mut last = Duration::ZERO;
        let cut = move |(at, what): (Duration, NetworkEvent)| {
            let silence = at - std::mem::replace(&mut last, at);
            if silence < limit { (at, what) } else { (at - silence + limit, NetworkEvent::End(End::Cut)) }
        };
        Box::new(open(attempt, since).map(cut))
    }
    for network in [
        (|attempt, since| proxy(seconds(30), attempt, since)) as Network,
        |attempt, since| proxy(seconds(60), attempt, since),
        |attempt, since| proxy(seconds(100), attempt, since),
    ] {
        let mut simulation = Simulation::new(Settings::default());
        simulation.run(network, seconds(24 * 3600));
        let (_current, finished) = simulation.attempts.split_last().unwrap();
        let cut =
            finished.iter().filter(|attempt| attempt.took.subsec_millis() == 41 && attempt.envelopes == 1);
        assert_eq!(cut.count(), 1, "{finished:?}");
        assert_eq!(simulation.changes(Duration::ZERO), [(Form::WebSocket, Reason::Start)]);
    }
}

#[test]
fn another_network_begins_with_what_is_known_of_it() {
    let settings = Settings::default();
    let mut simulation = Simulation::new(settings);
    simulation.run(open, seconds(100));
    let memory: crate::memory::Memory =
        serde_json::from_str(r#"{"networks":[{"label":"train","form":"long-poll","hold":7}]}"#).unwrap();
    simulation.policy.network_changed(memory.of("train"), simulation.now);
    simulation.run(buffering, seconds(120));
    assert_eq!(simulation.changes(seconds(1)), [(Form::LongPoll, Reason::NetworkChanged)]);
    assert_eq!(simulation.attempts.last().unwrap().hold, seconds(7));
    // The same label again: everything is tried again at once.
    simulation.policy.network_changed(memory.of("train"), simulation.now);
    simulation.run(open, seconds(130));
    assert_eq!(simulation.changes(seconds(110)), [(Form::WebSocket, Reason::NetworkChanged)]);
}

#[test]
fn a_day_of_changing_networks_never_keeps_a_reader_waiting_for_long() {
    fn tunnel(_: &Attempt, _: Duration) -> Script {
        script([])
    }
    fn day(attempt: &Attempt, since: Duration) -> Script {
        // Half an hour each, forty-eight of them.
        let networks: [Network; 8] = [
            open,
            no_websocket,
            tunnel,
            buffering,
            |attempt, since| nat(seconds(60), attempt, since),
            down,
            |attempt, since| nat(seconds(10), attempt, since),
            captive,
        ];
        let half_hour = since.as_secs() / 1800;
        let rest = seconds((half_hour + 1) * 1800) - since;
        let network = networks[half_hour as usize % networks.len()];
        // When the network changes, all connections are dead without a word.
        Box::new(network(attempt, since).take_while(move |(at, _)| *at < rest))
    }
    let mut simulation = Simulation::new(Settings::default());
    simulation.run(day, seconds(24 * 3600));
    assert!(simulation.attempts.len() < 24 * 3600 / 5, "{} attempts", simulation.attempts.len());
    for half_hour in (0..48).filter(|number| !matches!(number % 8, 2 | 5 | 7)) {
        let (from, to) = (seconds(half_hour * 1800), seconds((half_hour + 1) * 1800));
        let inside = simulation.attempts.iter().filter(|attempt| attempt.began >= from && attempt.began < to);
        let first = inside.clone().find(|attempt| attempt.envelopes > 0).expect("something comes through");
        assert!(first.began - from < seconds(500), "{half_hour}: {first:?}");
    }
}

#[test]
fn a_refusal_of_credentials_is_final_only_if_it_is_not_about_one_form() {
    let now = Instant::now();
    for (forms, refused) in [
        (&Form::ALL[..], &[Form::WebSocket, Form::ShortPoll][..]),
        (&[Form::WebSocket, Form::Sse], &[Form::WebSocket, Form::Sse]),
        (&[Form::LongPoll], &[Form::LongPoll]),
    ] {
        let settings = Settings { forms: forms.to_vec(), ..Settings::default() };
        let mut simulation = Simulation::new(settings);
        let policy = &mut simulation.policy;
        for (index, form) in refused.iter().enumerate() {
            let mut now = now;
            while let Step::Wait(until) = policy.next(now) {
                now = until;
            }
            assert_eq!(policy.attempt().form, *form);
            assert!(!policy.is_final(500));
            assert_eq!(policy.is_final(403), index + 1 == refused.len(), "{form} of {forms:?}");
            policy.ended(End::Refused(403), now);
        }
    }
}
