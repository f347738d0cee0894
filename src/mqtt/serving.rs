//! [`ServedConnection`]: the future of a connection. While the connection waits, it takes no more memory than the connection itself; the state of a
//! handshake, or of handling an event, is allocated when it begins and freed when it ends.

use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use futures_util::future::{Either, select};
use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::Connection;
use super::wire::Wire;
use super::{Broker, Peer};

/// Serves a connection to its end. A task of the runtime has room for two pointers in its smallest size.
pub struct ServedConnection<S>(ConnectionStage<S>);

/// A connection that does something. `None`: it is over.
type ConnectionWork<S> = Pin<Box<dyn Future<Output = Option<Box<Connection<S>>>> + Send>>;

enum ConnectionStage<S> {
    /// Handles an event. It begins with the handshake.
    Working(ConnectionWork<S>),
    /// Waits for an event. `None`: it is over.
    Waiting(Option<Box<Connection<S>>>),
}

impl Broker {
    /// Serves a connection to its end. With `refuse` the connection is one too many, and is answered with a refusal.
    pub fn serve<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        self: Arc<Self>,
        io: S,
        peer: Peer,
        refuse: bool,
    ) -> ServedConnection<S> {
        self.serve_when(std::future::ready(Some((io, peer))), refuse, pending())
    }

    /// Like [`serve`](Self::serve), with the connection that `begun` returns; `None`: there is none. Before the client is connected,
    /// `stopped` ends the connection, too.
    pub fn serve_when<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        self: Arc<Self>,
        begun: impl Future<Output = Option<(S, Peer)>> + Send + 'static,
        refuse: bool,
        stopped: impl Future<Output = ()> + Send + 'static,
    ) -> ServedConnection<S> {
        let broker = self;
        let begins = async move {
            let connected = async {
                let (io, peer) = begun.await?;
                let wire = Wire::new(io, broker.limits.mqtt_connect_bytes_max);
                let connection = broker.clone().connect(wire, peer, refuse).await?;
                broker.metrics.open.inc();
                connection.start().await
            };
            match select(pin!(connected), pin!(stopped)).await {
                Either::Left((connection, _)) => connection,
                Either::Right(_) => None,
            }
        };
        ServedConnection(ConnectionStage::Working(Box::pin(begins)))
    }

    /// Drops all connections, those that handle an event when they wait next.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::SeqCst);
        self.sessions.wake_holders();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::SeqCst)
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Future for ServedConnection<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self(stage) = self.get_mut();
        loop {
            *stage = match stage {
                ConnectionStage::Working(work) => {
                    ConnectionStage::Waiting(ready!(work.as_mut().poll(context)))
                }
                ConnectionStage::Waiting(waiting) => {
                    let Some(connection) = waiting else { return Poll::Ready(()) };
                    let event = connection.poll_waiting(context);
                    // Checked after the connection has left its waker.
                    if connection.broker.is_stopped() {
                        *waiting = None;
                        return Poll::Ready(());
                    }
                    let event = ready!(event);
                    let Some(connection) = waiting.take() else { return Poll::Ready(()) };
                    ConnectionStage::Working(Box::pin(connection.handle(event)))
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There may be very many: a larger task would take 128 bytes more, and a larger connection 64.
    #[test]
    fn a_connection_that_waits_takes_little_memory() {
        assert_eq!(size_of::<ServedConnection<()>>(), 2 * size_of::<usize>());
        // The socket of the server takes 96 bytes, and all together the size class of 448.
        let connection = size_of::<Connection<()>>() + 96;
        assert!(connection <= 448, "{connection}");
    }
}
