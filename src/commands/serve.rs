//! `pollgate serve`: runs the gateway until a signal, says on standard output where it listens, and tells systemd (`sd_notify(3)`) that it is ready,
//! alive and stopping.

use std::error::Error;
use std::future::pending;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pollgate::config::{AccessLogPlace, Settings, StorePlace, SyncPolicy};
use pollgate::server::{Inherited, Server};
use sd_notify::{NotifyState, notify, watchdog_enabled};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

/// Runs the gateway until SIGTERM, SIGINT or a request of an operator, then drains it; a second signal ends it at once. SIGHUP opens the logs again.
pub(crate) async fn serve(settings: Settings) -> Result<ExitCode, Box<dyn Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Without a log, SIGHUP ends the gateway as it ends other programs, for example when its terminal closes.
    let has_log = settings.audit_log.is_some() || matches!(settings.access_log, AccessLogPlace::File(_));
    let mut hangup = if has_log { Some(signal(SignalKind::hangup())?) } else { None };
    let server = Server::bind_inherited(&settings, Inherited::take()?)?;
    // A closed standard output is not an error.
    let _unread = banner(&server, &settings);
    let stop = server.start().await?;
    let manager = ServiceManager::ready();
    let mut next_signal = async || {
        loop {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = interrupt.recv() => return,
                () = next(&mut hangup) => stop.reopen_logs(),
            }
        }
    };
    tokio::select! {
        () = next_signal() => {}
        () = stop.drain_requested() => {}
    }
    tracing::info!("draining; a second signal stops at once");
    manager.stopping();
    tokio::select! {
        () = stop.drain() => tracing::info!("drained"),
        () = next_signal() => tracing::warn!("stopped at once by a second signal"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits for a signal. Never completes if the process cannot receive it.
async fn next(received: &mut Option<Signal>) {
    match received {
        Some(received) => drop(received.recv().await),
        None => pending().await,
    }
}

fn banner(server: &Server, settings: &Settings) -> io::Result<()> {
    let (gateway, admin) = (server.gateway_address(), server.admin_address());
    let mut out = io::stdout().lock();
    let scheme = |has_tls| if has_tls { "https" } else { "http" };
    let has_tls = settings.has_tls();
    writeln!(out, "listening {}://{gateway}", scheme(has_tls))?;
    writeln!(out, "admin {}://{admin}", scheme(has_tls && !admin.ip().is_loopback()))?;
    if let Some(address) = server.mqtt_address() {
        writeln!(out, "mqtt {address}")?;
    }
    writeln!(out, "\n{}", hosts(gateway, settings))?;
    writeln!(out, "{}", pages(settings))?;
    writeln!(out, "uses at most {} MiB of memory (--memory-max)", server.memory_max() >> 20)?;
    match &settings.store {
        StorePlace::Memory => {
            let keeps = "a stream keeps at most a week and 64 MiB (less in a small budget), unless its creator or --limit \
                         sets another retention";
            writeln!(out, "messages are stored in memory and lost when this process ends; {keeps}. Try it:")?
        }
        StorePlace::Directory(directory) => {
            let survives = match settings.sync {
                SyncPolicy::Always => "acknowledged appends survive a power cut",
                SyncPolicy::Interval(_) | SyncPolicy::Never => {
                    "acknowledged appends survive a kill of the process"
                }
            };
            writeln!(out, "messages are stored in {}; {survives}. Try it:", directory.display())?;
        }
        StorePlace::Engine(url) => {
            let survives = "what they survive is in the log once the engine has answered";
            writeln!(
                out,
                "messages are stored in {url}, which other gateways may share; {survives}. Try it:"
            )?;
        }
    }
    let certificate = settings.tls_certificate.iter().map(PathBuf::as_path).next();
    examples(gateway, certificate, settings.auth.is_some())
        .iter()
        .try_for_each(|line| writeln!(out, "  {line}"))
}

/// The commands of the banner, with the scheme and the credentials that this gateway requires.
fn examples(gateway: SocketAddr, certificate: Option<&Path>, has_auth: bool) -> Vec<String> {
    let name = if gateway.ip().is_unspecified() { "localhost".into() } else { gateway.ip().to_string() };
    let name = if gateway.is_ipv6() && name != "localhost" { format!("[{name}]") } else { name };
    let (scheme, trust) = match certificate {
        Some(certificate) => ("https", format!(" --cacert {}", certificate.display())),
        None => ("http", String::new()),
    };
    let stream = format!("{scheme}://{name}:{}/v1/stream/hello", gateway.port());
    let mut lines = Vec::new();
    let mut curl = format!("curl{trust}");
    if has_auth {
        lines.push("TOKEN=...   # for example of `pollgate token --key-file FILE --create '#' --append '#' --read '#'`".into());
        curl.push_str(" -H \"Authorization: Bearer $TOKEN\"");
    }
    lines.push(format!("{curl} -X PUT -H 'Content-Type: application/json' {stream}"));
    lines.push(format!("{curl} -H 'Content-Type: application/json' -d '{{\"n\":1}}' {stream}"));
    lines.push(format!("{curl} -N '{stream}?offset=-1&live=sse'"));
    lines
}

/// The line of the banner about the hosts that requests may be for.
fn hosts(gateway: SocketAddr, settings: &Settings) -> String {
    let named = settings.host.join(", ");
    match (gateway.ip().is_loopback(), settings.host.is_empty()) {
        (true, true) => {
            "serves requests for localhost and loopback addresses only; --host NAME adds a name".into()
        }
        (false, true) => "serves requests for any host name; --host NAME allows only that name".into(),
        (_, false) => format!("serves requests for {named}, localhost and loopback addresses"),
    }
}

/// The line of the banner about the pages that may use the gateway.
fn pages(settings: &Settings) -> String {
    if settings.origin.is_empty() {
        "refuses pages of other origins; --origin https://app.example allows an origin".into()
    } else if settings.origin.iter().any(|origin| origin == "*") {
        "allows pages of any origin (--origin '*')".into()
    } else {
        format!("allows pages of {} and of no other origin", settings.origin.join(", "))
    }
}

/// The service manager that has started this process, if one has.
pub(crate) struct ServiceManager {
    /// Tells that the gateway is alive.
    watchdog: Option<JoinHandle<()>>,
}

impl ServiceManager {
    /// Reports that the gateway is ready. From then on a task reports that the process is alive, three times in the interval that the service
    /// manager allows. It stops reporting if the runtime runs no tasks.
    pub(crate) fn ready() -> Self {
        tell(&[NotifyState::Ready]);
        // A manager that hears nothing for the whole time ends the process.
        let watchdog = watchdog_enabled().map(|silence| {
            tokio::spawn(async move {
                let mut due = interval(silence / 3);
                due.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    due.tick().await;
                    tell(&[NotifyState::Watchdog]);
                }
            })
        });
        Self { watchdog }
    }

    /// Tells that the gateway drains, which is no failure.
    pub(crate) fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }
}

impl Drop for ServiceManager {
    fn drop(&mut self) {
        if let Some(watchdog) = &self.watchdog {
            watchdog.abort();
        }
    }
}

fn tell(states: &[NotifyState]) {
    if let Err(error) = notify(states) {
        tracing::warn!(%error, "the service manager cannot be told the state of the gateway");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::examples;

    #[test]
    fn the_commands_of_the_banner_have_the_scheme_and_the_credentials_of_the_gateway() {
        let open = examples("[::1]:4437".parse().unwrap(), None, false);
        assert_eq!(open.len(), 3);
        assert_eq!(open[2], "curl -N 'http://[::1]:4437/v1/stream/hello?offset=-1&live=sse'");
        let protected = examples("0.0.0.0:4437".parse().unwrap(), Some(Path::new("tls.pem")), true);
        assert_eq!(
            protected[3],
            "curl --cacert tls.pem -H \"Authorization: Bearer $TOKEN\" -N \
             'https://localhost:4437/v1/stream/hello?offset=-1&live=sse'"
        );
    }
}
