//! TLS over sockets, with rustls' client.

use std::io::{Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::crypto::ring::{cipher_suite, default_provider};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};

use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{
    AlertDescription, ClientConfig, ClientConnection, DigitallySignedStruct, Error, ServerConfig,
    SignatureScheme, SupportedCipherSuite,
};

use super::*;
use crate::http::conn::io::GuardedStream;

pub(super) const TLS13: SupportedCipherSuite = cipher_suite::TLS13_AES_256_GCM_SHA384;
pub(super) const TLS12: SupportedCipherSuite = cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384;

pub(super) const SUITES: [SupportedCipherSuite; 6] = [
    TLS13,
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    TLS12,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// Trusts any server: the certificate of these tests is none.
#[derive(Debug)]
struct Trusting(CryptoProvider);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn provider(suite: SupportedCipherSuite) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { cipher_suites: vec![suite], ..default_provider() })
}

pub(super) fn server_config(suite: SupportedCipherSuite) -> Arc<ServerConfig> {
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new()).unwrap();
    let key = PrivatePkcs8KeyDer::from(key.as_ref().to_vec()).into();
    let key = default_provider().key_provider.load_private_key(key).unwrap();
    let certified = CertifiedKey::new(vec![CertificateDer::from(vec![0])], key);
    let config = ServerConfig::builder_with_provider(provider(suite));
    let config = config.with_protocol_versions(&[suite.version()]).unwrap().with_no_client_auth();
    let mut config = config.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.enable_secret_extraction = true;
    Arc::new(config)
}

pub(super) fn client_config(suite: SupportedCipherSuite) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(provider(suite));
    let config = config.with_protocol_versions(&[suite.version()]).unwrap().dangerous();
    let config = config.with_custom_certificate_verifier(Arc::new(Trusting(default_provider())));
    let mut config = config.with_no_client_auth();
    config.enable_secret_extraction = true;
    Arc::new(config)
}

/// rustls' client over a socket.
struct Client {
    tcp: TcpStream,
    tls: ClientConnection,
}

/// A TLS connection, and its client.
async fn connected(suite: SupportedCipherSuite) -> (TlsStream, Client) {
    let (tcp, mut client) = started(suite).await;
    let shaken = async {
        while client.tls.is_handshaking() {
            client.flush(usize::MAX).await;
            client.receive().await;
        }
        client.flush(usize::MAX).await;
    };
    let (server, ()) = tokio::join!(TlsStream::accept(tcp, server_config(suite)), shaken);
    (server.unwrap().0, client)
}

/// A TCP connection, and a client that has not sent anything.
async fn started(suite: SupportedCipherSuite) -> (TcpStream, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = ClientConnection::new(client_config(suite), name).unwrap();
    tls.set_buffer_limit(None);
    (listener.accept().await.unwrap().0, Client { tcp, tls })
}

impl Client {
    /// The records that are to be sent.
    fn records(&mut self) -> Vec<u8> {
        let mut records = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut records).unwrap();
        }
        records
    }

    /// Sends all records, in pieces of `piece` bytes.
    async fn flush(&mut self, piece: usize) {
        let records = self.records();
        for piece in records.chunks(piece.min(records.len().max(1))) {
            self.tcp.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
    }

    /// Receives what has come, at least a byte. Returns its number of bytes.
    async fn receive(&mut self) -> usize {
        let mut bytes = [0; 4096];
        let read = self.tcp.read(&mut bytes).await.unwrap();
        let mut received = &bytes[..read];
        while !received.is_empty() {
            self.tls.read_tls(&mut received).unwrap();
            self.tls.process_new_packets().unwrap();
        }
        read
    }

    async fn write_data(&mut self, data: &[u8], piece: usize) {
        self.tls.writer().write_all(data).unwrap();
        self.flush(piece).await;
    }

    async fn read_data(&mut self, size: usize) -> Vec<u8> {
        let mut data = vec![0; size];
        let mut done = 0;
        while done < size {
            match self.tls.reader().read(&mut data[done..]) {
                Ok(read) => done += read,
                Err(_) => assert!(self.receive().await > 0),
            }
        }
        data
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        TlsStream::poll_read(self.get_mut(), context, buffer)
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        TlsStream::poll_write(self.get_mut(), context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        TlsStream::poll_flush(self.get_mut(), context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        TlsStream::poll_shutdown(self.get_mut(), context)
    }
}

impl TlsStream {
    async fn read_data(&mut self, size: usize) -> Vec<u8> {
        let mut data = vec![0; size];
        self.read_exact(&mut data).await.unwrap();
        data
    }

    fn has_buffers(&self) -> bool {
        self.incoming.is_some() || !self.session.unsent().is_empty()
    }
}

#[tokio::test]
async fn an_idle_session_keeps_no_buffer() {
    assert!(size_of::<TlsStream>() <= 1024, "{} bytes", size_of::<TlsStream>());
    for suite in SUITES {
        let (mut server, mut client) = connected(suite).await;
        for _ in 0..3 {
            client.write_data(b"request", usize::MAX).await;
            assert_eq!(server.read_data(7).await, b"request");
            server.write_all(b"response").await.unwrap();
            assert_eq!(client.read_data(8).await, b"response");
            let idle = tokio::select! {
                biased;
                _ = server.read_u8() => false,
                () = tokio::task::yield_now() => true,
            };
            assert!(idle && !server.has_buffers(), "{suite:?}");
        }
    }
}

#[tokio::test]
async fn a_record_that_is_only_announced_takes_no_memory() {
    let (mut server, mut client) = connected(TLS13).await;
    client.tcp.write_all(&[23, 3, 3, 0x40, 0]).await.unwrap();
    for _ in 0..100 {
        tokio::select! {
            biased;
            _ = server.read_u8() => panic!("no data has come"),
            () = tokio::task::yield_now() => {}
        }
    }
    let incoming = &server.incoming.as_ref().unwrap().bytes;
    assert_eq!(incoming.len(), 5);
    assert!(incoming.capacity() <= 16, "{}", incoming.capacity());
}

#[tokio::test]
async fn bytes_may_come_one_by_one() {
    for suite in [TLS13, TLS12] {
        let (tcp, mut client) = started(suite).await;
        let talk = async {
            while client.tls.is_handshaking() {
                client.flush(1).await;
                client.receive().await;
            }
            // What completes the handshake, and two requests, in one flight.
            client.tls.writer().write_all(b"first").unwrap();
            client.write_data(b"second", 1).await;
            if suite == TLS13 {
                client.tls.refresh_traffic_keys().unwrap();
            }
            client.write_data(b"third", 1).await;
            client.read_data(6).await
        };
        let serve = async {
            let (mut server, _) = TlsStream::accept(tcp, server_config(suite)).await.unwrap();
            assert_eq!(server.read_data(16).await, b"firstsecondthird");
            server.write_all(b"answer").await.unwrap();
            server
        };
        let (server, answer) = tokio::join!(serve, talk);
        assert_eq!(answer, b"answer");
        assert!(!server.has_buffers());
    }
}

#[tokio::test]
async fn requests_behind_the_handshake_are_kept() {
    for suite in [TLS13, TLS12] {
        let (tcp, mut client) = started(suite).await;
        let talk = async {
            while client.tls.is_handshaking() {
                client.flush(usize::MAX).await;
                client.receive().await;
            }
            // All in one piece: the end of the handshake, data, a request for new keys and data under new keys.
            client.tls.writer().write_all(b"first").unwrap();
            if suite == TLS13 {
                client.tls.refresh_traffic_keys().unwrap();
            }
            client.write_data(b"second", usize::MAX).await;
            client.read_data(6).await
        };
        let serve = async {
            let (mut server, _) = TlsStream::accept(tcp, server_config(suite)).await.unwrap();
            assert_eq!(server.read_data(11).await, b"firstsecond");
            server.write_all(b"answer").await.unwrap();
        };
        assert_eq!(tokio::join!(talk, serve).0, b"answer");
    }
}

#[tokio::test]
async fn large_bodies_go_both_ways_while_keys_change() {
    let body: Vec<u8> = (0..1 << 20).map(|at: u32| (at / 7) as u8).collect();
    for suite in SUITES {
        let (mut server, mut client) = connected(suite).await;
        let up = async {
            for part in body.chunks(100_000) {
                client.write_data(part, 5_000).await;
                if suite.version() == TLS13.version() {
                    client.tls.refresh_traffic_keys().unwrap();
                }
            }
        };
        let (received, ()) = tokio::join!(server.read_data(body.len()), up);
        assert!(received == body);
        let (sent, received) = tokio::join!(server.write_all(&body), client.read_data(body.len()));
        sent.unwrap();
        assert!(received == body && !server.has_buffers());
    }
}

#[tokio::test]
async fn a_client_that_has_ended_its_side_is_still_answered() {
    for suite in [TLS13, TLS12] {
        let (mut server, mut client) = connected(suite).await;
        client.tls.send_close_notify();
        client.flush(usize::MAX).await;
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
        server.write_all(b"answer").await.unwrap();
        assert_eq!(client.read_data(6).await, b"answer");
        server.shutdown().await.unwrap();
        while client.receive().await > 0 {}
        // Zero bytes instead of an error: the session has been ended, not only the TCP connection.
        assert_eq!(client.tls.reader().read(&mut [0; 8]).unwrap(), 0);
    }
}

#[tokio::test]
async fn a_forged_record_ends_the_session_with_an_alert() {
    let (mut server, mut client) = connected(TLS13).await;
    client.tls.writer().write_all(b"request").unwrap();
    let mut records = client.records();
    *records.last_mut().unwrap() ^= 1;
    client.tcp.write_all(&records).await.unwrap();
    let refused = server.read_u8().await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    assert!(server.write_all(b"nothing").await.is_err() && server.read_u8().await.is_err());
    server.shutdown().await.unwrap();
    let mut alert = Vec::new();
    client.tcp.read_to_end(&mut alert).await.unwrap();
    client.tls.read_tls(&mut &alert[..]).unwrap();
    let error = client.tls.process_new_packets().unwrap_err();
    assert_eq!(error, Error::AlertReceived(AlertDescription::BadRecordMac));
}

#[tokio::test]
async fn what_is_no_handshake_gets_an_alert_at_once() {
    for sent in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[22, 3, 1, 255, 255],
        &[23, 3, 3, 0, 1, 0],
        &[22, 3, 1, 0, 4, 1, 0, 0, 0],
    ] {
        let (tcp, mut client) = started(TLS13).await;
        client.tcp.write_all(sent).await.unwrap();
        assert!(TlsStream::accept(tcp, server_config(TLS13)).await.is_err());
        let mut alert = Vec::new();
        let _ = client.tcp.read_to_end(&mut alert).await;
        assert_eq!((alert.len(), alert[0]), (7, 21), "{sent:?}");
    }
}

/// Size classes of the allocator: the next ones are 896 and 160, for each connection.
#[test]
fn an_idle_connection_fits_into_its_size_classes() {
    assert!(size_of::<TlsStream>() <= 768, "{}", size_of::<TlsStream>());
    assert!(size_of::<GuardedStream>() <= 128, "{}", size_of::<GuardedStream>());
}
