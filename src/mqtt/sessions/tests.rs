//! Sessions that are taken over, kept, and ended, by several connections at once.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::yield_now;

use super::*;
use crate::clock::in_time;
use crate::metrics::Metrics;
use crate::mqtt::codec::{MessageProperties, Will};
use crate::mqtt::session::Session;
use crate::stream::QoS;

const HOUR: Duration = Duration::from_secs(3600);

fn sessions() -> Arc<Sessions> {
    let share = Share { sessions_max: 9, bytes_max: 1 << 20 };
    Arc::new(Sessions::new(share, Budget::unlimited(), Metrics::new().mqtt().clone()))
}

async fn attach(sessions: &Arc<Sessions>, client: &str) -> SessionFound {
    in_time("the session is free", sessions.attach(&client.into(), Principal::GATEWAY)).await.unwrap()
}

fn away(until: Instant, will: Option<DelayedWill>) -> Away {
    Away { session: Session::new("a".into(), true), until, will }
}

#[tokio::test]
async fn a_session_is_found_again_until_it_expires() {
    let sessions = sessions();
    let now = Instant::now();
    let found = attach(&sessions, "a").await;
    assert!(found.away.is_none());
    found.attached.detach(away(now + HOUR, None));
    assert!(sessions.take_due(now).is_none());
    let found = attach(&sessions, "a").await;
    assert!(found.away.is_some());
    found.attached.detach(away(now + HOUR, None));
    let (attached, due) = sessions.take_due(now + HOUR).unwrap();
    assert!(due.until == now + HOUR && sessions.take_due(now + HOUR).is_none());
    drop(attached);
    assert_eq!((sessions.len(), sessions.agenda.lock().due.len()), (0, 0));
}

#[tokio::test]
async fn a_will_is_due_at_its_time_and_the_session_stays() {
    let sessions = sessions();
    let now = Instant::now();
    let will = Will {
        topic: "gone".into(),
        payload: Bytes::new(),
        qos: QoS::AtMostOnce,
        retain: false,
        properties: MessageProperties::default(),
        delay: HOUR,
    };
    let rights = WillRights::Stored(None);
    attach(&sessions, "a")
        .await
        .attached
        .detach(away(now + 2 * HOUR, Some(DelayedWill { will, at: now + HOUR, rights })));
    assert!(sessions.take_due(now).is_none());
    let (attached, due) = sessions.take_due(now + HOUR).unwrap();
    assert!(due.will.is_some());
    attached.detach(Away { will: None, ..due });
    assert!(sessions.take_due(now + HOUR).is_none());
    assert!(sessions.take_due(now + 2 * HOUR).is_some());
}

#[tokio::test]
async fn an_adopted_session_waits_for_its_client() {
    let sessions = sessions();
    sessions.adopt(away(Instant::now() + HOUR, None));
    assert_eq!(sessions.len(), 1);
    assert!(attach(&sessions, "a").await.away.is_some());
}

#[tokio::test]
async fn a_client_counts_as_attached_while_a_connection_waits_for_a_session_that_ends() {
    let sessions = sessions();
    let first = attach(&sessions, "a").await;
    let waiting = {
        let sessions = sessions.clone();
        tokio::spawn(async move { sessions.attach(&"a".into(), Principal::GATEWAY).await })
    };
    in_time("another connection waits", poll_fn(|context| first.attached.poll_superseded(context))).await;
    drop(first.attached);
    assert!(sessions.is_attached("a"), "the session has ended, and a connection waits for the next one");
    drop(in_time("the session is free", waiting).await.unwrap().unwrap());
    assert_eq!(sessions.len(), 0);
}

#[tokio::test]
async fn a_connection_that_gives_up_waiting_leaves_no_slot() {
    let sessions = sessions();
    let first = attach(&sessions, "a").await;
    let client = Arc::from("a");
    let mut waiting = Box::pin(sessions.attach(&client, Principal::GATEWAY));
    assert!(waiting.as_mut().now_or_never().is_none());
    drop(first.attached);
    drop(waiting);
    assert_eq!(sessions.len(), 0);
}

#[tokio::test]
async fn the_newest_of_many_connections_gets_the_session() {
    let sessions = sessions();
    let first = attach(&sessions, "a").await;
    let others: Vec<_> = (0..3)
        .map(|_| {
            let sessions = sessions.clone();
            tokio::spawn(async move { sessions.attach(&"a".into(), Principal::GATEWAY).await })
        })
        .collect();
    // The first connection and each of the others count one.
    let all_came = async {
        while first.attached.claim.slot.state.lock().newest < 4 {
            yield_now().await;
        }
    };
    in_time("all connections have come", all_came).await;
    first.attached.detach(away(Instant::now() + HOUR, None));
    let mut winners = 0;
    for other in others {
        if let Some(found) = in_time("a connection is told", other).await.unwrap() {
            assert!(found.away.is_some());
            winners += 1;
        }
    }
    assert_eq!(winners, 1);
}

#[tokio::test]
async fn a_connection_that_waits_for_a_session_counts_and_a_sweep_does_not() {
    let sessions = sessions();
    let first = attach(&sessions, "a").await;
    let waiting = {
        let sessions = sessions.clone();
        tokio::spawn(async move { sessions.attach(&"a".into(), Principal::GATEWAY).await })
    };
    in_time("the other one waits", poll_fn(|context| first.attached.poll_superseded(context))).await;
    first.attached.detach(away(Instant::now(), None));
    assert!(sessions.is_attached("a"), "no connection has the session, and one waits for it");
    let second = in_time("the session is free", waiting).await.unwrap().unwrap();
    second.attached.detach(away(Instant::now(), None));
    assert!(!sessions.is_attached("a"));
    let swept = sessions.take_due(Instant::now()).unwrap();
    assert!(!sessions.is_attached("a"), "the sweep is no connection");
    drop(swept);
}

#[tokio::test]
async fn an_ended_session_leaves_no_entry() {
    let sessions = sessions();
    let found = attach(&sessions, "a").await;
    drop(found.attached);
    assert_eq!(sessions.len(), 0);
    assert!(attach(&sessions, "a").await.away.is_none());
}
