//! Changes of one device at the same time, over a store that takes time.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};

use super::*;
use crate::clock::Clock;
use crate::hub::devices::device::DeviceSpec;
use crate::hub::{Creation, Hub};
use crate::limits::Limits;
use crate::store::CountedMemory;
use crate::stream::{SessionNames, Store};

async fn hub() -> (Arc<CountedMemory>, Arc<Hub>) {
    let store = Arc::new(CountedMemory::keeping_sessions());
    let metrics = Arc::new(Metrics::new());
    let hub = Arc::new(Hub::new(store.clone(), Arc::new(Limits::default()), metrics, Clock::start()));
    hub.devices().offer(vec![policy("push")]);
    for name in ["news", "a", "b"] {
        hub.create(&stream(name), Creation::default()).await.unwrap();
    }
    store.polls.store(1, Ordering::Relaxed);
    (store, hub)
}

fn phone(streams: &[&str]) -> DeviceSpec {
    DeviceSpec {
        id: ClientId::parse("phone").unwrap(),
        principal: Principal(1),
        streams: streams.iter().map(|name| (stream(name), None)).collect(),
        filters: Vec::new(),
        channels: vec![("push".into(), Credential::Token("token".into()))],
        quiet: None,
        escalate_after: seconds(60),
        life: seconds(3600),
        credentials: None,
    }
}

/// The streams of the only device that the store has.
async fn stored(store: &CountedMemory) -> Vec<String> {
    let page = store.session_page(SessionNames::Own(record::SESSIONS), None).await.unwrap();
    let [session] = &page.sessions[..] else { panic!("one device") };
    let device = record::decoded(session).unwrap();
    let mut streams: Vec<_> = device.interests.iter().map(|interest| interest.stream.to_string()).collect();
    streams.sort_unstable();
    streams
}

#[tokio::test]
async fn streams_that_are_added_at_the_same_time_are_all_read() {
    let (store, hub) = hub().await;
    let id = phone(&[]).id;
    hub.put_device(phone(&["news"])).await.unwrap();
    let add = |name: &str| {
        let added = vec![(stream(name), Start::Earliest)];
        let (hub, id) = (hub.clone(), id.clone());
        async move { hub.change_device_streams(&id, added, None).await.unwrap() }
    };
    assert_eq!(tokio::join!(add("a"), add("b")), (true, true));
    assert_eq!(stored(&store).await, ["a", "b", "news"]);
}

#[tokio::test]
async fn a_record_that_is_saved_does_not_replace_a_newer_registration() {
    let (store, hub) = hub().await;
    let id = phone(&[]).id;
    hub.put_device(phone(&["news"])).await.unwrap();
    hub.devices().unsaved(&id);
    store.polls.store(100, Ordering::Relaxed);
    let mut save = pin!(hub.save_devices());
    assert!(save.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    store.polls.store(1, Ordering::Relaxed);
    let ((), registered) = tokio::join!(save, hub.put_device(phone(&["a", "b"])));
    registered.unwrap();
    assert_eq!(stored(&store).await, ["a", "b"]);
}
