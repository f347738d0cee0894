//! A small XMPP client over WebSocket (RFC 7395) or BOSH (XEP-0124): logs in, and uses nodes of a publish-subscribe service (XEP-0060).

mod bosh;

use futures_util::{SinkExt, StreamExt};
use hyper::Uri;
use hyper::header::{HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};

use super::WireError;
use crate::target::Target;

pub use bosh::BoshSession;

/// Texts that the server may send before it answers a request.
const TEXTS_MAX: usize = 64;

/// Where a server speaks XMPP over HTTP.
#[derive(Debug)]
pub struct XmppService {
    /// The domain of readers, which log in without credentials.
    pub domain: &'static str,
    /// The domain of the user `publisher`, whose password is `password`; `None`: others publish over HTTP.
    pub publishers: Option<&'static str>,
    /// The address of the publish-subscribe service.
    pub pubsub: &'static str,
    /// The path of WebSockets.
    pub websocket: &'static str,
    /// The path of BOSH requests.
    pub bosh: &'static str,
}

/// Who logs in.
#[derive(Debug, Clone, Copy)]
pub enum XmppUser {
    /// A reader, without credentials.
    Anonymous,
    /// The user of [`XmppService::publishers`].
    Publisher,
}

impl XmppUser {
    fn domain(self, service: &XmppService) -> &'static str {
        match self {
            Self::Anonymous => service.domain,
            Self::Publisher => service.publishers.unwrap_or(service.domain),
        }
    }

    fn auth(self) -> &'static str {
        match self {
            Self::Anonymous => {
                "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'>=</auth>"
            }
            // NUL publisher NUL password.
            Self::Publisher => {
                "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHB1Ymxpc2hlcgBwYXNzd29yZA==</auth>"
            }
        }
    }
}

/// The stream of one client.
pub(crate) trait XmppStream {
    /// Opens the stream, or opens it again after the login.
    async fn open(&mut self) -> Result<(), WireError>;

    /// Sends a stanza, and returns the first text of the server that contains `wanted`.
    async fn ask(&mut self, stanza: &str, wanted: &str) -> Result<String, WireError>;

    /// Logs in, and returns the address that the server has given.
    async fn log_in(&mut self, user: XmppUser) -> Result<String, WireError> {
        let bind = "<iq xmlns='jabber:client' id='bind' type='set'>\
                    <bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
        self.open().await?;
        self.ask(user.auth(), "<success").await?;
        self.open().await?;
        let bound = self.ask(bind, "<jid>").await?;
        let jid = bound.split_once("<jid>").and_then(|(_, rest)| rest.split_once("</jid>"));
        jid.map(|(jid, _)| jid.to_owned()).ok_or_else(|| WireError::Xmpp(bound))
    }

    /// Subscribes the client to a node.
    async fn subscribe(&mut self, service: &XmppService, node: &str, jid: &str) -> Result<(), WireError> {
        let subscribe = request(service, "subscribe", &format!("<subscribe node='{node}' jid='{jid}'/>"));
        self.ask(&subscribe, "<subscription").await.map(drop)
    }
}

/// A request to the publish-subscribe service.
pub fn request(service: &XmppService, id: &str, action: &str) -> String {
    format!(
        "<iq xmlns='jabber:client' id='{id}' type='set' to='{}'>\
         <pubsub xmlns='http://jabber.org/protocol/pubsub'>{action}</pubsub></iq>",
        service.pubsub
    )
}

/// A stream over a WebSocket.
pub struct XmppSocket<IO> {
    socket: WebSocketStream<IO>,
    domain: &'static str,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> XmppSocket<IO> {
    /// Opens a WebSocket to a server.
    pub async fn over(
        io: IO,
        target: &Target,
        service: &XmppService,
        user: XmppUser,
    ) -> Result<Self, WireError> {
        let uri = format!("ws://{}{}", target.address, service.websocket);
        let uri: Uri = uri.parse().map_err(hyper::http::Error::from)?;
        let protocol = HeaderValue::from_static("xmpp");
        let opening = ClientBuilder::from_uri(uri).add_header(SEC_WEBSOCKET_PROTOCOL, protocol)?;
        let (socket, _answer) = opening.connect_on(io).await?;
        Ok(Self { socket, domain: user.domain(service) })
    }

    /// Sends a stanza.
    pub async fn send(&mut self, stanza: String) -> Result<(), WireError> {
        Ok(self.socket.send(Message::text(stanza)).await?)
    }

    /// Returns the next text of the server; `None`: it has closed the stream. Cancel safe.
    pub async fn next(&mut self) -> Result<Option<String>, WireError> {
        let Some(frame) = self.socket.next().await else { return Ok(None) };
        Ok(Some(String::from_utf8_lossy(frame?.as_payload()).into_owned()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> XmppStream for XmppSocket<IO> {
    async fn open(&mut self) -> Result<(), WireError> {
        let domain = self.domain;
        let open = format!("<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='{domain}' version='1.0'/>");
        self.ask(&open, "features").await.map(drop)
    }

    async fn ask(&mut self, stanza: &str, wanted: &str) -> Result<String, WireError> {
        self.send(stanza.to_owned()).await?;
        let mut last = "the server ended the stream".to_owned();
        for _ in 0..TEXTS_MAX {
            let Some(text) = self.next().await? else { break };
            if text.contains(wanted) {
                return Ok(text);
            }
            last = text;
        }
        Err(WireError::Xmpp(last))
    }
}
