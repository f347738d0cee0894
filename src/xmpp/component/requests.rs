//! [`JidRequests`]: the requests of a link that are under way. Those of one address are performed one after the other, so that its
//! messages keep their order; those of different addresses at the same time.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use minidom::Element;

use crate::xmpp::jid::Jid;

/// A request that is being performed, with the address that it is from. It returns the stanzas to send.
type Performed<'a> = Pin<Box<dyn Future<Output = (Jid, Vec<Element>)> + Send + 'a>>;

/// The requests under way.
pub(super) struct JidRequests<'a> {
    running: FuturesUnordered<Performed<'a>>,
    /// Requests that wait for an earlier one of their address, by addresses without resources. Those with a running request have an
    /// entry.
    waiting: HashMap<Jid, VecDeque<Performed<'a>>>,
    count: usize,
    per_jid_max: usize,
}

/// The address has too many requests under way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl<'a> JidRequests<'a> {
    pub(super) fn new(per_jid_max: usize) -> Self {
        Self { running: FuturesUnordered::new(), waiting: HashMap::new(), count: 0, per_jid_max }
    }

    /// Number of requests under way.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Adds a request of an address.
    pub(super) fn push(
        &mut self,
        jid: &Jid,
        perform: impl Future<Output = Vec<Element>> + Send + 'a,
    ) -> Result<(), TooMany> {
        let bare = jid.bare();
        let key = bare.clone();
        let performed: Performed<'a> = Box::pin(async move { (key, perform.await) });
        match self.waiting.get_mut(&bare) {
            None => {
                self.waiting.insert(bare, VecDeque::new());
                self.running.push(performed);
            }
            Some(waiting) if waiting.len() + 1 >= self.per_jid_max => return Err(TooMany),
            Some(waiting) => waiting.push_back(performed),
        }
        self.count += 1;
        Ok(())
    }

    /// Waits until a request is performed, and returns the stanzas to send. Never completes if none is under way. Cancel safe.
    pub(super) async fn next(&mut self) -> Vec<Element> {
        let Some((jid, stanzas)) = self.running.next().await else { return std::future::pending().await };
        self.count -= 1;
        match self.waiting.get_mut(&jid).and_then(VecDeque::pop_front) {
            Some(next) => self.running.push(next),
            None => {
                self.waiting.remove(&jid);
            }
        }
        stanzas
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn jid(text: &str) -> Jid {
        Jid::parse(text).unwrap()
    }

    /// A request that is performed once `when` is sent, and answers with `name`.
    async fn request(when: oneshot::Receiver<()>, name: &'static str) -> Vec<Element> {
        let _sent = when.await;
        vec![Element::bare(name, "x")]
    }

    #[tokio::test]
    async fn an_address_keeps_its_order_and_does_not_delay_others() {
        let mut requests = JidRequests::new(3);
        let (first, when_first) = oneshot::channel();
        let (second, when_second) = oneshot::channel();
        let (other, when_other) = oneshot::channel();
        requests.push(&jid("a@b/1"), request(when_first, "first")).unwrap();
        requests.push(&jid("a@b/2"), request(when_second, "second")).unwrap();
        requests.push(&jid("c@b/1"), request(when_other, "other")).unwrap();
        second.send(()).unwrap();
        other.send(()).unwrap();
        assert_eq!(requests.next().await[0].name(), "other");
        first.send(()).unwrap();
        assert_eq!(
            [requests.next().await, requests.next().await].map(|found| found[0].name().to_owned()),
            ["first", "second"]
        );
        assert!(requests.len() == 0 && requests.waiting.is_empty());
    }

    #[tokio::test]
    async fn an_address_has_a_limited_number_of_requests() {
        let mut requests = JidRequests::new(2);
        for (from, expected) in
            [("a@b/1", Ok(())), ("a@b/2", Ok(())), ("a@b/3", Err(TooMany)), ("c@b", Ok(()))]
        {
            assert_eq!(requests.push(&jid(from), async { Vec::new() }), expected, "{from}");
        }
        for _ in 0..3 {
            assert!(requests.next().await.is_empty());
        }
        assert_eq!(requests.push(&jid("a@b"), async { Vec::new() }), Ok(()));
    }
}
