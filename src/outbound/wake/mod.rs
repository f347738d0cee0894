//! Wakes: short messages by a push service or by SMS, which tell a device to come and poll.
//!
//! A wake has no content. The device polls with its offset, and that poll proves that the wake arrived. The hub decides when a
//! device is woken (`hub::devices`). Here is one [`Adapter`] per kind of provider: pure functions from a wake to a request, and
//! from the answer to a [`Verdict`]. No adapter waits, reads a clock or touches a socket.

mod answers;
mod apns;
mod fcm;
mod getui;
mod huawei;
mod jpush;
mod jwt;
mod sender;
mod sms;
mod tpns;
mod web_push;
mod webhook;
mod xiaomi;

use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hyper::{HeaderMap, Request, StatusCode};

pub use apns::{Apns, ApnsIds};
pub use fcm::Fcm;
pub use getui::Getui;
pub use huawei::{Huawei, HuaweiVersion};
pub use jpush::Jpush;
pub use jwt::{InvalidKey, ProviderKey};
pub use sender::{SendingApp, WakeSender};
pub use sms::{SmsContent, Smsc, SmscSettings};
pub use tpns::Tpns;
pub use web_push::WebPush;
pub use webhook::Webhook;
pub use xiaomi::Xiaomi;

use crate::hub::{Credential, Verdict};

/// A wake for one device.
#[derive(Debug, Clone, Copy)]
pub struct Wake<'a> {
    /// Identifies the wake: 16 hexadecimal digits. A retry of a wake has the same id.
    pub id: &'a str,
    /// The id that the device gave itself.
    pub device: &'a str,
    /// Where the device receives wakes.
    pub credential: &'a Credential,
    /// How long the provider keeps the wake for a device that is offline.
    pub ttl: Duration,
}

/// The answer of a provider.
#[derive(Debug, Clone, Copy)]
pub struct ProviderAnswer<'a> {
    pub status: StatusCode,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
}

/// A token that a provider has issued for requests to it.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken {
    pub value: Box<str>,
    /// The time of day from which on another token is needed.
    pub until: SystemTime,
}

/// Shows no token: it ends up in logs.
impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken").field("until", &self.until).finish_non_exhaustive()
    }
}

/// The wire of one provider, with the settings and keys of one app. `now` is the time of day.
pub trait Adapter: fmt::Debug + Send + Sync {
    /// The request for an access token. `None`: the provider issues none.
    fn token_request(&self, _now: SystemTime) -> Option<Result<Request<Bytes>, Verdict>> {
        None
    }

    /// Returns the access token in the answer to [`token_request`](Self::token_request).
    fn token(&self, answer: ProviderAnswer<'_>, _now: SystemTime) -> Result<AccessToken, Verdict> {
        Err(Verdict::config(format!("unexpected access token, status {}", answer.status)))
    }

    /// Whether the provider does not accept the access token, or its own signature's time, any more. The caller gets another
    /// token and sends the wake once more.
    fn rejects_token(&self, _answer: ProviderAnswer<'_>) -> bool {
        false
    }

    /// The request that sends a wake. The error is the verdict about a wake that cannot be sent at all.
    fn request(
        &self,
        wake: Wake<'_>,
        access: Option<&AccessToken>,
        now: SystemTime,
    ) -> Result<Request<Bytes>, Verdict>;

    /// What the answer means.
    fn verdict(&self, answer: ProviderAnswer<'_>, now: SystemTime) -> Verdict;

    /// The key that clients need to subscribe at their push service. `None`: they need none.
    fn public_key(&self) -> Option<&str> {
        None
    }

    /// Whether the provider is the operator's own, so that its requests continue the traces of messages.
    fn continues_traces(&self) -> bool {
        false
    }

    /// Whether the URL comes from the device, and must not lead into a private network.
    fn is_sent_to_url_of_device(&self) -> bool {
        false
    }
}
