//! Upgrades to WebSocket: the response that switches protocols, and serving the socket after it.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::credentials::{Renewals, Rights, SocketRights};
use super::error::Error;
use super::gateway::Gateway;
use super::handshake::{Handshake, Subprotocol};
use crate::access_log::{AccessEntry, LoggedAddress};
use crate::auth::Grants;
use crate::budget::principal_of;
use crate::http::conn::{Answer, ConnectionState, SubprotocolSocket, UpgradedIo, logged};
use crate::http::read::live::{LiveOpener, OpenLive, WEBSOCKET};
use crate::http::read::request::{LiveRead, WebSocket};
use crate::http::read::websocket::{Publisher, SocketSession};
use crate::hub::Hub;
use crate::limits::Limits;
use crate::stream::{Principal, StreamName};

/// Serves an upgraded connection until either side closes it.
type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

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
    /// Another protocol in WebSocket frames.
    Subprotocol(SubprotocolUpgrade),
}

/// A WebSocket that is about to be handed to another front.
pub(in crate::http) struct SubprotocolUpgrade {
    sockets: mpsc::Sender<SubprotocolSocket>,
    /// The address of the client that a proxy tells.
    forwarded: Option<IpAddr>,
    grants: Option<Arc<Grants>>,
}

/// A WebSocket that is about to be served.
pub(in crate::http) struct WebSocketUpgrade {
    hub: Arc<Hub>,
    limits: Arc<Limits>,
    principal: Principal,
    rights: Option<SocketRights>,
    reads: SocketReads,
    access: Option<AccessEntry>,
}

/// Which streams a WebSocket reads.
enum SocketReads {
    /// Those that the request named. If it is one stream, the frames of the client are appends to it.
    Named(OpenLive, Vec<StreamName>),
    /// Those that the request named, once the client has sent a token in a frame.
    AfterToken(LiveOpener, LiveRead),
    /// Those that the first frame of the client will name, for lists that are too long for a query.
    FirstFrame(LiveOpener),
}

impl Upgrade {
    /// Sets the entry of the request in the access log, which is complete when the WebSocket ends. What MQTT and
    /// XMPP send is not logged.
    pub(in crate::http) fn log(&mut self, entry: Option<AccessEntry>) {
        if let Self::WebSocket(socket) = self {
            socket.access = entry;
        }
    }

    /// Serves the connection until either side closes it. The future is boxed, so that it takes the place of all that led to it.
    pub(in crate::http) fn serve(self, io: UpgradedIo, state: Arc<ConnectionState>) -> Serving {
        match self {
            Self::Subprotocol(SubprotocolUpgrade { sockets, forwarded, grants }) => {
                let (principal, address) = client_of(&state, forwarded);
                let socket = SubprotocolSocket { io, state, principal, grants, address };
                // This fails only if the other front is gone, and the server with it.
                Box::pin(async move { drop(sockets.send(socket).await) })
            }
            Self::WebSocket(socket) => socket.serve(io),
        }
    }
}

impl WebSocketUpgrade {
    fn serve(self: Box<Self>, io: UpgradedIo) -> Serving {
        let Self { hub, limits, principal, rights, reads, access } = *self;
        let mut session = SocketSession::new(io, hub.clone(), rights, limits);
        if let SocketReads::Named(live, streams) = reads {
            return serve_live(session, (live, streams), (hub, principal), access);
        }
        let opening = Box::pin(async move {
            match open_later(&mut session, reads).await? {
                Ok(opened) => Some(serve_live(session, opened, (hub, principal), access)),
                Err(error) => {
                    session.refuse(&error).await;
                    None
                }
            }
        });
        Box::pin(async move {
            // What the opening needed is dropped before the form is served.
            let serving = opening.await;
            if let Some(serving) = serving {
                serving.await;
            }
        })
    }
}

/// Opens the read of a WebSocket as soon as its client has sent what is missing. `None`: the socket has ended.
async fn open_later(session: &mut SocketSession, reads: SocketReads) -> Option<Result<OpenedRead, Error>> {
    Some(match reads {
        SocketReads::Named(live, streams) => Ok((live, streams)),
        SocketReads::AfterToken(opener, live) => {
            session.first_token().await.ok()?;
            open(session.rights(), opener, Ok(live)).await
        }
        SocketReads::FirstFrame(opener) => {
            let text = session.first_text().await.ok()?;
            let live = LiveRead::from_frame(&text, session.limits());
            open(session.rights(), opener, live).await
        }
    })
}

/// A form that is open, and the streams that each later token has to grant.
type OpenedRead = (OpenLive, Vec<StreamName>);

/// Sends the updates of a form that is open, and receives appends.
fn serve_live(
    mut session: SocketSession,
    (live, streams): OpenedRead,
    (hub, principal): (Arc<Hub>, Principal),
    access: Option<AccessEntry>,
) -> Serving {
    let OpenLive { updates, heartbeat, stream, unauthorized, .. } = live;
    let principal = session.principal().or(principal);
    let publisher = stream.map(|(stream, content_type)| Publisher { hub, stream, content_type, principal });
    session.begin(heartbeat, unauthorized);
    let mut updates = logged(updates, access);
    Box::pin(async move { session.serve(publisher.as_ref(), &streams, &mut updates).await })
}

/// Opens the read of a WebSocket, as far as its client may read. Also returns the streams that it may.
async fn open(
    rights: Option<(Rights, Renewals)>,
    opener: LiveOpener,
    live: Result<LiveRead, Error>,
) -> Result<OpenedRead, Error> {
    let (live, renewals) = match rights {
        Some((rights, renewals)) => (rights.admit_live(live?)?, Some(renewals)),
        None => (live?, None),
    };
    let streams = live.from.served();
    Ok((opener.open(LiveRead { renewals, ..live }).await?, streams))
}

/// The principal of a client's address, and the address as logs show it.
fn client_of(state: &ConnectionState, forwarded: Option<IpAddr>) -> (Principal, Option<LoggedAddress>) {
    match forwarded {
        Some(address) => (principal_of(address), Some(LoggedAddress::Told(address))),
        None => (state.principal(), state.peer().map(LoggedAddress::Peer)),
    }
}

impl Gateway {
    /// The subprotocol of the WebSockets at a path.
    pub(super) fn subprotocol_at(&self, path: &str) -> Option<Subprotocol> {
        let found = Subprotocol::ALL.into_iter().find(|subprotocol| subprotocol.path() == path)?;
        self.sockets_of(found).map(|_| found)
    }

    /// Who accepts the WebSockets with a subprotocol. `None`: nobody does.
    fn sockets_of(&self, subprotocol: Subprotocol) -> Option<&mpsc::Sender<SubprotocolSocket>> {
        match subprotocol {
            Subprotocol::Mqtt => Some(&self.mqtt_sockets),
            Subprotocol::Xmpp => self.xmpp_sockets.as_ref(),
        }
    }

    /// Switches to a protocol that another front serves.
    pub(in crate::http) fn upgrade_to_subprotocol<A: Answer>(
        &self,
        subprotocol: Subprotocol,
        handshake: &Handshake,
    ) -> Result<Reply<A>, Error> {
        let (path, name) = (subprotocol.path(), subprotocol.name());
        let sockets = self.sockets_of(subprotocol).ok_or(Error::Subprotocol { path, name })?.clone();
        let answer = A::from(handshake.response(Some(name)));
        let (forwarded, grants) = (handshake.forwarded, handshake.grants.clone());
        let upgrade = SubprotocolUpgrade { sockets, forwarded, grants };
        Ok(Reply { answer, upgrade: Some(Upgrade::Subprotocol(upgrade)) })
    }

    /// Switches to a WebSocket over one stream or many.
    pub(in crate::http) async fn upgrade_to_websocket<A: Answer>(
        &self,
        request: WebSocket,
        state: &Arc<ConnectionState>,
    ) -> Result<Reply<A>, Error> {
        let WebSocket { handshake, live, rights, awaits_token } = request;
        let answer = A::from(handshake.response(None));
        let opener = self.live_opener(&WEBSOCKET, None, state.clone());
        let (principal, address) = client_of(state, handshake.forwarded);
        let rights = rights.map(|rights| self.socket_rights(rights, address));
        let reads = match live {
            Some(live) if awaits_token => SocketReads::AfterToken(opener, live),
            Some(live) => {
                // A token in a later frame has to grant them, too.
                let streams = if rights.is_some() { live.from.served() } else { Vec::new() };
                let renewals = rights.as_ref().map(SocketRights::renewals);
                SocketReads::Named(opener.open(LiveRead { renewals, ..live }).await?, streams)
            }
            None => SocketReads::FirstFrame(opener),
        };
        let (hub, limits) = (self.hub.clone(), self.limits.clone());
        let socket = WebSocketUpgrade { hub, limits, principal, rights, reads, access: None };
        Ok(Reply { answer, upgrade: Some(Upgrade::WebSocket(Box::new(socket))) })
    }
}
