//! Controls: losses of a store that syncs less than always are detected, and its readers must be told.

use tokio::time::sleep;

use crate::crew::{Crew, Stream};
use crate::home::Home;
use crate::outage::{PUBLISHERS, SIZE, moment};
use crate::readers::Log;
use crate::verdict::Verdict;
use crate::world::{Gateway, post, put};

/// Number of messages before and after the sync by the system.
const MESSAGES: u64 = 100;

/// Counts of the acknowledged messages after an outage.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) lost: u64,
    pub(crate) left: u64,
}

/// Puts a gateway through one outage, after a sync by the system. If messages are lost, readers that had read them get an
/// error, even after the stream has grown to the same length again.
pub(crate) async fn lose(
    arguments: &[&str],
    synced: impl FnOnce(),
    outage: impl AsyncFnOnce(Gateway),
) -> Loss {
    let home = Home::default();
    let gateway = Gateway::start(arguments).await;
    for stream in Stream::of(PUBLISHERS) {
        stream.create(&gateway).await;
    }
    home.is(&gateway);
    let mut crew = Crew::start(&home, PUBLISHERS, SIZE);
    let streams = crew.streams.clone();
    crew.more(MESSAGES).await;
    synced();
    crew.more(MESSAGES).await;
    sleep(moment()).await;
    let ledger = crew.finish().await;
    let mut before = Vec::new();
    for stream in &streams {
        before.push(Log::of(&gateway, stream).await.expect("the stream is there"));
    }
    outage(gateway).await;
    let gateway = Gateway::start(arguments).await;
    let mut loss = Loss::default();
    for (stream, before) in streams.iter().zip(before) {
        let after = Log::of(&gateway, stream).await.map_or(Vec::new(), |log| log.messages);
        assert!(before.messages.starts_with(&after), "{}: not a prefix of what it was", stream.path);
        loss.lost += Verdict::on(&after, &ledger.on(&stream.path, &stream.publishers)).lost;
        loss.left += after.len() as u64;
        if after.len() < before.messages.len() {
            is_told(&gateway, stream, &before, after.len()).await;
        }
    }
    loss
}

/// A reader whose offset is after lost messages gets an error, at once and after other messages have taken their place.
async fn is_told(gateway: &Gateway, stream: &Stream, before: &Log, left: usize) {
    let refused = async |when: &str| {
        let reader = Log::reader(gateway, stream, &before.offset).await;
        let refusal = reader.err().unwrap_or_else(|| {
            panic!("{}: {when} nobody tells a reader that its messages are lost", stream.path)
        });
        assert!(matches!(refusal.status, 400 | 404 | 410), "{refusal:?}");
        refusal
    };
    refused("at once").await;
    let created = gateway.send(put(&stream.path).json("")).await;
    assert!(matches!(created.status.as_u16(), 200 | 201), "{created:?}");
    let others = vec![0; before.messages.len() - left + 1];
    let grown = gateway.send(post(&stream.path).json(format!("{others:?}"))).await;
    assert_eq!(grown.status, 204, "{grown:?}");
    let refusal = refused("with others in their place").await;
    assert!(refusal.status != 410 || refusal.gap == "reason=epoch", "{refusal:?}");
}
