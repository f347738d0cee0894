//! A WebSocket over many streams: one envelope a text frame. Which streams, the query says, or the first frame of a
//! client whose list is too long for that.

use std::sync::Arc;

use super::envelope::Frame;
use super::live::Opening;
use crate::http::Gateway;
use crate::http::conn::{Answer, ConnectionState};
use crate::http::error::Error;
use crate::http::request::{LiveMany, WebSocketMany};
use crate::http::upgrade::{Reply, SocketReads};
use crate::http::websocket::Session;
use crate::limits::Limits;
use crate::metrics::Form;

const TEXT: Frame = Frame { before: b"", after: b"" };

impl Gateway {
    pub(super) async fn websocket_many<A: Answer>(
        &self,
        request: WebSocketMany,
        link: Arc<ConnectionState>,
    ) -> Result<Reply<A>, Error> {
        let WebSocketMany { live, handshake } = request;
        let answer = self.switch(&handshake, None)?;
        let metrics = self.metrics.live(Form::WebSocket);
        let opening = Opening { hub: self.hub.clone(), metrics, link, life: None, frame: TEXT };
        let reads = match live {
            Some(live) => {
                let heartbeat = live.heartbeat;
                let updates = Box::pin(opening.open(live).await?);
                SocketReads::Updates { updates, heartbeat, publisher: None }
            }
            None => SocketReads::FirstFrame(Box::new(opening)),
        };
        Ok(self.upgrade_to_websocket(answer, reads))
    }
}

/// Lets the client say first what it wants.
pub(in crate::http) async fn serve_as_asked(session: Session, opening: Opening, limits: &Limits) {
    let Some((session, text)) = session.first_text().await else { return };
    let live = match LiveMany::parse(&text, limits) {
        Ok(live) => live,
        Err(error) => return session.refuse(&error).await,
    };
    let heartbeat = live.heartbeat;
    match opening.open(live).await {
        Ok(updates) => session.serve(updates, heartbeat).await,
        Err(error) => session.refuse(&error).await,
    }
}
