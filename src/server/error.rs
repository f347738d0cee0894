//! [`BindError`]: why a server cannot start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::logs::LogError;
use super::outbound::OutboundSettingsError;
use super::tls_files::TlsError;
use super::wakes::WakeError;
use super::xmpp::XmppSettingsError;
use crate::auth::AuthError;
use crate::config::SettingsError;
use crate::http::{InvalidAccess, InvalidNetwork, RevocationLogError};
use crate::store::{EngineError, OpenError, UpstreamError};
use crate::stream::{Failure, InvalidFilter};

/// Why a server cannot start. The texts are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A host or an origin in the settings is invalid.
    #[error(transparent)]
    Access(#[from] InvalidAccess),
    /// A network of proxies is malformed.
    #[error(transparent)]
    Network(#[from] InvalidNetwork),
    /// A certificate, its key, or the authorities of client certificates cannot be used.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// The settings or keys of authorization cannot be used.
    #[error("auth: {0}")]
    Auth(#[from] AuthError),
    /// The token of the admin listener cannot be used.
    #[error("--admin-token-file: {0}")]
    AdminToken(AuthError),
    /// The stored revocations of tokens cannot be read.
    #[error("cannot read the revocations of tokens: {0}")]
    Revocations(#[from] RevocationLogError),
    /// A provider that wakes devices cannot be used.
    #[error(transparent)]
    Wake(#[from] WakeError),
    /// The XMPP front cannot be started.
    #[error(transparent)]
    Xmpp(#[from] XmppSettingsError),
    /// A filter that MQTT clients may not subscribe to is malformed.
    #[error("--mqtt-refuse-filter {0:?}: {1}")]
    Filter(String, InvalidFilter),
    /// The settings do not allow the addresses of listeners that were handed over.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The listeners that a service manager has handed over cannot be used.
    #[error("the sockets of the service manager cannot be used: {0}")]
    Inherited(io::Error),
    /// Listening on an address failed.
    #[error("cannot listen on {address} (--{option}): {error}{}", remedy(.error, .option))]
    Listen {
        /// The option that sets the address.
        option: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why it failed.
        error: io::Error,
    },
    /// The store cannot be opened.
    #[error("cannot open the store in {}: {error}", .directory.display())]
    Store {
        /// The directory of the store.
        directory: PathBuf,
        /// Why it cannot be opened.
        error: OpenError,
    },
    /// The engine of the store cannot be used.
    #[error("--store: {0}")]
    Engine(#[from] EngineError),
    /// The upstream gateway cannot be used.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The stored sessions cannot be read.
    #[error("cannot read the stored sessions: {0}")]
    Sessions(#[from] Failure),
    /// The settings of requests to other servers cannot be used.
    #[error(transparent)]
    Outbound(#[from] OutboundSettingsError),
    /// The file of a log cannot be opened.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// What the operator can do about an address on which listening failed.
fn remedy(error: &io::Error, option: &str) -> String {
    let other = match option {
        "mqtt" => {
            "choose another one with --mqtt ADDRESS, or serve no MQTT over TCP with --mqtt off".to_owned()
        }
        option => format!("choose another one with --{option} ADDRESS"),
    };
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("; another program has this address, perhaps another gateway; stop it, or {other}")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("; no network interface of this machine has this address; {other}")
        }
        io::ErrorKind::PermissionDenied => {
            format!("; ports below 1024 need the capability CAP_NET_BIND_SERVICE; grant it, or {other}")
        }
        _ => String::new(),
    }
}
