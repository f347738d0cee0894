//! nchan's HTTP interface. Its polls name the last message in `If-Modified-Since` and `If-None-Match`, its events in `id`.

use std::time::Duration;

use hyper::header::{CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use hyper::{HeaderMap, Method};

use super::{BuiltRequest, HttpDialect, LiveForm};
use crate::strategies::Heartbeat;
use crate::wire::Event;

/// Dialect of nchan.
#[derive(Debug)]
pub(super) struct Nchan;

/// Separates the two parts of a poll's offset; it does not occur in a date.
const SEPARATOR: char = '|';

impl HttpDialect for Nchan {
    fn create(&self, stream: &str, _by_its_settings: Option<u32>) -> Option<BuiltRequest> {
        let request = hyper::Request::builder().method(Method::PUT).uri(format!("/publish/{stream}"));
        Some(request.body(Default::default()))
    }

    fn publish(&self, stream: &str, message: String) -> BuiltRequest {
        let request = hyper::Request::builder().method(Method::POST).uri(format!("/publish/{stream}"));
        request.header(CONTENT_TYPE, "application/json").body(message.into())
    }

    fn poll(&self, stream: &str, offset: Option<&str>, hold: Option<Duration>) -> BuiltRequest {
        let form = if hold.is_some() { "long-poll" } else { "short-poll" };
        let mut request = hyper::Request::builder().uri(format!("/{form}/{stream}"));
        if let Some((modified, tag)) = offset.and_then(|offset| offset.split_once(SEPARATOR)) {
            request = request.header(IF_MODIFIED_SINCE, modified).header(IF_NONE_MATCH, tag);
        }
        request.body(Default::default())
    }

    fn live(
        &self,
        stream: &str,
        offset: Option<&str>,
        form: LiveForm,
        _by_its_settings: Heartbeat,
    ) -> String {
        let form = if form == LiveForm::WebSocket { "websocket" } else { "sse" };
        let offset = offset.map(|offset| format!("?last_event_id={offset}")).unwrap_or_default();
        format!("/{form}/{stream}{offset}")
    }

    fn offset(&self, fields: &HeaderMap) -> Option<String> {
        let text = |name| fields.get(name)?.to_str().ok();
        Some(format!("{}{SEPARATOR}{}", text(LAST_MODIFIED)?, text(ETAG)?))
    }

    fn offset_of_event(&self, event: &Event) -> Option<String> {
        (!event.id.is_empty()).then(|| event.id.clone())
    }

    fn one_at_a_time(&self) -> bool {
        true
    }
}
