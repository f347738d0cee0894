//! Where the gateway is at the moment. Whoever loses it waits here for the next one.

use std::net::SocketAddr;

use tokio::sync::watch;

use crate::world::{Connection, Gateway};

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Home(watch::Sender<Option<SocketAddr>>);

impl Home {
    /// The gateway is there now.
    pub(crate) fn is(&self, gateway: &Gateway) {
        self.0.send_replace(Some(gateway.address));
    }

    /// The gateway is about to go.
    pub(crate) fn is_nowhere(&self) {
        self.0.send_replace(None);
    }

    /// A connection to the gateway that is there, or to the next one.
    pub(crate) async fn connect(&self) -> Connection {
        let mut place = self.0.subscribe();
        loop {
            let address = *place.wait_for(Option::is_some).await.expect("self keeps it open");
            if let Ok(connection) = Connection::try_open(address.expect("it is some")).await {
                return connection;
            }
            place.changed().await.expect("self keeps it open");
        }
    }
}
