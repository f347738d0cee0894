//! The order of requests: newer ones, repeated ones, and those that came too early.

use std::task::Poll;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_repeated_request_has_the_same_response_and_no_other_effect() {
    let world = World::start();
    let mut client = world.log_in("hold='1'").await;
    let publish = "<iq xmlns='jabber:client' id='p' type='set' to='b.example'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='a'><item><json xmlns='urn:xmpp:json:0'>1</json></item></publish></pubsub></iq>";
    let first = client.said(publish).await;
    assert!(first.contains("type='result'") || first.contains("type=\"result\""), "{first}");
    for _ in 0..2 {
        assert_eq!(response(client.send(client.rid, "", publish)).await, first);
    }
    let second = client.said(&ping(2)).await;
    assert_eq!(response(client.send(client.rid - 1, "", publish)).await, first);
    assert_eq!(response(client.send(client.rid, "", &ping(2))).await, second);
    let stream = StreamName::parse("a").unwrap();
    let tail = world.front.clients.hub.describe(&stream).await.unwrap().tail;
    assert_eq!(tail.position.0, 1, "it was appended once");
    // Older responses are gone, and the session with the request for one.
    for _ in 0..2 {
        client.said(&ping(3)).await;
    }
    let outside = response(client.send(client.rid - 3, "", "")).await;
    assert!(has_ended_with("item-not-found")(&outside), "{outside}");
    assert!(has_ended_with("item-not-found")(&client.said("").await));
}

#[tokio::test(start_paused = true)]
async fn a_newer_request_releases_the_one_that_waits() {
    let world = World::start();
    let mut client = world.log_in("hold='1' ack='1'").await;
    let waiting = client.next("", "");
    settle().await;
    let newer = client.next("", &ping(1));
    assert_eq!(response(waiting).await, EMPTY.replace("/>", &format!(" ack='{}'/>", client.rid)));
    assert!(response(newer).await.contains("p1"));
    assert_eq!(world.front.clients.metrics.bosh_repeated.get(), 0);
}

/// Polls a request that waits.
async fn poll_waiting(request: &mut ParkedRequest) {
    let mut timer = ReusableSleep::default();
    let has_ended = poll_fn(|cx| Poll::Ready(request.poll_response(&mut timer, cx).is_ready())).await;
    assert!(!has_ended);
}

#[tokio::test(start_paused = true)]
async fn a_large_response_reaches_a_connection_that_takes_it_behind_the_next_one() {
    let world = World::start();
    world.append("a", "0").await;
    let mut client = world.log_in("hold='1'").await;
    client.subscribe("a").await;
    let large = format!("\"{}\"", "x".repeat(140_000));
    let begin = |rid| {
        let body =
            format!("<body xmlns='http://jabber.org/protocol/httpbind' rid='{rid}' sid='{}'/>", client.sid);
        world.front.begin(body.as_bytes(), CLIENT)
    };
    let mut requests = Vec::new();
    for rid in [client.rid + 1, client.rid + 2] {
        let mut request = begin(rid);
        poll_waiting(&mut request).await;
        world.append("a", &large).await;
        poll_waiting(&mut request).await;
        // The connection is woken, and does not take the response yet.
        sleep(2 * SECOND).await;
        requests.push(request);
    }
    while let Some(mut request) = requests.pop() {
        let mut timer = ReusableSleep::default();
        let response = poll_fn(|cx| request.poll_response(&mut timer, cx)).await;
        assert!(response.len() > large.len(), "{} bytes", response.len());
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_overtake_others_are_handled_in_order() {
    let world = World::start();
    let mut client = world.log_in("hold='1'").await;
    let early = client.send(client.rid + 2, "", &ping(2));
    settle().await;
    assert!(!early.is_finished());
    let late = client.send(client.rid + 1, "", &ping(1));
    let (late, early) = (response(late).await, response(early).await);
    let both = [late, early].concat();
    assert!(both.find("p1").unwrap() < both.find("p2").unwrap(), "{both}");
    client.rid += 2;
    assert!(client.said(&ping(3)).await.contains("p3"));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_came_too_early_is_answered_once_it_is_its_turn() {
    let world = World::start();
    for (attributes, is_answer) in [
        (" pause='60'", Box::new(|said: &str| said == EMPTY) as Box<dyn Fn(&str) -> bool>),
        (" pause='121'", Box::new(has_ended_with("policy-violation"))),
    ] {
        let client = world.log_in("hold='1'").await;
        let early = client.send(client.rid + 2, attributes, "");
        settle().await;
        let begin = Instant::now();
        let late = client.send(client.rid + 1, "", "");
        for said in [response(late).await, response(early).await] {
            assert!(said == EMPTY || is_answer(&said), "{said}");
        }
        assert!(begin.elapsed() < SECOND, "{attributes}: {:?}", begin.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_came_too_early_is_forgotten_with_its_connection() {
    let world = World::start();
    let mut client = world.log_in("hold='1'").await;
    for closes in [true, false] {
        let body = format!(
            "<body xmlns='http://jabber.org/protocol/httpbind' rid='{}' sid='{}'>{}</body>",
            client.rid + 2,
            client.sid,
            ping(9)
        );
        let mut early = world.front.begin(body.as_bytes(), CLIENT);
        if closes {
            early.end();
            let mut timer = ReusableSleep::default();
            assert_eq!(poll_fn(|cx| early.poll_response(&mut timer, cx)).await, EMPTY);
        }
        drop(early);
        assert!(client.said(&ping(1)).await.contains("p1"));
        assert!(client.said(&ping(2)).await.contains("p2"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_others_should_precede_ends_the_session_when_they_do_not_come() {
    let world = World::start();
    let client = world.log_in("hold='1' wait='30'").await;
    let begin = Instant::now();
    let early = response(client.send(client.rid + 2, "", "")).await;
    assert!(has_ended_with("item-not-found")(&early) && begin.elapsed().as_secs() == 30, "{early}");
}
