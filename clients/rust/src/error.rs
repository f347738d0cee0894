//! Errors of building a client and of connecting.

/// A client cannot be built from its URL and settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The text is not a URL with a host.
    #[error("{0:?} is not a URL such as https://gateway.example")]
    NotAUrl(String),
    /// The scheme of the URL is neither `http` nor `https`.
    #[error("the scheme {0}:// is not supported; use http:// or https://")]
    Scheme(String),
    /// The URL contains a user name or a password, which would not be sent.
    #[error("the URL contains credentials; use a token or a header field instead")]
    UserInfo,
    /// The header field is malformed, or is one that the client itself sets.
    #[error("the header field {0:?} is malformed or set by the client itself")]
    Header(String),
    /// The URL needs TLS, and the crate was built without it.
    #[error("https:// needs the cargo feature `tls` of pollgate-client")]
    NoTls,
    /// A further root certificate is not a certificate in PEM.
    #[error("a root certificate is malformed: {0}")]
    RootCertificate(String),
    /// TLS cannot be used, for example because the system has no root certificates and the client was given none.
    #[error("TLS cannot be used: {0}")]
    Tls(String),
}

/// The gateway's certificate is not trusted: its issuer is not known, it has expired, or it is for another host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the certificate of {host} is not trusted: {reason}")]
#[non_exhaustive]
pub struct CertificateError {
    /// The host of the URL.
    pub host: String,
    /// Why, in the words of the TLS library.
    pub reason: String,
}

/// There is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "certificates need TLS"))]
pub(crate) enum ConnectError {
    /// Nothing answers, or not as it should.
    Unreachable,
    /// A certificate that is not trusted, after one that was: something on the path answers in place of the gateway.
    Intercepted(CertificateError),
    /// The certificate is not trusted, and there is no reason to expect another one.
    Untrusted(CertificateError),
}

impl From<std::io::Error> for ConnectError {
    fn from(_: std::io::Error) -> Self {
        Self::Unreachable
    }
}
