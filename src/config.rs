//! The settings and the command line. Settings come from four layers, of which a later one wins: defaults, a TOML file,
//! `POLLGATE_*` variables, command line. An unknown key is an error in each layer, except variables that Kubernetes and Docker
//! set for a service with the name of the gateway.

#[cfg(test)]
mod tests;

mod check;
mod command_line;
mod commands;
mod places;
mod size;
mod variables;
mod wake;

use std::net::SocketAddr;
use std::path::PathBuf;

use config::ConfigError;
use serde::{Deserialize, Serialize};

pub use crate::stream::SyncPolicy;
pub use command_line::ServeArgs;
pub use commands::{
    EngineArgs, EngineCommand, NamePattern, PatternArgs, StoreCommand, TokenCommand, UserCommand,
};
pub use places::{AccessLogPlace, EngineUrl, InvalidSync, MqttAddress, StorePlace};
pub use size::{InvalidSize, MemorySize};
pub use variables::InvalidVariable;
pub use wake::{WakeKind, WakeSettings};

use crate::limits::{Limits, Span};
use places::one_or_many;

/// The settings of the gateway: all layers merged and checked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Address for publishers and readers.
    pub listen: SocketAddr,
    /// Address of the admin listener.
    pub admin: SocketAddr,
    /// File with the secret that requests to the admin listener must send.
    pub admin_token_file: Option<PathBuf>,
    /// Address for MQTT clients.
    pub mqtt: MqttAddress,
    /// What happens to a refused message whose MQTT client cannot be told the reason.
    pub mqtt_refused: MqttRefused,
    /// Topic filters that MQTT clients may not subscribe to.
    pub mqtt_refuse_filter: Vec<String>,
    /// Host and port of the XMPP server whose component the gateway is. `None`: it is none.
    pub xmpp_component: Option<String>,
    /// Domain of the component.
    pub xmpp_component_name: Option<String>,
    /// File with the secret of the component.
    pub xmpp_component_secret_file: Option<PathBuf>,
    /// Domain of XMPP clients that connect to the gateway itself. `None`: there are none.
    pub xmpp_domain: Option<String>,
    /// Where messages are stored.
    pub store: StorePlace,
    /// Certificate authorities of an engine with TLS. `None`: those of the system.
    pub store_ca: Option<PathBuf>,
    /// File with the password of the engine.
    pub store_password_file: Option<PathBuf>,
    /// Name of this gateway among those that share a store. `None`: the name of the machine and the port.
    pub gateway_name: Option<String>,
    /// URL of the gateway whose streams this one serves. `None`: its own.
    pub upstream: Option<String>,
    /// File with the token that the upstream gateway requires.
    pub upstream_token_file: Option<PathBuf>,
    /// Folder with the tokens that the upstream gateway requires for the streams of each tenant.
    pub upstream_token_directory: Option<PathBuf>,
    /// File with authorities that are trusted in requests to the upstream gateway.
    pub upstream_ca: Option<PathBuf>,
    /// When appends to a store on disk are synced.
    pub sync: SyncPolicy,
    /// Opens a store on disk although records are damaged, and serves the rest.
    pub accept_damage: bool,
    /// Memory budget. `None`: half of the machine's memory or of the control group's limit.
    pub memory_max: Option<MemorySize>,
    /// Hold time of a long poll that requests none.
    pub hold: Span,
    /// Longest hold time that a long poll may request.
    pub hold_max: Span,
    /// Time from the signal to the hard stop.
    pub drain: Span,
    /// File with the keys or the settings of authorization. `None`: everybody may do everything.
    pub auth: Option<PathBuf>,
    /// Files with certificate chains of the listeners, which choose by the requested server name. None: no TLS.
    #[serde(deserialize_with = "one_or_many")]
    pub tls_certificate: Vec<PathBuf>,
    /// A file with the key of each certificate.
    #[serde(deserialize_with = "one_or_many")]
    pub tls_key: Vec<PathBuf>,
    /// File with the authorities of client certificates. `None`: clients are not asked for certificates.
    pub tls_client_ca: Option<PathBuf>,
    /// File with the client certificates that are revoked.
    pub tls_client_crl: Option<PathBuf>,
    /// Connections without a client certificate are refused.
    pub tls_client_required: bool,
    /// Addresses and networks of the proxies in front of the gateway.
    pub behind_proxy: Vec<String>,
    /// Connections begin with the PROXY protocol.
    pub proxy_protocol: bool,
    /// Allows addresses that other machines can reach.
    pub open: bool,
    /// Hosts that requests may be for, besides loopback names.
    pub host: Vec<String>,
    /// Origins whose pages may use the gateway, besides its own.
    pub origin: Vec<String>,
    /// URL under which workers reach the gateway. `None`: the listening address.
    pub public_url: Option<String>,
    /// Hosts, addresses and networks that are not public and to which clients may let the gateway send requests.
    pub outbound_allow: Vec<String>,
    /// File with authorities that are trusted in requests for clients.
    pub outbound_ca: Option<PathBuf>,
    /// Files with the keys of webhooks; the first one signs. None: the file in the directory of the store.
    #[serde(deserialize_with = "one_or_many")]
    pub webhook_key: Vec<PathBuf>,
    /// Without authorization, clients may create streams that are filled from an origin.
    pub poll_origins: bool,
    /// URL of the OpenTelemetry collector that traces of messages are sent to. `None`: messages are not traced.
    pub otlp: Option<String>,
    /// Part of the publishes without a trace context that is traced.
    pub otlp_ratio: f64,
    /// Log format.
    pub log: LogFormat,
    /// Where the access log is written.
    pub access_log: AccessLogPlace,
    /// File for the audit log.
    pub audit_log: Option<PathBuf>,
    /// Providers that wake devices, with the keys of one app each.
    pub wake: Vec<WakeSettings>,
    /// All limits.
    pub limits: Limits,
}

/// What happens to a refused message whose MQTT client cannot be told the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MqttRefused {
    /// The message is acknowledged and dropped.
    Drop,
    /// The connection of the client ends.
    Close,
}

/// A log format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Why the settings cannot be used. The texts are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A layer cannot be read, or has an unknown key or an invalid value.
    #[error(transparent)]
    Layer(#[from] ConfigError),
    /// A variable is unknown or invalid.
    #[error(transparent)]
    Variable(#[from] InvalidVariable),
    /// A `--limit` is not `NAME=VALUE`.
    #[error("--limit takes NAME=VALUE, not {0:?}")]
    Limit(String),
    /// The values contradict each other or the machine.
    #[error("{0}")]
    Value(String),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 4437)),
            admin: SocketAddr::from(([127, 0, 0, 1], 4438)),
            admin_token_file: None,
            mqtt: MqttAddress::At(SocketAddr::from(([127, 0, 0, 1], 1883))),
            mqtt_refused: MqttRefused::Drop,
            mqtt_refuse_filter: Vec::new(),
            xmpp_component: None,
            xmpp_component_name: None,
            xmpp_component_secret_file: None,
            xmpp_domain: None,
            store: StorePlace::Directory("pollgate-data".into()),
            store_ca: None,
            store_password_file: None,
            gateway_name: None,
            upstream: None,
            upstream_token_file: None,
            upstream_token_directory: None,
            upstream_ca: None,
            sync: SyncPolicy::Always,
            accept_damage: false,
            memory_max: None,
            hold: Span::seconds(25),
            hold_max: Span::seconds(55),
            drain: Span::seconds(30),
            auth: None,
            tls_certificate: Vec::new(),
            tls_key: Vec::new(),
            tls_client_ca: None,
            tls_client_crl: None,
            tls_client_required: false,
            behind_proxy: Vec::new(),
            proxy_protocol: false,
            open: false,
            host: Vec::new(),
            origin: Vec::new(),
            public_url: None,
            outbound_allow: Vec::new(),
            outbound_ca: None,
            webhook_key: Vec::new(),
            poll_origins: false,
            otlp: None,
            otlp_ratio: 1.0,
            log: LogFormat::Text,
            access_log: AccessLogPlace::Off,
            audit_log: None,
            wake: Vec::new(),
            limits: Limits::default(),
        }
    }
}
