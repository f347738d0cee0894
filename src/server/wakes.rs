//! Makes the apps that wake devices from the settings `[[wake]]`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{WakeKind, WakeSettings};
use crate::http_client::{Trust, TrustError};
use crate::hub::{AppPolicy, CredentialKind};
use crate::limits::Span;
use crate::outbound::wake::{
    Adapter, Apns, ApnsIds, Fcm, Getui, Huawei, HuaweiVersion, InvalidKey, Jpush, ProviderKey, SendingApp,
    SmsContent, Smsc, SmscSettings, Tpns, WebPush, Webhook, Xiaomi,
};

/// Why an app cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("wake {name:?}: {why}")]
pub struct WakeError {
    name: String,
    why: WakeFault,
}

#[derive(Debug, thiserror::Error)]
enum WakeFault {
    #[error("this kind of provider needs {0}")]
    Missing(&'static str),
    #[error("cannot read {}: {error}", .path.display())]
    Read { path: PathBuf, error: std::io::Error },
    #[error("key_file: {0}")]
    Key(#[from] InvalidKey),
    #[error("ca_file: {0}")]
    Trust(#[from] TrustError),
    #[error("there are two apps with this name")]
    Same,
    #[error("{0}")]
    Value(&'static str),
}

/// The apps as the hub and the sender know them.
#[derive(Default)]
pub(super) struct WakeApps {
    pub(super) policies: Vec<AppPolicy>,
    pub(super) sending: HashMap<Arc<str>, SendingApp>,
}

/// The default budget of a kind: the mean time between two wakes of a device, wakes at once, and how long a wake is kept.
fn budget(kind: WakeKind, version: Option<u8>) -> (Duration, u32, Duration) {
    let (interval, burst, hours) = match (kind, version) {
        // One in three minutes beyond 20 at once, if messages can be collapsed.
        (WakeKind::Fcm, _) => (180, 20, 24),
        // Two or three background pushes an hour.
        (WakeKind::Apns, _) => (1200, 3, 24),
        (WakeKind::Huawei, Some(3)) => (1800, 2, 24),
        (WakeKind::Sms, _) => (3600, 1, 1),
        (WakeKind::Webhook, _) => (1, 10, 24),
        _ => (10, 5, 24),
    };
    (Duration::from_secs(interval), burst, Duration::from_secs(hours * 3600))
}

/// SMS cost money: at most so many to a device and for a tenant in 24 hours, unless the settings say otherwise.
const SMS_PER_DAY: u32 = 5;
const SMS_TENANT_PER_DAY: u64 = 1000;

impl WakeApps {
    /// Reads the files that the settings name.
    pub(super) fn read(settings: &[WakeSettings]) -> Result<Self, WakeError> {
        let mut apps = Self::default();
        for app in settings {
            apps.add(app).map_err(|why| WakeError { name: app.name.clone(), why })?;
        }
        Ok(apps)
    }

    fn add(&mut self, settings: &WakeSettings) -> Result<(), WakeFault> {
        let name: Arc<str> = settings.name.as_str().into();
        let (interval, burst, ttl) = budget(settings.kind, settings.version);
        let ttl = settings.ttl.map_or(ttl, Span::get);
        let is_sms = settings.kind == WakeKind::Sms;
        let (app, public_key) = if is_sms {
            (SendingApp::of_sms(message_centre(settings)?, ttl), None)
        } else {
            let adapter = adapter(settings)?;
            let public_key = adapter.public_key().map(Arc::from);
            (SendingApp::new(adapter, Trust::system(settings.ca_file.as_deref())?, ttl), public_key)
        };
        self.policies.push(AppPolicy {
            name: name.clone(),
            provider: settings.kind.as_str(),
            credential: match settings.kind {
                WakeKind::WebPush => CredentialKind::WebPush,
                WakeKind::Sms => CredentialKind::Phone,
                _ => CredentialKind::Token,
            },
            public_key,
            min_interval: settings.min_interval.map_or(interval, Span::get),
            burst: settings.burst.unwrap_or(burst).max(1),
            per_day: settings.per_day.or(is_sms.then_some(SMS_PER_DAY)),
            tenant_per_day: settings.tenant_per_day.or(is_sms.then_some(SMS_TENANT_PER_DAY)),
            prefixes: settings.prefixes.clone(),
            ttl,
        });
        let earlier = self.sending.insert(name, app);
        if earlier.is_some() { Err(WakeFault::Same) } else { Ok(()) }
    }
}

fn message_centre(settings: &WakeSettings) -> Result<Smsc, WakeFault> {
    let path = &settings.key_file;
    let password =
        std::fs::read_to_string(path).map_err(|error| WakeFault::Read { path: path.clone(), error })?;
    let needed = |value: &Option<String>, name| value.clone().ok_or(WakeFault::Missing(name));
    let content = match (&settings.text, settings.port) {
        (Some(text), None) => SmsContent::Text(text.clone()),
        (None, Some(port)) => SmsContent::Data(port),
        _ => return Err(WakeFault::Missing("either text or port")),
    };
    let smsc = Smsc::new(SmscSettings {
        address: needed(&settings.url, "url, HOST:PORT of the message centre")?,
        system_id: needed(&settings.id, "id, the system id")?,
        password: password.trim().to_owned(),
        source: needed(&settings.topic, "topic, the sender")?,
        content,
    });
    smsc.map_err(WakeFault::Value)
}

fn adapter(settings: &WakeSettings) -> Result<Box<dyn Adapter>, WakeFault> {
    let bytes = std::fs::read(&settings.key_file)
        .map_err(|error| WakeFault::Read { path: settings.key_file.clone(), error })?;
    let key = || ProviderKey::parse(&bytes);
    let secret = || {
        let text = std::str::from_utf8(&bytes).map(str::trim).unwrap_or_default();
        if text.is_empty() { Err(WakeFault::Value("key_file has no secret")) } else { Ok(text) }
    };
    let needed = |value: &Option<String>, name| value.clone().ok_or(WakeFault::Missing(name));
    let id = || needed(&settings.id, "id");
    let (base, token_url) = (settings.base_url.as_deref(), settings.token_url.as_deref());
    Ok(match settings.kind {
        WakeKind::WebPush => Box::new(WebPush::new(key()?, needed(&settings.contact, "contact")?)?),
        WakeKind::Fcm => Box::new(Fcm::new(&bytes, base, token_url)?),
        WakeKind::Apns => {
            let ids = ApnsIds {
                key_id: needed(&settings.key_id, "key_id")?,
                team_id: needed(&settings.account, "account, the id of the team")?,
                topic: needed(&settings.topic, "topic, the id of the bundle")?,
            };
            Box::new(Apns::new(key()?, ids, settings.sandbox, base)?)
        }
        WakeKind::Huawei if settings.version == Some(3) => {
            let pss = match settings.algorithm.as_deref() {
                None | Some("PS256") => true,
                Some("RS256") => false,
                Some(_) => return Err(WakeFault::Value("algorithm must be PS256 or RS256")),
            };
            let (key_id, sub_account) =
                (needed(&settings.key_id, "key_id")?, needed(&settings.account, "account")?);
            let version = HuaweiVersion::Account { key: Box::new(key()?), key_id, sub_account, pss };
            Box::new(Huawei::new(version, &id()?, false, base, token_url))
        }
        WakeKind::Huawei | WakeKind::Honor => {
            let version = settings.version.unwrap_or(1);
            if !(1..=2).contains(&version) {
                return Err(WakeFault::Value("version must be 1, 2 or 3, and 1 for Honor"));
            }
            // The client id, which has the secret; version 2 names the project in the URL.
            let client_id = settings.account.clone().map_or_else(id, Ok)?;
            let version = HuaweiVersion::Secret { version, client_id, client_secret: secret()?.to_owned() };
            Box::new(Huawei::new(version, &id()?, settings.kind == WakeKind::Honor, base, token_url))
        }
        WakeKind::Xiaomi => {
            let package = needed(&settings.topic, "topic, the name of the package")?;
            Box::new(Xiaomi::new(secret()?, package, settings.channel.clone(), base))
        }
        WakeKind::Jpush => Box::new(Jpush::new(&id()?, secret()?, !settings.sandbox, base)),
        WakeKind::Getui => {
            let app_key = needed(&settings.key_id, "key_id, the key of the app")?;
            Box::new(Getui::new(&id()?, app_key, secret()?.to_owned(), base))
        }
        WakeKind::Tpns => Box::new(Tpns::new(id()?, secret()?, settings.sandbox, base)),
        WakeKind::Webhook => Box::new(Webhook::new(needed(&settings.url, "url")?, secret()?)?),
        WakeKind::Sms => return Err(WakeFault::Value("SMS has no interface over HTTP")),
    })
}
