//! The layer of `POLLGATE_*` variables. Each option of the command line has a variable of its name, `POLLGATE_HOLD_MAX` for
//! `--hold-max`, and each limit has `POLLGATE_LIMITS__NAME`. Any other `POLLGATE_*` variable is an error, so that a mistyped name
//! is noticed, unless Kubernetes or Docker sets it.

use std::ffi::OsString;

use config::{Environment, Map};

use crate::limits::Limits;

const PREFIX: &str = "POLLGATE_";

/// The prefix of the variables of limits, behind [`PREFIX`].
const LIMITS: &str = "limits__";

/// Why the variables cannot be used. The texts are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum InvalidVariable {
    /// The variable has the prefix of the gateway, and no option or limit has its name.
    #[error(
        "no option or limit has the variable {0}; `pollgate --help` lists the options (POLLGATE_HOLD_MAX is --hold-max) and the \
         limits (POLLGATE_LIMITS__HEADERS_MAX)"
    )]
    Unknown(String),
    /// The value is not UTF-8.
    #[error("the value of the variable {0} is not UTF-8")]
    NotUtf8(String),
}

/// Variables of the commands that are clients, which the gateway itself ignores.
const OF_CLIENTS: [&str; 2] = ["url", "token"];

/// The variables of the gateway.
#[derive(Debug, Default)]
pub(super) struct Variables {
    /// `POLLGATE_CONFIG`, which names the file of another layer.
    pub(super) config: Option<String>,
    /// `POLLGATE_LIMIT`, limits as `--limit` takes them.
    pub(super) limits: Vec<String>,
    /// All other variables.
    pub(super) layer: Environment,
}

impl Variables {
    /// Selects the variables of the gateway from all variables of the process. `options` are the names of the options, without
    /// dashes at the beginning.
    pub(super) fn of(
        all: impl Iterator<Item = (OsString, OsString)>,
        options: &[String],
    ) -> Result<Self, InvalidVariable> {
        let (mut known, mut variables) = (Map::new(), Self::default());
        for (name, value) in all {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
            let Some(value) = value.to_str() else {
                return Err(InvalidVariable::NotUtf8(name.to_owned()));
            };
            let key = name.trim_start_matches(PREFIX).to_ascii_lowercase();
            match key.as_str() {
                "config" => variables.config = Some(value.to_owned()),
                "limit" => variables.limits = listed(value),
                _ if is_setting(&key, options) => drop(known.insert(name.to_owned(), value.to_owned())),
                _ if OF_CLIENTS.contains(&key.as_str()) || is_of_orchestrator(&key, value) => {}
                _ => return Err(InvalidVariable::Unknown(name.to_owned())),
            }
        }
        let layer = Environment::with_prefix("POLLGATE").prefix_separator("_").separator("__");
        let layer = layer.try_parsing(true).list_separator(",");
        let layer = layer.with_list_parse_key("host").with_list_parse_key("origin");
        let layer = layer.with_list_parse_key("mqtt_refuse_filter").with_list_parse_key("behind_proxy");
        let layer = layer.with_list_parse_key("outbound_allow").with_list_parse_key("webhook_key");
        let layer = layer.with_list_parse_key("tls_certificate").with_list_parse_key("tls_key");
        let layer = layer.with_list_parse_key("outbound_allow");
        Ok(Self { layer: layer.source(Some(known)), ..variables })
    }
}

/// The items of a list whose items commas separate.
fn listed(value: &str) -> Vec<String> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

/// Whether an option or a limit has this key.
fn is_setting(key: &str, options: &[String]) -> bool {
    match key.strip_prefix(LIMITS) {
        Some(limit) => Limits::list().iter().any(|listed| listed.name == limit),
        None => options.iter().any(|name| name.replace('-', "_") == key),
    }
}

/// Whether Kubernetes or Docker sets this variable for a service whose name is `pollgate` or begins with `pollgate-`: Kubernetes
/// does for each service of a namespace, Docker for each link of a container (`docker run --link`).
fn is_of_orchestrator(key: &str, value: &str) -> bool {
    let is_url = |value: &str| ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let words: Vec<&str> = key.split('_').collect();
    let is_number = |word: &&str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let has_port = words.windows(3).any(|three| match three {
        ["port", number, protocol] => is_number(number) && ["tcp", "udp", "sctp"].contains(protocol),
        _ => false,
    });
    let is_of_service = words.windows(2).any(|two| matches!(two, ["service", "host" | "port"]));
    let is_port = words.last() == Some(&"port") && is_url(value);
    let is_link_name = words.last() == Some(&"name") && value.starts_with('/');
    let is_of_link = words.windows(2).any(|two| matches!(two, ["env", _]));
    has_port || is_of_service || is_port || is_link_name || is_of_link
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::command_line::option_names;

    fn of(variables: &[(&str, &str)]) -> Result<Variables, String> {
        let all = variables.iter().map(|(name, value)| (name.into(), value.into()));
        Variables::of(all, &option_names()).map_err(|error| error.to_string())
    }

    #[test]
    fn variables_that_kubernetes_and_docker_inject_do_not_matter() {
        for (name, value) in [
            ("POLLGATE_SERVICE_HOST", "10.96.0.12"),
            ("POLLGATE_SERVICE_PORT", "4437"),
            ("POLLGATE_SERVICE_PORT_HTTP", "4437"),
            ("POLLGATE_PORT", "tcp://10.96.0.12:4437"),
            ("POLLGATE_PORT_4437_TCP", "tcp://10.96.0.12:4437"),
            ("POLLGATE_PORT_4437_TCP_PROTO", "tcp"),
            ("POLLGATE_PORT_4437_TCP_PORT", "4437"),
            ("POLLGATE_PORT_4437_TCP_ADDR", "10.96.0.12"),
            ("POLLGATE_PORT_4437_UDP_ADDR", "10.96.0.12"),
            ("POLLGATE_MQTT_SERVICE_HOST", "10.96.0.13"),
            ("POLLGATE_MQTT_SERVICE_PORT_MQTT", "1883"),
            ("POLLGATE_MQTT_PORT", "tcp://10.96.0.13:1883"),
            ("POLLGATE_MQTT_PORT_1883_TCP_ADDR", "10.96.0.13"),
            ("POLLGATE_ADMIN_PORT", "tcp://10.96.0.14:4438"),
            ("POLLGATE_NAME", "/web/pollgate"),
            ("POLLGATE_ENV_LANG", "C.UTF-8"),
            ("PATH", "/bin"),
        ] {
            assert!(of(&[(name, value)]).is_ok(), "{name}={value}");
        }
    }

    #[test]
    fn a_mistyped_name_is_an_error_that_names_the_variable() {
        for (name, value) in [
            ("POLLGATE_HOLT", "1s"),
            ("POLLGATE_PORT", "4437"),
            ("POLLGATE_MQTT_PORT", "1883"),
            ("POLLGATE_LISTEN_PORT", "4437"),
            ("POLLGATE_LIMITS__NOSUCH", "1"),
            ("POLLGATE_LIMITS_HEADERS_MAX", "1"),
            ("POLLGATE_NAME", "web"),
            ("POLLGATE_", "1"),
        ] {
            let error = of(&[(name, value)]).unwrap_err();
            assert!(error.contains(name) && error.contains("--help"), "{name}: {error}");
        }
    }

    #[test]
    fn no_setting_looks_like_a_variable_of_an_orchestrator() {
        let limits = Limits::list().into_iter().map(|limit| format!("{LIMITS}{}", limit.name));
        for key in option_names().into_iter().map(|name| name.replace('-', "_")).chain(limits) {
            assert!(
                is_setting(&key, &option_names()) || ["config", "limit"].contains(&key.as_str()),
                "{key}"
            );
            assert!(!is_of_orchestrator(&key, "tcp://10.96.0.12:4437"), "{key}");
        }
    }
}
