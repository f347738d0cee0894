//! A captive portal: the response to every request is the portal's own page. A profile's `until` is the time when somebody
//! accepts the terms.

use hyper::StatusCode;
use serde::Deserialize;

use super::server::{Answered, page};

/// Answers every request itself.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Captive {}

impl Captive {
    /// Answers without a request to the server.
    pub(super) fn answer(&self, fault: impl Fn()) -> Answered {
        fault();
        Ok(page(StatusCode::OK, "Welcome to our Wi-Fi"))
    }
}
