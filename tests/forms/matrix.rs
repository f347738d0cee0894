//! From every form to every other: a reader whose socket is cut resumes in another form and misses nothing.

use crate::world::{Form, Gateway, Kind, Publisher, Reader};

/// Messages of a kind of stream, and the log that they make.
fn messages(kind: Kind, numbers: std::ops::Range<u8>) -> (Vec<Vec<u8>>, Vec<u8>) {
    let bodies = numbers.map(|n| match kind {
        Kind::Json => format!("{{\"n\": {n}}}").into_bytes(),
        Kind::Text => format!("{n} é\n").into_bytes(),
        Kind::Binary => vec![n, 0, 0xff, b'\n'],
    });
    let bodies: Vec<_> = bodies.collect();
    let log = bodies.iter().flat_map(|body| kind.log(body)).collect();
    (bodies, log)
}

async fn publish(publisher: &mut Publisher, bodies: Vec<Vec<u8>>) {
    for body in bodies {
        publisher.append(body).await;
    }
}

/// Reads `received` messages in the form `from`, is cut, misses three, and resumes in the form `to`.
async fn resumes(gateway: &Gateway, kind: Kind, received: u8, from: Form, to: Form) {
    let name = format!("{kind:?}-{received}-{from:?}-{to:?}");
    let mut publisher = Publisher::create(gateway, &name, kind).await;
    let (before, log_before) = messages(kind, 0..received);
    let (behind, log_behind) = messages(kind, received..received + 3);
    // 1. The reader connects to an empty stream, and receives each message when it is published.
    let mut reader = Reader::open(&publisher.place, from, "-1").await.unwrap();
    publish(&mut publisher, before).await;
    reader.expect(&log_before).await;
    // 2. Its socket is closed, and three messages are published.
    let offset = reader.offset().to_owned();
    drop(reader);
    publish(&mut publisher, behind).await;
    // 3. The other form continues at the offset, with exactly these three messages and the end of the stream.
    let mut reader = Reader::open(&publisher.place, to, &offset).await.unwrap();
    reader.expect(&log_behind).await;
    publisher.close().await;
    assert_eq!(reader.rest().await, Ok(Vec::new()), "{name}");
}

#[tokio::test]
async fn one_offset_works_on_all_forms_of_all_kinds_of_streams() {
    let gateway = Gateway::start(&[]).await;
    for kind in Kind::ALL {
        for received in [0, 3] {
            for from in Form::ALL {
                for to in Form::ALL {
                    resumes(&gateway, kind, received, from, to).await;
                }
            }
        }
    }
    // No waiter is left of the readers that were cut.
    gateway.until_waiting(0).await;
    for form in Form::LIVE {
        let open = format!("pollgate_live_connections{{form=\"{}\"}}", form.name());
        crate::world::until(&open, async || gateway.metric(&open).await == 0.0).await;
    }
}

#[tokio::test]
async fn a_character_that_comes_in_two_appends_is_read_whole_whichever_form_met_its_first_half() {
    let gateway = Gateway::start(&[]).await;
    for from in Form::ALL {
        for to in Form::ALL {
            let mut publisher = Publisher::create(&gateway, &format!("{from:?}-{to:?}"), Kind::Text).await;
            publisher.append(&b"caf\xc3"[..]).await;
            let mut reader = Reader::open(&publisher.place, from, "-1").await.unwrap();
            reader.expect(b"caf").await;
            let offset = reader.offset().to_owned();
            drop(reader);
            publisher.append(&b"\xa9s"[..]).await;
            let mut reader = Reader::open(&publisher.place, to, &offset).await.unwrap();
            reader.expect("és".as_bytes()).await;
        }
    }
}
