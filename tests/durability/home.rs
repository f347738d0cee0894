//! [`Home`]: the present address of the gateway. Clients that lose the gateway wait here for the next one.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::world::{Answer, Connection, Gateway, Request};

/// Pause before another attempt to connect to the same address.
const RECONNECT: Duration = Duration::from_millis(50);

/// The gateway's address; `None` during an outage.
#[derive(Debug, Clone, Default)]
pub(crate) struct Home(watch::Sender<Option<SocketAddr>>);

impl Home {
    /// Sets the address of the running gateway.
    pub(crate) fn is(&self, gateway: &Gateway) {
        self.0.send_replace(Some(gateway.address));
    }

    /// Clears the address before an outage.
    pub(crate) fn is_nowhere(&self) {
        self.0.send_replace(None);
    }

    /// Sends a request; `None` if the connection ends before the answer. The port of a gateway that was killed may be another program's
    /// by now, which does not answer: the request ends with the gateway's next address.
    pub(crate) async fn send(&self, connection: &mut Connection, request: Request) -> Option<Answer> {
        let address = connection.address();
        tokio::select! {
            answer = connection.try_send(request) => answer.ok(),
            () = self.has_moved(address) => None,
        }
    }

    /// Waits until the gateway has another address than this.
    async fn has_moved(&self, from: SocketAddr) {
        let has_moved = |place: &Option<SocketAddr>| place.is_some_and(|address| address != from);
        self.0.subscribe().wait_for(has_moved).await.expect("self keeps it open");
    }

    /// Connects to the gateway, or waits for the next one.
    pub(crate) async fn connect(&self) -> Connection {
        let mut place = self.0.subscribe();
        loop {
            let address = *place.wait_for(Option::is_some).await.expect("self keeps it open");
            if let Ok(connection) = Connection::try_open(address.expect("it is some")).await {
                return connection;
            }
            // A connection to a gateway that runs may fail, too.
            let _same_place = timeout(RECONNECT, place.changed()).await;
        }
    }
}
