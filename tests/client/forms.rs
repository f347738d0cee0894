//! Each form alone, with each kind of stream: everything arrives in order and once.

use pollgate_client::{Form, Item, Reason, Start};

use crate::reading::{client, expect, next, only, publish, settle};
use crate::world::{Gateway, delete, post, put};

#[tokio::test]
async fn a_thousand_messages_come_in_order_and_once_in_each_form() {
    let gateway = Gateway::start(&[]).await;
    for form in Form::ALL {
        let (client, told) = client(gateway.address, only(form));
        let stream = form.name();
        let producer = client.producer(stream, "application/json");
        publish(&producer, 0..500).await;
        let mut subscription = client.subscribe([stream], Start::earliest());
        let publishing = async {
            for number in (500..1000).step_by(5) {
                publish(&producer, number..number + 5).await;
            }
        };
        tokio::join!(publishing, expect(&mut subscription, 0..1000));
        assert_eq!(subscription.form(), Some(form));
        assert_eq!(told.changes(), [(form, Reason::Start)], "{:?}", told.all());
    }
}

#[tokio::test]
async fn text_and_bytes_come_as_they_were_appended() {
    let gateway = Gateway::start(&[]).await;
    let hostile = "ä\r\ndata: x\n\n\u{0}".to_owned();
    let bytes: Vec<u8> = (0..=255).collect();
    gateway.send(put("/v1/stream/text").text(hostile.clone())).await.expect(201);
    gateway
        .send(put("/v1/stream/bytes").header("Content-Type", "image/png").body(bytes.clone()))
        .await
        .expect(201);
    for form in Form::ALL {
        let (client, _) = client(gateway.address, only(form));
        let mut subscription = client.subscribe(["text", "bytes"], Start::earliest());
        let mut found = Vec::new();
        while found.len() < 2 {
            let Item::Message(message) = next(&mut subscription).await else { continue };
            found.push((message.stream.to_string(), message.data.bytes().to_vec()));
        }
        found.sort();
        let expected =
            [("bytes".to_owned(), bytes.clone()), ("text".to_owned(), hostile.clone().into_bytes())];
        assert_eq!(found, expected, "{form}");
    }
}

#[tokio::test]
async fn missing_created_trimmed_closed_and_deleted_streams_are_told_between_the_messages() {
    let gateway = Gateway::start(&[]).await;
    for form in Form::ALL {
        let target = format!("/v1/stream/life-{form}");
        let (client, _) = client(gateway.address, only(form));
        let mut subscription = client.subscribe([format!("life-{form}")], Start::earliest());
        assert!(matches!(next(&mut subscription).await, Item::Missing { .. }), "{form}");
        gateway.send(put(&target).header("Stream-Max-Messages", 2).json("[0]")).await.expect(201);
        expect(&mut subscription, 0..1).await;
        let token = settle(&mut subscription).await;
        drop(subscription);
        gateway.send(post(&target).json("[1,2,3,4,5]")).await.expect(204);
        let mut subscription = client.subscribe([format!("life-{form}")], Start::after(token));
        let Item::Gap { reason, .. } = next(&mut subscription).await else { panic!("{form}: no gap") };
        assert_eq!(&*reason, "reason=trimmed; missed=3");
        expect(&mut subscription, 4..6).await;
        gateway.send(post(&target).header("Stream-Closed", "true")).await.expect(204);
        assert!(matches!(next(&mut subscription).await, Item::Closed { .. }), "{form}");
        gateway.send(delete(&target)).await.expect(204);
        gateway.send(put(&target).json("[0]")).await.expect(201);
        // A new epoch of the stream, with which a resume token of the old one cannot be compared.
        let mut fresh = client.subscribe([format!("life-{form}")], Start::earliest());
        expect(&mut fresh, 0..1).await;
    }
}

#[tokio::test]
async fn a_thousand_streams_are_read_at_once() {
    let gateway = Gateway::start(&[]).await;
    let names: Vec<_> = (0..1000).map(|number| format!("many/{number} %41")).collect();
    let mut connection = gateway.connect().await;
    for number in 0..1000 {
        let target = format!("/v1/stream/many/{number}%20%2541?create=1");
        connection.send(post(target).json(number)).await.expect(204);
    }
    for form in Form::ALL {
        let (client, told) = client(gateway.address, only(form));
        let mut subscription = client.subscribe(names.iter(), Start::earliest());
        let mut found = Vec::new();
        while found.len() < names.len() {
            let Item::Message(message) = next(&mut subscription).await else { panic!("{form}") };
            let number = String::from_utf8(message.data.bytes().to_vec()).unwrap();
            assert_eq!(*message.stream, format!("many/{number} %41"));
            found.push(number.parse::<u64>().unwrap());
        }
        // From the end of the list, so that the resume token over all of it has been used.
        connection.send(post("/v1/stream/many/999%20%2541").json(1000)).await.expect(204);
        let Item::Message(last) = next(&mut subscription).await else { panic!("{form}") };
        assert_eq!(last.data.bytes(), b"1000");
        connection.send(delete("/v1/stream/many/999%20%2541")).await.expect(204);
        connection.send(post("/v1/stream/many/999%20%2541?create=1").json(999)).await.expect(204);
        found.sort_unstable();
        assert_eq!(found, (0..1000).collect::<Vec<_>>(), "{form}: {:?}", told.all());
    }
}

#[tokio::test]
async fn a_request_that_the_gateway_never_takes_ends_the_subscription_with_its_words() {
    let gateway = Gateway::start(&[]).await;
    for form in Form::ALL {
        let (client, _) = client(gateway.address, only(form));
        let mut subscription = client.subscribe(["a//b"], Start::now());
        let Item::Refused(refusal) = next(&mut subscription).await else { panic!("{form}") };
        assert_eq!((refusal.status, &*refusal.kind), (400, "stream-name"), "{form}");
        assert!(subscription.next().await.is_none());
    }
}
