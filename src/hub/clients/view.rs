//! The clients as the admin listener shows them in `/clients`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{ClientId, ClientRecord, Clients, Queue, QueueEntry};

/// Prefix of the name of an anonymous poll; the poll number follows.
const ANONYMOUS: &str = "anonymous-";

/// Maximum number of clients of each kind that a list visits.
pub(in crate::hub) const VISITED_MAX: usize = 50_000;

/// One client as the admin listener shows it.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientView {
    /// The client id; `anonymous-N` for an anonymous poll.
    pub client: String,
    /// The held polls, oldest first.
    pub held: Vec<HeldView>,
    /// Number of polls that have ended since the client became known.
    pub answered: u64,
    /// For a client that holds no poll: the stream of its last poll, unless that was of many streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_stream: Option<String>,
    /// For a client that holds no poll: the offset of its last poll.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_offset: Option<String>,
    /// For a client that holds no poll: when its last poll ended (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<String>,
    /// For a subscriber: its subscriptions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscribed: Option<SubscribedView>,
}

/// A held poll.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldView {
    /// The stream, unless the poll is for many streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// The offset that the poll reads from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<String>,
    /// The number of streams of a poll for many streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streams: Option<usize>,
    /// When the hold began (RFC 3339).
    pub since: String,
    /// When the poll is answered at the latest (RFC 3339).
    pub deadline: String,
}

/// The subscriptions of a client.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SubscribedView {
    /// The topic filters, sorted.
    pub filters: Vec<String>,
    /// When the client connected (RFC 3339).
    pub since: String,
    /// Number of messages delivered since then.
    pub delivered: u64,
}

/// Merges polling clients and subscribers into one entry per client, sorted by name; at most `max` entries.
pub(in crate::hub) fn joined(
    polling: impl IntoIterator<Item = ClientView>,
    subscribed: impl IntoIterator<Item = (String, SubscribedView)>,
    max: usize,
) -> Vec<ClientView> {
    let mut views: BTreeMap<_, _> = polling.into_iter().map(|view| (view.client.clone(), view)).collect();
    for (client, subscribed) in subscribed {
        let view = views.entry(client.clone()).or_insert(ClientView { client, ..ClientView::default() });
        view.subscribed = Some(subscribed);
    }
    views.into_values().take(max).collect()
}

/// The name of an anonymous poll.
fn anonymous(number: u64) -> String {
    format!("{ANONYMOUS}{number}")
}

impl Clients {
    /// Lists clients that hold polls or are remembered and whose names contain `contains`. Returns at most `max` clients, and visits at most
    /// [`VISITED_MAX`] of each kind.
    pub(in crate::hub) fn views(&self, contains: &str, max: usize) -> Vec<ClientView> {
        let is_found = |client: &ClientId| client.as_str().contains(contains);
        let queues = self.queues.iter().take(VISITED_MAX).filter(|queue| is_found(queue.key())).take(max);
        let mut views: Vec<_> = queues.map(|queue| self.named_view(queue.key(), &queue)).collect();
        let more = max.saturating_sub(views.len());
        let is_found_by_number = |number: u64| contains.is_empty() || anonymous(number).contains(contains);
        let polls =
            self.anonymous.iter().take(VISITED_MAX).filter(|poll| is_found_by_number(poll.number)).take(more);
        views.extend(polls.map(|poll| self.anonymous_view(&poll)));
        let more = max.saturating_sub(views.len());
        let records = self.idle.iter().take(VISITED_MAX).filter(|(id, _)| is_found(id)).take(more);
        views.extend(records.map(|(id, record)| self.idle_view(&id, &record)));
        views
    }

    /// Finds one client by its id or anonymous name.
    pub(in crate::hub) fn one(&self, client: &str) -> Option<ClientView> {
        if let Some(number) = client.strip_prefix(ANONYMOUS).and_then(|number| number.parse().ok()) {
            return self.anonymous.get(&number).map(|poll| self.anonymous_view(&poll));
        }
        let id = ClientId::parse(client).ok()?;
        let held = self.queues.get(&id).map(|queue| self.named_view(&id, &queue));
        held.or_else(|| self.idle.get(&id).map(|record| self.idle_view(&id, &record)))
    }

    fn named_view(&self, id: &ClientId, queue: &Queue) -> ClientView {
        ClientView {
            client: id.as_str().to_owned(),
            held: queue.polls.iter().map(|poll| self.held_view(poll)).collect(),
            answered: queue.answered,
            ..ClientView::default()
        }
    }

    fn anonymous_view(&self, poll: &QueueEntry) -> ClientView {
        ClientView {
            client: anonymous(poll.number),
            held: vec![self.held_view(poll)],
            ..ClientView::default()
        }
    }

    fn held_view(&self, poll: &QueueEntry) -> HeldView {
        HeldView {
            stream: poll.subject.stream().map(ToString::to_string),
            offset: poll.offset.map(|offset| offset.to_string()),
            streams: poll.subject.streams(),
            since: self.clock.text(poll.since),
            deadline: self.clock.text(poll.deadline()),
        }
    }

    fn idle_view(&self, id: &ClientId, record: &ClientRecord) -> ClientView {
        ClientView {
            client: id.as_str().to_owned(),
            answered: record.answered,
            last_stream: record.last_subject.stream().map(ToString::to_string),
            last_offset: record.last_offset.map(|offset| offset.to_string()),
            last_seen: Some(self.clock.text(record.last_seen)),
            ..ClientView::default()
        }
    }
}
