//! NDJSON: a chunked body with one envelope a line, for clients that can read lines and nothing more.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hyper::Response;

use super::body::Body;
use super::envelope::envelope;
use super::error::Error;
use super::form::Form;
use super::live::streamed;
use super::request::Live;
use super::{Gateway, Link};
use crate::clock::jittered;
use crate::hub::Update;
use crate::stream::{Cursor, StreamName};

impl Gateway {
    pub(super) async fn ndjson(
        &self,
        name: StreamName,
        request: Live,
        link: Arc<Link>,
    ) -> Result<Response<Body>, Error> {
        let life = jittered(self.limits.live_life.get());
        let tail = self.live_tail(name, &request, Some(life), Form::Ndjson, link, line).await?;
        Ok(streamed("application/x-ndjson", tail.updates))
    }
}

/// The envelope of an update and the end of its line.
fn line(update: &Update, cursor: Cursor) -> Bytes {
    let mut line = BytesMut::from(envelope(update, cursor));
    line.extend_from_slice(b"\n");
    line.freeze()
}
