//! Streams that are created, closed and deleted while a client reads many of them: every form reports the same, and each change
//! once.

use serde_json::{Value, json};

use super::ask::{Ask, News};
use super::reader::Reader;
use crate::world::{Form, Gateway, Request, delete, post, put};

fn path(name: &str) -> String {
    format!("/v1/stream/{name}")
}

async fn send(gateway: &Gateway, request: Request) -> String {
    let answer = gateway.send(request).await;
    assert!(answer.status.is_success(), "{answer:?}");
    answer.header("stream-next-offset").to_owned()
}

/// Returns the news of one stream, which must be the only one.
async fn told(reader: &mut Reader, stream: &str) -> News {
    let envelope = reader.news().await;
    assert_eq!((envelope.streams(), envelope.up_to_date), (vec![stream], true), "{envelope:?}");
    envelope.batches[0].clone()
}

fn messages(data: Vec<Value>, next: String) -> (Vec<Value>, Option<String>) {
    (data, Some(next))
}

#[tokio::test]
async fn a_reader_is_told_when_a_stream_is_created_closed_deleted_or_recreated() {
    let gateway = Gateway::start(&[]).await;
    for form in Form::ALL {
        let (name, quiet) = (format!("{form:?}/life"), format!("{form:?}/quiet"));
        send(&gateway, put(path(&quiet)).json("")).await;
        // 1. A missing stream is reported once, and is not an error.
        let ask = Ask::of([name.clone(), quiet.clone()]);
        let mut reader = Reader::open(&gateway, form, ask).await;
        let news = told(&mut reader, &name).await;
        assert!(news.missing && news.data.is_empty() && news.stream_next_offset.is_none(), "{news:?}");
        // 2. After its creation all its messages arrive, from its beginning.
        let next = send(&gateway, put(path(&name)).json("[1,2]")).await;
        let news = told(&mut reader, &name).await;
        assert_eq!((news.data, news.stream_next_offset), messages(vec![json!(1), json!(2)], next));
        assert!(!news.missing && news.content_type.is_none());
        // 3. Its close is reported once, with the last message or without one.
        let close = post(path(&name)).header("stream-closed", "true");
        send(&gateway, if form == Form::Sse { close.json("3") } else { close }).await;
        let news = told(&mut reader, &name).await;
        assert!(news.stream_closed && news.gap.is_none(), "{news:?}");
        assert_eq!(news.data.len(), usize::from(form == Form::Sse));
        let again = Ask::of([&*name]).behind(&reader.resume).poll(&mut gateway.connect().await).await;
        assert!(again.batches.is_empty() && again.up_to_date, "{again:?}");
        // 4. It is deleted again.
        send(&gateway, delete(path(&name))).await;
        assert!(told(&mut reader, &name).await.missing);
        // 5. A stream that is deleted and recreated before its reader reads again may appear as another life of it, or as
        // missing in between. In either case it is reported, and the messages of the new life arrive.
        send(&gateway, put(path(&name)).json("[4]")).await;
        assert_eq!(told(&mut reader, &name).await.data, [json!(4)]);
        let resume = reader.resume.clone();
        drop(reader);
        send(&gateway, delete(path(&name))).await;
        send(&gateway, put(path(&name)).json("[5,6]")).await;
        let ask = Ask::of([name.clone(), quiet.clone()]).behind(&resume);
        let mut reader = Reader::open(&gateway, form, ask).await;
        let envelope = reader.news().await;
        assert_eq!(envelope.streams(), [&name, &name]);
        assert_eq!(envelope.batches[0].gap.as_deref(), Some("reason=epoch"));
        assert_eq!(envelope.batches[1].data, [json!(5), json!(6)]);
        // 6. The other stream was not reported while nothing happened to it.
        send(&gateway, post(path(&quiet)).json("7")).await;
        assert_eq!(told(&mut reader, &quiet).await.data, [json!(7)]);
    }
}

#[tokio::test]
async fn a_gap_is_reported_once_and_reading_continues_after_it() {
    let gateway = Gateway::start(&[]).await;
    for form in Form::ALL {
        let name = format!("{form:?}/short");
        send(&gateway, put(path(&name)).header("stream-max-messages", 2).json("[0]")).await;
        let mut poll = gateway.connect().await;
        let resume = Ask::of([&*name]).earliest().poll(&mut poll).await.resume.unwrap();
        let next = send(&gateway, post(path(&name)).json("[1,2,3,4,5]")).await;
        let mut reader = Reader::open(&gateway, form, Ask::of([&*name]).behind(&resume)).await;
        let envelope = reader.news().await;
        let [gap, rest] = &envelope.batches[..] else { panic!("{envelope:?}") };
        assert_eq!((gap.gap.as_deref(), gap.data.len()), (Some("reason=trimmed; missed=3"), 0));
        assert_eq!((rest.gap.as_ref(), &rest.data), (None, &vec![json!(4), json!(5)]));
        assert_eq!(rest.stream_next_offset.as_ref(), Some(&next));
        send(&gateway, post(path(&name)).json("6")).await;
        assert_eq!(told(&mut reader, &name).await.data, [json!(6)]);
    }
}

#[tokio::test]
async fn a_single_stream_begins_behind_an_offset_of_any_form() {
    let gateway = Gateway::start(&[]).await;
    for form in Form::ALL {
        let name = format!("{form:?}/begun");
        let offset = send(&gateway, put(path(&name)).json("[1,2]")).await;
        send(&gateway, post(path(&name)).json("[3,4]")).await;
        let ask = Ask { from: Some(offset), ..Ask::of([&*name]) };
        let mut reader = Reader::open(&gateway, form, ask).await;
        assert_eq!(told(&mut reader, &name).await.data, [json!(3), json!(4)], "{form:?}");
    }
    // The zero offset is the beginning of any stream, and that of another life is a gap.
    let mut poll = gateway.connect().await;
    let mut from = async |offset: &str| {
        let ask = Ask { from: Some(offset.to_owned()), ..Ask::of(["Sse/begun"]) };
        ask.poll(&mut poll).await.batches
    };
    assert_eq!(from("0000000000000000_0000000000000000").await[0].data.len(), 4);
    assert_eq!(from("0000000000000001_0000000000000002").await[0].gap.as_deref(), Some("reason=epoch"));
}

#[tokio::test]
async fn messages_that_are_trimmed_before_they_are_read_are_a_gap_too() {
    let gateway = Gateway::start(&[]).await;
    let mut poll = gateway.connect().await;
    let missing = Ask::of(["late"]).poll(&mut poll).await;
    assert!(missing.batches[0].missing);
    send(&gateway, put(path("late")).header("stream-max-messages", 2).json("[0,1,2,3]")).await;
    let envelope = Ask::of(["late"]).behind(&missing.resume.unwrap()).poll(&mut poll).await;
    assert_eq!(envelope.batches[0].gap.as_deref(), Some("reason=trimmed; missed=2"));
    assert_eq!(envelope.batches[1].data, [json!(2), json!(3)]);
}

#[tokio::test]
async fn texts_and_bytes_have_their_content_type() {
    let gateway = Gateway::start(&[]).await;
    for form in Form::ALL {
        let (text, bytes) = (format!("{form:?}/text"), format!("{form:?}/bytes"));
        send(&gateway, put(path(&text)).text("ä\r\nb\u{2028}")).await;
        send(&gateway, put(path(&bytes)).header("content-type", "image/png").body(vec![0, 255, 10])).await;
        let mut reader =
            Reader::open(&gateway, form, Ask::of([text.clone(), bytes.clone()]).earliest()).await;
        let mut envelope = reader.news().await;
        envelope.batches.sort_by(|one, other| one.stream.cmp(&other.stream));
        let [of_bytes, of_text] = &envelope.batches[..] else { panic!("{envelope:?}") };
        assert_eq!(of_bytes.content_type.as_deref(), Some("image/png"));
        assert_eq!(of_bytes.data, [json!("AP8K")]);
        assert_eq!(of_text.content_type.as_deref(), Some("text/plain"));
        assert_eq!(of_text.data, [json!("ä\r\nb\u{2028}")]);
        // An incomplete character is held until the rest of it arrives.
        send(&gateway, post(path(&text)).text(&b"c\xc3"[..])).await;
        assert_eq!(told(&mut reader, &text).await.data, [json!("c")]);
        send(&gateway, post(path(&text)).text(&b"\xa4"[..])).await;
        assert_eq!(told(&mut reader, &text).await.data, [json!("ä")]);
    }
}
