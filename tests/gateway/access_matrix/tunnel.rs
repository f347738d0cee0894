//! A local address without TLS that forwards to the TLS listeners of a gateway, with or without a client certificate.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::certificate;
use crate::world::{Gateway, PATIENCE};

/// Forwards the connections of one client.
pub(super) struct Tunnel {
    pub(super) http: SocketAddr,
    pub(super) mqtt: SocketAddr,
    pub(super) has_certificate: bool,
    /// The listeners of the gateway.
    listeners: [SocketAddr; 2],
    config: Arc<ClientConfig>,
}

impl Tunnel {
    /// Opens a tunnel that presents the certificate in this file.
    pub(super) async fn open(gateway: &Gateway, file: Option<&str>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certificate("authority.pem")).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let config = Arc::new(match file {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let chain = vec![CertificateDer::from_pem_file(certificate(file)).unwrap()];
                let key = PrivateKeyDer::from_pem_file(certificate("key.pem")).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        });
        let listeners = [gateway.address, gateway.mqtt];
        let [http, mqtt] = listeners.map(|to| forward(to, config.clone()));
        let (http, mqtt, has_certificate) = (http.await, mqtt.await, file.is_some());
        Self { http, mqtt, has_certificate, listeners, config }
    }

    /// Whether the listener for HTTP or MQTT accepts the certificate. With TLS 1.3 a client learns it from the first bytes that it
    /// reads.
    pub(super) async fn is_trusted(&self, mqtt: bool) -> bool {
        let to = self.listeners[usize::from(mqtt)];
        let outcome = async {
            let mut session = connect(to, self.config.clone()).await?;
            // The gateway answers these bytes without waiting for more.
            session.write_all(b"\0\0\r\n\r\n").await?;
            session.read(&mut [0; 64]).await
        };
        let outcome = timeout(PATIENCE, outcome).await.expect("the gateway answers or closes");
        // A TLS alert.
        !outcome.is_err_and(|error| error.kind() == io::ErrorKind::InvalidData)
    }
}

async fn connect(to: SocketAddr, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(to).await?;
    TlsConnector::from(config).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// Forwards connections to a TLS listener. Returns the local address to connect to.
async fn forward(to: SocketAddr, config: Arc<ClientConfig>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut plain, _)) = listener.accept().await {
            let config = config.clone();
            tokio::spawn(async move {
                if let Ok(mut session) = connect(to, config).await {
                    let _ended = copy_bidirectional(&mut plain, &mut session).await;
                }
            });
        }
    });
    address
}
