//! Reads: one delivery form per file, each over one stream or many.
//!
//! [`Gateway::begin_read`] begins a read in any form. Short polls, live forms and long polls that find messages are answered at
//! once; the body of a live form lasts for as long as the client reads it. A long poll that has to wait becomes a
//! [`HeldRead`](long_poll::HeldRead), a state machine of a few hundred bytes that is not a future. The loop of the connection
//! owns it and calls its `poll` with the timer of the connection, or drops it when the client leaves.

mod envelope;
pub(super) mod live;
pub(super) mod long_poll;
pub(super) mod request;
pub(super) mod requested_streams;
pub(super) mod resume_token;
mod short_poll;
pub(super) mod sse;
pub(super) mod websocket;

use std::future::poll_fn;
use std::sync::Arc;

use crate::clock::ReusableSleep;
use crate::http::api::error::Error;
use crate::http::api::gateway::Gateway;
use crate::http::api::origins::AllowedOrigin;
use crate::http::conn::{Answer, Body, ConnectionState};
use live::{NDJSON, SSE};
use long_poll::{BegunRead, ReadStart};
use request::Read;

impl Gateway {
    /// Begins a read. A future that is returned completes without waiting for messages. `origin` is the origin of the page that reads,
    /// unless it is the gateway's own.
    pub(in crate::http) fn begin_read<'a, A: Answer + 'a>(
        &'a self,
        read: Read,
        state: &'a Arc<ConnectionState>,
        origin: Option<AllowedOrigin>,
    ) -> BegunRead<'a, A> {
        match read {
            Read::ShortPoll(poll) => match self.short_poll_at_once(poll) {
                Ok(answer) => BegunRead::AtOnce(answer.map(ReadStart::Answered)),
                Err(unread) => BegunRead::Starting(Box::pin(async move {
                    self.short_poll_unread(unread).await.map(ReadStart::Answered)
                })),
            },
            Read::LongPoll(poll) => self.begin_long_poll(poll, origin, state),
            Read::Sse(live) => BegunRead::Starting(Box::pin(async move {
                self.live(&SSE, live, state.clone()).await.map(answered)
            })),
            Read::Ndjson(live) => BegunRead::Starting(Box::pin(async move {
                self.live(&NDJSON, live, state.clone()).await.map(answered)
            })),
        }
    }

    /// Answers a read in a future, which takes more memory while it waits than a [`HeldRead`](long_poll::HeldRead).
    pub(in crate::http) async fn read<A: Answer>(
        &self,
        read: Read,
        state: &Arc<ConnectionState>,
        origin: Option<AllowedOrigin>,
    ) -> Result<A, Error> {
        let started = match self.begin_read(read, state, origin) {
            BegunRead::AtOnce(started) => started?,
            BegunRead::Starting(read) => read.await?,
        };
        match started {
            ReadStart::Answered(answer) => Ok(answer),
            ReadStart::Held(mut held) => {
                let mut timer = ReusableSleep::default();
                poll_fn(|context| held.poll(&mut timer, context)).await
            }
        }
    }
}

fn answered<'a, A: Answer>(response: hyper::Response<Body>) -> ReadStart<'a, A> {
    ReadStart::Answered(response.into())
}
