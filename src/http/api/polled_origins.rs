//! The header fields of streams that the gateway fills from an origin: what a creation asks for, what a HEAD tells, and the state of the
//! origin that readers get.

use hyper::HeaderMap;
use hyper::http::request::Parts;
use serde::Serialize;

use super::error::Error;
use super::fields::{self, *};
use crate::clock::rfc3339;
use crate::http::conn::Head;
use crate::http_client::{AddressPolicy, check_origin_url};
use crate::hub::{ElementKey, OriginInterval, OriginSettings, OriginState, OriginStatus};

/// The value of `Stream-Origin-Poll` for an origin that is polled without readers, too; the other one is the default.
const ALWAYS: &str = "always";
const WHILE_READ: &str = "while-read";

/// Which origins clients may name.
#[derive(Debug, Clone, Default)]
pub struct OriginPolicy {
    is_allowed: bool,
    addresses: AddressPolicy,
}

/// The state of an origin in a control event or an envelope.
#[derive(Debug, Serialize)]
pub(in crate::http) struct OriginControl {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checked: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl OriginPolicy {
    /// Allows origins at public addresses, and at those that `addresses` names.
    pub fn allowing(addresses: AddressPolicy) -> Self {
        Self { is_allowed: true, addresses }
    }

    /// Refuses an origin that can never be polled. The addresses of a host name are checked with each connection.
    pub(super) fn admit(&self, origin: &OriginSettings) -> Result<(), Error> {
        if !self.is_allowed {
            return Err(Error::OriginsOff);
        }
        check_origin_url(&origin.url, &self.addresses).map_err(Error::OriginUrl)
    }
}

/// Parses what a creation says about its origin.
pub(super) fn origin(head: &Parts) -> Result<Option<OriginSettings>, Error> {
    let fields = &head.headers;
    let interval = fields::text(fields, &STREAM_ORIGIN_INTERVAL)?;
    let poll = fields::text(fields, &STREAM_ORIGIN_POLL)?;
    let key = fields::text(fields, &STREAM_ORIGIN_KEY)?;
    let Some(url) = fields::text(fields, &STREAM_ORIGIN)? else {
        let stray =
            [(interval, STREAM_ORIGIN_INTERVAL), (poll, STREAM_ORIGIN_POLL), (key, STREAM_ORIGIN_KEY)];
        return match stray.into_iter().find(|(given, _)| given.is_some()) {
            Some((_, name)) => Err(Error::field(&name, "requires Stream-Origin")),
            None => Ok(None),
        };
    };
    let interval = interval.map(|text| {
        OriginInterval::parse(text).ok_or_else(|| {
            let what = "must be a number of seconds from 1 to 86400, or two such as 5-60: the shortest and the longest";
            Error::field(&STREAM_ORIGIN_INTERVAL, what)
        })
    });
    let key = key.map(|text| {
        ElementKey::parse(text).ok_or_else(|| {
            let what = "must be the name of a member, or a JSON pointer, of at most 256 bytes";
            Error::field(&STREAM_ORIGIN_KEY, what)
        })
    });
    let is_always_polled = match poll {
        None | Some(WHILE_READ) => false,
        Some(ALWAYS) => true,
        Some(_) => return Err(Error::field(&STREAM_ORIGIN_POLL, "must be while-read or always")),
    };
    Ok(Some(OriginSettings {
        url: url.into(),
        interval: interval.transpose()?.unwrap_or_default(),
        is_always_polled,
        key: key.transpose()?,
    }))
}

/// Adds what a creation has asked for, for a client that may manage the stream.
pub(super) fn put_settings(headers: &mut HeaderMap, origin: &OriginSettings) {
    headers.insert(STREAM_ORIGIN, fields::value(&origin.url));
    headers.insert(STREAM_ORIGIN_INTERVAL, fields::value(&origin.interval.to_text()));
    headers
        .insert(STREAM_ORIGIN_POLL, fields::value(if origin.is_always_polled { ALWAYS } else { WHILE_READ }));
    if let Some(key) = &origin.key {
        headers.insert(STREAM_ORIGIN_KEY, fields::value(key.as_str()));
    }
}

/// Adds the state of the origin: `state=failing; since=TIME; reason=WORD; checked=TIME; next=TIME`.
pub(in crate::http) fn put_status(head: &mut impl Head, status: &OriginStatus) {
    let OriginControl { state, since, reason, checked, next } = OriginControl::new(status);
    let mut text = format!("state={state}");
    let parts = [("since", since), ("reason", reason), ("checked", checked), ("next", next)];
    for (name, value) in parts.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        text.push_str(&format!("; {name}={value}"));
    }
    head.put(STREAM_ORIGIN_STATUS, text.as_bytes());
}

impl OriginControl {
    pub(in crate::http) fn new(status: &OriginStatus) -> Self {
        let (since, reason) = match &status.state {
            OriginState::Failing { since, reason } => (Some(rfc3339(*since)), Some(reason.to_string())),
            OriginState::Pending | OriginState::Ok => (None, None),
        };
        let (checked, next) = (status.checked.map(rfc3339), status.next.map(rfc3339));
        Self { state: status.state.as_str(), since, reason, checked, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(policy: &OriginPolicy, url: &str) -> bool {
        let (url, interval) = (url.into(), OriginInterval::default());
        policy.admit(&OriginSettings { url, interval, is_always_polled: false, key: None }).is_ok()
    }

    #[test]
    fn an_origin_is_public_or_named_by_the_operator_and_without_encryption_always_named() {
        let named = ["api.internal", "127.0.0.1", "10.1.0.0/16", "fd00::/8"].map(str::to_owned);
        let named = OriginPolicy::allowing(AddressPolicy::new(&named).unwrap());
        let public = OriginPolicy::allowing(AddressPolicy::default());
        for (url, is_public, is_named) in [
            ("https://api.example/feed", true, true),
            ("https://93.184.216.34/", true, true),
            ("https://10.1.2.3/", false, true),
            ("https://10.2.2.3/", false, false),
            ("https://[fd00::1]/", false, true),
            ("https://[::ffff:10.2.2.3]/", false, false),
            ("https://169.254.169.254/latest/meta-data/", false, false),
            ("https://localhost/", false, true),
            ("http://127.0.0.1:8080/", false, true),
            ("http://[::ffff:127.0.0.1]:8080/", false, true),
            ("http://93.184.216.34/", false, false),
            ("https://user:secret@api.example/", false, false),
            ("ftp://api.example/", false, false),
            ("/feed", false, false),
        ] {
            assert_eq!((admits(&public, url), admits(&named, url)), (is_public, is_named), "{url}");
        }
        assert!(!admits(&OriginPolicy::default(), "https://api.example/feed"));
    }
}
