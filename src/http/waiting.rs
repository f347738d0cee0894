//! An answer to come on a connection that hyper does not have, as bytes.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::error::Error;
use super::long_poll::Answering;
use super::request::{LongPoll, Read};
use super::routes::{OnStream, Operation};
use super::written::Written;
use super::{Gateway, Noted, Prepared};
use crate::clock::Alarm;
use crate::hub::{Begun, Held};
use crate::stream::StreamName;

/// See the module. Dropping it is what a client that leaves does.
pub struct Waiting<'a>(State<'a>);

enum State<'a> {
    /// Nearly all are answered when they are first polled.
    Begun(Pin<Box<dyn Future<Output = Step<'a>> + Send + 'a>>),
    /// There may be very many of these.
    Held(Box<HeldPoll<'a>>),
}

enum Step<'a> {
    Answered(Written),
    Held(Box<HeldPoll<'a>>),
}

/// A long poll that waits for a message.
struct HeldPoll<'a> {
    gateway: &'a Gateway,
    held: Held<'a>,
    answering: Answering,
    noted: Noted,
}

impl Waiting<'_> {
    /// Waits for the answer. `alarm` is that of the connection.
    pub fn poll(&mut self, alarm: &mut Alarm, context: &mut Context<'_>) -> Poll<Written> {
        loop {
            match &mut self.0 {
                State::Begun(begun) => match ready!(begun.as_mut().poll(context)) {
                    Step::Answered(answer) => return Poll::Ready(answer),
                    Step::Held(held) => self.0 = State::Held(held),
                },
                State::Held(poll) => {
                    let outcome = ready!(poll.held.poll_answer(alarm, context));
                    let outcome = outcome.map(|polled| poll.gateway.polled(&polled, poll.answering));
                    return Poll::Ready(poll.gateway.finish(&poll.noted, outcome.map_err(Error::from)));
                }
            }
        }
    }
}

impl Gateway {
    /// Answers one request. Every failure is an answer too.
    pub fn write_answer(&self, request: Prepared) -> Waiting<'_> {
        // With a span around it, and what is asked less often.
        let other = |request| Box::pin(async move { Step::Answered(self.answer_as(request).await) });
        if request.noted.recorded.is_some() {
            return Waiting(State::Begun(other(request)));
        }
        let Prepared { operation, link, noted } = request;
        Waiting(State::Begun(match operation {
            Ok(Operation::OnStream(name, OnStream::Read(Read::ShortPoll(poll)))) => {
                Box::pin(
                    async move { Step::Answered(self.finish(&noted, self.short_poll(name, poll).await)) },
                )
            }
            Ok(Operation::OnStream(name, OnStream::Read(Read::LongPoll(poll)))) => {
                Box::pin(self.begin_long_poll(name, poll, noted))
            }
            Ok(Operation::OnStream(name, OnStream::Append(append, body))) => Box::pin(async move {
                Step::Answered(self.finish(&noted, self.append(name, *append, body).await))
            }),
            operation => other(Prepared { operation, link, noted }),
        }))
    }

    async fn begin_long_poll(&self, name: StreamName, request: LongPoll, noted: Noted) -> Step<'_> {
        let answering = Answering::of(&request);
        let outcome = match self.hub.begin_poll(request.poll(name)).await {
            Ok(Begun::Held(mut held)) => {
                held.be_prompt();
                return Step::Held(Box::new(HeldPoll { gateway: self, held, answering, noted }));
            }
            Ok(Begun::Answered(polled)) => Ok(self.polled(&polled, answering)),
            Err(error) => Err(error.into()),
        };
        Step::Answered(self.finish(&noted, outcome))
    }
}
