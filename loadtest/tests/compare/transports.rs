//! HTTP/2 and TLS below the strategies, on the gateway and on nginx with nchan.

use loadtest::data::{Report, Run};

use crate::forms::check;
use crate::world::{Loadtest, beside_others};

/// Less than that of the other tests, as there are many runs.
const LOAD: [&str; 14] = [
    "--clients",
    "60",
    "--seconds",
    "1",
    "--warm-up",
    "0.3",
    "--rate",
    "2",
    "--late-after",
    "1s",
    "--repeat",
    "1",
    "--day-phones",
    "0",
];

const TRANSPORTS: [(&str, &str); 3] =
    [("http2", "HTTP/2"), ("http1+tls", "TLS"), ("http2+tls", "HTTP/2 and TLS")];

fn of<'a>(report: &'a Report, server: &str, strategy: &str, transport: Option<&str>) -> Option<&'a Run> {
    let mut runs = report.runs.iter();
    runs.find(|run| (&*run.server, &*run.strategy, run.transport.as_deref()) == (server, strategy, transport))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_arrives_once_over_http2_and_over_tls() {
    let _turn = beside_others().await;
    let strategies = ["long-poll:5s", "sse", "websocket"];
    let how = strategies.iter().flat_map(|strategy| ["--strategy", strategy]);
    let over = TRANSPORTS.iter().flat_map(|(name, _)| ["--transport", name]);
    let more: Vec<_> = how.chain(over).chain(["--rival", "nchan", "--all-columns"]).collect();
    let ended = Loadtest::new(&[&LOAD[..], &more].concat()).run().await;
    assert_eq!(ended.code, Some(0));
    let report = ended.report();
    // nginx has no WebSockets over HTTP/2.
    check(&report, 3 * 3 + 3 * 3 - 2);
    for strategy in strategies {
        let bytes =
            |transport| of(&report, "pollgate", strategy, Some(transport)).unwrap().opening.bytes.unwrap();
        // A handshake has a certificate, at least.
        for (plain, secured) in [("HTTP/2", "HTTP/2 and TLS"), ("HTTP/2", "TLS")] {
            assert!(bytes(secured) > bytes(plain) + 700.0, "{strategy}: {} {}", bytes(secured), bytes(plain));
        }
        for (_, transport) in TRANSPORTS {
            let name = format!("{strategy} over {transport} ");
            assert!(
                ended.said.contains(&name) && ended.said.contains("bytes/open"),
                "{name}: {}",
                ended.said
            );
            let rival = of(&report, "nchan", strategy, Some(transport));
            assert_eq!(rival.is_none(), strategy == "websocket" && transport.starts_with("HTTP/2"), "{name}");
            // A connection for each client carries all of its polls.
            let run = of(&report, "pollgate", strategy, Some(transport)).unwrap();
            assert_eq!(run.connections, 60, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strategy_without_http_has_no_transport() {
    let load = ["--target", "http://127.0.0.1:9", "--strategy", "sse", "--transport", "http1+tls"];
    let ended = Loadtest::new(&load).run().await;
    assert!(ended.said.contains("sse over http1+tls: TLS needs an https:// --target"), "{}", ended.said);
}
