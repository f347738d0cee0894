//! HEAD: what a stream is and where its ends are (protocol, section 5.5).

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

use super::conn::Body;
use super::error::Error;
use super::fields::{self, *};
use super::{Gateway, answer};
use crate::clock::rfc3339;
use crate::stream::{Lifetime, StreamName};

impl Gateway {
    pub(super) async fn head(&self, name: StreamName) -> Result<Response<Body>, Error> {
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
