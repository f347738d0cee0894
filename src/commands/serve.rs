//! `pollgate serve`: runs the gateway until a signal, and says where it listens.

use std::io::Write;
use std::process::ExitCode;

use pollgate::config::{Settings, StorePlace};
use pollgate::server::{BindError, Server};
use pollgate::store::SyncPolicy;
use tokio::signal::unix::{SignalKind, signal};

/// Runs the gateway until SIGTERM or SIGINT, then drains it; a second signal ends it at once.
pub(crate) async fn serve(settings: Settings) -> Result<ExitCode, BindError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let server = Server::bind(&settings)?;
    // Whoever closed our output does not want to read it.
    let _unread = banner(&server, &settings);
    let mut next_signal = async || tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} };
    let stop = server.start();
    next_signal().await;
    tracing::info!("draining; a second signal ends at once");
    tokio::select! {
        () = stop.drain() => tracing::info!("drained"),
        () = next_signal() => tracing::warn!("ended at once by a second signal"),
    }
    Ok(ExitCode::SUCCESS)
}

fn banner(server: &Server, settings: &Settings) -> std::io::Result<()> {
    let (gateway, admin) = (server.gateway_address(), server.admin_address());
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening http://{gateway}")?;
    writeln!(out, "admin http://{admin}")?;
    if let Some(address) = server.mqtt_address() {
        writeln!(out, "mqtt {address}")?;
    }
    match &settings.store {
        StorePlace::Memory => {
            writeln!(out, "\nmessages are kept in memory, as long as this process lives. Try it:")?
        }
        StorePlace::Directory(directory) => {
            let survives = match settings.sync {
                SyncPolicy::Always => "what is acknowledged survives a power cut",
                SyncPolicy::Interval(_) | SyncPolicy::Never => "what is acknowledged survives a kill",
            };
            writeln!(out, "\nmessages are kept in {}; {survives}. Try it:", directory.display())?;
        }
    }
    writeln!(out, "  curl -X PUT -H 'Content-Type: application/json' http://{gateway}/v1/stream/hello")?;
    writeln!(
        out,
        "  curl -H 'Content-Type: application/json' -d '{{\"n\":1}}' http://{gateway}/v1/stream/hello"
    )?;
    writeln!(out, "  curl -N 'http://{gateway}/v1/stream/hello?offset=-1&live=sse'")
}
