//! XMPP over WebSocket (RFC 7395): a subscription to the node of the stream (XEP-0060).

use futures_util::{SinkExt, StreamExt};
use hyper::Uri;
use hyper::header::{HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use tokio::net::TcpStream;
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};

use crate::client::Client;
use crate::wire::{Metered, WireError};

/// The domain of the gateway's service.
pub(crate) const DOMAIN: &str = "localhost";

/// Frames that the server may send before it answers a request.
const FRAMES_MAX: usize = 16;

/// Follows the node of the client's stream until the server closes. What is published between two connections is lost.
pub(super) async fn read(client: &mut Client) -> Result<(), WireError> {
    let address = client.target.address;
    let uri: Uri = format!("ws://{address}/v1/xmpp").parse().map_err(hyper::http::Error::from)?;
    client.meter.request();
    let opening =
        ClientBuilder::from_uri(uri).add_header(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("xmpp"))?;
    let (socket, _answer) = opening.connect_on(client.open(address).await?).await?;
    let mut session = Session { socket };
    let jid = session.log_in().await?;
    session.subscribe(&client.stream, &jid).await?;
    client.started().await;
    while let Some(frame) = session.socket.next().await {
        client.receive(frame?.as_payload());
    }
    Ok(())
}

/// The stream of one client.
struct Session {
    socket: WebSocketStream<Metered<TcpStream>>,
}

impl Session {
    /// Logs in without credentials, and returns the address that the server has given.
    async fn log_in(&mut self) -> Result<String, WireError> {
        let open = format!("<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='{DOMAIN}' version='1.0'/>");
        let auth = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'>=</auth>";
        let bind = "<iq xmlns='jabber:client' id='bind' type='set'>\
                    <bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
        self.ask(&open, "features").await?;
        self.ask(auth, "<success").await?;
        self.ask(&open, "features").await?;
        let bound = self.ask(bind, "<jid>").await?;
        let jid = bound.split_once("<jid>").and_then(|(_, rest)| rest.split_once("</jid>"));
        jid.map(|(jid, _)| jid.to_owned()).ok_or_else(|| WireError::Xmpp(bound))
    }

    async fn subscribe(&mut self, node: &str, jid: &str) -> Result<(), WireError> {
        let subscribe = format!(
            "<iq xmlns='jabber:client' id='subscribe' type='set' to='{DOMAIN}'>\
             <pubsub xmlns='http://jabber.org/protocol/pubsub'><subscribe node='{node}' jid='{jid}'/></pubsub></iq>"
        );
        self.ask(&subscribe, "<subscription").await.map(drop)
    }

    /// Sends a frame, and returns the first one that contains `wanted`.
    async fn ask(&mut self, text: &str, wanted: &str) -> Result<String, WireError> {
        self.socket.send(Message::text(text.to_owned())).await?;
        let mut last = "the server ended the stream".to_owned();
        for _ in 0..FRAMES_MAX {
            let Some(frame) = self.socket.next().await else { break };
            last = String::from_utf8_lossy(frame?.as_payload()).into_owned();
            if last.contains(wanted) {
                return Ok(last);
            }
        }
        Err(WireError::Xmpp(last))
    }
}
