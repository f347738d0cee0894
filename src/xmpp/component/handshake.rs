//! Opens the link of a component: stream header, and the digest that proves the secret (XEP-0114, section 3).

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use minidom::Element;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::limits::Limits;
use crate::xmpp::jid::{InvalidJid, Jid};
use crate::xmpp::service::PING;
use crate::xmpp::xml::{
    CLIENT, STREAMS, StreamDecoder, StreamEvent, WithAttribute, XmlError, element, to_bytes,
};

/// The namespace of a component's stanzas.
pub(super) const ACCEPT: &str = "jabber:component:accept";

/// How long connecting and the handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// Maximum size of a stanza before the server has accepted the secret.
const FIRST_BYTES_MAX: usize = 64 * 1024;

/// Bytes that one read takes.
pub(super) const READ_BYTES: usize = 16 * 1024;

/// Where the server is, and what proves to it that the gateway is its component.
#[derive(Debug, Clone)]
pub struct ComponentSettings {
    /// Host and port at which the server accepts components.
    pub(super) address: String,
    pub(super) name: Jid,
    secret: String,
}

impl ComponentSettings {
    /// Settings of the component `name`, for which the server at `address` (`HOST:PORT`) has a secret.
    pub fn new(address: String, name: &str, secret: String) -> Result<Self, InvalidJid> {
        Ok(Self { address, name: Jid::parse_domain(name)?, secret })
    }
}

/// A link whose server has accepted the secret.
pub(super) struct LinkedStream {
    pub(super) socket: TcpStream,
    pub(super) decoder: StreamDecoder,
    /// Bytes that are not decoded yet.
    pub(super) input: BytesMut,
}

/// Why the link could not be opened. The texts are for the operator.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the server did not answer in time")]
    Timeout,
    #[error("the server sent XML that XMPP does not allow: {0}")]
    Xml(#[from] XmlError),
    #[error("the server refused the component: {0}")]
    Refused(String),
    #[error("the server does not speak the component protocol (XEP-0114) at this address")]
    Protocol,
}

pub(super) async fn connect(
    settings: &ComponentSettings,
    limits: &Limits,
) -> Result<LinkedStream, HandshakeError> {
    let opened = timeout(HANDSHAKE_TIMEOUT, open(settings)).await.map_err(|_| HandshakeError::Timeout)?;
    let mut stream = opened?;
    stream.decoder.set_bytes_max(limits.xmpp_stanza_bytes_max);
    Ok(stream)
}

async fn open(settings: &ComponentSettings) -> Result<LinkedStream, HandshakeError> {
    let socket = TcpStream::connect(&*settings.address).await?;
    socket.set_nodelay(true)?;
    let mut stream =
        LinkedStream { socket, decoder: StreamDecoder::new(FIRST_BYTES_MAX), input: BytesMut::new() };
    let header = format!(
        "<?xml version='1.0'?><stream:stream xmlns='{ACCEPT}' xmlns:stream='{STREAMS}' to='{}'>",
        settings.name
    );
    stream.socket.write_all(header.as_bytes()).await?;
    let StreamEvent::Opened(answer) = stream.next().await? else { return Err(HandshakeError::Protocol) };
    let id = answer.attr("id").filter(|_| answer.is("stream", STREAMS)).ok_or(HandshakeError::Protocol)?;
    let proof = digest(id, &settings.secret);
    let handshake = to_bytes(&element("handshake", ACCEPT).append(proof).build());
    stream.socket.write_all(&handshake).await?;
    match stream.next().await? {
        StreamEvent::Stanza(accepted) if accepted.is("handshake", ACCEPT) => Ok(stream),
        StreamEvent::Stanza(error) if error.is("error", STREAMS) => {
            Err(HandshakeError::Refused(reason(&error)))
        }
        _ => Err(HandshakeError::Protocol),
    }
}

/// The proof that the component knows the secret of a stream: SHA-1 of the id of the stream and the secret, in lower case.
fn digest(id: &str, secret: &str) -> String {
    sha1_smol::Sha1::from([id, secret].concat()).digest().to_string()
}

/// What a stream error says (RFC 6120, section 4.9).
pub(super) fn reason(error: &Element) -> String {
    let texts: Vec<_> = error
        .children()
        .map(|child| if child.name() == "text" { child.text() } else { child.name().to_owned() })
        .collect();
    texts.join(": ")
}

impl LinkedStream {
    /// Waits for the next event.
    async fn next(&mut self) -> Result<StreamEvent, HandshakeError> {
        loop {
            let mut bytes = &*self.input;
            let found = self.decoder.next(&mut bytes)?;
            let left = bytes.len();
            let taken = self.input.len() - left;
            let _decoded = self.input.split_to(taken);
            if let Some(event) = found {
                return Ok(event);
            }
            self.input.reserve(READ_BYTES);
            if self.socket.read_buf(&mut self.input).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}

/// A ping of the component to itself, which the server sends back behind everything that the component has sent before.
pub(super) fn barrier(name: &str, id: &str) -> Element {
    let ping = element("ping", PING).build();
    let iq = element("iq", CLIENT).with("type", "get").with("id", id);
    iq.with("from", name).with("to", name).append(ping).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proof_is_that_of_the_standard() {
        // Made with sha1sum.
        assert_eq!(digest("3BF96D32", "secret"), "b09ea9b3b7f586be8a08d0a3dd7466f110aeb136");
    }
}
