//! The `pollgate` command: settings, log, server, signals.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use pollgate::config::{Cli, LogFormat, Settings, StoreCommand, StorePlace, Task};
use pollgate::maintenance::{check_store, export_store, import_store};
use pollgate::server::{BindError, Server};
use pollgate::store::SyncPolicy;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Gives back what a crowd has left; `.cargo/config.toml` says how soon.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let task = match Cli::parse().task() {
        Ok(task) => task,
        Err(error) => return fail(&error),
    };
    start_log(match &task {
        Task::Serve(settings) => settings.log,
        Task::Store(_) => LogFormat::Text,
    });
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let outcome: Result<ExitCode, Box<dyn Error>> = runtime.block_on(async {
        Ok(match task {
            Task::Serve(settings) => serve(*settings).await?,
            Task::Store(StoreCommand::Check { directory }) => check_store(&directory)?,
            Task::Store(StoreCommand::Export { directory, file }) => {
                export_store(&directory, file.as_deref()).await?
            }
            Task::Store(StoreCommand::Import { directory, file }) => {
                import_store(&directory, file.as_deref()).await?
            }
        })
    });
    runtime.shutdown_timeout(Duration::ZERO);
    outcome.unwrap_or_else(|error| fail(&*error))
}

async fn serve(settings: Settings) -> Result<ExitCode, BindError> {
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

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
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

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("pollgate: {error}");
    ExitCode::FAILURE
}
