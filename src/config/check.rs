//! Checks that the values of the settings fit each other and the machine.

use rustix::process::{Resource, getrlimit};

use super::{MqttAddress, Settings, SettingsError};

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

    pub(super) fn check(&self) -> Result<(), SettingsError> {
        self.limits.check().map_err(SettingsError::Value)?;
        self.check_descriptors(getrlimit(Resource::Nofile).current)?;
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
