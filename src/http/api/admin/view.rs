//! What operators look at: the overview, streams, clients and messages, as JSON, once or as server-sent events.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::unfold;
use hyper::http::request::Parts;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_stream::Stream;

use super::messages::{MessageQuery, messages};
use super::overview::Overview;
use super::parameters::{EVENT_ITEMS_MAX, ViewError, ViewParameters, json};
use crate::hub::{Hub, StreamQuery};

/// The resources.
pub(super) const OVERVIEW: &str = "/overview";
pub(super) const STREAMS: &str = "/streams";
pub(super) const CLIENTS: &str = "/clients";
pub(super) const MESSAGES: &str = "/messages";

/// Streams that one response lists by default, and at most.
const STREAMS_DEFAULT: usize = 100;
const STREAMS_MAX: usize = 1000;

/// Clients that one response lists by default and at most; `/metrics` counts all.
const CLIENTS_MAX: usize = 10_000;

/// Time between two events of the overview, which is computed once for all viewers.
const OVERVIEW_INTERVAL: Duration = Duration::from_secs(1);

/// Time between two events of any other view, which is computed for each viewer.
const VIEW_INTERVAL: Duration = Duration::from_secs(2);

/// What a request asks to see.
pub(super) enum AdminView {
    Overview(Arc<Overview>),
    Streams(StreamQuery),
    Clients { contains: String, max: usize },
    Messages(MessageQuery),
}

impl AdminView {
    /// Parses a request, and whether it asks for events. `None`: its path is that of no view.
    pub(super) fn parse(head: &Parts, overview: &Arc<Overview>) -> Option<Result<(Self, bool), ViewError>> {
        let query = head.uri.query().unwrap_or_default();
        let parse = |known: &[&str], limit_max, why| {
            ViewParameters::parse(query, known, limit_max).ok_or(ViewError::Parameters(why))
        };
        Some(match head.uri.path() {
            OVERVIEW => parse(&["live"], 0, "the only parameter is live=sse")
                .map(|query| (Self::Overview(overview.clone()), query.live)),
            STREAMS => parse(
                &["live", "prefix", "contains", "after", "limit"],
                STREAMS_MAX,
                "the parameters are prefix, contains, after (a name), limit (1 to 1000) and live=sse (limit up to 100)",
            )
            .map(|query| {
                let max = query.limit.unwrap_or(STREAMS_DEFAULT);
                let ViewParameters { live, prefix, contains, after, .. } = query;
                (Self::Streams(StreamQuery { prefix, contains, after, max }), live)
            }),
            CLIENTS => parse(
                &["live", "contains", "limit"],
                CLIENTS_MAX,
                "the parameters are contains, limit (1 to 10000) and live=sse (limit up to 100)",
            )
            .map(|query| {
                let default = if query.live { EVENT_ITEMS_MAX } else { CLIENTS_MAX };
                let max = query.limit.unwrap_or(default);
                (Self::Clients { contains: query.contains, max }, query.live)
            }),
            MESSAGES => {
                let why = "the parameters are stream (a name), before (an offset), limit (1 to 100) and live=sse";
                parse(&["live", "stream", "before", "limit"], EVENT_ITEMS_MAX, why).and_then(|query| {
                    let stream = query.stream.ok_or(ViewError::Parameters(why))?;
                    let messages = MessageQuery { stream, before: query.before, limit: query.limit, clock: overview.clock };
                    Ok((Self::Messages(messages), query.live))
                })
            }
            _ => return None,
        })
    }

    /// Computes the view as JSON.
    pub(super) async fn json(&self, hub: &Hub) -> Result<Bytes, ViewError> {
        Ok(match self {
            Self::Overview(overview) => overview.json(hub).await,
            Self::Streams(query) => json(&hub.list_streams(query).await?),
            Self::Clients { contains, max } => json(&hub.clients(contains, *max)),
            Self::Messages(query) => json(&messages(hub, query).await?),
        })
    }

    fn interval(&self) -> Duration {
        match self {
            Self::Overview(_) => OVERVIEW_INTERVAL,
            Self::Streams(_) | Self::Clients { .. } | Self::Messages(_) => VIEW_INTERVAL,
        }
    }

    /// The view as server-sent events, until the gateway drains. The last event tells that it does. `place` is held until the viewer leaves.
    pub(super) fn events(
        self,
        hub: Arc<Hub>,
        place: OwnedSemaphorePermit,
    ) -> impl Stream<Item = Bytes> + Send {
        let draining = hub.draining();
        unfold((self, hub, place, draining, Some(true)), async |(view, hub, place, mut draining, turn)| {
            let is_first = turn?;
            let mut drains = *draining.borrow();
            if !is_first {
                drains = timeout(view.interval(), draining.wait_for(|drains| *drains)).await.is_ok();
            }
            let event = match view.json(&hub).await {
                Ok(json) => [b"data: ", json.trim_ascii_end(), b"\n\n"].concat(),
                Err(error) => format!("event: failure\ndata: {error}\n\n").into_bytes(),
            };
            Some((event.into(), (view, hub, place, draining, (!drains).then_some(false))))
        })
    }
}
