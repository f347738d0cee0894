//! Push services and a message centre for SMS, as the gateway and its phones see them: what the gateway sends for a phone goes to
//! that phone at once. They run in this process, so that their own delay is none.

mod http;
mod phones;
mod smsc;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::servers::{Scratch, ServerError};

pub use phones::Channel;

/// The name of the app in the gateway's settings.
pub const APP: &str = "phones";

/// A key of the VAPID protocol, and keys of a browser. Nothing but these fakes accepts them.
const VAPID_KEY: &str = include_str!("providers/keys/web-push.pem");
const P256DH: &str =
    "BOm4xtq8a6XbY6xuajijprJCKMFLTt5Wv6thFB_F67wAHVEbdxrPUTQod5kLcc8CCSaHh_rxxMnWcAXVM-ikc84";
const AUTH: &str = "AAECAwQFBgcICQoLDA0ODw";

/// The key of a service account of Google.
const SERVICE_ACCOUNT_KEY: &str = include_str!("../../src/outbound/wake/test-keys/rsa.pem");

/// How a phone is woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Provider {
    /// Firebase Cloud Messaging.
    Fcm,
    /// Web Push.
    WebPush,
    /// SMS by SMPP 3.4.
    Sms,
}

/// Addresses of the fakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderTarget {
    /// Where the gateway sends wakes.
    pub gateway_side: SocketAddr,
    /// Where phones wait for them.
    pub phone_side: SocketAddr,
}

/// Running fakes. A drop ends them.
#[derive(Debug)]
pub struct Providers {
    /// Their addresses.
    pub target: ProviderTarget,
    _tasks: JoinSet<()>,
}

impl Providers {
    /// Starts the fakes of a provider.
    pub async fn start(provider: Provider) -> std::io::Result<Self> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (gateway_side, phone_side) = (TcpListener::bind(any).await?, TcpListener::bind(any).await?);
        let target =
            ProviderTarget { gateway_side: gateway_side.local_addr()?, phone_side: phone_side.local_addr()? };
        let phones = phones::Phones::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(phones::serve(phone_side, phones.clone()));
        match provider {
            Provider::Sms => tasks.spawn(smsc::serve(gateway_side, phones)),
            Provider::Fcm | Provider::WebPush => tasks.spawn(http::serve(gateway_side, phones)),
        };
        Ok(Self { target, _tasks: tasks })
    }
}

impl Provider {
    /// Writes the gateway's settings for this provider into a folder. Returns the arguments that use them.
    ///
    /// The budgets of a device are lifted: the fakes have none, and a run is shorter than what they are made for.
    pub(crate) fn settings(
        self,
        target: &ProviderTarget,
        folder: &Scratch,
    ) -> Result<[String; 4], ServerError> {
        let at = target.gateway_side;
        let (kind, key, further) = match self {
            Self::Fcm => {
                let account = json!({
                    "project_id": "loadtest",
                    "client_email": "loadtest@gate.example",
                    "private_key": SERVICE_ACCOUNT_KEY,
                });
                let urls = format!("base_url = \"http://{at}\"\ntoken_url = \"http://{at}/token\"\n");
                ("fcm", account.to_string(), urls)
            }
            Self::WebPush => {
                ("web-push", VAPID_KEY.to_owned(), "contact = \"mailto:ops@gate.example\"\n".to_owned())
            }
            Self::Sms => {
                let text = "text = \"news: {wake}\"\nprefixes = [\"+31\"]\n";
                let limits = "per_day = 1000000\ntenant_per_day = 1000000000\n";
                let link = format!("url = \"{at}\"\nid = \"loadtest\"\ntopic = \"POLL\"\n{text}{limits}");
                ("sms", "password".to_owned(), link)
            }
        };
        let key = folder.write("wakes.key", &key)?;
        let text = format!(
            "[[wake]]\nname = \"{APP}\"\nkind = \"{kind}\"\nkey_file = {key:?}\nmin_interval = \"0s\"\n{further}"
        );
        let config = folder.write("wakes.toml", &text)?;
        Ok(["--config".to_owned(), config, "--outbound-allow".to_owned(), "127.0.0.1".to_owned()])
    }

    /// Returns what the provider knows a phone by.
    pub fn address_of(self, phone: u32) -> String {
        match self {
            Self::Fcm | Self::WebPush => format!("phone-{phone}"),
            // As SMPP writes an international number.
            Self::Sms => format!("316{phone:08}"),
        }
    }

    /// Returns the credential that a phone registers at the gateway.
    pub fn credential(self, target: &ProviderTarget, phone: u32) -> Value {
        let address = self.address_of(phone);
        match self {
            Self::Fcm => json!(address),
            Self::WebPush => json!({
                "endpoint": format!("http://{}/push/{address}", target.gateway_side),
                "keys": {"p256dh": P256DH, "auth": AUTH},
            }),
            Self::Sms => json!(format!("+{address}")),
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fcm => "push:fcm",
            Self::WebPush => "push:web",
            Self::Sms => "sms",
        })
    }
}
