//! The gateway, as a separate process on free ports.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use super::certificate::Certificate;
use super::process::Process;
use super::scratch::Scratch;
use super::{Running, ServerError, Storage};
use crate::dialects::Dialect;
use crate::providers::Providers;
use crate::strategies::Strategy;
use crate::target::Target;
use crate::wire::Transport;

/// Name in the report and of the program.
pub(super) const NAME: &str = "pollgate";

/// Any free port.
const ANY: &str = "127.0.0.1:0";

/// The gateway's default of `--hold-max`.
const HOLD_MAX_SECONDS: u64 = 55;

/// Returns the program beside this one if it is newer than its sources; otherwise cargo builds it in the same target folder, so
/// that no outdated program is measured.
pub(super) fn program() -> Result<PathBuf, ServerError> {
    let own = std::env::current_exe().map_err(|error| ServerError::Build(error.to_string()))?;
    program_beside(&own)
}

/// Like [`program`], for another program of the same target folder.
pub(super) fn program_beside(own: &Path) -> Result<PathBuf, ServerError> {
    let beside = own.with_file_name(NAME);
    if is_newer_than_sources(&beside) {
        return Ok(beside);
    }
    let target = own.ancestors().nth(2).ok_or_else(|| ServerError::Build("no target folder".into()))?;
    eprintln!("the gateway is missing or older than its sources: cargo build --release -p {NAME}");
    let mut cargo = Command::new("cargo");
    cargo
        .args(["build", "--release", "-p", NAME, "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    match cargo.status() {
        Ok(status) if status.success() => Ok(target.join("release").join(NAME)),
        Ok(status) => Err(ServerError::Build(format!("cargo: {status}"))),
        Err(error) => Err(ServerError::Build(format!("cargo: {error}"))),
    }
}

/// Whether the program exists and was built after the last change of its sources.
fn is_newer_than_sources(program: &Path) -> bool {
    let Some(built) = changed(program) else { return false };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("");
    let mut next = ["Cargo.toml", "Cargo.lock", "src"].map(|name| root.join(name)).to_vec();
    while let Some(path) = next.pop() {
        if let Ok(entries) = std::fs::read_dir(&path) {
            next.extend(entries.flatten().map(|entry| entry.path()));
        } else if changed(&path).is_some_and(|changed| changed > built) {
            return false;
        }
    }
    true
}

fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}

/// Starts it and reads its addresses from its banner.
pub(super) async fn start(
    program: &Path,
    listen: Option<SocketAddr>,
    over: Transport,
    strategy: Strategy,
    storage: &Storage,
) -> Result<Running, ServerError> {
    let listen = listen.map_or(ANY.to_owned(), |address| address.to_string());
    let mut arguments = ["--listen", &listen, "--admin", ANY, "--mqtt", ANY].map(str::to_owned).to_vec();
    // All clients of a run connect at the same time, and connecting is not measured.
    arguments.extend(["--limit".to_owned(), "connections_per_second_max=100000".to_owned()]);
    let scratch = match storage {
        Storage::Engine(url, _) => {
            arguments.extend(["--store".to_owned(), url.clone()]);
            None
        }
        Storage::Memory => {
            arguments.extend(["--store", "memory"].map(str::to_owned));
            None
        }
        Storage::Disk(folder) => {
            let scratch = Scratch::within(folder, NAME)?;
            let own = scratch.path().display().to_string();
            arguments.extend(["--store", &own, "--sync", "always"].map(str::to_owned));
            Some(scratch)
        }
    };
    if let Strategy::LongPoll(hold) = strategy
        && hold.as_secs() > HOLD_MAX_SECONDS
    {
        arguments.extend(["--hold-max".to_owned(), format!("{}s", hold.as_secs())]);
    }
    if let (Strategy::XmppWebSocket | Strategy::XmppBosh, Some(service)) =
        (strategy, Dialect::DurableStreams.xmpp())
    {
        arguments.extend(["--xmpp-domain", service.domain].map(str::to_owned));
        arguments.extend(["--limit", "bosh_sessions_per_address_max=100000"].map(str::to_owned));
    }
    let certificate = if over.has_tls() { Some(Certificate::new()?) } else { None };
    if let Some(Certificate { certificate, key, .. }) = &certificate {
        arguments.extend(["--tls-certificate", certificate, "--tls-key", key].map(str::to_owned));
    }
    let (providers, settings) = match strategy {
        Strategy::Wake(provider) => {
            let providers = Providers::start(provider)
                .await
                .map_err(|error| ServerError::Files("the fake of a push service".into(), error))?;
            let folder = Scratch::new(NAME)?;
            arguments.extend(provider.settings(&providers.target, &folder)?);
            (Some(providers), Some(folder))
        }
        _ => (None, None),
    };
    let mut running = Running { _scratch: scratch, ..launch(program, &arguments).await? };
    // The gateway has read its settings.
    drop(settings);
    running.target.transport = over;
    running.target.certificate =
        certificate.as_ref().map(|certificate| certificate.der.clone()).unwrap_or_default();
    running._certificate = certificate;
    running.target.providers = providers.as_ref().map(|providers| providers.target);
    running._providers = providers;
    if matches!(strategy, Strategy::Mqtt(_)) && running.target.mqtt.is_none() {
        return Err(ServerError::Unsupported(NAME.into(), strategy, "its banner names no mqtt address"));
    }
    Ok(running)
}

/// Starts it with additional settings, on free ports and with messages in memory. A `--listen` among the settings replaces that of loopback.
pub(super) async fn start_with(program: &Path, settings: &[String]) -> Result<Running, ServerError> {
    let mut own = ["--admin", ANY, "--mqtt", ANY, "--store", "memory"].map(str::to_owned).to_vec();
    if !settings.iter().any(|setting| setting == "--listen") {
        own.extend(["--listen", ANY].map(str::to_owned));
    }
    launch(program, &[&own[..], settings].concat()).await
}

async fn launch(program: &Path, arguments: &[String]) -> Result<Running, ServerError> {
    let mut process = Process::start(program, arguments)?;
    let (mut address, mut admin, mut mqtt) = (None, None, None);
    loop {
        let line = process.line().await?;
        let listening = line.strip_prefix("listening http://");
        if let Some(http) = listening.or_else(|| line.strip_prefix("listening https://")) {
            address = http.parse().ok();
        } else if let Some(operators) = line.strip_prefix("admin http://") {
            admin = operators.parse().ok();
        } else if let Some(broker) = line.strip_prefix("mqtt ") {
            mqtt = broker.parse().ok();
        } else if line.is_empty() {
            break;
        }
    }
    let address = address.ok_or_else(|| ServerError::Mute(NAME.into()))?;
    let target = Target { mqtt, ..Target::of(address, Dialect::DurableStreams) };
    Ok(Running { admin, ..Running::of(target, Some(process)) })
}
