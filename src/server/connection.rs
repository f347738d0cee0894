//! One connection: which protocol it speaks, and what all of its requests have in common.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Duration, sleep, timeout};

use super::guard::Guarded;
use super::{Phase, http1, http2};
use crate::http::admin::Admin;
use crate::http::{Body, Conditions, Gateway, Link, Outgoing, Parsed, Written};
use crate::limits::Limits;

/// What every HTTP/2 connection begins with (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection that has said nothing when the server closes may be one whose request is on its way: it has so long.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Who answers the requests of an HTTP listener.
pub(super) enum Site {
    Gateway(Arc<Gateway>),
    Admin(Admin),
}

/// A request on the way to its answer.
pub(super) enum Asked {
    Gateway(Arc<Gateway>, Parsed),
    Admin(Response<Body>),
}

/// What a connection is served with.
pub(super) struct Terms {
    pub(super) site: Arc<Site>,
    pub(super) limits: Arc<Limits>,
    /// Dropped when nothing is left of the connection.
    pub(super) link: Arc<Link>,
    /// It has seen the first one, and no other.
    pub(super) phase: watch::Receiver<Phase>,
    /// The connection is one too many, and is told so.
    pub(super) refuse: bool,
}

impl Asked {
    pub(super) async fn answer(self) -> Response<Body> {
        match self {
            Self::Gateway(gateway, request) => {
                let request = gateway.prepare(request).await;
                gateway.answer(request).await
            }
            Self::Admin(answer) => answer,
        }
    }
}

impl Terms {
    /// Parses a request.
    pub(super) fn ask(&self, request: Request<Incoming>, ambiguous_length: bool) -> Asked {
        match &*self.site {
            Site::Gateway(gateway) => {
                let conditions =
                    Conditions { refuse: self.refuse, ambiguous_length, link: self.link.clone() };
                Asked::Gateway(gateway.clone(), gateway.parse(request, conditions))
            }
            Site::Admin(admin) => Asked::Admin(admin.answer(&request)),
        }
    }

    /// Whether the server may be about to close: it costs no lock to know that it is not.
    pub(super) fn may_close(&self) -> bool {
        !matches!(self.phase.has_changed(), Ok(false))
    }

    /// Returns when the server is at `phase`.
    pub(super) fn reached(&self, phase: Phase) -> impl Future<Output = ()> + Send + use<> {
        let mut now = self.phase.clone();
        async move {
            // An error means that the server is gone, which is later still.
            drop(now.wait_for(|now| *now >= phase).await);
        }
    }

    /// Who answers requests without hyper; `None`: all are for hyper.
    pub(super) fn direct(&self) -> Option<&Gateway> {
        match &*self.site {
            Site::Gateway(gateway) if !self.refuse => Some(gateway),
            Site::Gateway(_) | Site::Admin(_) => None,
        }
    }

    /// An answer on its way out; the connection ends behind it if the server closes.
    pub(super) fn outgoing(&self, mut answer: Written) -> Outgoing {
        if self.may_close() && *self.phase.borrow() >= Phase::Closing {
            answer.close();
        }
        answer.into_outgoing()
    }

    /// The bytes of the connection.
    pub(super) fn guard(&self, stream: TcpStream, read_ahead: Bytes) -> Guarded {
        Guarded::new(stream, read_ahead, self.link.clone(), self.limits.clone(), self.phase.clone())
    }
}

/// A step in serving a connection, in a box of its own: a connection has room for the one that it is at.
pub(super) type Turn<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// Serves a connection to its end.
pub(super) fn serve(stream: TcpStream, terms: Terms) -> impl Future<Output = io::Result<()>> + Send {
    let begun = begin(stream, terms);
    async move { begun.await?.await }
}

/// What serves a connection, once it is clear which protocol the client speaks.
fn begin(mut stream: TcpStream, terms: Terms) -> Turn<'static, Turn<'static, ()>> {
    Box::pin(async move {
        Ok(match first_bytes(&mut stream, &terms).await? {
            None => http1::close(Box::new(terms.guard(stream, Bytes::new()))),
            Some((true, read_ahead)) => http2::serve(stream, read_ahead, terms),
            Some((false, read_ahead)) => http1::serve(stream, read_ahead, terms),
        })
    })
}

/// What the client begins with, and whether that is HTTP/2; `None` if the server closes first.
async fn first_bytes(stream: &mut TcpStream, terms: &Terms) -> io::Result<Option<(bool, Bytes)>> {
    tokio::select! {
        biased;
        sniffed = timeout(terms.limits.first_byte_timeout.get(), sniff(stream)) => sniffed?.map(Some),
        () = last_word(terms) => Ok(None),
    }
}

/// Returns when the server closes and the connection has had the time for its last word.
async fn last_word(terms: &Terms) {
    terms.reached(Phase::Closing).await;
    sleep(LAST_WORD).await;
}

/// Reads until it is clear whether the client speaks HTTP/2 with prior knowledge.
async fn sniff(stream: &mut TcpStream) -> io::Result<(bool, Bytes)> {
    let mut read = BytesMut::with_capacity(1024);
    loop {
        if stream.read_buf(&mut read).await? == 0 {
            return Ok((false, read.freeze()));
        }
        let compared = read.len().min(HTTP2_PREFACE.len());
        let agrees = read.get(..compared) == HTTP2_PREFACE.get(..compared);
        if !agrees || compared == HTTP2_PREFACE.len() {
            return Ok((agrees, read.freeze()));
        }
    }
}
