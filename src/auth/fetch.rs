//! Fetches the keys of an issuer from its URL, over HTTPS, or over plain HTTP from this machine.

use std::future::pending;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CACHE_CONTROL, HOST, HeaderMap};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::keys::FILE_BYTES_MAX;

/// How long a fetch may take, from the lookup of the host to the last byte.
const FETCH_TIME: Duration = Duration::from_secs(10);

/// A URL with keys.
pub(super) struct KeyLocation {
    host: String,
    port: u16,
    /// Host and port as the URL has them.
    authority: String,
    path: String,
    /// `None`: plain HTTP.
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// Keys as an issuer has sent them.
#[derive(Debug)]
pub(super) struct FetchedKeys {
    pub(super) json: Bytes,
    /// For how long they may be used without asking again.
    pub(super) max_age: Option<Duration>,
}

/// Why keys could not be fetched. The texts are for the operator.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("the URL must be https://, or http:// to a loopback address, without a password")]
    Url,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("cannot read the roots of ca_file: {0}")]
    Roots(String),
    #[error("the host is not on this machine, so it needs https://")]
    Elsewhere,
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("the response has the status {0}")]
    Status(StatusCode),
    #[error("the body cannot be read, or has more than 65536 bytes: {0}")]
    Body(String),
    #[error("no response within 10 s")]
    Late,
}

impl KeyLocation {
    /// Parses a URL. `ca_file` has the roots that are trusted; without it, those of the operating system are.
    pub(super) fn new(url: &str, ca_file: Option<&Path>) -> Result<Self, FetchError> {
        let uri: Uri = url.parse().map_err(|_| FetchError::Url)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(FetchError::Url);
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let is_here = host == "localhost" || host.parse().is_ok_and(|host: IpAddr| host.is_loopback());
        let is_tls = scheme == "https";
        if authority.as_str().contains('@') || !(is_tls || scheme == "http" && is_here) {
            return Err(FetchError::Url);
        }
        let tls = match is_tls {
            false => None,
            true => {
                let name = ServerName::try_from(host.clone()).map_err(|_| FetchError::Url)?;
                Some((TlsConnector::from(Arc::new(client_config(ca_file)?)), name))
            }
        };
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { host, port, authority: authority.as_str().to_owned(), path, tls })
    }

    /// Fetches the keys. Redirects are not followed: they would lead to a URL that nobody has allowed.
    pub(super) async fn fetch(&self) -> Result<FetchedKeys, FetchError> {
        timeout(FETCH_TIME, self.connect_and_fetch()).await.map_err(|_| FetchError::Late)?
    }

    async fn connect_and_fetch(&self) -> Result<FetchedKeys, FetchError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        match &self.tls {
            Some((connector, name)) => self.exchange(connector.connect(name.clone(), stream).await?).await,
            None if stream.peer_addr()?.ip().is_loopback() => self.exchange(stream).await,
            None => Err(FetchError::Elsewhere),
        }
    }

    async fn exchange(
        &self,
        io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<FetchedKeys, FetchError> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
        let fetch = async {
            let request = Request::get(&self.path).header(HOST, &self.authority);
            let request = request.header(ACCEPT, "application/json").body(Empty::<Bytes>::new());
            let response = sender.send_request(request.map_err(|_| FetchError::Url)?).await?;
            if response.status() != StatusCode::OK {
                return Err(FetchError::Status(response.status()));
            }
            let max_age = max_age(response.headers());
            let max = usize::try_from(FILE_BYTES_MAX).unwrap_or(usize::MAX);
            let body = Limited::new(response.into_body(), max).collect().await;
            let json = body.map_err(|error| FetchError::Body(error.to_string()))?.to_bytes();
            Ok(FetchedKeys { json, max_age })
        };
        let drive = async {
            let _ended = connection.await;
            pending().await
        };
        tokio::select! {
            fetched = fetch => fetched,
            () = drive => Err(FetchError::Late),
        }
    }
}

/// The seconds of `max-age` (RFC 9111, section 5.2.2.1).
fn max_age(fields: &HeaderMap) -> Option<Duration> {
    let lists = fields.get_all(CACHE_CONTROL).iter().filter_map(|list| list.to_str().ok());
    let directives = lists.flat_map(|list| list.split(','));
    let mut ages = directives.filter_map(|directive| directive.trim().strip_prefix("max-age=")?.parse().ok());
    ages.next().map(Duration::from_secs)
}

fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, FetchError> {
    let provider = Arc::new(default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    Ok(match ca_file {
        Some(path) => {
            let unusable = |error: &dyn std::fmt::Display| FetchError::Roots(error.to_string());
            let mut roots = RootCertStore::empty();
            for root in CertificateDer::pem_file_iter(path).map_err(|error| unusable(&error))? {
                roots.add(root.map_err(|error| unusable(&error))?)?;
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        None => {
            let verifier = Arc::new(Verifier::new(provider)?);
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_this_machine_are_asked_for_keys() {
        let is_allowed = |url| KeyLocation::new(url, None).is_ok();
        for url in [
            "https://id.example/keys",
            "https://id.example:8443/a?b=c",
            "http://127.0.0.1:9/k",
            "http://[::1]/k",
            "http://localhost/k",
        ] {
            assert!(is_allowed(url), "{url}");
        }
        for url in [
            "http://id.example/keys",
            "http://10.0.0.1/keys",
            "https://user:secret@id.example/",
            "ftp://localhost/",
            "/keys",
            "",
        ] {
            assert!(!is_allowed(url), "{url}");
        }
    }

    #[test]
    fn the_age_is_found_among_other_directives() {
        let of = |value: &str| max_age(&HeaderMap::from_iter([(CACHE_CONTROL, value.parse().unwrap())]));
        assert_eq!(of("public, max-age=600, must-revalidate"), Some(Duration::from_secs(600)));
        assert_eq!(of("no-store"), None);
        assert_eq!(of("max-age=-1"), None);
    }
}
