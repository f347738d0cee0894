//! Empty messages: they are delivered like others in every form, and clear the retained message.

use crate::world::mqtt::{Hello, Mqtt};
use crate::world::{Form, Gateway, Kind, Place, Reader, WebSocket, get, post, put};

#[tokio::test]
async fn an_empty_message_reaches_subscribers_and_clears_the_retained_one() {
    let gateway = Gateway::start(&[]).await;
    for version in [4, 5] {
        let hello = |id: &str| Hello { version, ..Hello::new(id) };
        let topic = format!("homeassistant/light/{version}/config");
        let mut home = Mqtt::connect(gateway.mqtt, &hello("home")).await;
        home.subscribe("homeassistant/#", 1).await;
        let mut device = Mqtt::connect(gateway.mqtt, &hello("device")).await;
        device.publish_with(&topic, b"{\"name\":\"lamp\"}", 1, true, Vec::new()).await;
        assert_eq!(home.take().await.payload, b"{\"name\":\"lamp\"}");
        assert_eq!(device.publish_with(&topic, b"", 1, true, Vec::new()).await, 0);
        let cleared = home.take().await;
        assert_eq!((cleared.topic, cleared.payload, cleared.retain), (topic.clone(), Vec::new(), false));
        for qos in 0..=2 {
            device.publish(&topic, "", qos).await;
            assert_eq!(home.take().await.payload, b"", "QoS {qos}");
        }
        let mut late = Mqtt::connect(gateway.mqtt, &hello("late")).await;
        late.subscribe("homeassistant/#", 1).await;
        device.publish(&topic, "after", 1).await;
        assert_eq!(late.take().await.payload, b"after", "nothing is retained");
        let silent = Hello { will: Some((topic.clone(), String::new(), Vec::new())), ..hello("silent") };
        drop(Mqtt::connect(gateway.mqtt, &silent).await);
        assert_eq!(late.take().await.payload, b"", "the will");
        home.disconnect(0).await;
    }
}

#[tokio::test]
async fn an_empty_message_has_an_offset_of_its_own_in_every_form() {
    let gateway = Gateway::start(&[]).await;
    let mut client = Mqtt::connect(gateway.mqtt, &Hello::new("client")).await;
    for kind in [Kind::Binary, Kind::Text] {
        let content_type = kind.content_type();
        let path = format!("/v1/stream/{}", content_type.replace('/', "-"));
        let topic = path.trim_start_matches("/v1/stream/");
        gateway.send(put(&path).header("content-type", content_type)).await.expect(201);
        let place = Place { address: gateway.address, path: path.clone(), kind };
        let mut readers = Vec::new();
        for form in Form::ALL {
            readers.push(Reader::open(&place, form, "-1").await.unwrap());
        }
        let mut socket =
            WebSocket::open(gateway.address, &format!("{path}?live=websocket&offset=now")).await.unwrap();
        socket.json().await.unwrap();
        client.publish(topic, "", 1).await;
        assert_eq!(socket.json().await.unwrap()["data"], serde_json::json!([""]));
        client.publish(topic, "x", 1).await;
        for mut reader in readers {
            reader.expect(b"x").await;
            let offset = gateway.send(get(format!("{path}?offset={}", reader.offset()))).await.expect(200);
            assert!(offset.body.is_empty() && reader.offset().ends_with("_0000000000000002"));
        }
        let first = gateway.send(get(format!("{path}?offset=-1"))).await.expect(200);
        assert_eq!((&first.body[..], first.next_offset()), (&b"x"[..], offset_at(&first.next_offset(), 2)));
        let refused = gateway.send(post(&path).header("content-type", content_type)).await;
        refused.expect(400);
    }
}

/// The offset at a position in the log of `offset`.
fn offset_at(offset: &str, position: u64) -> String {
    let (epoch, _) = offset.split_once('_').expect("an offset");
    format!("{epoch}_{position:016x}")
}

#[tokio::test]
async fn an_empty_message_clears_the_retained_one_of_a_json_stream_and_is_not_appended() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/json").json("")).await.expect(201);
    let mut client = Mqtt::connect(gateway.mqtt, &Hello::new("client")).await;
    client.publish_with("json", b"1", 1, true, Vec::new()).await;
    assert_eq!(client.publish("json", "", 1).await, 0x99);
    client.subscribe("json", 1).await;
    assert_eq!(client.take().await.payload, b"1");
    assert_eq!(client.publish_with("json", b"", 1, true, Vec::new()).await, 0);
    client.unsubscribe("json").await;
    client.subscribe("json", 1).await;
    client.publish("json", "2", 1).await;
    assert_eq!(client.take().await.payload, b"2");
}
