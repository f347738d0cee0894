//! What takes the place of TLS when the crate is built without its feature `tls`: nothing, and an error that says so.

use tokio::net::TcpStream;

use crate::error::{BuildError, ConnectError};

/// Has no values.
#[derive(Debug)]
pub(crate) enum Tls {}

impl Tls {
    pub(crate) fn new(_host: &str, _pem: &[u8]) -> Result<Self, BuildError> {
        Err(BuildError::NoTls)
    }

    pub(crate) async fn connect(&self, _socket: TcpStream) -> Result<TcpStream, ConnectError> {
        match *self {}
    }
}
