//! PUT: creates a stream or a fork (protocol, sections 4.2 and 5.1).

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, LOCATION};
use hyper::{Response, StatusCode};

use super::conn::Body;
use super::error::Error;
use super::request::Put;
use super::{Gateway, answer, fields};
use crate::hub::Creation;
use crate::stream::StreamName;

impl Gateway {
    pub(super) async fn create(
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
}
