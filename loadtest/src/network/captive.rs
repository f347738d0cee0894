//! A captive portal: whatever is asked for, the answer is the page of the hotel. A profile's `until` says when somebody
//! has agreed to its terms.

use hyper::StatusCode;
use serde::Deserialize;

use super::server::{Answered, page};

/// See the module.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Captive {}

impl Captive {
    /// Does not even ask.
    pub(super) fn answer(&self, fault: impl Fn()) -> Answered {
        fault();
        Ok(page(StatusCode::OK, "Welcome to our Wi-Fi"))
    }
}
