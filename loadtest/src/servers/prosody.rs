//! Prosody, an XMPP server in Lua: Debian's `prosody`, with BOSH and WebSocket on one port, and a publish-subscribe service.

use std::path::Path;

use super::process::Process;
use super::scratch::{Scratch, free_address};
use super::{Running, ServerError};
use crate::dialects::{Dialect, XMPP_SERVER};
use crate::target::Target;

/// Name in the report.
pub(super) const NAME: &str = "prosody";

const PROGRAM: &str = "/usr/bin/prosody";

/// Checks that it is installed.
pub(super) fn installed() -> Result<(), ServerError> {
    let missing = || ServerError::Missing(NAME.into(), "apt-get install prosody".into());
    Path::new(PROGRAM).is_file().then_some(()).ok_or_else(missing)
}

/// Starts it with messages in memory. Readers log in without credentials, and a user of another domain publishes.
pub(super) async fn start() -> Result<Running, ServerError> {
    installed()?;
    let address = free_address()?;
    let scratch = Scratch::new(NAME)?;
    let folder = scratch.path().display().to_string();
    let publishers = XMPP_SERVER.publishers.unwrap_or_default();
    // In the form in which it stores accounts.
    let accounts = scratch.path().join(publishers.replace('.', "%2e")).join("accounts");
    std::fs::create_dir_all(&accounts)
        .and_then(|()| {
            std::fs::write(accounts.join("publisher.dat"), "return { [\"password\"] = \"password\" };\n")
        })
        .map_err(|error| ServerError::Files(accounts.display().to_string(), error))?;
    let settings = format!(
        "daemonize = false\nrun_as_root = true\npidfile = \"{folder}/prosody.pid\"\ndata_path = \"{folder}\"\n\
         log = {{ {{ levels = {{ min = \"error\" }}, to = \"console\" }} }}\n\
         modules_enabled = {{ \"disco\", \"saslauth\", \"bosh\", \"websocket\" }}\n\
         modules_disabled = {{ \"s2s\", \"tls\", \"offline\" }}\n\
         c2s_ports = {{}}\nc2s_direct_tls_ports = {{}}\ns2s_ports = {{}}\ncomponent_ports = {{}}\nhttps_ports = {{}}\n\
         http_ports = {{ {} }}\nhttp_interfaces = {{ \"{}\" }}\n\
         http_paths = {{ bosh = \"{}\", websocket = \"{}\" }}\nhttp_default_host = \"{}\"\n\
         consider_bosh_secure = true\nconsider_websocket_secure = true\n\
         c2s_require_encryption = false\nallow_unencrypted_plain_auth = true\n\
         VirtualHost \"{}\"\n  authentication = \"anonymous\"\n\
         VirtualHost \"{publishers}\"\n  authentication = \"internal_plain\"\n\
         Component \"{}\" \"pubsub\"\n  admins = {{ \"publisher@{publishers}\" }}\n",
        address.port(),
        address.ip(),
        XMPP_SERVER.bosh,
        XMPP_SERVER.websocket,
        XMPP_SERVER.domain,
        XMPP_SERVER.domain,
        XMPP_SERVER.pubsub,
    );
    let file = scratch.write("prosody.cfg.lua", &settings)?;
    let mut process = Process::start(Path::new(PROGRAM), &["--config".to_owned(), file])?;
    process.listens(address).await?;
    let target = Target::of(address, Dialect::Xmpp);
    Ok(Running { _scratch: Some(scratch), ..Running::of(target, Some(process)) })
}
