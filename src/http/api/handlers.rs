//! The operations on a stream that deliver no messages: create, append, delete, describe, and the CORS preflight.

use bytes::Bytes;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_MAX_AGE, ALLOW, CONTENT_TYPE,
    HeaderValue, LOCATION,
};
use hyper::{Response, StatusCode};

use super::answer;
use super::error::Error;
use super::fields::{self, *};
use super::gateway::Gateway;
use super::write_request::Put;
use crate::clock::rfc3339;
use crate::http::conn::{Answer, Body};
use crate::hub::Creation;
use crate::stream::{Append, Lifetime, StreamName};

/// What a stream understands.
pub(in crate::http) const STREAM_METHODS: &str = "GET, HEAD, POST, PUT, DELETE, OPTIONS";

/// Named one by one, since `*` does not cover `Authorization`.
const HEADERS: &str = "accept, authorization, cache-control, client-id, content-type, if-none-match, \
    last-event-id, prefer, producer-epoch, producer-id, producer-seq, stream-closed, stream-expires-at, \
    stream-fork-offset, stream-fork-sub-offset, stream-forked-from, stream-max-age, stream-max-bytes, \
    stream-max-messages, stream-seq, stream-ttl";

impl Gateway {
    /// PUT: creates a stream or a fork (protocol, sections 4.2 and 5.1).
    pub(in crate::http) async fn create(
        &self,
        name: StreamName,
        put: Put,
        body: Bytes,
    ) -> Result<Response<Body>, Error> {
        let Put { content_type, lifetime, retention, closed, fork, location } = put;
        let created = self
            .hub
            .create(&name, Creation { content_type, lifetime, retention, closed, body, fork })
            .await?;
        let status = if created.fresh { StatusCode::CREATED } else { StatusCode::OK };
        let mut answer: Response<Body> = answer::tail(status, created.tail, created.closed);
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, fields::value(created.content_type.as_str()));
        if created.fresh {
            headers.insert(LOCATION, fields::value(&location));
        }
        Ok(answer)
    }

    /// POST: appends and closes (protocol, sections 5.2 and 5.3).
    pub(in crate::http) async fn append<A: Answer>(
        &self,
        name: StreamName,
        append: Append,
    ) -> Result<A, Error> {
        let has_messages = !append.payload.is_empty();
        let producer_epoch = append.producer.as_ref().map(|producer| producer.epoch);
        let appended = self.hub.publish(&name, append).await?;
        let is_news = producer_epoch.is_some() && has_messages && !appended.duplicate;
        let status = if is_news { StatusCode::OK } else { StatusCode::NO_CONTENT };
        let mut answer: A = answer::tail(status, appended.tail, appended.closed);
        if let (Some(epoch), Some(highest)) = (producer_epoch, appended.highest) {
            answer.put(PRODUCER_EPOCH, itoa::Buffer::new().format(epoch).as_bytes());
            answer.put(PRODUCER_SEQ, itoa::Buffer::new().format(highest).as_bytes());
        }
        Ok(answer)
    }

    /// DELETE: ends a stream (protocol, section 5.4).
    pub(in crate::http) async fn delete(&self, name: StreamName) -> Result<Response<Body>, Error> {
        self.hub.delete(&name).await?;
        Ok(answer::uncached(StatusCode::NO_CONTENT))
    }

    /// HEAD: what a stream is and where its ends are (protocol, section 5.5).
    pub(in crate::http) async fn head(&self, name: StreamName) -> Result<Response<Body>, Error> {
        let stream = self.hub.describe(&name).await?;
        let mut answer: Response<Body> = answer::tail(StatusCode::OK, stream.tail, stream.closed);
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, fields::value(stream.content_type.as_str()));
        headers.insert(STREAM_EARLIEST_OFFSET, fields::offset_value(stream.earliest));
        match stream.lifetime {
            Lifetime::Unlimited => None,
            Lifetime::Idle(idle) => headers.insert(STREAM_TTL, fields::seconds(idle)),
            Lifetime::Until(end) => headers.insert(STREAM_EXPIRES_AT, fields::value(&rfc3339(end))),
        };
        let bounds = [
            (STREAM_MAX_MESSAGES, stream.retention.messages_max),
            (STREAM_MAX_BYTES, stream.retention.bytes_max),
            (STREAM_MAX_AGE, stream.retention.age_max.map(|age| age.as_secs())),
        ];
        for (name, bound) in bounds {
            if let Some(bound) = bound {
                headers.insert(name, HeaderValue::from(bound));
            }
        }
        Ok(answer)
    }
}

/// OPTIONS: allows `methods` to pages of any origin, for a day (Fetch standard, CORS preflight).
pub(in crate::http) fn preflight(methods: &'static str) -> Response<Body> {
    let mut answer: Response<Body> = answer::uncached(StatusCode::NO_CONTENT);
    let headers = answer.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(methods));
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(HEADERS));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    answer
}
