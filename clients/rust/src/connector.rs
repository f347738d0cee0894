//! Connections that the user of the client opens instead of the client.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use tokio::net::TcpStream;

/// A connection that is being opened.
type Connecting = Pin<Box<dyn Future<Output = std::io::Result<TcpStream>> + Send>>;

/// Gets a host and a port.
type Connect = dyn Fn(&str, u16) -> Connecting + Send + Sync;

/// The function that opens connections.
#[derive(Clone)]
pub(crate) struct Connector(Arc<Connect>);

impl Connector {
    pub(crate) fn new<F>(connect: impl Fn(&str, u16) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = std::io::Result<TcpStream>> + Send + 'static,
    {
        Self(Arc::new(move |host, port| Box::pin(connect(host, port))))
    }

    pub(crate) async fn connect(&self, host: &str, port: u16) -> std::io::Result<TcpStream> {
        (self.0)(host, port).await
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Connector")
    }
}
