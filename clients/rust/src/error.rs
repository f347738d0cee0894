//! Errors of building a client.

/// A client can not be built from its URL and settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The text is not a URL with a host.
    #[error("{0:?} is not a URL such as http://127.0.0.1:4437")]
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
}
