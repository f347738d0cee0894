//! The table `[[wake]]` of the file: providers that wake devices, with the keys of one app each.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::limits::Span;

/// A kind of provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WakeKind {
    /// Browsers, and UnifiedPush (RFC 8030, 8291, 8292).
    WebPush,
    /// Firebase Cloud Messaging, HTTP v1.
    Fcm,
    /// Apple Push Notification service.
    Apns,
    /// Huawei Push Kit.
    Huawei,
    /// Honor Push.
    Honor,
    /// Xiaomi Mi Push.
    Xiaomi,
    /// JPush (Jiguang).
    Jpush,
    /// Getui.
    Getui,
    /// Tencent Push (Xinge).
    Tpns,
    /// A signed webhook for any other platform.
    Webhook,
    /// SMS over SMPP 3.4.
    Sms,
}

/// An app of a provider. Which keys a kind needs is in `docs/wake-ups.md`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WakeSettings {
    /// The name that devices use.
    pub name: String,
    /// The kind of provider.
    pub kind: WakeKind,
    /// File with the private key, the service account or the secret.
    pub key_file: PathBuf,
    /// The id of the app or project at the provider; for SMPP the system id.
    pub id: Option<String>,
    /// The id of the key at the provider.
    pub key_id: Option<String>,
    /// The team at Apple, or the account at Huawei.
    pub account: Option<String>,
    /// The bundle at Apple, the package at Xiaomi; for SMS the sender.
    pub topic: Option<String>,
    /// The private channel at Xiaomi.
    pub channel: Option<String>,
    /// A `mailto:` or `https:` URL, which push services get.
    pub contact: Option<String>,
    /// The URL of a webhook, or `HOST:PORT` of a message centre for SMS.
    pub url: Option<String>,
    /// Replaces the provider's URL.
    pub base_url: Option<String>,
    /// Replaces the provider's URL of access tokens.
    pub token_url: Option<String>,
    /// PEM file with further roots to trust for the provider.
    pub ca_file: Option<PathBuf>,
    /// The test environment of Apple.
    #[serde(default)]
    pub sandbox: bool,
    /// The version of Huawei's interface.
    pub version: Option<u8>,
    /// The signature at Huawei: `PS256`, or `RS256`.
    pub algorithm: Option<String>,
    /// The text of an SMS. Without it, `port` is needed.
    pub text: Option<String>,
    /// The port of a data SMS.
    pub port: Option<u16>,
    /// The beginnings that telephone numbers must have.
    #[serde(default)]
    pub prefixes: Vec<String>,
    /// The mean time between two wakes of a device.
    pub min_interval: Option<Span>,
    /// Wakes of a device at once after a pause.
    pub burst: Option<u32>,
    /// Wakes of a device in 24 hours.
    pub per_day: Option<u32>,
    /// Wakes of all devices of a tenant in 24 hours.
    pub tenant_per_day: Option<u64>,
    /// How long the provider keeps a wake for a device that is offline.
    pub ttl: Option<Span>,
}

impl WakeKind {
    /// The name in settings and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WebPush => "web-push",
            Self::Fcm => "fcm",
            Self::Apns => "apns",
            Self::Huawei => "huawei",
            Self::Honor => "honor",
            Self::Xiaomi => "xiaomi",
            Self::Jpush => "jpush",
            Self::Getui => "getui",
            Self::Tpns => "tpns",
            Self::Webhook => "webhook",
            Self::Sms => "sms",
        }
    }
}
