//! Connections in memory: pairs of sockets that deliver at once and in order, so that a paused clock never runs ahead of bytes on
//! their way.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use tokio::net::TcpStream;

/// Returns the two ends of a connection. They are Unix sockets in the type of TCP's, which gateway and client take.
pub(crate) fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let (one, other) = UnixStream::pair()?;
    Ok((end(one)?, end(other)?))
}

fn end(socket: UnixStream) -> io::Result<TcpStream> {
    socket.set_nonblocking(true)?;
    TcpStream::from_std(OwnedFd::from(socket).into())
}
