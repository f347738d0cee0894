//! The listeners of a server: opened here, or by a service manager that hands them over, as systemd does with a socket unit
//! (`sd_listen_fds(3)`).

use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::error::BindError;
use crate::limits::Limits;
use crate::platform::send_buffer_size;

/// Size of one segment with the kernel's bookkeeping. While any of a socket's send buffer is free, the kernel accepts one more
/// segment, so the buffer may exceed its size by this.
const SEGMENT_BYTES: usize = 8 * 1024;

/// What the names of sockets may be.
const NAMES: &str = "FileDescriptorName= has to be http, admin or mqtt";

/// The listeners that were handed over. A server opens the others itself.
#[derive(Debug, Default)]
pub struct Inherited {
    pub(super) gateway: Option<TcpListener>,
    pub(super) admin: Option<TcpListener>,
    pub(super) mqtt: Option<TcpListener>,
}

impl Inherited {
    /// Takes the listeners that were handed over to this process, by the variables `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES`. A single one
    /// without a name of ours is the listener for publishers and readers.
    ///
    /// # Errors
    /// A socket does not listen for TCP connections, has an unknown name, or a name is there twice.
    pub fn take() -> io::Result<Self> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut sockets = ListenFd::from_env();
        let count = sockets.len();
        let mut inherited = Self::default();
        for (index, name) in names.split(':').chain(std::iter::repeat("")).take(count).enumerate() {
            let Some(listener) = sockets.take_tcp_listener(index)? else { continue };
            listener.set_nonblocking(true)?;
            let place = inherited.place(name, count == 1)?;
            if place.replace(listener).is_some() {
                return Err(io::Error::other(format!(
                    "the service manager has handed over two sockets {name:?}; {NAMES}"
                )));
            }
        }
        Ok(inherited)
    }

    fn place(&mut self, name: &str, is_single: bool) -> io::Result<&mut Option<TcpListener>> {
        match name {
            "http" => Ok(&mut self.gateway),
            "admin" => Ok(&mut self.admin),
            "mqtt" => Ok(&mut self.mqtt),
            _ if is_single => Ok(&mut self.gateway),
            _ => Err(io::Error::other(format!(
                "the service manager has handed over a socket {name:?}; {NAMES}"
            ))),
        }
    }

    /// The addresses of the listeners: of HTTP, admin and MQTT.
    pub(super) fn addresses(&self) -> io::Result<[Option<SocketAddr>; 3]> {
        let address =
            |listener: &Option<TcpListener>| listener.as_ref().map(TcpListener::local_addr).transpose();
        Ok([address(&self.gateway)?, address(&self.admin)?, address(&self.mqtt)?])
    }
}

/// Listens on the address of an option, unless the listener was handed over. Also returns the address with the port that was chosen.
pub(super) fn listen(
    option: &'static str,
    address: SocketAddr,
    inherited: Option<TcpListener>,
    limits: &Limits,
) -> Result<(TcpListener, SocketAddr), BindError> {
    // Accepted connections inherit it.
    let send_bytes = send_buffer_size(limits.socket_send_bytes.saturating_sub(SEGMENT_BYTES));
    let open = || {
        if let Some(listener) = inherited {
            SockRef::from(&listener).set_send_buffer_size(send_bytes)?;
            return Ok((listener, address));
        }
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_send_buffer_size(send_bytes)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(limits.backlog)?;
        let listener = TcpListener::from(socket);
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    open().map_err(|error| BindError::Listen { option, address, error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_the_place_of_its_name() {
        let place = |name: &str, is_single: bool| {
            let mut inherited = Inherited::default();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            inherited
                .place(name, is_single)
                .map(|place| *place = Some(listener))
                .map_err(|error| error.to_string())?;
            Ok::<_, String>(inherited.addresses().unwrap().map(|address| address.is_some()))
        };
        for (name, is_single, expected) in [
            ("http", true, [true, false, false]),
            ("admin", false, [false, true, false]),
            ("mqtt", true, [false, false, true]),
            ("pollgate.socket", true, [true, false, false]),
        ] {
            assert_eq!(place(name, is_single), Ok(expected), "{name}");
        }
        assert!(place("pollgate.socket", false).unwrap_err().contains("http, admin or mqtt"));
    }
}
