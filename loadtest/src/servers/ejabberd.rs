//! ejabberd, an XMPP server in Erlang: Debian's `ejabberd`, with BOSH and WebSocket on one port, and a publish-subscribe service.

use std::path::Path;

use serde_json::json;

use super::process::Process;
use super::scratch::{Scratch, free_address};
use super::{Running, ServerError};
use crate::dialects::{Dialect, XMPP_SERVER};
use crate::target::Target;

/// Name in the report.
pub(super) const NAME: &str = "ejabberd";

const INSTALLED: &str = "/usr/sbin/ejabberdctl";

/// Sets the environment of a program.
const ENV: &str = "/usr/bin/env";

/// Where Debian has its libraries.
const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu:/usr/lib/aarch64-linux-gnu";

/// Checks that it is installed.
pub(super) fn installed() -> Result<(), ServerError> {
    let missing = || ServerError::Missing(NAME.into(), "apt-get install ejabberd".into());
    Path::new(INSTALLED).is_file().then_some(()).ok_or_else(missing)
}

/// Starts it with messages in memory. Readers log in without credentials, and a user of another domain publishes.
pub(super) async fn start() -> Result<Running, ServerError> {
    installed()?;
    let address = free_address()?;
    let scratch = Scratch::new(NAME)?;
    let folder = scratch.path().display().to_string();
    let publishers = XMPP_SERVER.publishers.unwrap_or_default();
    let handlers = json!({XMPP_SERVER.bosh: "mod_bosh", XMPP_SERVER.websocket: "ejabberd_http_ws"});
    let pubsub = json!({
        "host": XMPP_SERVER.pubsub, "access_createnode": "publishers", "plugins": ["flat"],
        "ignore_pep_from_offline": true, "last_item_cache": false, "max_items_node": 10,
    });
    let settings = json!({
        "hosts": [XMPP_SERVER.domain, publishers],
        "loglevel": "error",
        "listen": [{
            "port": address.port(), "ip": address.ip().to_string(), "module": "ejabberd_http",
            "request_handlers": handlers, "backlog": 4096,
        }],
        "acl": {"publishers": {"user": format!("publisher@{publishers}")}},
        "access_rules": {"publishers": {"allow": "publishers"}},
        "modules": {"mod_disco": {}, "mod_bosh": {}},
        "host_config": {
            XMPP_SERVER.domain: {"auth_method": ["anonymous"], "anonymous_protocol": "sasl_anon"},
            publishers: {"auth_method": ["internal"]},
        },
        "append_host_config": {XMPP_SERVER.domain: {"modules": {"mod_pubsub": pubsub}}},
    });
    // JSON is YAML.
    let file = scratch.write("ejabberd.yml", &settings.to_string())?;
    let evaluated = [
        "{ok, _} = application:ensure_all_started(ejabberd)".to_owned(),
        format!("ejabberd_auth:try_register(<<\"publisher\">>, <<\"{publishers}\">>, <<\"password\">>)"),
        "io:format(\"ready~n\")".to_owned(),
    ];
    let environment = [
        format!("ERL_LIBS={LIBRARIES}"),
        format!("HOME={folder}"),
        format!("EJABBERD_CONFIG_PATH={file}"),
        format!("EJABBERD_LOG_PATH={folder}/ejabberd.log"),
    ];
    // Idle schedulers do not spin.
    let erlang = ["erl", "-noinput", "+sbwt", "none", "-mnesia", "dir"].map(str::to_owned);
    let evaluated = evaluated.into_iter().flat_map(|code| ["-eval".to_owned(), code]);
    let arguments: Vec<_> = environment
        .into_iter()
        .chain(erlang)
        .chain([format!("\"{folder}/data\"")])
        .chain(evaluated)
        .collect();
    let mut process = Process::start(Path::new(ENV), &arguments)?;
    // It listens before its user exists.
    while process.line().await? != "ready" {}
    let target = Target::of(address, Dialect::Xmpp);
    Ok(Running { _scratch: Some(scratch), ..Running::of(target, Some(process)) })
}
