//! What bounds an exchange of a request and its response, and how it can fail.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// How long an exchange may take, and how large its response may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExchangeLimits {
    /// Time from the lookup of the host to the last byte of the response.
    pub time: Duration,
    /// Size of the body of the response. It is counted while the body arrives.
    pub body_bytes_max: usize,
}

impl Default for ExchangeLimits {
    /// 10 s and 64 KiB.
    fn default() -> Self {
        Self { time: Duration::from_secs(10), body_bytes_max: 64 * 1024 }
    }
}

/// Why an exchange failed. The texts are for operators; they contain no credentials.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The request cannot be sent to the destination.
    #[error("the request has no valid path")]
    Request,
    /// No address of the host may be connected to.
    #[error("{host} is at {address}, which is not a public address; --outbound-allow {host} allows it")]
    Refused {
        /// The host.
        host: String,
        /// One of its addresses.
        address: IpAddr,
    },
    /// The host cannot be looked up, or has no address.
    #[error("cannot look up the host: {0}")]
    Lookup(io::Error),
    /// No connection can be made.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// The TLS handshake failed.
    #[error("TLS: {0}")]
    Tls(io::Error),
    /// The connection failed, or the response is malformed.
    #[error("{}", chain(.0))]
    Http(#[from] hyper::Error),
    /// The body of the response is too large.
    #[error("the response has more than {max} bytes")]
    TooLarge {
        /// The limit.
        max: usize,
    },
    /// The exchange took too long.
    #[error("no response within {0:?}")]
    Late(Duration),
}

/// The text of an error and its sources; hyper's own does not have those.
fn chain(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
