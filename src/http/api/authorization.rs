//! Authorization of requests: which rights an operation needs, and how long it may last.

use std::time::Duration;

use super::answer::Audience;
use super::credentials::{Rights, ticket_of};
use super::error::Error;
use super::form::Form;
use super::gateway::Gateway;
use super::operation::{OnStream, Operation};
use crate::auth::Action;
use crate::http::read::request::{LiveRead, Read, ReadFrom};
use crate::stream::StreamName;

/// The longest time by which a held poll ends before its token.
const SPREAD_MAX: Duration = Duration::from_secs(1);

impl Gateway {
    /// Replaces the rights of a request that has a ticket with those that the ticket stands for. A ticket for something else than
    /// the request gives none.
    pub(super) fn with_ticket(
        &self,
        rights: Rights,
        query: Option<&str>,
        operation: &Operation,
    ) -> Result<Rights, Error> {
        let Some(ticket) = query.and_then(ticket_of).filter(|_| rights.owes_ticket()) else {
            return Ok(rights);
        };
        match operation {
            Operation::Read(Read::Sse(live)) => self.redeem(rights, ticket, Form::Sse, &live.from),
            Operation::WebSocket(socket) => match &socket.live {
                Some(live) => self.redeem(rights, ticket, Form::WebSocket, &live.from),
                None => Ok(rights),
            },
            _ => Ok(rights),
        }
    }
}

impl Rights {
    /// Checks that the client may do what an operation does, and bounds what lasts by the end of the grants.
    pub(in crate::http) fn admit(&self, operation: Operation) -> Result<Operation, Error> {
        Ok(match operation {
            Operation::OnStream(mut name, operation) => {
                self.enter(&mut name);
                let operation = self.admit_on_stream(&name, operation)?;
                Operation::OnStream(name, operation)
            }
            Operation::Read(read) => Operation::Read(self.admit_read(read)?),
            Operation::WebSocket(mut socket) => {
                // A client that could not send a token in its handshake may send it in a frame.
                let is_open = |live: &LiveRead| live.from.streams().all(|stream| !self.is_hidden(stream));
                socket.awaits_token = self.may_bring_token() && !socket.live.as_ref().is_none_or(is_open);
                if !socket.awaits_token {
                    socket.live = socket.live.map(|live| self.admit_live(live)).transpose()?;
                }
                socket.rights = Some(self.clone());
                Operation::WebSocket(socket)
            }
            Operation::Device(request) => Operation::Device(self.admit_device(request)?),
            Operation::Cookie(request) => Operation::Cookie(request.admitted(self)?),
            Operation::Ticket(mut request) => {
                request.grants = Some(self.grants());
                Operation::Ticket(request)
            }
            Operation::Subscription(mut request) => {
                // Which streams it concerns is known when it is handled.
                (request.rights, request.principal) = (Some(self.clone()), self.principal());
                Operation::Subscription(request)
            }
            Operation::Names(mut request) => {
                // Each name is checked.
                request.rights = Some(self.clone());
                Operation::Names(request)
            }
            Operation::Subprotocol(subprotocol, mut handshake) => {
                handshake.grants = Some(self.grants()).filter(|grants| grants.subject().is_some());
                Operation::Subprotocol(subprotocol, handshake)
            }
            // Files and preflights have nothing to protect. The XMPP front authorizes what is in a BOSH request: its client logs in by SASL.
            other @ (Operation::Options(_) | Operation::GetFile(_) | Operation::Bosh(_)) => other,
        })
    }

    fn admit_on_stream(&self, name: &StreamName, operation: OnStream) -> Result<OnStream, Error> {
        Ok(match operation {
            OnStream::Append(mut append) => {
                self.check(Action::Append, name)?;
                // Without the right to create, `create=1` appends to an existing stream.
                append.create = append.create.filter(|_| self.check(Action::Create, name).is_ok());
                append.principal = self.principal();
                append.producer = append.producer.map(|producer| self.own_producer(producer));
                OnStream::Append(append)
            }
            OnStream::Create(mut put, body) => {
                self.check(Action::Create, name)?;
                put.principal = self.principal();
                // It makes the gateway send requests, so the right to create is not enough.
                if put.origin.is_some() {
                    self.check(Action::Manage, name)?;
                }
                if let Some((source, ..)) = &mut put.fork {
                    self.enter(source);
                    self.check(Action::Read, source)?;
                }
                OnStream::Create(put, body)
            }
            OnStream::Head { .. } => {
                self.check(Action::Read, name)?;
                OnStream::Head { may_manage: self.check(Action::Manage, name).is_ok() }
            }
            OnStream::Delete => self.check(Action::Manage, name).map(|()| OnStream::Delete)?,
        })
    }

    fn admit_read(&self, read: Read) -> Result<Read, Error> {
        Ok(match read {
            Read::ShortPoll(mut poll) => {
                poll.from = self.admit_from(poll.from)?;
                poll.audience = self.audience(&poll.from);
                poll.client = poll.client.map(|client| self.own_client(&client));
                Read::ShortPoll(poll)
            }
            Read::LongPoll(mut poll) => {
                poll.from = self.admit_from(poll.from)?;
                poll.audience = self.audience(&poll.from);
                let left = self.left().map(|left| spread(left, fastrand::f64()));
                poll.hold.time = left.map_or(poll.hold.time, |left| left.min(poll.hold.time));
                poll.credentials = self.held_credentials();
                poll.client = poll.client.map(|client| self.own_client(&client));
                Read::LongPoll(poll)
            }
            Read::Sse(live) => Read::Sse(self.admit_live(live)?),
            Read::Ndjson(live) => Read::Ndjson(self.admit_live(live)?),
        })
    }

    /// Also used for a read that the first frame of a WebSocket requests.
    pub(in crate::http) fn admit_live(&self, live: LiveRead) -> Result<LiveRead, Error> {
        let from = self.admit_from(live.from)?;
        let is_private = self.audience(&from) == Audience::Private;
        let client = live.client.map(|client| self.own_client(&client));
        Ok(LiveRead { is_private, from, client, grants: self.ending_grants(), ..live })
    }

    /// Of many streams, those that the client may not read are withheld, unless it may read none of them.
    fn admit_from(&self, mut from: ReadFrom) -> Result<ReadFrom, Error> {
        match &mut from {
            ReadFrom::One { stream, .. } => {
                self.enter(stream);
                self.check(Action::Read, stream)?;
            }
            ReadFrom::Many(streams) => {
                let mut refusal = None;
                for requested in &mut *streams {
                    self.enter(&mut requested.stream);
                    if let Err(error) = self.check(Action::Read, &requested.stream) {
                        (requested.withheld, refusal) = (true, Some(error));
                    }
                }
                if let Some(error) = refusal
                    && streams.iter().all(|requested| requested.withheld)
                {
                    return Err(error);
                }
            }
        }
        Ok(from)
    }

    /// Which clients get the same response. Responses over many streams are never kept by caches.
    fn audience(&self, from: &ReadFrom) -> Audience {
        match from {
            ReadFrom::One { stream, .. } if !self.is_hidden(stream) => Audience::Public,
            ReadFrom::One { .. } | ReadFrom::Many(_) => Audience::Private,
        }
    }
}

/// Shortens the hold of a poll that ends with its token by up to [`SPREAD_MAX`], so that clients whose tokens expire in one second
/// do not all come again at once. `random` is below 1.
fn spread(left: Duration, random: f64) -> Duration {
    left.saturating_sub(left.min(SPREAD_MAX).mul_f64(random))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_that_end_with_their_tokens_end_over_a_second_before_it() {
        let millis = |left, random| spread(Duration::from_millis(left), random).as_millis();
        assert_eq!([millis(9000, 0.0), millis(9000, 0.5), millis(9000, 0.999)], [9000, 8500, 8001]);
        assert_eq!([millis(100, 0.0), millis(100, 0.5), millis(0, 0.5)], [100, 50, 0]);
    }
}
