//! Fetches the keys of an issuer from its URL, over HTTPS, or over plain HTTP from this machine.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{ACCEPT, CACHE_CONTROL, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};

use super::keys::FILE_BYTES_MAX;
use crate::http_client::{
    AddressPolicy, Destination, ExchangeLimits, HttpClient, InvalidUrl, OutboundError, Trust, TrustError,
};

/// How long a fetch may take, from the lookup of the host to the last byte.
const FETCH_TIME: Duration = Duration::from_secs(10);

/// A URL with keys.
pub(super) struct KeyLocation {
    destination: Destination,
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
    #[error(transparent)]
    Url(#[from] InvalidUrl),
    #[error("ca_file: {0}")]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Exchange(#[from] OutboundError),
    #[error("the response has the status {0}")]
    Status(StatusCode),
}

impl KeyLocation {
    /// Parses a URL. `ca_file` has the roots that are trusted; without it, those of the operating system are.
    pub(super) fn new(url: &str, ca_file: Option<&Path>) -> Result<Self, FetchError> {
        let trust = match ca_file {
            _ if !url.starts_with("https:") => Trust::nothing()?,
            Some(roots) => Trust::only(roots)?,
            None => Trust::system(None)?,
        };
        Ok(Self { destination: Destination::of_operator(url, &trust)? })
    }

    /// Fetches the keys, over a connection of its own: the next fetch is much later. Redirects are not followed: they would lead to
    /// a URL that nobody has allowed.
    pub(super) async fn fetch(&self) -> Result<FetchedKeys, FetchError> {
        let client = HttpClient::new(AddressPolicy::default(), 1);
        let mut request = Request::new(Bytes::new());
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        let body_bytes_max = usize::try_from(FILE_BYTES_MAX).unwrap_or(usize::MAX);
        let limits = ExchangeLimits { time: FETCH_TIME, body_bytes_max };
        let response = client.send(&self.destination, request, limits).await?;
        match response.status() {
            StatusCode::OK => {
                let max_age = max_age(response.headers());
                Ok(FetchedKeys { json: response.into_body(), max_age })
            }
            status => Err(FetchError::Status(status)),
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
