//! An answer to come on a connection that hyper does not have, as bytes.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::error::Error;
use super::long_poll::{HeldRead, ReadStart};
use super::read::Beginning;
use super::routes::{OnStream, Operation};
use super::written::Written;
use super::{Gateway, Noted, Prepared};
use crate::clock::Alarm;

/// See the module. Dropping it is what a client that leaves does.
pub struct Waiting<'a>(State<'a>);

enum State<'a> {
    /// Nearly all are answered when they are first polled.
    Answering(Pin<Box<dyn Future<Output = Written> + Send + 'a>>),
    Reading(&'a Gateway, Noted, Reading<'a>),
}

enum Reading<'a> {
    Beginning(Beginning<'a, Written>),
    /// There may be very many of these.
    Held(Box<HeldRead<'a>>),
}

impl Waiting<'_> {
    /// Waits for the answer. `alarm` is that of the connection.
    pub fn poll(&mut self, alarm: &mut Alarm, context: &mut Context<'_>) -> Poll<Written> {
        match &mut self.0 {
            State::Answering(answer) => answer.as_mut().poll(context),
            State::Reading(gateway, noted, reading) => {
                let outcome = ready!(reading.poll(alarm, context));
                Poll::Ready(gateway.finish(noted, outcome))
            }
        }
    }
}

impl Reading<'_> {
    fn poll(&mut self, alarm: &mut Alarm, context: &mut Context<'_>) -> Poll<Result<Written, Error>> {
        loop {
            match self {
                Self::Beginning(beginning) => match ready!(beginning.as_mut().poll(context))? {
                    ReadStart::Answered(answer) => return Poll::Ready(Ok(answer)),
                    ReadStart::Held(mut held) => {
                        held.be_prompt();
                        *self = Self::Held(Box::new(held));
                    }
                },
                Self::Held(held) => return held.poll(alarm, context),
            }
        }
    }
}

impl Gateway {
    /// Answers one request. Every failure is an answer too.
    pub fn write_answer(&self, request: Prepared) -> Waiting<'_> {
        // With a span around it, and what is asked less often.
        let other = |request| State::Answering(Box::pin(self.answer_as(request)));
        if request.noted.recorded.is_some() {
            return Waiting(other(request));
        }
        let Prepared { operation, link, noted } = request;
        Waiting(match operation {
            Ok(Operation::Read(read)) => {
                State::Reading(self, noted, Reading::Beginning(self.begin_read(read, link)))
            }
            Ok(Operation::OnStream(name, OnStream::Append(append, body))) => {
                State::Answering(Box::pin(async move {
                    self.finish(&noted, self.append(name, *append, body).await)
                }))
            }
            operation => other(Prepared { operation, link, noted }),
        })
    }
}
