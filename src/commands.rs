//! The commands of `pollgate`: `serve` runs the gateway until a signal, `store` checks, exports and imports a store on disk. What
//! they print, and the codes they exit with.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pollgate::config::{Settings, StoreCommand, StorePlace};
use pollgate::maintenance::OfflineStore;
use pollgate::server::{BindError, Server};
use pollgate::store::{Checked, check};
use pollgate::stream::SyncPolicy;
use tokio::signal::unix::{SignalKind, signal};

/// Runs the gateway until SIGTERM or SIGINT, then drains it; a second signal ends it at once.
pub(crate) async fn serve(settings: Settings) -> Result<ExitCode, BindError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let server = Server::bind(&settings)?;
    // A closed standard output is not an error: its reader wants no more.
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

fn banner(server: &Server, settings: &Settings) -> io::Result<()> {
    let (gateway, admin) = (server.gateway_address(), server.admin_address());
    let mut out = io::stdout().lock();
    writeln!(out, "listening http://{gateway}")?;
    writeln!(out, "admin http://{admin}")?;
    if let Some(address) = server.mqtt_address() {
        writeln!(out, "mqtt {address}")?;
    }
    writeln!(out, "\n{}", hosts(gateway, settings))?;
    writeln!(out, "{}", pages(settings))?;
    writeln!(out, "takes at most {} MiB of memory (--memory-max)", server.memory_max() >> 20)?;
    match &settings.store {
        StorePlace::Memory => {
            let keeps = "a stream keeps 64 MiB (less in a small budget) and a week, unless its creator or --limit says otherwise";
            writeln!(out, "messages are kept in memory, as long as this process lives; {keeps}. Try it:")?
        }
        StorePlace::Directory(directory) => {
            let survives = match settings.sync {
                SyncPolicy::Always => "what is acknowledged survives a power cut",
                SyncPolicy::Interval(_) | SyncPolicy::Never => "what is acknowledged survives a kill",
            };
            writeln!(out, "messages are kept in {}; {survives}. Try it:", directory.display())?;
        }
    }
    writeln!(out, "  curl -X PUT -H 'Content-Type: application/json' http://{gateway}/v1/stream/hello")?;
    writeln!(
        out,
        "  curl -H 'Content-Type: application/json' -d '{{\"n\":1}}' http://{gateway}/v1/stream/hello"
    )?;
    writeln!(out, "  curl -N 'http://{gateway}/v1/stream/hello?offset=-1&live=sse'")
}

/// Which hosts requests may be for.
fn hosts(gateway: SocketAddr, settings: &Settings) -> String {
    let named = settings.host.join(", ");
    match (gateway.ip().is_loopback(), settings.host.is_empty()) {
        (true, true) => {
            "answers for localhost and loopback addresses alone; --host NAME adds another name".into()
        }
        (false, true) => "answers for any host name; --host NAME restricts it to that one".into(),
        (_, false) => format!("answers for {named}, localhost and loopback addresses"),
    }
}

/// Which pages may use the gateway.
fn pages(settings: &Settings) -> String {
    if settings.origin.is_empty() {
        "pages of other origins are refused; --origin https://app.example allows those of one".into()
    } else if settings.origin.iter().any(|origin| origin == "*") {
        "pages of any origin may use it (--origin '*')".into()
    } else {
        format!("pages of {} may use it, and of no other origin", settings.origin.join(", "))
    }
}

/// Runs the command. The exit code is a failure if `check` finds damage.
pub(crate) async fn store(command: StoreCommand) -> Result<ExitCode, Box<dyn Error>> {
    match command {
        StoreCommand::Check { directory } => Ok(print_check(&check(&directory)?)?),
        StoreCommand::Export { directory, accept_damage, file } => {
            export(&directory, accept_damage, file).await
        }
        StoreCommand::Import { directory, file } => import(&directory, file).await,
    }
}

fn print_check(checked: &Checked) -> io::Result<ExitCode> {
    let Checked { streams, records, messages, bytes, files, damage, lost, torn } = checked;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{streams} streams, {messages} messages, {records} records, {bytes} bytes in {files} files"
    )?;
    for (what, lines) in [("cut off in the middle of a write", torn), ("damaged", damage), ("lost", lost)] {
        for line in lines {
            writeln!(out, "{what}: {line}")?;
        }
    }
    if damage.is_empty() && torn.is_empty() {
        writeln!(out, "all records are whole")?;
        return Ok(ExitCode::SUCCESS);
    }
    if damage.is_empty() {
        writeln!(out, "no acknowledged message is lost if the store syncs always")?;
    } else {
        writeln!(out, "all other records are whole; the gateway serves them with --accept-damage")?;
    }
    Ok(ExitCode::FAILURE)
}

/// To a new file, or to standard output.
async fn export(
    directory: &Path,
    accept_damage: bool,
    file: Option<PathBuf>,
) -> Result<ExitCode, Box<dyn Error>> {
    let store = OfflineStore::open(directory, accept_damage)?;
    let mut out: Box<dyn Write> = match file {
        Some(file) => Box::new(BufWriter::new(private_file(&file)?)),
        None => Box::new(BufWriter::new(io::stdout())),
    };
    let exported = store.export(&mut out).await?;
    store.close().await;
    eprintln!("exported {} streams, {} messages", exported.streams, exported.messages);
    Ok(ExitCode::SUCCESS)
}

/// A new file that its owner alone can read, as messages may be confidential.
fn private_file(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

/// From a file, or from standard input.
async fn import(directory: &Path, file: Option<PathBuf>) -> Result<ExitCode, Box<dyn Error>> {
    let store = OfflineStore::open(directory, false)?;
    let lines: Box<dyn BufRead> = match file {
        Some(file) => Box::new(BufReader::new(File::open(file)?)),
        None => Box::new(BufReader::new(io::stdin())),
    };
    let imported = store.import(lines).await;
    store.close().await;
    let imported = imported?;
    eprintln!("imported {} streams, {} messages", imported.streams, imported.messages);
    Ok(ExitCode::SUCCESS)
}
