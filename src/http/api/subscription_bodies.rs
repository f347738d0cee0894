//! The JSON of requests about subscriptions.

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::hub::subscriptions::{Glob, Settlement, SubscriptionConfig, SubscriptionError, WakeBy};
use crate::stream::{StreamName, Tenant};

/// The lease of a subscription that asks for none, and its bounds, in milliseconds.
const LEASE_MS: u64 = 30_000;
const LEASE_MS_MIN: u64 = 1000;
const LEASE_MS_MAX: u64 = 600_000;

/// The longest description, in bytes.
const DESCRIPTION_BYTES_MAX: usize = 1024;

/// The longest id of a wake that is compared, in bytes.
const WAKE_ID_BYTES_MAX: usize = 256;

/// A request to create a subscription.
#[derive(Debug, Deserialize)]
pub(super) struct NewSubscription {
    #[serde(rename = "type")]
    kind: String,
    pattern: Option<String>,
    streams: Option<Vec<String>>,
    webhook: Option<NewWebhook>,
    wake_stream: Option<String>,
    lease_ttl_ms: Option<u64>,
    description: Option<String>,
}

#[derive(Debug, Deserialize)]
struct NewWebhook {
    url: String,
}

/// A request to link streams.
#[derive(Debug, Deserialize)]
pub(super) struct LinkBody {
    streams: Vec<String>,
}

/// A request to claim a wake.
#[derive(Debug, Deserialize)]
pub(super) struct ClaimBody {
    worker: String,
}

/// What a worker says about its wake.
#[derive(Debug, Deserialize)]
pub(super) struct SettlementBody {
    wake_id: String,
    generation: u64,
    #[serde(default)]
    acks: Vec<AckBody>,
    #[serde(default)]
    done: bool,
}

#[derive(Debug, Deserialize)]
struct AckBody {
    #[serde(alias = "path")]
    stream: String,
    offset: String,
}

fn invalid(why: impl Into<String>) -> SubscriptionError {
    SubscriptionError::Invalid(why.into())
}

/// Parses a body.
pub(super) fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, SubscriptionError> {
    serde_json::from_slice(body)
        .map_err(|error| invalid(format!("the body is not the expected JSON: {error}")))
}

impl NewSubscription {
    /// Checks the request. Names are those of the client.
    pub(super) fn into_config(self) -> Result<SubscriptionConfig, SubscriptionError> {
        let texts = |text: Option<String>| text.filter(|text| !text.is_empty());
        let wake_by = match self.kind.as_str() {
            "webhook" => {
                let webhook = self.webhook.filter(|webhook| !webhook.url.is_empty());
                let url = webhook.ok_or_else(|| invalid("a webhook subscription needs webhook.url"))?.url;
                WakeBy::Webhook(url)
            }
            "pull-wake" => {
                let stream = texts(self.wake_stream);
                let stream = stream.ok_or_else(|| invalid("a pull-wake subscription needs wake_stream"))?;
                WakeBy::PullWake(stream.trim_matches('/').to_owned())
            }
            _ => return Err(invalid("type must be webhook or pull-wake")),
        };
        let pattern = texts(self.pattern).map(|text| Glob::parse(&text));
        let pattern = pattern.transpose().map_err(|error| invalid(error.to_string()))?;
        let mut streams: Vec<_> =
            self.streams.unwrap_or_default().iter().map(|name| name.trim_matches('/').to_owned()).collect();
        streams.sort_unstable();
        streams.dedup();
        if pattern.is_none() && streams.is_empty() {
            return Err(invalid("a subscription needs a pattern or streams"));
        }
        let lease_ttl_ms = self.lease_ttl_ms.unwrap_or(LEASE_MS);
        if !(LEASE_MS_MIN..=LEASE_MS_MAX).contains(&lease_ttl_ms) {
            return Err(invalid("lease_ttl_ms must be a whole number from 1000 to 600000"));
        }
        if self.description.as_ref().is_some_and(|text| text.len() > DESCRIPTION_BYTES_MAX) {
            return Err(invalid("description must have at most 1024 bytes"));
        }
        let description = self.description;
        Ok(SubscriptionConfig { wake_by, pattern, streams, lease_ttl_ms, description })
    }
}

impl LinkBody {
    pub(super) fn streams(self) -> Result<Vec<String>, SubscriptionError> {
        if self.streams.is_empty() { Err(invalid("streams must not be empty")) } else { Ok(self.streams) }
    }
}

impl ClaimBody {
    pub(super) fn worker(self, bytes_max: usize) -> Result<String, SubscriptionError> {
        if self.worker.is_empty() || self.worker.len() > bytes_max {
            return Err(invalid("worker must have 1 to 256 bytes"));
        }
        Ok(self.worker)
    }
}

impl SettlementBody {
    /// The same with the names in the hub. `releases`: the worker ends its lease without acknowledging anything.
    pub(super) fn into_settlement(
        self,
        tenant: &Tenant,
        releases: bool,
    ) -> Result<Settlement, SubscriptionError> {
        if self.wake_id.len() > WAKE_ID_BYTES_MAX {
            return Err(SubscriptionError::Fenced);
        }
        let ack = |AckBody { stream, offset }| -> Result<_, SubscriptionError> {
            let unknown = || SubscriptionError::InvalidOffset {
                stream: stream.clone(),
                why: "the stream is not linked",
            };
            let name = StreamName::parse(stream.trim_matches('/')).map_err(|_| unknown())?;
            Ok((name.of_tenant(tenant), offset))
        };
        let acks =
            if releases { Vec::new() } else { self.acks.into_iter().map(ack).collect::<Result<_, _>>()? };
        let Self { wake_id, generation, done, .. } = Self { acks: Vec::new(), ..self };
        Ok(Settlement { wake_id, generation, acks, is_done: done || releases })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Result<SubscriptionConfig, SubscriptionError> {
        parse::<NewSubscription>(&Bytes::copy_from_slice(json.as_bytes()))?.into_config()
    }

    #[test]
    fn a_configuration_has_its_defaults_and_its_names_in_one_spelling() {
        let json = r#"{"type":"pull-wake","streams":["/b/","a","b"],"wake_stream":"/w","unknown":1}"#;
        let expected = SubscriptionConfig {
            wake_by: WakeBy::PullWake("w".to_owned()),
            pattern: None,
            streams: vec!["a".to_owned(), "b".to_owned()],
            lease_ttl_ms: 30_000,
            description: None,
        };
        assert_eq!(config(json), Ok(expected));
    }

    #[test]
    fn malformed_configurations_are_refused() {
        for json in [
            "",
            "[]",
            "{}",
            r#"{"type":"webhook","pattern":"a"}"#,
            r#"{"type":"webhook","pattern":"a","webhook":{"url":""}}"#,
            r#"{"type":"pull-wake","pattern":"a"}"#,
            r#"{"type":"other","pattern":"a","wake_stream":"w"}"#,
            r#"{"type":"pull-wake","wake_stream":"w"}"#,
            r#"{"type":"pull-wake","wake_stream":"w","pattern":"a//b"}"#,
            r#"{"type":"pull-wake","wake_stream":"w","streams":[1]}"#,
            r#"{"type":"pull-wake","wake_stream":"w","pattern":"a","lease_ttl_ms":999}"#,
            r#"{"type":"pull-wake","wake_stream":"w","pattern":"a","lease_ttl_ms":600001}"#,
            r#"{"type":"pull-wake","wake_stream":"w","pattern":"a","lease_ttl_ms":1.5}"#,
        ] {
            assert!(matches!(config(json), Err(SubscriptionError::Invalid(_))), "{json}");
        }
    }
}
