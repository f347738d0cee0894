//! An edge of a gateway with tenants: it has a token at its parent for each of them.

use crate::tenants::World;
use crate::world::mqtt::Hello;
use crate::world::{get, post, put, until};

#[tokio::test]
async fn polls_and_wildcards_of_a_tenant_hear_of_its_own_streams_alone() {
    let world = World::at_edge(&["acme", "beta", "default"]).await;
    let [(_, acme), (_, beta), (_, default)] = &world.clients;
    let parent = world.parent.as_ref().unwrap();
    let at_parent = async |token: &str, request: crate::world::Request| {
        parent.send(request.header("authorization", format!("Bearer {token}"))).await
    };
    let mut subscribers = Vec::new();
    for token in [acme, beta, default] {
        at_parent(token, put("/v1/stream/room").text("")).await.expect(201);
        let mut subscriber = world.mqtt(5, Hello::new("reader"), token).await;
        assert_eq!(subscriber.subscribe("#", 1).await, 1);
        subscribers.push(subscriber);
    }
    let poll = get("/v1/stream/room?offset=now&live=long-poll");
    let polls: Vec<_> =
        [acme, beta].into_iter().map(|token| world.protected.send(Some(token), poll.clone())).collect();
    let append = async {
        world.protected.gateway.until_held(2).await;
        at_parent(beta, post("/v1/stream/room").text("of beta")).await.expect(204);
        at_parent(acme, post("/v1/stream/room").text("of acme")).await.expect(204);
        at_parent(default, post("/v1/stream/lobby?create=1").text("of default")).await.expect(204);
    };
    let (polled, ()) = tokio::join!(futures_util::future::join_all(polls), append);
    let polled: Vec<_> = polled.into_iter().map(|answer| answer.expect(200).text()).collect();
    assert_eq!(polled, ["of acme", "of beta"]);
    for (subscriber, (topic, text)) in
        subscribers.iter_mut().zip([("room", "of acme"), ("room", "of beta"), ("lobby", "of default")])
    {
        let message = subscriber.take().await;
        assert_eq!((&*message.topic, &*message.payload), (topic, text.as_bytes()));
    }
    for (name, token) in &world.clients {
        let names = world.protected.send(Some(token), get("/v1/names")).await.expect(200).json();
        let names: Vec<_> =
            names["streams"].as_array().unwrap().iter().map(|stream| &stream["stream"]).collect();
        let expected = if *name == "default" { vec!["lobby", "news", "room"] } else { vec!["room"] };
        assert_eq!(names, expected, "{name}");
    }
}

#[tokio::test]
async fn streams_of_a_tenant_without_a_token_are_refused_until_it_has_one() {
    let world = World::at_edge(&["acme"]).await;
    let [(_, acme), (_, beta), (_, default)] = &world.clients;
    let path = "/v1/stream/room";
    world.protected.send(Some(acme), put(path).text("of acme")).await.expect(201);
    for token in [beta, default] {
        for request in [
            get(path),
            get(format!("{path}?offset=-1&live=long-poll")),
            post(path).text("no"),
            put(path).text("no"),
        ] {
            let refused = world.protected.send(Some(token), request).await.expect(502);
            assert_eq!(refused.problem(), "upstream-refused");
        }
    }
    // Wildcards of the one tenant are not in the way of the other's.
    let mut lonely = world.mqtt(5, Hello::new("lonely"), beta).await;
    assert_eq!(lonely.subscribe("#", 1).await, 1);
    let mut subscriber = world.mqtt(5, Hello::new("reader"), acme).await;
    assert_eq!(subscriber.subscribe("#", 1).await, 1);
    world.protected.send(Some(acme), post("/v1/stream/lobby?create=1").text("of acme")).await.expect(204);
    assert_eq!(subscriber.take().await.topic, "lobby");
    for (name, token) in [("beta", beta), ("default", default)] {
        std::fs::write(world.tokens().join(name), token).unwrap();
        until("the edge has the new token", async || {
            world.protected.send(Some(token), put(path).text(format!("of {name}"))).await.status == 201
        })
        .await;
    }
    assert_eq!(world.protected.send(Some(beta), get(path)).await.expect(200).text(), "of beta");
    assert_eq!(world.protected.send(Some(acme), get(path)).await.expect(200).text(), "of acme");
    for (name, token) in [("acme", acme), ("default", default)] {
        std::fs::remove_file(world.tokens().join(name)).unwrap();
        until("the edge has the token no more", async || {
            world.protected.send(Some(token), put("/v1/stream/more").text("")).await.status == 502
        })
        .await;
    }
}
