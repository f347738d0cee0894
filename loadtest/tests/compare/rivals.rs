//! Rivals in the same comparison. Debian's and npm's packages are installed by `tests/run`.

use crate::forms::{LOAD, check};
use crate::world::{Loadtest, beside_others};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nchan_and_mosquitto_deliver_everything() {
    let _turn = beside_others().await;
    let how = ["--strategy", "short-poll:500ms", "--strategy", "long-poll:5s", "--strategy", "sse"];
    let more = ["--strategy", "websocket", "--strategy", "mqtt", "--rival", "nchan", "--rival", "mosquitto"];
    let ended = Loadtest::new(&[&LOAD[..], &how, &more].concat()).run().await;
    assert_eq!(ended.code, Some(0));
    let mut report = ended.report();
    report.runs.retain(|run| run.server != "pollgate");
    check(&report, 5);
    for name in ["nchan", "mosquitto"] {
        assert!(report.machine.versions.iter().any(|(program, _)| program == name), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prosody_and_ejabberd_deliver_everything() {
    let _turn = beside_others().await;
    let how = ["--strategy", "xmpp:websocket", "--strategy", "xmpp:bosh"];
    let more = ["--rival", "prosody", "--rival", "ejabberd"];
    let ended = Loadtest::new(&[&LOAD[..], &how, &more].concat()).run().await;
    assert_eq!(ended.code, Some(0));
    let mut report = ended.report();
    report.runs.retain(|run| run.server != "pollgate");
    check(&report, 4);
    for name in ["prosody", "ejabberd"] {
        assert!(report.machine.versions.iter().any(|(program, _)| program == name), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_of_node_and_several_workers_of_nchan_deliver_everything() {
    let _turn = beside_others().await;
    let how = ["--strategy", "long-poll:5s", "--strategy", "sse", "--strategy", "websocket"];
    let more = ["--rival", "socket.io", "--rival", "durable-streams-node", "--rival", "nchan-workers"];
    let ended = Loadtest::new(&[&LOAD[..], &how, &more].concat()).run().await;
    assert_eq!(ended.code, Some(0));
    let mut report = ended.report();
    report.runs.retain(|run| run.server != "pollgate");
    check(&report, 7);
    for name in ["socket.io", "durable-streams-node", "nchan-workers"] {
        assert!(report.machine.versions.iter().any(|(program, _)| program == name), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushpin_redis_valkey_and_nats_deliver_everything() {
    let _turn = beside_others().await;
    let how = ["--strategy", "long-poll:5s", "--strategy", "sse", "--strategy", "websocket"];
    let rivals = ["pushpin", "redis-streams", "valkey-streams", "nats"];
    let more: Vec<_> = rivals.iter().flat_map(|rival| ["--rival", rival]).collect();
    let ended = Loadtest::new(&[&LOAD[..], &how, &more].concat()).run().await;
    assert_eq!(ended.code, Some(0));
    let mut report = ended.report();
    report.runs.retain(|run| run.server != "pollgate");
    check(&report, 6);
    for name in rivals {
        assert!(report.machine.versions.iter().any(|(program, _)| program == name), "{name}");
    }
}
