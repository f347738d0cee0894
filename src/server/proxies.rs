//! The PROXY protocol (version 2), by which proxies for TCP connections tell the address of the client before its first byte.
//!
//! Specification: <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>, section 2.2.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ppp::v2::{Addresses, Command, Header, PROTOCOL_PREFIX};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::http::TrustedProxies;

/// Length of the signature, the version, the family and the length of the rest.
const FIXED_BYTES: usize = 16;

/// Longest header without its first 16 bytes: addresses, and what proxies tell of their clients' TLS.
const HEADER_BYTES_MAX: usize = 2048;

/// The proxies that begin each connection with the PROXY protocol.
pub(super) struct ProxyProtocol(pub(super) Arc<TrustedProxies>);

impl ProxyProtocol {
    /// Reads the header of the PROXY protocol from a connection that `peer` opened, and nothing behind it. Returns the address of
    /// the client: `peer`, if the proxy connects on its own behalf, for example to check the gateway's health. An error of kind
    /// `InvalidData` or `PermissionDenied` means that the connection must not be served. Not cancel safe.
    pub(super) async fn client(
        &self,
        stream: &mut (impl AsyncRead + Unpin),
        peer: SocketAddr,
    ) -> io::Result<SocketAddr> {
        if !self.0.contains(peer.ip()) {
            let text = "a connection without a proxy of --behind-proxy, although --proxy-protocol is set";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        let mut bytes = vec![0; FIXED_BYTES];
        stream.read_exact(&mut bytes).await?;
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        let [.., high, low] = bytes[..] else { return Err(invalid("no header".to_owned())) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if !bytes.starts_with(PROTOCOL_PREFIX) || length > HEADER_BYTES_MAX {
            return Err(invalid("no header of the PROXY protocol, version 2".to_owned()));
        }
        bytes.resize(FIXED_BYTES + length, 0);
        let (_, rest) = bytes.split_at_mut(FIXED_BYTES);
        stream.read_exact(rest).await?;
        let header = Header::try_from(&bytes[..]).map_err(|error| invalid(error.to_string()))?;
        Ok(match (header.command, header.addresses) {
            (Command::Proxy, Addresses::IPv4(addresses)) => {
                (addresses.source_address, addresses.source_port).into()
            }
            (Command::Proxy, Addresses::IPv6(addresses)) => {
                (addresses.source_address, addresses.source_port).into()
            }
            _ => peer,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies() -> ProxyProtocol {
        ProxyProtocol(Arc::new(TrustedProxies::new(&["10.0.0.0/8".to_owned()]).unwrap()))
    }

    async fn client(bytes: &[u8]) -> io::Result<SocketAddr> {
        proxies().client(&mut &bytes[..], "10.1.2.3:4000".parse().unwrap()).await
    }

    fn header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [PROTOCOL_PREFIX, &[0x20 | command, family], &length, body].concat()
    }

    const IPV4: [u8; 12] = [192, 0, 2, 7, 192, 0, 2, 1, 0x30, 0x39, 1, 187];

    #[tokio::test]
    async fn the_header_tells_the_address_of_the_client() {
        let told = client(&header(1, 0x11, &IPV4)).await.unwrap();
        assert_eq!(told, "192.0.2.7:12345".parse().unwrap());
        let with_more = [&IPV4[..], &[4, 0, 1, 0]].concat();
        assert_eq!(client(&header(1, 0x11, &with_more)).await.unwrap(), told);
        let mut ipv6 = vec![0; 36];
        ipv6[15] = 9;
        assert_eq!(client(&header(1, 0x21, &ipv6)).await.unwrap(), "[::9]:0".parse().unwrap());
    }

    #[tokio::test]
    async fn a_proxy_that_connects_for_itself_is_the_client() {
        let proxy = "10.1.2.3:4000".parse().unwrap();
        assert_eq!(client(&header(0, 0x00, &[])).await.unwrap(), proxy);
        assert_eq!(client(&header(1, 0x00, &[])).await.unwrap(), proxy);
    }

    #[tokio::test]
    async fn nothing_behind_the_header_is_read() {
        let bytes = [header(1, 0x11, &IPV4), b"GET / HTTP/1.1".to_vec()].concat();
        let mut left = &bytes[..];
        proxies().client(&mut left, "10.0.0.1:1".parse().unwrap()).await.unwrap();
        assert_eq!(left, b"GET / HTTP/1.1");
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        for bytes in [
            b"GET /v1/stream/s HTTP/1.1\r\n\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 192.0.2.1 12345 443\r\n".to_vec(),
            header(7, 0x11, &IPV4),
            header(1, 0x11, &IPV4[..8]),
            header(1, 0x11, &[0; HEADER_BYTES_MAX + 1]),
        ] {
            assert_eq!(client(&bytes).await.unwrap_err().kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
        let cut = &header(1, 0x11, &IPV4)[..20];
        assert_eq!(client(cut).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let (bytes, foreign) = (header(1, 0x11, &IPV4), "192.0.2.9:1".parse().unwrap());
        let refused = proxies().client(&mut &bytes[..], foreign).await;
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
