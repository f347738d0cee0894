//! Lost responses and repeated requests.

use crate::ends::hops;
use crate::scripted::{Part, Scripted};

const ANSWER: [Part; 1] =
    [Part::Says("HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nanswer")];
const REQUESTS: usize = 200;

/// Sends requests one after the other and returns the numbers of those without a response.
async fn lost(scripted: &Scripted) -> Vec<usize> {
    let mut lost = Vec::new();
    for number in 0..REQUESTS {
        let request = format!("POST /{number} HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\nhi");
        match scripted.ask(&request).await.as_str() {
            "" => lost.push(number),
            answer => assert!(answer.ends_with("\r\n\r\nanswer"), "{answer}"),
        }
    }
    lost
}

#[tokio::test]
async fn answers_are_lost_by_the_seed_after_the_server_has_written_them() {
    let network = |seed| hops(&format!("{{ lossy-answers = {{ percent = 20, seed = {seed} }} }}"));
    let of = async |seed| {
        let scripted = Scripted::behind(&network(seed), &ANSWER).await;
        let lost = lost(&scripted).await;
        assert_eq!(scripted.heard.lock().len(), REQUESTS);
        assert_eq!(scripted.middlebox.passed().faults, lost.len() as u64);
        lost
    };
    let (first, again, other) = (of(1).await, of(1).await, of(2).await);
    // 20 % of 200 are 40, with a standard deviation of 5.7.
    assert!((23..=57).contains(&first.len()), "{}", first.len());
    assert_eq!(first, again);
    assert_ne!(first, other);
}

#[tokio::test]
async fn every_tenth_request_arrives_twice_and_is_answered_once() {
    let scripted =
        Scripted::behind(&hops("{ lossy-answers = { percent = 0, twice-every = 10 } }"), &ANSWER).await;
    assert!(lost(&scripted).await.is_empty());
    assert_eq!(scripted.middlebox.passed().faults, REQUESTS as u64 / 10);
    while scripted.heard.lock().len() < REQUESTS + REQUESTS / 10 {
        tokio::task::yield_now().await;
    }
    let mut heard = scripted.heard.lock().clone();
    heard.sort_unstable();
    let twice: Vec<_> = heard.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| &pair[0]).collect();
    let expected = (9..REQUESTS).step_by(10).map(|number| format!("POST /{number} "));
    let mut expected: Vec<_> = expected.collect();
    expected.sort_unstable();
    assert_eq!(twice.len(), expected.len());
    assert!(twice.iter().zip(&expected).all(|(request, start)| request.starts_with(start)), "{twice:?}");
}
