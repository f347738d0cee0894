//! Checks settings that contradict each other or the machine.

use std::net::IpAddr;

use super::{MqttAddress, Settings, SettingsError};
use crate::platform::descriptors_max;

/// File descriptors for other things than client connections: listeners, files of the store, admin connections.
const OTHER_DESCRIPTORS: usize = 64;

impl Settings {
    /// Whether the listeners speak TLS.
    pub fn has_tls(&self) -> bool {
        !self.tls_certificate.is_empty()
    }

    /// Whether clients reach the gateway over TLS, its own or that of a proxy.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.has_tls() || !self.behind_proxy.is_empty()
    }

    /// Checks what one setting requires of another.
    pub(crate) fn check(&self) -> Result<(), SettingsError> {
        self.limits.check().map_err(SettingsError::Value)?;
        self.check_descriptors(descriptors_max())?;
        let (hold, hold_max) = (self.hold.get(), self.hold_max.get());
        if hold > hold_max {
            let text = format!("hold ({hold:?}) must not exceed hold_max ({hold_max:?})");
            return Err(SettingsError::Value(text));
        }
        let mqtt = match self.mqtt {
            MqttAddress::Off => None,
            MqttAddress::At(address) => Some(("mqtt", address)),
        };
        let (certificates, keys) = (self.tls_certificate.len(), self.tls_key.len());
        if certificates != keys {
            return Err(SettingsError::Value(format!(
                "each tls_certificate needs its tls_key; there are {certificates} certificates and {keys} keys"
            )));
        }
        let has_client_options = self.tls_client_crl.is_some() || self.tls_client_required;
        if self.tls_client_ca.is_some() && !self.has_tls()
            || has_client_options && self.tls_client_ca.is_none()
        {
            let text = "tls_client_ca needs tls_certificate; tls_client_crl and tls_client_required need tls_client_ca";
            return Err(SettingsError::Value(text.to_owned()));
        }
        if self.proxy_protocol && self.behind_proxy.is_empty() {
            return Err(SettingsError::Value(
                "proxy_protocol needs behind_proxy, the addresses of the proxies".to_owned(),
            ));
        }
        let upstream_options = [&self.upstream_token_file, &self.upstream_token_directory, &self.upstream_ca];
        if upstream_options.into_iter().any(Option::is_some) && self.upstream.is_none() {
            let text = "upstream_token_file, upstream_token_directory and upstream_ca need upstream, the URL of the gateway";
            return Err(SettingsError::Value(text.to_owned()));
        }
        if !(0.0..=1.0).contains(&self.otlp_ratio) {
            return Err(SettingsError::Value("otlp_ratio must be between 0 and 1".to_owned()));
        }
        self.check_component()?;
        let is_protected = |key| {
            let credentials = if key == "admin" { &self.admin_token_file } else { &self.auth };
            credentials.is_some() && self.is_encrypted()
        };
        for (key, address) in [("listen", self.listen), ("admin", self.admin)].into_iter().chain(mqtt) {
            if !address.ip().is_loopback() && !self.open && !is_protected(key) {
                let why = if key == "admin" {
                    "other machines can reach this address, and operators may do everything; --admin-token-file together with \
                     --tls-certificate (or --behind-proxy) protects it, --open allows it without"
                } else if self.auth.is_none() {
                    "other machines can reach this address, and everybody may do everything; --auth FILE checks tokens, --open \
                     allows it without"
                } else {
                    "other machines can reach this address, and tokens would cross the network unencrypted; --tls-certificate and \
                     --tls-key encrypt them, --behind-proxy names a proxy that does, --open allows it without"
                };
                return Err(SettingsError::Value(format!("{key} = {address}: {why}")));
            }
        }
        Ok(())
    }
}

impl Settings {
    /// Checks the options of the XMPP component: all or none are there, and neither rights nor stanzas are open to others unless
    /// that is meant.
    fn check_component(&self) -> Result<(), SettingsError> {
        let Some(address) = &self.xmpp_component else {
            return match (&self.xmpp_component_name, &self.xmpp_component_secret_file) {
                (None, None) => Ok(()),
                _ => Err(SettingsError::Value(
                    "xmpp_component_name and xmpp_component_secret_file need xmpp_component".to_owned(),
                )),
            };
        };
        let invalid = |why: &str| Err(SettingsError::Value(format!("xmpp_component = {address}: {why}")));
        if self.xmpp_component_name.is_none() || self.xmpp_component_secret_file.is_none() {
            return invalid("xmpp_component needs xmpp_component_name and xmpp_component_secret_file");
        }
        let host = match address.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                host.trim_matches(['[', ']'])
            }
            _ => return invalid("this is not HOST:PORT"),
        };
        let is_local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|host| host.is_loopback());
        if self.open {
            return Ok(());
        }
        if self.auth.is_none() {
            return invalid(
                "everybody whom the XMPP server lets send stanzas may do everything; --auth FILE has rules for XMPP addresses, \
                 --open allows it without",
            );
        }
        if !is_local {
            return invalid(
                "stanzas would cross the network unencrypted; let the XMPP server or a tunnel to it listen on a loopback address, \
                 or --open allows it",
            );
        }
        Ok(())
    }

    /// Checks that `connections_max` fits into the limit on file descriptors: otherwise `accept` fails once they are used up.
    pub(super) fn check_descriptors(&self, descriptors: Option<u64>) -> Result<(), SettingsError> {
        let (connections, other) = (self.limits.connections_max, OTHER_DESCRIPTORS);
        // The limit is for HTTP and for MQTT each.
        let fronts = if self.mqtt == MqttAddress::Off { 1 } else { 2 };
        let needed = connections.saturating_mul(fronts).saturating_add(other) as u64;
        match descriptors {
            Some(descriptors) if connections > 0 && needed > descriptors => {
                Err(SettingsError::Value(format!(
                    "limits.connections_max = {connections}, for HTTP and for MQTT each: the process may open {descriptors} file \
                     descriptors (ulimit -n, or LimitNOFILE= of systemd), and needs {other} of them for other things"
                )))
            }
            _ => Ok(()),
        }
    }
}
