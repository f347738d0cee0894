//! The live forms over many streams: one envelope after the other, framed as the form wants it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::unfold;
use hyper::Response;
use tokio_stream::Stream;

use super::cursor;
use super::envelope::{self, CursorField, Frame};
use crate::clock::jittered;
use crate::http::body::Body;
use crate::http::error::Error;
use crate::http::form::Form;
use crate::http::live::{Counted, streamed};
use crate::http::request::LiveMany;
use crate::http::{Gateway, Link};
use crate::hub::{Following, Hub, TailSettings};
use crate::metrics::LiveMetrics;

/// An event of the default type.
const EVENT: Frame = Frame { before: b"data:", after: b"\n\n" };

const LINE: Frame = Frame { before: b"", after: b"\n" };

/// What it takes to open a live form once it is known over which streams.
pub(super) struct Opening {
    pub(super) hub: Arc<Hub>,
    pub(super) metrics: LiveMetrics,
    pub(super) link: Arc<Link>,
    pub(super) life: Option<Duration>,
    pub(super) frame: Frame,
}

/// What the client knows of the cursor: how long the last full one was, and the parts since.
#[derive(Debug, Default)]
struct Told {
    full: usize,
    parts: usize,
}

impl Gateway {
    pub(super) async fn sse_many(&self, live: LiveMany, link: Arc<Link>) -> Result<Response<Body>, Error> {
        let events = self.opening(Form::Sse, link, EVENT).open(live).await?;
        Ok(streamed("text/event-stream", events))
    }

    pub(super) async fn ndjson_many(&self, live: LiveMany, link: Arc<Link>) -> Result<Response<Body>, Error> {
        let lines = self.opening(Form::Ndjson, link, LINE).open(live).await?;
        Ok(streamed("application/x-ndjson", lines))
    }

    fn opening(&self, form: Form, link: Arc<Link>, frame: Frame) -> Opening {
        let life = Some(jittered(self.limits.live_life.get()));
        Opening { hub: self.hub.clone(), metrics: self.forms.live(form), link, life, frame }
    }
}

impl Opening {
    /// Opens it. Fails while a status can still say so.
    pub(super) async fn open(
        self,
        live: LiveMany,
    ) -> Result<impl Stream<Item = Bytes> + Send + use<>, Error> {
        let LiveMany { follows, heartbeat } = live;
        let settings = TailSettings { heartbeat, life: self.life };
        let tail = self.hub.tail_many(follows, settings).await?;
        let counted = Counted::new(self.metrics, self.link);
        let frame = self.frame;
        Ok(unfold((tail, Told::default(), counted), move |(mut tail, mut told, counted)| async move {
            let turn = tail.next().await?;
            let first = told.full == 0;
            let cursor = told.next(tail.following());
            let bytes = envelope::write(&turn, &cursor, false, frame);
            counted.sent(turn.is_empty() && !first, bytes.len());
            Some((bytes, (tail, told, counted)))
        }))
    }
}

impl Told {
    /// The whole cursor at first and as soon as the parts since would be longer than it, so that neither the client's
    /// cursor nor what is sent of it is ever longer than twice that.
    fn next(&mut self, following: &mut Following) -> CursorField {
        let then = cursor::part(following.moved());
        if self.full > 0 {
            if then.is_empty() {
                return CursorField::Same;
            }
            self.parts += then.len() + 1;
            if self.parts <= self.full {
                return CursorField::Then(then);
            }
        }
        let full = cursor::part(following.places());
        *self = Self { full: full.len(), parts: 0 };
        CursorField::Full(full)
    }
}
