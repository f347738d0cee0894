//! Enhanced authentication of MQTT 5: the token is the authentication data, and a re-authentication replaces it.

use std::time::Duration;

use mqtt_protocol_core::mqtt::packet::{AuthenticationData, AuthenticationMethod, Property, v5_0};
use mqtt_protocol_core::mqtt::result_code::AuthReasonCode;

use crate::authorization::{Protected, mqtt};
use crate::world::mqtt::{Hello, Mqtt, Packet};
use crate::world::{Gateway, get, post};

/// Encodes an AUTH with a method and data.
pub(super) fn auth_bytes(method: &str, data: &str) -> Vec<u8> {
    let properties: Vec<Property> = vec![
        AuthenticationMethod::new(method).unwrap().into(),
        AuthenticationData::new(data).unwrap().into(),
    ];
    let auth = v5_0::Auth::builder().reason_code(AuthReasonCode::ReAuthenticate).props(properties);
    auth.build().unwrap().to_continuous_buffer()
}

/// A CONNECT with the token as the data of enhanced authentication.
pub(super) fn hello(id: &str, method: &str, token: &str) -> Hello {
    let hello = Hello::new(id).with(AuthenticationMethod::new(method).unwrap());
    hello.with(AuthenticationData::new(token).unwrap())
}

#[tokio::test]
async fn an_mqtt_client_renews_its_rights_on_its_connection() {
    let world = Protected::start("").await;
    let token = |rights: &[&str]| world.token(&[&["--subject", "a"], rights].concat());
    let renewed = token(&["--read", "news", "--append", "news", "--append", "old/x"]);
    let will = Some(("old/will".to_owned(), "gone".to_owned(), Vec::new()));
    let for_will = ["--append", "old/will", "--create", "old/will"];
    let rights = ["--read", "news", "--read", "old/#", "--expires", "6s"];
    let short = token(&[&rights[..], &for_will].concat());
    let hello_with_will = Hello { will, ..hello("one", "jwt", &short) };
    let mut client = Mqtt::try_connect(world.gateway.mqtt, &hello_with_will).await.unwrap();
    assert!(
        client.connack.2.contains(&AuthenticationMethod::new("jwt").unwrap().into()),
        "{:?}",
        client.connack
    );
    for filter in ["news", "old/#", "$share/g/old/+"] {
        assert_eq!(client.subscribe(filter, 0).await, 0, "{filter}");
    }
    client.send(&auth_bytes("jwt", &renewed)).await;
    assert_eq!(client.receive().await, Some(Packet::Auth(0)));
    // Subscriptions that the new token does not grant have ended, and its additional rights apply.
    let owner = world.token(&["--create", "#", "--append", "#", "--read", "#"]);
    world.send(Some(&owner), post("/v1/stream/old/x?create=1").json("0")).await.expect(204);
    assert_eq!(client.publish("news", "2", 1).await, 0);
    assert_eq!((client.message().await.topic, client.subscribe("old/#", 0).await), ("news".to_owned(), 0x87));
    let ended = client.receive_within(Duration::from_secs(7)).await;
    assert_eq!(ended, None, "it outlives its first token");
    client.ping().await;
    drop(client);
    world.gateway.until_mqtt_clients(0).await;
    world.send(Some(&owner), get("/v1/stream/old/will")).await.expect(404);

    // A refused re-authentication ends the connection.
    let other = world.token(&["--read", "news", "--subject", "b"]);
    for (bytes, reason) in [
        (auth_bytes("jwt", "wrong"), 0x87),
        (auth_bytes("jwt", &other), 0x87),
        (auth_bytes("SCRAM", &renewed), 0x82),
        (vec![0xf0, 0], 0x82),
    ] {
        let mut client =
            Mqtt::try_connect(world.gateway.mqtt, &hello("two", "jwt", &token(&["--read", "news"])))
                .await
                .unwrap();
        client.send(&bytes).await;
        assert_eq!(client.receive().await, Some(Packet::Disconnect(reason)), "{bytes:?}");
    }
    // A client that connected with a password may not re-authenticate.
    let mut client = mqtt(&world, "three", Some(&renewed)).await;
    client.send(&auth_bytes("jwt", &renewed)).await;
    assert_eq!(client.receive().await, Some(Packet::Disconnect(0x82)));
}

#[tokio::test]
async fn enhanced_authentication_takes_tokens_only() {
    let world = Protected::start("").await;
    let token = world.token(&["--read", "news"]);
    let open = Gateway::start(&[]).await;
    for (address, method, token, code) in [
        (world.gateway.mqtt, "SCRAM", token.as_str(), 0x8c),
        (world.gateway.mqtt, "jwt", "wrong", 0x86),
        (open.mqtt, "jwt", token.as_str(), 0x8c),
    ] {
        let mut client = Mqtt::open(address, 5).await;
        client.send(&hello("one", method, token).bytes()).await;
        match client.receive().await {
            Some(Packet::Connack { code: refused, .. }) => assert_eq!(refused, code, "{method}"),
            other => panic!("{method}: {other:?}"),
        }
    }
    let mut client = Mqtt::open(world.gateway.mqtt, 5).await;
    client.send(&Hello::new("one").with(AuthenticationMethod::new("jwt").unwrap()).bytes()).await;
    assert!(matches!(client.receive().await, Some(Packet::Connack { code: 0x87, .. })));
}
