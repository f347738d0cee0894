//! Opens a WebSocket: over one stream, to which the client may also append, or over many. Which ones, the query says, or
//! the first frame of a client whose list is too long for that.

use std::sync::Arc;

use hyper::Response;

use super::body::Body;
use super::error::Error;
use super::live::{LiveOpener, OpenLive, WEBSOCKET};
use super::request::{Live, WebSocket};
use super::websocket::{Publisher, Session};
use super::{Gateway, Link};
use crate::limits::Limits;

impl Gateway {
    pub(super) async fn websocket(
        &self,
        request: WebSocket,
        link: Arc<Link>,
    ) -> Result<Response<Body>, Error> {
        let WebSocket { handshake, live } = request;
        let answer = self.switch(&handshake, None)?;
        let opener = self.live_opener(&WEBSOCKET, None, link.clone());
        let start = match live {
            Some(live) => Start::Open(opener.open(live).await?),
            None => Start::AsAsked(opener),
        };
        let (hub, limits) = (self.hub.clone(), self.limits.clone());
        tokio::spawn(async move {
            let Ok(upgraded) = handshake.upgrade.await else { return };
            match start {
                Start::Open(OpenLive { updates, heartbeat, stream }) => {
                    let publisher = stream.map(|(stream, content_type)| Publisher {
                        hub: hub.clone(),
                        stream,
                        content_type,
                    });
                    Session::new(upgraded, hub, publisher, limits).serve(updates, heartbeat).await;
                }
                Start::AsAsked(opener) => {
                    let session = Session::new(upgraded, hub, None, limits.clone());
                    serve_as_asked(session, opener, &limits).await;
                }
            }
            drop(link);
        });
        Ok(answer)
    }
}

/// How a socket begins.
enum Start {
    Open(OpenLive),
    /// The first frame says what is read.
    AsAsked(LiveOpener),
}

/// Serves what the client's first frame asks for.
async fn serve_as_asked(session: Session, opener: LiveOpener, limits: &Limits) {
    let Some((session, text)) = session.first_text().await else { return };
    let opened = match Live::from_frame(&text, limits) {
        Ok(live) => opener.open(live).await,
        Err(error) => Err(error),
    };
    match opened {
        Ok(OpenLive { updates, heartbeat, .. }) => session.serve(updates, heartbeat).await,
        Err(error) => session.refuse(&error).await,
    }
}
