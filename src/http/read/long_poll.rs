//! The long poll: returns the available messages at once, or is held until one arrives (protocol, section 5.7).

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use hyper::StatusCode;
use smallvec::SmallVec;

use super::live::cursor_seed;
use super::request::{Hold, LongPoll, ReadFrom, Taker};
use super::short_poll;
use crate::auth::Unauthorized;
use crate::clock::ReusableSleep;
use crate::http::api::answer::{self, Audience, Caching};
use crate::http::api::credentials::HeldCredentials;
use crate::http::api::error::Error;
use crate::http::api::fields::{PREFERENCE_APPLIED, STREAM_SUPERSEDED};
use crate::http::api::form::Form;
use crate::http::api::gateway::Gateway;
use crate::http::api::origins::AllowedOrigin;
use crate::http::api::polled_origins::put_status;
use crate::http::conn::{Answer, ConnectionState, Head};
use crate::hub::{
    HeldPoll, MultiReader, OriginStatus, PollSettings, PollStart, Polled, RequestedStream, StreamReader,
    Variant,
};
use crate::stream::{Batch, CacheCursor, StreamName};

/// The outcome of beginning a read.
pub(in crate::http) enum ReadStart<'a, A> {
    /// The response, whose body may be a live form.
    Answered(A),
    /// A long poll that has to wait.
    Held(HeldRead<'a>),
}

/// The future that begins a read. Each delivery form has a boxed future of its own size.
pub(in crate::http) type StartingRead<'a, A> =
    Pin<Box<dyn Future<Output = Result<ReadStart<'a, A>, Error>> + Send + 'a>>;

/// How a read begins.
pub(in crate::http) enum BegunRead<'a, A> {
    /// The store had nothing to wait for, as for most reads.
    AtOnce(Result<ReadStart<'a, A>, Error>),
    Starting(StartingRead<'a, A>),
}

/// A held long poll of one stream or many. It is kept small, since there may be very many. Dropping it removes its waiter.
pub(in crate::http) struct HeldRead<'a> {
    gateway: &'a Gateway,
    poll: HeldSource<'a>,
    echo: Echo,
}

/// The poll of one stream or many. The latter is boxed, because it is larger and less frequent.
enum HeldSource<'a> {
    One(HeldPoll<'a, StreamReader>),
    Many(Box<HeldPoll<'a, MultiReader>>),
}

/// The parts of the request that its response depends on. All fields are in one flat struct, so that there is no padding.
#[derive(Debug, Clone, Copy)]
struct Echo {
    cursor: Option<CacheCursor>,
    /// The hold time in seconds, if the client requested one.
    hold: Option<u32>,
    /// The origin of the page that gets the response, unless it is the gateway's own.
    origin: Option<AllowedOrigin>,
    /// Only clients with a token may read the stream.
    audience: Audience,
}

impl Gateway {
    /// Begins a long poll.
    pub(in crate::http) fn begin_long_poll<'a, A: Answer + 'a>(
        &'a self,
        request: LongPoll,
        origin: Option<AllowedOrigin>,
        state: &'a ConnectionState,
    ) -> BegunRead<'a, A> {
        let LongPoll { from, hold, client, credentials, audience, taker } = request;
        if let Some(client) = &client {
            self.hub.device_polled(client, from.starts());
        }
        let mark = credentials.map(|credentials| credentials.mark);
        let open = match self.hub.open(&from.tenant(), false) {
            Ok(open) => open,
            Err(shortage) => return BegunRead::AtOnce(Err(Error::Short(shortage))),
        };
        let settings = PollSettings { hold: hold.time, client, credentials: mark, open };
        let (stream, start, cursor) = match from {
            ReadFrom::One { stream, start, cursor } => (stream, start, cursor),
            ReadFrom::Many(streams) => {
                let echo = Echo::new(None, hold, origin, audience);
                let many = self.begin_long_poll_many(streams, settings, (echo, credentials), (taker, state));
                return BegunRead::Starting(Box::pin(many));
            }
        };
        let echo = Echo::new(cursor, hold, origin, audience);
        let reader = self.hub.stream_reader(&stream, start);
        match self.hub.begin_poll_at_once(reader, settings) {
            Ok(started) => BegunRead::AtOnce(started.map_err(Error::from).and_then(|started| {
                self.long_poll_started(started, (echo, credentials), (taker, &stream, state))
            })),
            Err(unread) => BegunRead::Starting(Box::pin(async move {
                let started = self.hub.begin_unread(unread).await?;
                self.long_poll_started(started, (echo, credentials), (taker, &stream, state))
            })),
        }
    }

    fn long_poll_started<'a, A: Answer>(
        &'a self,
        started: PollStart<'a, StreamReader>,
        (echo, credentials): (Echo, Option<HeldCredentials>),
        (taker, stream, state): (Option<Box<Taker>>, &StreamName, &ConnectionState),
    ) -> Result<ReadStart<'a, A>, Error> {
        if let Some(taker) = taker.filter(|_| started.took_over()) {
            self.audit_takeover(&taker, Some(stream), state);
        }
        Ok(match started {
            PollStart::Answered(polled) => ReadStart::Answered(self.answer_one(&polled, echo)?),
            PollStart::Held(poll) => self.held(HeldSource::One(poll), echo, credentials),
        })
    }

    fn held<'a, A>(
        &'a self,
        poll: HeldSource<'a>,
        echo: Echo,
        credentials: Option<HeldCredentials>,
    ) -> ReadStart<'a, A> {
        let mut held = HeldRead { gateway: self, poll, echo };
        // A revocation ends the polls that are held. This one was not held yet if the token was revoked a moment ago.
        if credentials.is_some_and(|credentials| credentials.changes != self.auth.changes()) {
            held.end();
        }
        ReadStart::Held(held)
    }

    async fn begin_long_poll_many<A: Answer>(
        &self,
        streams: Vec<RequestedStream>,
        settings: PollSettings,
        (echo, credentials): (Echo, Option<HeldCredentials>),
        (taker, state): (Option<Box<Taker>>, &ConnectionState),
    ) -> Result<ReadStart<'_, A>, Error> {
        let started = self.hub.begin_poll(self.hub.multi_reader(streams), settings).await?;
        if let Some(taker) = taker.filter(|_| started.took_over()) {
            self.audit_takeover(&taker, None, state);
        }
        Ok(match started {
            PollStart::Answered(polled) => ReadStart::Answered(answer_many(&polled, echo)?),
            PollStart::Held(poll) => self.held(HeldSource::Many(Box::new(poll)), echo, credentials),
        })
    }

    fn answer_one<A: Answer>(&self, polled: &Polled<StreamReader>, echo: Echo) -> Result<A, Error> {
        if polled.unauthorized && !polled.batch.is_empty() {
            return Err(Error::Unauthorized(Unauthorized::Revoked));
        }
        let (batch, now) = (&polled.batch, self.clock.wall());
        let cursor = CacheCursor::next(echo.cursor, now, cursor_seed(batch));
        let origin = polled.source.origin_status();
        let origin = origin.as_deref();
        // A response that says that its poll is superseded, or that closes its connection, is for one client only.
        if !batch.is_alone() && !polled.superseded && !self.hub.is_draining() {
            let cors = self.access.origins.fields(echo.origin);
            let write = |batch: &Batch| write(batch, cursor, echo, origin);
            return Ok(A::shared(batch, variant(cursor, echo, now), now, write, |answer| cors.put(answer)));
        }
        let mut answer: A = write(batch, cursor, echo, origin);
        if polled.superseded {
            answer.put_static(STREAM_SUPERSEDED, "true");
        }
        Ok(answer)
    }
}

impl Echo {
    fn new(
        cursor: Option<CacheCursor>,
        hold: Hold,
        origin: Option<AllowedOrigin>,
        audience: Audience,
    ) -> Self {
        let seconds = u32::try_from(hold.time.as_secs()).unwrap_or(u32::MAX);
        Self { cursor, hold: hold.requested.then_some(seconds), origin, audience }
    }
}

impl HeldRead<'_> {
    /// See [`HeldPoll::end`].
    pub(in crate::http) fn end(&mut self) {
        match &mut self.poll {
            HeldSource::One(poll) => poll.end(),
            HeldSource::Many(poll) => poll.end(),
        }
    }

    /// Whether [`end`](Self::end) was called.
    pub(in crate::http) fn has_ended(&self) -> bool {
        match &self.poll {
            HeldSource::One(poll) => poll.has_ended(),
            HeldSource::Many(poll) => poll.has_ended(),
        }
    }

    /// Polls for the response, which is returned once. `timer` is the timer of the connection.
    pub(in crate::http) fn poll<A: Answer>(
        &mut self,
        timer: &mut ReusableSleep,
        context: &mut Context<'_>,
    ) -> Poll<Result<A, Error>> {
        Poll::Ready(match &mut self.poll {
            HeldSource::One(poll) => {
                let polled = ready!(poll.poll_answer(timer, context))?;
                self.gateway.answer_one(&polled, self.echo)
            }
            HeldSource::Many(poll) => answer_many(&ready!(poll.poll_answer(timer, context))?, self.echo),
        })
    }
}

fn answer_many<A: Answer>(polled: &Polled<MultiReader>, echo: Echo) -> Result<A, Error> {
    if polled.unauthorized && !polled.batch.updates.is_empty() {
        return Err(Error::Unauthorized(Unauthorized::Revoked));
    }
    let mut answer = short_poll::many(&polled.source, &polled.batch, polled.superseded);
    put_hold(&mut answer, echo);
    Ok(answer)
}

fn write<A: Answer>(batch: &Batch, cursor: CacheCursor, echo: Echo, origin: Option<&OriginStatus>) -> A {
    let mut answer: A = if batch.is_empty() {
        let mut answer = answer::uncached(StatusCode::NO_CONTENT);
        answer::position(&mut answer, batch);
        answer
    } else {
        answer::messages(batch, Caching::Messages, echo.audience)
    };
    answer::cursor(&mut answer, cursor);
    put_hold(&mut answer, echo);
    if let Some(status) = origin {
        put_status(&mut answer, status);
    }
    answer
}

fn put_hold(head: &mut impl Head, echo: Echo) {
    if let Some(seconds) = echo.hold {
        let mut wait = SmallVec::<[u8; 16]>::from_slice(b"wait=");
        wait.extend_from_slice(itoa::Buffer::new().format(seconds).as_bytes());
        head.put(PREFERENCE_APPLIED, &wait);
    }
}

/// Returns everything in which two responses with the same batch can differ.
fn variant(cursor: CacheCursor, echo: Echo, now: SystemTime) -> Variant {
    let second = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let hold = echo.hold.map_or(0, |seconds| 1 + u64::from(seconds));
    let form = Form::LongPoll as u64 | AllowedOrigin::number(echo.origin) << u8::BITS;
    Variant([form | (echo.audience as u64) << (u64::BITS - 2), cursor.0, hold, second])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The allocator has size classes of 160 and 192 bytes.
    #[test]
    fn a_held_poll_of_one_stream_fits_into_160_bytes() {
        assert!(size_of::<HeldRead<'_>>() <= 160, "{}", size_of::<HeldRead<'_>>());
    }
}
