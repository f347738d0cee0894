//! Readers receive what was appended: random messages, cuts and changes of form, while messages are published.

mod drawn;

use std::collections::BTreeSet;

use fastrand::Rng;
use tokio::task::JoinSet;

use crate::world::{Batch, Form, Gateway, Kind, Place, Publisher, Reader, alone};

const CASES: u64 = 9 * drawn::BIG_EVERY;
const AT_ONCE: u64 = 4;

/// Variable with the seed of a single case to run.
const SEED: &str = "CASE_SEED";

/// The whole content of a stream, by position: messages of JSON streams, bytes of others.
struct Log {
    kind: Kind,
    positions: Vec<Vec<u8>>,
}

impl Log {
    fn of(kind: Kind, appends: &[Vec<u8>]) -> Self {
        let log: Vec<u8> = appends.iter().flat_map(|body| kind.log(body)).collect();
        let is_end = |byte: &u8| kind != Kind::Json || *byte == b'\n';
        Self { kind, positions: log.split_inclusive(is_end).map(<[u8]>::to_vec).collect() }
    }

    /// What a form must deliver between two offsets.
    fn stretch(&self, form: Form, from: usize, to: usize) -> Vec<u8> {
        let stretch = self.positions[from..to].concat();
        if (self.kind, form) != (Kind::Text, Form::Sse) {
            return stretch;
        }
        // The format knows one line break (HTML standard, section 9.2.6).
        let text = String::from_utf8(stretch).expect("a stretch of whole characters");
        text.replace("\r\n", "\n").replace('\r', "\n").into_bytes()
    }
}

fn position(offset: &str) -> usize {
    let Some((_, position)) = offset.split_once('_') else { return 0 };
    usize::from_str_radix(position, 16).expect("sixteen digits")
}

/// A stream that is published to and read at the same time.
async fn case(gateway_address: std::net::SocketAddr, mut publisher: Publisher, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let place = Place { address: gateway_address, ..publisher.place.clone() };
    let appends = drawn::appends(&mut rng, place.kind, seed);
    let log = Log::of(place.kind, &appends);
    let publishing = tokio::spawn(async move {
        for body in appends {
            publisher.append(body).await;
        }
        publisher.close().await
    });
    let (mut offset, mut closed) = ("-1".to_owned(), false);
    while !closed {
        let form = Form::ALL[rng.usize(..Form::ALL.len())];
        let mut reader = Reader::open(&place, form, &offset).await.unwrap();
        for _ in 0..rng.usize(1..=5) {
            let Some(batch) = reader.next().await.unwrap() else { break };
            is_right(&log, form, &offset, &batch);
            (offset, closed) = (batch.next, batch.closed);
        }
    }
    assert_eq!(offset, publishing.await.unwrap(), "the end");
    assert_eq!(position(&offset), log.positions.len());
}

fn is_right(log: &Log, form: Form, offset: &str, batch: &Batch) {
    let (from, to) = (position(offset), position(&batch.next));
    assert!(from <= to, "{form:?} went back from {offset} to {}", batch.next);
    let (expected, read) = (log.stretch(form, from, to), &batch.data);
    if expected != *read {
        let differs = expected.iter().zip(read).take_while(|(a, b)| a == b).count();
        let shown = [&expected, read].map(|bytes| {
            String::from_utf8_lossy(&bytes[differs.saturating_sub(20).min(bytes.len())..])
                .chars()
                .take(60)
                .collect::<String>()
        });
        panic!("{form:?} from {from} to {to}: at byte {differs}, {:?} is {:?}", shown[0], shown[1]);
    }
}

async fn run(gateway: &Gateway, seed: u64) {
    let kind = Kind::ALL[seed as usize % 3];
    let publisher = Publisher::create(gateway, &format!("s-{seed}"), kind).await;
    let (address, path) = (gateway.address, publisher.place.path.clone());
    let outcome = tokio::spawn(case(address, publisher, seed)).await;
    assert!(outcome.is_ok(), "run this case alone by {SEED}={seed}");
    gateway.send(crate::world::delete(path)).await.expect(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_over_changing_forms_is_what_was_appended() {
    let _alone = alone().await;
    let gateway = std::sync::Arc::new(Gateway::start(&[]).await);
    if let Ok(seed) = std::env::var(SEED) {
        return run(&gateway, seed.parse().expect("a number")).await;
    }
    let first = fastrand::u64(..1 << 40) / drawn::BIG_EVERY * drawn::BIG_EVERY;
    let mut tasks = JoinSet::new();
    for task in 0..AT_ONCE {
        let gateway = gateway.clone();
        tasks.spawn(async move {
            for seed in (first..first + CASES).skip(task as usize).step_by(AT_ONCE as usize) {
                run(&gateway, seed).await;
            }
        });
    }
    while let Some(outcome) = tasks.join_next().await {
        outcome.expect("every case holds");
    }
    gateway.until_waiting(0).await;
}

#[test]
fn the_drawn_messages_have_what_breaks_things() {
    let drawn = |kind| {
        let appends =
            (0..300).flat_map(|seed| drawn::appends(&mut Rng::with_seed(seed), kind, drawn::BIG_EVERY - 1));
        appends.collect::<Vec<_>>()
    };
    let bytes: BTreeSet<u8> = drawn(Kind::Binary).concat().into_iter().collect();
    assert_eq!(bytes.len(), 256);
    let texts = drawn(Kind::Text);
    assert!(texts.iter().any(|text| std::str::from_utf8(text).is_err()), "no character is split");
    let whole = String::from_utf8(texts.concat()).expect("the whole is UTF-8");
    let json = String::from_utf8(drawn(Kind::Json).join(&b'\n')).expect("UTF-8");
    for (all, part) in [
        (&whole, "\r\n"),
        (&whole, "\r"),
        (&whole, "\0"),
        (&whole, "\n "),
        (&json, "\"\""),
        (&json, "\r\n"),
        (&json, "[]"),
    ] {
        assert!(all.contains(part), "{part:?} was never drawn");
    }
}
