//! Effects of proxies on requests and responses.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep};

use crate::ends::{hears, hops};
use crate::scripted::{Part, Scripted, until_it_ends_with, until_quiet};
use crate::world::on_time;

const GET: &str = "GET /v1/stream/a HTTP/1.1\r\nHost: here\r\n\r\n";
const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const SHORT: [Part; 1] = [Part::Says("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nanswer")];

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[tokio::test]
async fn a_proxy_times_out_a_response_that_does_not_begin() {
    on_time(async || {
        const LATE: [Part; 2] = [Part::Waits(Duration::from_millis(1500)), SHORT[0]];
        for (ending, expected) in [("gateway-timeout", "HTTP/1.1 504 "), ("close", "")] {
            let network = hops(&format!("{{ proxy-cut = {{ first-byte = 0.4, ending = '{ending}' }} }}"));
            let scripted = Scripted::behind(&network, &LATE).await;
            let began = Instant::now();
            let mut client = scripted.connect().await;
            client.write_all(GET.as_bytes()).await.unwrap();
            let got = until_quiet(&mut client, millis(900)).await;
            assert!(got.starts_with(expected) && got.is_empty() == expected.is_empty(), "{ending}: {got}");
            assert!(began.elapsed() > millis(390), "{ending} after {:?}", began.elapsed());
            assert_eq!(scripted.middlebox.passed().faults, 1);
        }
    })
    .await;
}

/// 1. Pieces every 200 ms keep a response alive beyond 400 ms. 2. A pause of 700 ms ends it within its chunks.
#[tokio::test]
async fn a_proxy_cuts_a_response_that_pauses() {
    on_time(async || {
        const PAUSES: [Part; 8] = [
            Part::Says(HEAD),
            Part::Says("1\r\na\r\n"),
            Part::Waits(Duration::from_millis(200)),
            Part::Says("1\r\nb\r\n"),
            Part::Waits(Duration::from_millis(200)),
            Part::Says("1\r\nc\r\n"),
            Part::Waits(Duration::from_millis(700)),
            Part::Says("1\r\nd\r\n0\r\n\r\n"),
        ];
        let network = hops("{ proxy-cut = { first-byte = 0.4, next-byte = 0.4 } }");
        let scripted = Scripted::behind(&network, &PAUSES).await;
        let got = scripted.ask(GET).await;
        assert!(got.ends_with("1\r\na\r\n1\r\nb\r\n1\r\nc\r\n"), "{got}");
        assert_eq!(scripted.middlebox.passed().faults, 1);
    })
    .await;
}

#[tokio::test]
async fn a_buffer_holds_an_answer_until_it_is_complete() {
    on_time(async || {
        const ENDS: [Part; 4] = [
            Part::Says(HEAD),
            Part::Says("1\r\na\r\n"),
            Part::Waits(Duration::from_millis(700)),
            Part::Says("1\r\nb\r\n0\r\n\r\n"),
        ];
        let scripted = Scripted::behind(&hops("{ proxy-buffer = {} }"), &ENDS).await;
        let mut client = scripted.connect().await;
        client.write_all(GET.as_bytes()).await.unwrap();
        assert_eq!(until_quiet(&mut client, millis(400)).await, "", "before the end");
        let got = until_it_ends_with(&mut client, "0\r\n\r\n").await;
        assert!(got.starts_with("HTTP/1.1 200 OK\r\n") && got.ends_with("2\r\nab\r\n0\r\n\r\n"), "{got}");
    })
    .await;
}

/// 3 bytes of the buffer's 4 are held together with the head; the 4th releases everything; later bytes are held until the end.
#[tokio::test]
async fn a_buffer_holds_an_answer_until_it_is_full() {
    on_time(async || {
        const FILLS: [Part; 7] = [
            Part::Says(HEAD),
            Part::Says("3\r\nabc\r\n"),
            Part::Waits(Duration::from_millis(500)),
            Part::Says("1\r\nd\r\n1\r\ne\r\n"),
            Part::Waits(Duration::from_millis(500)),
            Part::Says("1\r\nf\r\n"),
            Part::Says("0\r\n\r\n"),
        ];
        let scripted = Scripted::behind(&hops("{ proxy-buffer = { bytes = 4 } }"), &FILLS).await;
        let mut client = scripted.connect().await;
        client.write_all(GET.as_bytes()).await.unwrap();
        assert_eq!(until_quiet(&mut client, millis(250)).await, "", "before it is full");
        let first = until_it_ends_with(&mut client, "abcd\r\n").await;
        assert!(first.ends_with("\r\n\r\n4\r\nabcd\r\n"), "{first}");
        assert_eq!(until_it_ends_with(&mut client, "0\r\n\r\n").await, "2\r\nef\r\n0\r\n\r\n");
    })
    .await;
}

/// A response with a length passes at once; one that ends in time passes as a whole with its length; one that does not end is
/// blocked.
#[tokio::test]
async fn a_scanner_blocks_responses_that_do_not_end() {
    on_time(async || {
        const ENDS: [Part; 2] = [Part::Says(HEAD), Part::Says("1\r\na\r\n1\r\nb\r\n0\r\n\r\n")];
        const GOES_ON: [Part; 4] =
            [Part::Says(HEAD), Part::Says("1\r\na\r\n"), Part::Waits(Duration::from_secs(9)), Part::Closes];
        let network = hops("{ no-streaming = { gives-up-after = 0.5 } }");
        for (script, expected, faults) in [
            (&SHORT[..], "\r\n\r\nanswer", 0),
            (&ENDS, "\r\ncontent-length: 2\r\n\r\nab", 0),
            (&GOES_ON, "", 1),
        ] {
            let scripted = Scripted::behind(&network, script).await;
            let got = scripted.ask(GET).await;
            match faults {
                0 => assert!(got.starts_with("HTTP/1.1 200 ") && got.ends_with(expected), "{got}"),
                _ => assert!(got.starts_with("HTTP/1.1 502 "), "{got}"),
            }
            assert!(!got.to_lowercase().contains("chunked"), "{got}");
            assert_eq!(scripted.middlebox.passed().faults, faults);
        }
    })
    .await;
}

/// The response ends with its connection, and still passes as it is sent.
#[tokio::test]
async fn an_old_proxy_speaks_http_1_0_to_both_sides() {
    on_time(async || {
        const GOES_ON: [Part; 6] = [
            Part::Says("HTTP/1.0 200 OK\r\n\r\n"),
            Part::Says("first"),
            Part::Waits(Duration::from_millis(500)),
            Part::Says("second"),
            Part::Waits(Duration::from_millis(100)),
            Part::Closes,
        ];
        let post = "POST /a HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        let scripted = Scripted::behind(&hops("{ http10 = {} }"), &GOES_ON).await;
        let mut client = scripted.connect().await;
        client.write_all(post.as_bytes()).await.unwrap();
        let first = until_it_ends_with(&mut client, "first").await;
        assert!(first.starts_with("HTTP/1.0 200 ") && first.ends_with("\r\n\r\nfirst"), "{first}");
        assert_eq!(hears(&mut client).await.unwrap(), b"second");
        let heard = scripted.heard.lock()[0].to_lowercase();
        assert!(heard.starts_with("post /a http/1.0\r\n") && heard.ends_with("\r\n\r\nhello"), "{heard}");
        assert!(heard.contains("connection: close") && heard.contains("content-length: 5"), "{heard}");
        assert!(!heard.contains("upgrade") && !heard.contains("chunked"), "{heard}");
    })
    .await;
}

/// A connection serves one request: the second one is never answered.
#[tokio::test]
async fn http_1_0_serves_one_request_per_connection() {
    on_time(async || {
        let scripted = Scripted::behind(&hops("{ http10 = {} }"), &SHORT).await;
        let mut client = scripted.connect().await;
        client.write_all(format!("{GET}{GET}").as_bytes()).await.unwrap();
        let got = until_quiet(&mut client, Duration::from_secs(1)).await;
        assert_eq!(got.matches("HTTP/1.0 200").count(), 1, "{got}");
        assert_eq!(scripted.heard.lock().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_captive_portal_answers_requests_itself_until_its_time_is_over() {
    on_time(async || {
        let mut network = hops("{ captive = {} }");
        network.until = Some(loadtest::network::Clock(millis(700)));
        let scripted = Scripted::behind(&network, &SHORT).await;
        let mut client = scripted.connect().await;
        client.write_all(GET.as_bytes()).await.unwrap();
        let page = until_quiet(&mut client, millis(200)).await;
        assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("text/html"), "{page}");
        assert_eq!((scripted.heard.lock().len(), scripted.middlebox.passed().faults), (0, 1));
        sleep(millis(700)).await;
        client.write_all(GET.as_bytes()).await.unwrap();
        let answer = until_it_ends_with(&mut client, "answer").await;
        assert!(answer.ends_with("\r\n\r\nanswer"), "{answer}");
    })
    .await;
}
