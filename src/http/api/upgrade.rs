//! Upgrades to WebSocket: the response that switches protocols, and serving the socket after it.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::credentials::Rights;
use super::error::Error;
use super::gateway::Gateway;
use super::handshake::Handshake;
use crate::access_log::AccessEntry;
use crate::http::conn::{Answer, ConnectionState, MqttSocket, UpgradedIo, logged};
use crate::http::read::live::{LiveOpener, OpenLive, WEBSOCKET};
use crate::http::read::request::{LiveRead, WebSocket};
use crate::http::read::websocket::{Publisher, SocketSession};
use crate::hub::Hub;
use crate::limits::Limits;
use crate::stream::Principal;

/// The path of MQTT over WebSocket (MQTT 5, section 6).
pub(in crate::http) const MQTT_PATH: &str = "/mqtt";

/// A response, and the protocol to which the connection switches after it, if any.
pub(in crate::http) struct Reply<A> {
    pub(in crate::http) answer: A,
    pub(in crate::http) upgrade: Option<Upgrade>,
}

impl<A> Reply<A> {
    /// A response after which the connection continues with HTTP.
    pub(in crate::http) fn http(answer: A) -> Self {
        Self { answer, upgrade: None }
    }
}

/// The protocol to which a connection switches.
pub(in crate::http) enum Upgrade {
    WebSocket(Box<WebSocketUpgrade>),
    /// MQTT in WebSocket frames, for the MQTT front.
    Mqtt(mpsc::Sender<MqttSocket>),
}

/// A WebSocket that is about to be served.
pub(in crate::http) struct WebSocketUpgrade {
    hub: Arc<Hub>,
    limits: Arc<Limits>,
    principal: Principal,
    rights: Option<Rights>,
    reads: SocketReads,
    access: Option<AccessEntry>,
}

/// Which streams a WebSocket reads.
enum SocketReads {
    /// Those that the request named. If it is one stream, the frames of the client are appends to it.
    Named(OpenLive),
    /// Those that the first frame of the client will name, for lists that are too long for a query.
    FirstFrame(LiveOpener),
}

impl Upgrade {
    /// Sets the entry of the request in the access log, which is complete when the WebSocket ends. What MQTT sends is not
    /// logged.
    pub(in crate::http) fn log(&mut self, entry: Option<AccessEntry>) {
        if let Self::WebSocket(socket) = self {
            socket.access = entry;
        }
    }

    /// Serves the connection until either side closes it.
    pub(in crate::http) async fn serve(self, io: UpgradedIo, state: Arc<ConnectionState>) {
        match self {
            // This fails only if the MQTT front is gone, and the server with it.
            Self::Mqtt(sockets) => drop(sockets.send(MqttSocket { io, state }).await),
            Self::WebSocket(socket) => socket.serve(io).await,
        }
    }
}

impl WebSocketUpgrade {
    async fn serve(self, io: UpgradedIo) {
        let Self { hub, limits, principal, rights, reads, access } = self;
        match reads {
            SocketReads::Named(OpenLive { updates, heartbeat, stream, unauthorized, .. }) => {
                let publisher = stream.map(|(stream, content_type)| {
                    let hub = hub.clone();
                    Publisher { rights, hub, stream, content_type, principal }
                });
                let session = SocketSession::new(io, hub, publisher, limits);
                session.serve(logged(updates, access), heartbeat, unauthorized).await;
            }
            SocketReads::FirstFrame(opener) => {
                let session = SocketSession::new(io, hub, None, limits.clone());
                serve_first_frame(session, opener, &limits, (rights, access)).await;
            }
        }
    }
}

/// Serves the read that the first frame of the client requests.
async fn serve_first_frame(
    session: SocketSession,
    opener: LiveOpener,
    limits: &Limits,
    (rights, access): (Option<Rights>, Option<AccessEntry>),
) {
    let Some((session, text)) = session.first_text().await else { return };
    let live = LiveRead::from_frame(&text, limits);
    let live = live.and_then(|live| match rights {
        Some(rights) => rights.admit_live(live),
        None => Ok(live),
    });
    let opened = match live {
        Ok(live) => opener.open(live).await,
        Err(error) => Err(error),
    };
    match opened {
        Ok(OpenLive { updates, heartbeat, unauthorized, .. }) => {
            session.serve(logged(updates, access), heartbeat, unauthorized).await;
        }
        Err(error) => session.refuse(&error).await,
    }
}

impl Gateway {
    /// Switches to MQTT over WebSocket.
    pub(in crate::http) fn upgrade_to_mqtt<A: Answer>(
        &self,
        handshake: &Handshake,
    ) -> Result<Reply<A>, Error> {
        if !handshake.offers_mqtt {
            return Err(Error::Subprotocol);
        }
        let answer = A::from(handshake.response(Some("mqtt")));
        Ok(Reply { answer, upgrade: Some(Upgrade::Mqtt(self.mqtt_sockets.clone())) })
    }

    /// Switches to a WebSocket over one stream or many.
    pub(in crate::http) async fn upgrade_to_websocket<A: Answer>(
        &self,
        request: WebSocket,
        state: &Arc<ConnectionState>,
    ) -> Result<Reply<A>, Error> {
        let WebSocket { handshake, live, rights } = request;
        let answer = A::from(handshake.response(None));
        let opener = self.live_opener(&WEBSOCKET, None, state.clone());
        let reads = match live {
            Some(live) => SocketReads::Named(opener.open(live).await?),
            None => SocketReads::FirstFrame(opener),
        };
        let (hub, limits) = (self.hub.clone(), self.limits.clone());
        let principal = rights.as_ref().map_or(Principal::GATEWAY, Rights::principal).or(state.principal());
        let socket = WebSocketUpgrade { hub, limits, principal, rights, reads, access: None };
        Ok(Reply { answer, upgrade: Some(Upgrade::WebSocket(Box::new(socket))) })
    }
}
