//! DELETE: ends a stream (protocol, section 5.4).

use hyper::{Response, StatusCode};

use super::conn::Body;
use super::error::Error;
use super::{Gateway, answer};
use crate::stream::StreamName;

impl Gateway {
    pub(super) async fn delete(&self, name: StreamName) -> Result<Response<Body>, Error> {
        self.hub.delete(&name).await?;
        Ok(answer::uncached(StatusCode::NO_CONTENT))
    }
}
