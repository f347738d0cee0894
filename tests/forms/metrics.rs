//! Metrics of the live forms, by form.

use std::time::Duration;

use tokio::time::sleep;

use crate::world::{Form, Gateway, Kind, Publisher, Raw, Reader, handshake, until};

#[tokio::test]
async fn each_live_form_is_counted_for_itself() {
    let gateway = Gateway::start(&["--limit", "live_heartbeat=300ms"]).await;
    let mut publisher = Publisher::create(&gateway, "s", Kind::Json).await;
    for form in Form::LIVE {
        let metric = |name: &str| format!("pollgate_live_{name}{{form=\"{}\"}}", form.name());
        let value = async |name: &str| gateway.metric(&metric(name)).await;
        let (envelopes, bytes) = (value("envelopes_total").await, value("bytes_total").await);
        assert_eq!((value("connections").await, envelopes, bytes), (0.0, 0.0, 0.0), "{form:?}");
        // 1. The first envelope, which is no heartbeat, and one with a message.
        let mut reader = Reader::open(&publisher.place, form, "now").await.unwrap();
        reader.next().await.unwrap();
        publisher.append("\"0123456789\"").await;
        reader.expect(b"\"0123456789\"\n").await;
        assert_eq!((value("connections").await, value("envelopes_total").await), (1.0, 2.0), "{form:?}");
        assert_eq!(value("heartbeats_total").await, 0.0, "{form:?}");
        let bytes = value("bytes_total").await;
        assert!((100.0..500.0).contains(&bytes), "{form:?}: {bytes}");
        // 2. Heartbeats are envelopes; a WebSocket has none by default, because it has pings.
        let heartbeats = "heartbeats_total";
        if form == Form::WebSocket {
            sleep(Duration::from_millis(700)).await;
            assert_eq!(value(heartbeats).await, 0.0);
        } else {
            until(heartbeats, async || value(heartbeats).await >= 2.0).await;
        }
        assert_eq!(value("envelopes_total").await, 2.0 + value(heartbeats).await, "{form:?}");
        // 3. A reader that disconnects does not count as cut.
        drop(reader);
        until("nobody reads", async || value("connections").await == 0.0).await;
        assert_eq!(value("cut_total").await, 0.0, "{form:?}");
    }
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_counted_as_cut_under_its_form() {
    let gateway = Gateway::start(&["--limit", "write_timeout=500ms"]).await;
    let mut publisher = Publisher::create(&gateway, "s", Kind::Text).await;
    for _ in 0..4 {
        publisher.append(vec![b'x'; 1024 * 1024]).await;
    }
    for form in Form::LIVE {
        let mut mute = Raw::open_narrow(gateway.address).await;
        let target = format!("{}?offset=-1&live={}", publisher.place.path, form.name());
        mute.send(handshake(&target) + "\r\n").await.unwrap();
        let cut = format!("pollgate_live_cut_total{{form=\"{}\"}}", form.name());
        until(&cut, async || gateway.metric(&cut).await == 1.0).await;
    }
    for form in Form::LIVE {
        let open = format!("pollgate_live_connections{{form=\"{}\"}}", form.name());
        assert_eq!(gateway.metric(&open).await, 0.0);
        assert_eq!(
            gateway.metric(&format!("pollgate_live_cut_total{{form=\"{}\"}}", form.name())).await,
            1.0
        );
    }
}
