//! Reads: one delivery form in each file, and each form over one stream or many.
//!
//! [`Gateway::begin_read`] starts any of them. Short polls, live forms and long polls that find something are answered at
//! once; the body of a live form goes on for as long as the client reads it. A long poll that has to wait becomes a
//! [`HeldRead`](super::long_poll::HeldRead), a state machine of a few hundred bytes without a future. Whoever drives the
//! connection keeps it and calls `HeldRead::poll` with the connection's timer, or drops it when the client leaves. A
//! connection whose task does nothing else while it waits calls `HeldRead::be_prompt` first, so that a publisher lets it
//! answer before the publisher itself is answered.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use super::error::Error;
use super::live::{NDJSON, SSE};
use super::long_poll::ReadStart;
use super::request::Read;
use super::written::Answer;
use super::{Gateway, Link};
use crate::clock::Alarm;

/// The beginning of a read, in one allocation of its own size.
pub(super) type Beginning<'a, A> = Pin<Box<dyn Future<Output = Result<ReadStart<'a, A>, Error>> + Send + 'a>>;

impl Gateway {
    /// Begins a read. It completes without waiting for messages.
    pub(super) fn begin_read<'a, A: Answer + 'a>(&'a self, read: Read, link: Arc<Link>) -> Beginning<'a, A> {
        match read {
            Read::ShortPoll(poll) => {
                Box::pin(async move { self.short_poll(poll).await.map(ReadStart::Answered) })
            }
            Read::LongPoll(poll) => Box::pin(self.begin_long_poll(poll)),
            Read::Sse(live) => Box::pin(async move { self.live(&SSE, live, link).await.map(answered) }),
            Read::Ndjson(live) => Box::pin(async move { self.live(&NDJSON, live, link).await.map(answered) }),
            Read::WebSocket(socket) => {
                Box::pin(async move { self.websocket(*socket, link).await.map(answered) })
            }
        }
    }

    /// Answers a read, for whoever has room for a future while it waits.
    pub(super) async fn read<A: Answer>(&self, read: Read, link: Arc<Link>) -> Result<A, Error> {
        match self.begin_read(read, link).await? {
            ReadStart::Answered(answer) => Ok(answer),
            ReadStart::Held(mut held) => {
                let mut alarm = Alarm::default();
                poll_fn(|context| held.poll(&mut alarm, context)).await
            }
        }
    }
}

fn answered<'a, A: Answer>(response: hyper::Response<super::Body>) -> ReadStart<'a, A> {
    ReadStart::Answered(response.into())
}
