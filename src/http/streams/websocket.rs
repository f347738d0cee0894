//! A WebSocket over many streams: one envelope a text frame. Which streams, the query says, or the first frame of a
//! client whose list is too long for that.

use std::sync::Arc;

use hyper::Response;

use super::envelope::Frame;
use super::live::Opening;
use crate::http::body::Body;
use crate::http::error::Error;
use crate::http::form::Form;
use crate::http::request::{LiveMany, WebSocketMany};
use crate::http::websocket::Session;
use crate::http::{Gateway, Link};
use crate::limits::Limits;

const TEXT: Frame = Frame { before: b"", after: b"" };

impl Gateway {
    pub(super) async fn websocket_many(
        &self,
        request: WebSocketMany,
        link: Arc<Link>,
    ) -> Result<Response<Body>, Error> {
        let WebSocketMany { live, handshake } = request;
        let answer = self.switch(&handshake, None)?;
        let metrics = self.forms.live(Form::WebSocket);
        let opening = Opening { hub: self.hub.clone(), metrics, link: link.clone(), life: None, frame: TEXT };
        let (hub, limits) = (self.hub.clone(), self.limits.clone());
        match live {
            Some(live) => {
                let heartbeat = live.heartbeat;
                let updates = opening.open(live).await?;
                tokio::spawn(async move {
                    let Ok(upgraded) = handshake.upgrade.await else { return };
                    Session::new(upgraded, hub, None, limits).serve(updates, heartbeat).await;
                    drop(link);
                });
            }
            None => {
                tokio::spawn(async move {
                    let Ok(upgraded) = handshake.upgrade.await else { return };
                    let session = Session::new(upgraded, hub, None, limits.clone());
                    serve_as_asked(session, opening, &limits).await;
                    drop(link);
                });
            }
        }
        Ok(answer)
    }
}

/// Lets the client say first what it wants.
async fn serve_as_asked(session: Session, opening: Opening, limits: &Limits) {
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
