//! A reader that changes from form to form with one resume token, like a client behind a hostile network; and delivery when
//! there is more data than one envelope holds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::ask::{Ask, Envelope};
use super::reader::Reader;
use crate::world::{Connection, Form, Gateway, Kind, alone, post, put};

const STREAMS: usize = 50;
const APPENDS: usize = 600;

/// The data that was read, per stream, in the form of its log.
#[derive(Default)]
struct Logs(BTreeMap<String, Vec<u8>>);

impl Logs {
    fn take(&mut self, envelope: &Envelope) {
        for news in &envelope.batches {
            assert!(news.gap.is_none() && !news.missing, "{news:?}");
            let log = self.0.entry(news.stream.clone()).or_default();
            for message in &news.data {
                match (kind(&news.stream), message) {
                    (Kind::Json, value) => log.extend(format!("{value}\n").into_bytes()),
                    (Kind::Text, Value::String(text)) => log.extend(text.as_bytes()),
                    (Kind::Binary, Value::String(text)) => log.extend(STANDARD.decode(text).unwrap()),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

/// Returns the kind of a stream, which is encoded in its name.
fn kind(name: &str) -> Kind {
    let number: usize = name.strip_prefix("s/").unwrap().parse().unwrap();
    Kind::ALL[number % 3]
}

/// Returns message `number` for a stream of this kind, and its form in the log. Most are small.
fn message(kind: Kind, number: usize) -> (Vec<u8>, Vec<u8>) {
    let filler = "ä€".repeat(if number.is_multiple_of(7) { 3000 } else { 3 });
    let body = match kind {
        Kind::Json => format!("{{\"f\":\"{filler}\",\"n\":{number}}}").into_bytes(),
        Kind::Text => format!("{number} {filler}\n").into_bytes(),
        Kind::Binary => [&[0, 255, b'\n'], number.to_string().as_bytes(), filler.as_bytes()].concat(),
    };
    let log = kind.log(&body);
    (body, log)
}

async fn publish(mut connection: Connection, over: Arc<AtomicBool>) -> Logs {
    let mut logs = Logs::default();
    let mut random = fastrand::Rng::with_seed(5);
    for number in 0..APPENDS {
        let name = format!("s/{}", random.usize(..STREAMS));
        let (body, log) = message(kind(&name), number);
        let append = post(format!("/v1/stream/{name}"));
        connection
            .send(append.header("content-type", kind(&name).content_type()).body(body))
            .await
            .expect(204);
        logs.0.entry(name).or_default().extend(log);
    }
    over.store(true, Ordering::SeqCst);
    logs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_goes_from_form_to_form_misses_nothing_of_fifty_streams() {
    let _turn = alone().await;
    let gateway = Gateway::start(&[]).await;
    let names: Vec<_> = (0..STREAMS).map(|n| format!("s/{n}")).collect();
    for name in &names {
        let create = put(format!("/v1/stream/{name}")).header("content-type", kind(name).content_type());
        gateway.send(create).await.expect(201);
    }
    let over = Arc::new(AtomicBool::new(false));
    let (mut read, mut forms) = (Logs::default(), 0);
    let ask = Ask::of(&names);
    let mut resume = ask.poll(&mut gateway.connect().await).await.resume.unwrap();
    let publisher = tokio::spawn(publish(gateway.connect().await, over.clone()));
    let mut random = fastrand::Rng::with_seed(6);
    loop {
        let was_over = over.load(Ordering::SeqCst);
        let form = Form::ALL[forms % Form::ALL.len()];
        let form = if was_over { Form::ShortPoll } else { form };
        let mut reader = Reader::open(&gateway, form, ask.clone().behind(&resume)).await;
        let mut up_to_date = false;
        for _ in 0..random.usize(1..=4) {
            // Envelopes that are in flight when the reader leaves a form are discarded.
            if !was_over && over.load(Ordering::SeqCst) {
                break;
            }
            let envelope = reader.next().await.expect("no form ends so soon");
            read.take(&envelope);
            up_to_date = envelope.up_to_date;
        }
        resume = reader.resume.clone();
        forms += 1;
        if was_over && up_to_date {
            break;
        }
    }
    let published = publisher.await.unwrap();
    assert!(forms > 10, "{forms}");
    println!("{APPENDS} appends to {STREAMS} streams, read in {forms} forms one after the other");
    assert_eq!(read.0.len(), published.0.len());
    for (name, log) in &published.0 {
        assert!(read.0.get(name) == Some(log), "{name} is not what was published");
    }
}

#[tokio::test]
async fn a_stream_with_a_long_log_does_not_keep_the_others_from_their_turn() {
    let gateway = Gateway::start(&[]).await;
    let long = vec![b'x'; 512 * 1024];
    for _ in 0..8 {
        for name in ["a", "b"] {
            let append = post(format!("/v1/stream/{name}?create=1")).text(long.clone());
            gateway.send(append).await.expect(204);
        }
    }
    for name in ["c", "d"] {
        gateway.send(post(format!("/v1/stream/{name}?create=1")).text("short")).await.expect(204);
    }
    for form in Form::ALL {
        let ask = Ask::of(["a", "b", "c", "d"]).earliest();
        let mut reader = Reader::open(&gateway, form, ask).await;
        let (mut bytes, mut last_new, mut seen) = (BTreeMap::new(), 0, 0);
        while bytes.values().sum::<usize>() < 2 * 8 * long.len() + 10 {
            let envelope = reader.next().await.unwrap();
            let complete = envelope.up_to_date;
            seen += 1;
            for news in envelope.batches {
                let length = bytes.entry(news.stream.clone()).or_insert(0);
                last_new = if *length == 0 { seen } else { last_new };
                *length += news.data.iter().map(|text| text.as_str().unwrap().len()).sum::<usize>();
            }
            assert_eq!(complete, bytes.values().sum::<usize>() == 2 * 8 * long.len() + 10);
        }
        assert_eq!(bytes["a"], bytes["b"]);
        // Each stream has its turn before any has a second one: an envelope of a live form holds one of the long messages.
        assert!(last_new <= 3, "{form:?}: the last stream came in envelope {last_new} of {seen}");
    }
}

#[tokio::test]
async fn polls_that_are_always_full_give_each_stream_its_turn() {
    let gateway = Gateway::start(&["--limit", "read_bytes_max=4096"]).await;
    let names: Vec<_> = (0..20).map(|n| format!("s/{n}")).collect();
    let append = async |name: &str| {
        let append = post(format!("/v1/stream/{name}?create=1")).text(vec![b'x'; 3000]);
        gateway.send(append).await.expect(204);
    };
    for name in &names {
        append(name).await;
    }
    let (mut resume, mut served) = (String::new(), BTreeMap::new());
    for _ in 0..20 {
        let ask = Ask::of(&names).earliest();
        let ask = if resume.is_empty() { ask } else { ask.behind(&resume) };
        let envelope = ask.poll(&mut gateway.connect().await).await;
        assert!(!envelope.up_to_date && envelope.batches.len() <= 3, "{:?}", envelope.streams());
        for name in envelope.streams() {
            *served.entry(name.to_owned()).or_insert(0) += 1;
            append(name).await;
        }
        resume = envelope.resume.unwrap();
    }
    assert_eq!(served.len(), names.len(), "{served:?}");
}

#[tokio::test]
async fn a_live_form_sends_the_resume_token_in_parts_that_never_outgrow_it() {
    let gateway = Gateway::start(&[]).await;
    let names: Vec<_> = (0..100).map(|n| format!("s/{n}")).collect();
    for name in &names {
        gateway.send(put(format!("/v1/stream/{name}")).json("")).await.expect(201);
    }
    for form in Form::LIVE {
        let mut reader = Reader::open(&gateway, form, Ask::of(&names)).await;
        let first = reader.next().await.unwrap();
        let full = first.resume.expect("a full resume token at first").len();
        // About 16 characters per stream, for all epochs and positions.
        assert!(full < 20 * names.len(), "{full} characters");
        let (mut fulls, mut parts, mut sent) = (0, 0, 0);
        for number in 0..300 {
            let name = &names[number % names.len()];
            gateway.send(post(format!("/v1/stream/{name}")).json("1")).await.expect(204);
            let envelope = reader.news().await;
            sent +=
                envelope.resume.as_ref().or(envelope.resume_delta.as_ref()).expect("a resume token").len();
            fulls += usize::from(envelope.resume.is_some());
            parts += usize::from(envelope.resume_delta.is_some());
            assert!(reader.resume.len() <= 2 * full + 400, "{}", reader.resume.len());
            // A reader that continues from here misses nothing and gets nothing twice.
            if number % 37 == 0 {
                let ask = Ask::of(&names).behind(&reader.resume);
                let after = ask.poll(&mut gateway.connect().await).await;
                assert!(after.batches.is_empty() && after.up_to_date, "{after:?}");
            }
        }
        assert!(fulls >= 2 && parts > 10 * fulls, "{form:?}: {fulls} full ones, {parts} parts");
        assert!(sent < 300 * 3 * full / 50, "{form:?}: {sent} characters of resume tokens");
    }
}

#[tokio::test]
async fn a_heartbeat_is_an_envelope_without_a_resume_token() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/s").json("")).await.expect(201);
    for form in Form::LIVE {
        let ask = Ask { heartbeat: Some(1), ..Ask::of(["s"]) };
        let mut reader = Reader::open(&gateway, form, ask).await;
        reader.next().await.unwrap();
        let resume = reader.resume.clone();
        let beat = reader.next().await.unwrap();
        assert!(
            beat.batches.is_empty()
                && beat.up_to_date
                && beat.resume.is_none()
                && beat.resume_delta.is_none()
        );
        assert_eq!(reader.resume, resume);
        let beats = format!("pollgate_live_heartbeats_total{{form=\"{}\"}}", form.name());
        assert!(gateway.metric(&beats).await >= 1.0);
    }
}
