//! `/mqtt`: a WebSocket with the subprotocol `mqtt` (MQTT 5, section 6), handed over to whoever speaks it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use hyper::Response;
use hyper::upgrade::Upgraded;

use super::body::Body;
use super::error::Error;
use super::request::Handshake;
use super::{Gateway, Link};

/// Where MQTT over WebSocket is.
pub(super) const PATH: &str = "/mqtt";

/// Serves a connection that has left HTTP behind, to its end.
pub type Tunnel = Arc<dyn Fn(Upgraded) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

impl Gateway {
    pub(super) fn mqtt(&self, handshake: Handshake, link: Arc<Link>) -> Result<Response<Body>, Error> {
        if !handshake.offers_mqtt {
            return Err(Error::Subprotocol);
        }
        let answer = self.switch(&handshake, Some("mqtt"))?;
        let tunnel = self.tunnel.clone();
        tokio::spawn(async move {
            let Ok(upgraded) = handshake.upgrade.await else { return };
            tunnel(upgraded).await;
            drop(link);
        });
        Ok(answer)
    }
}
