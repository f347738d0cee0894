//! The end, the deletion and the trimming of a stream mean the same in every form.

use crate::world::{Batch, Form, Gateway, Kind, Publisher, Reader, Refusal};

fn gap(gap: &str, earliest: &str) -> Option<Refusal> {
    Some(Refusal { status: 410, problem: "gap".into(), gap: gap.into(), earliest: earliest.into() })
}

fn not_found() -> Option<Refusal> {
    let (problem, gap, earliest) = ("stream-not-found".into(), String::new(), String::new());
    Some(Refusal { status: 404, problem, gap, earliest })
}

#[tokio::test]
async fn a_stream_that_does_not_exist_is_refused_before_any_form_begins() {
    let gateway = Gateway::start(&[]).await;
    let mut publisher = Publisher::create(&gateway, "s", Kind::Json).await;
    let offset = publisher.append("1").await;
    publisher.delete().await;
    for form in Form::ALL {
        for offset in ["-1", "now", &offset] {
            assert_eq!(Reader::open(&publisher.place, form, offset).await.err(), not_found(), "{form:?}");
        }
    }
}

#[tokio::test]
async fn an_offset_that_was_trimmed_is_refused_with_the_number_missed_and_the_offset_to_go_on_from() {
    let gateway = Gateway::start(&[]).await;
    let mut publisher = Publisher::create_keeping(&gateway, "s", Kind::Json, Some(2)).await;
    let first = publisher.append("1").await;
    publisher.append("[2,3,4]").await;
    for form in Form::ALL {
        let refusal = Reader::open(&publisher.place, form, &first).await.err().expect("a gap");
        assert_eq!(Some(&refusal), gap("reason=trimmed; missed=1", &refusal.earliest).as_ref(), "{form:?}");
        let mut reader = Reader::open(&publisher.place, form, &refusal.earliest).await.unwrap();
        reader.expect(b"3\n4\n").await;
    }
}

#[tokio::test]
async fn an_offset_from_another_life_of_the_stream_is_refused() {
    let gateway = Gateway::start(&[]).await;
    let mut publisher = Publisher::create(&gateway, "s", Kind::Text).await;
    let old = publisher.append("before").await;
    publisher.delete().await;
    let mut publisher = Publisher::create(&gateway, "s", Kind::Text).await;
    publisher.append("a longer text than before").await;
    for form in Form::ALL {
        let refusal = Reader::open(&publisher.place, form, &old).await.err().expect("a gap");
        assert_eq!(Some(&refusal), gap("reason=epoch", &refusal.earliest).as_ref(), "{form:?}");
        let mut reader = Reader::open(&publisher.place, form, &refusal.earliest).await.unwrap();
        reader.expect(b"a longer text than before").await;
    }
}

#[tokio::test]
async fn a_closed_stream_is_read_to_its_end_and_then_nothing_follows() {
    let gateway = Gateway::start(&[]).await;
    let mut publisher = Publisher::create(&gateway, "s", Kind::Binary).await;
    publisher.append([0, 1, 2].to_vec()).await;
    let end = publisher.close().await;
    let closed =
        |data: &[u8]| Batch { data: data.to_vec(), next: end.clone(), up_to_date: true, closed: true };
    for form in Form::ALL {
        for (offset, data) in [("-1", &[0, 1, 2][..]), (&end, &[])] {
            let mut reader = Reader::open(&publisher.place, form, offset).await.unwrap();
            assert_eq!(reader.next().await, Ok(Some(closed(data))), "{form:?} from {offset}");
            assert_eq!(reader.next().await, Ok(None), "{form:?}");
        }
    }
}

#[tokio::test]
async fn a_reader_that_waits_is_told_when_the_stream_is_closed() {
    let gateway = Gateway::start(&[]).await;
    for form in Form::ALL {
        let mut publisher = Publisher::create(&gateway, &format!("{form:?}"), Kind::Json).await;
        let mut reader = Reader::open(&publisher.place, form, "-1").await.unwrap();
        assert_eq!(reader.next().await.unwrap().map(|batch| batch.closed), Some(false));
        let waiting = tokio::spawn(async move { (reader.next().await, reader.next().await) });
        if form != Form::ShortPoll {
            gateway.until_waiting(1).await;
        }
        let next = publisher.close().await;
        let last = Batch { data: Vec::new(), next, up_to_date: true, closed: true };
        assert_eq!(waiting.await.unwrap(), (Ok(Some(last)), Ok(None)), "{form:?}");
    }
}

#[tokio::test]
async fn a_reader_that_waits_is_told_when_the_stream_is_deleted() {
    let gateway = Gateway::start(&[]).await;
    for form in Form::ALL {
        let mut publisher = Publisher::create(&gateway, &format!("{form:?}"), Kind::Json).await;
        let mut reader = Reader::open(&publisher.place, form, "-1").await.unwrap();
        reader.next().await.unwrap();
        let waiting = tokio::spawn(async move { reader.next().await });
        if form != Form::ShortPoll {
            gateway.until_waiting(1).await;
        }
        publisher.delete().await;
        assert_eq!(waiting.await.unwrap().err(), not_found(), "{form:?}");
    }
}

#[tokio::test]
async fn a_reader_that_retention_overtakes_is_told_how_much_it_missed() {
    const MESSAGE: usize = 32 * 1024;
    // On a busy machine the appends take longer than a reader may read nothing by default.
    let limits = ["--limit", "socket_send_bytes=8192", "--limit", "write_timeout=10m"];
    let gateway = Gateway::start(&limits).await;
    let position = |offset: &str| usize::from_str_radix(offset.split_once('_').unwrap().1, 16).unwrap();
    for form in Form::ALL {
        let name = format!("{form:?}");
        let mut publisher = Publisher::create_keeping(&gateway, &name, Kind::Text, Some(8)).await;
        publisher.append("x").await;
        let mut reader = Reader::open(&publisher.place, form, "-1").await.unwrap();
        // While the reader does not read, much more is appended and trimmed than socket buffers hold.
        let mut tail = String::new();
        for _ in 0..1000 {
            tail = publisher.append("x".repeat(MESSAGE)).await;
        }
        // When the gap is reported depends on the sockets, and its offset may be trimmed again by then. In any case,
        // the received and the missed messages add up to all messages.
        let (mut received, mut missed, mut gaps) = (0, 0, 0);
        while reader.offset() != tail {
            let mut told = reader.next().await.map(|batch| received += batch.expect("more").data.len());
            while let Err(refusal) = told {
                let bytes = refusal.gap.strip_prefix("reason=trimmed; missed=").expect("how much");
                missed += bytes.parse::<usize>().unwrap();
                gaps += 1;
                told =
                    Reader::open(&publisher.place, form, &refusal.earliest).await.map(|again| reader = again);
            }
        }
        assert_eq!(received + missed, position(&tail), "{form:?}");
        assert!(received > 8 * MESSAGE && missed > 0 && gaps <= 2, "{form:?}: {gaps} gaps");
    }
}
