//! The subcommands of `pollgate`, what they print, and their exit codes: `serve` runs the gateway until a signal, `store`
//! checks, exports and imports a store on disk, `limits` lists all limits.

mod bench;
mod gateway;
mod lines;
mod position;
mod publish;
mod service_manager;
mod shell;
mod streams;
mod subscribe;

use std::error::Error;
use std::fmt::Display;
use std::fs::File;
use std::future::pending;
use std::io::{self, BufRead, BufReader, BufWriter, Seek, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pollgate::config::{
    AccessLogPlace, ClientTask, EngineCommand, PatternArgs, Settings, StoreCommand, StorePlace, SyncPolicy,
    TokenCommand, UserCommand,
};
use pollgate::limits::{Limit, Limits};
use pollgate::maintenance::{Checked, EngineAccess, MaintenanceError, OfflineStore, check, check_export};
use pollgate::server::{Inherited, Server};
use pollgate::tokens::{NewUser, Patterns, generate_key, sign, user_settings};
use tokio::signal::unix::{Signal, SignalKind, signal};

use service_manager::ServiceManager;
pub(crate) use shell::{completions, man};

/// Columns of the paragraphs that `limits` prints.
const COLUMNS: usize = 100;

/// Runs the gateway until SIGTERM or SIGINT, then drains it; a second signal ends it at once. SIGHUP opens the logs again.
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
    next_signal().await;
    tracing::info!("draining; a second signal stops at once");
    manager.stopping();
    tokio::select! {
        () = stop.drain() => tracing::info!("drained"),
        () = next_signal() => tracing::warn!("stopped at once by a second signal"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Acts as a client of a gateway.
pub(crate) async fn client(task: ClientTask) -> Result<ExitCode, Box<dyn Error>> {
    match task {
        ClientTask::Publish(command) => publish::publish(command).await,
        ClientTask::Subscribe(command) => subscribe::subscribe(command).await,
        ClientTask::List(command) => streams::list(command).await,
        ClientTask::Stat(command) => streams::stat(command).await,
        ClientTask::Remove(command) => streams::remove(command).await,
        ClientTask::Bench(command) => bench::bench(command).await,
    }
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

/// Makes a key, and says what to do with it.
pub(crate) fn keygen(file: &Path) -> Result<ExitCode, Box<dyn Error>> {
    generate_key(file)?;
    let file = file.display();
    println!(
        "made {file}; `pollgate --auth {file}` accepts the tokens that `pollgate token --key-file {file}` makes"
    );
    Ok(ExitCode::SUCCESS)
}

/// Prints a token.
pub(crate) fn token(command: TokenCommand) -> Result<ExitCode, Box<dyn Error>> {
    let TokenCommand { key_file, streams, expires, subject, tenant } = command;
    println!("{}", sign(&key_file, &subject, tenant.as_deref(), &patterns(streams), expires.get())?);
    Ok(ExitCode::SUCCESS)
}

fn patterns(PatternArgs { read, append, create, manage }: PatternArgs) -> Patterns {
    Patterns { read, append, create, manage }
}

/// Prints the settings of a user, whose password is the first line of standard input.
pub(crate) fn user(command: UserCommand) -> Result<ExitCode, Box<dyn Error>> {
    let UserCommand { name, streams, tenant, iterations, sha_1 } = command;
    let mut password = String::new();
    io::stdin().lock().read_line(&mut password)?;
    let user = NewUser {
        name: &name,
        password: password.trim_end_matches(['\r', '\n']),
        tenant: tenant.as_deref(),
        patterns: patterns(streams),
        iterations,
        has_sha_1: sha_1,
    };
    print!("{}", user_settings(&user)?);
    Ok(ExitCode::SUCCESS)
}

/// Runs a subcommand of `store`. The exit code is 1 if `check` finds damage or a record that is cut off.
pub(crate) async fn store(command: StoreCommand) -> Result<ExitCode, Box<dyn Error>> {
    match command {
        StoreCommand::Check { directory } => {
            let checked = check(&directory).map_err(|error| of_store("check", &directory, &error))?;
            Ok(print_check(&checked)?)
        }
        StoreCommand::Export { directory, accept_damage, file } => {
            export(&directory, accept_damage, file).await
        }
        StoreCommand::Import { directory, file } => import(&directory, file).await,
    }
}

/// Checks an engine, or prints what it stores.
pub(crate) async fn engine(command: EngineCommand) -> Result<ExitCode, Box<dyn Error>> {
    let (EngineCommand::Check(args) | EngineCommand::Stats(args)) = &command;
    let access = EngineAccess {
        url: args.url.clone(),
        ca_file: args.store_ca.clone(),
        password_file: args.store_password_file.clone(),
    };
    let (lines, is_usable) = match command {
        EngineCommand::Check(_) => access.check().await?,
        EngineCommand::Stats(_) => (access.stats().await?, true),
    };
    let mut out = io::stdout().lock();
    lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
    Ok(if is_usable { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The text of an error about a store.
fn of_store(action: &str, directory: &Path, error: &impl Display) -> String {
    format!("cannot {action} the store in {}: {error}", directory.display())
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
        writeln!(out, "no acknowledged message is lost if the store ran with --sync always")?;
    } else {
        writeln!(out, "all other records are whole; the gateway serves them with --accept-damage")?;
    }
    Ok(ExitCode::FAILURE)
}

/// Exports a store to a new file, or to standard output. A file whose export fails is removed.
async fn export(
    directory: &Path,
    accept_damage: bool,
    file: Option<PathBuf>,
) -> Result<ExitCode, Box<dyn Error>> {
    let store = OfflineStore::open(directory, accept_damage);
    let store = store.map_err(|error| of_store("export", directory, &error))?;
    let exported = match &file {
        Some(path) => {
            let mut file = BufWriter::new(private_file(path).map_err(|error| of_file(path, &error))?);
            let exported = match store.export(&mut file).await {
                Ok(exported) => file.get_ref().sync_all().map(|()| exported).map_err(MaintenanceError::Write),
                Err(error) => Err(error),
            };
            if exported.is_err() {
                // The export is incomplete in any case.
                let _left = std::fs::remove_file(path);
            }
            exported.map_err(|error| of_file(path, &error))
        }
        None => store.export(&mut BufWriter::new(io::stdout())).await.map_err(|error| error.to_string()),
    };
    store.close().await;
    eprintln!("exported {}", exported?);
    Ok(ExitCode::SUCCESS)
}

/// The text of an error about a file.
fn of_file(path: &Path, error: &impl Display) -> String {
    format!("{}: {error}", path.display())
}

/// Creates a file that only its owner can read, because messages may be confidential.
fn private_file(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Imports an export from a file, or from standard input. The whole of it is read and checked before the store is opened.
async fn import(directory: &Path, file: Option<PathBuf>) -> Result<ExitCode, Box<dyn Error>> {
    let (name, export) = match file {
        Some(path) => (path.display().to_string(), File::open(&path)),
        None => ("standard input".to_owned(), seekable_input()),
    };
    let of_export = |error: &dyn Display| format!("{name}: {error}");
    let export = export.map_err(|error| of_export(&error))?;
    let mut export = check_export(BufReader::new(export)).map_err(|error| of_export(&error))?;
    let store = OfflineStore::open_or_create(directory);
    let store = store.map_err(|error| of_store("import into", directory, &error))?;
    let imported = store.import(&mut export).await;
    store.close().await;
    eprintln!("imported {}", imported.map_err(|error| of_export(&error))?);
    Ok(ExitCode::SUCCESS)
}

/// Standard input as a file that can be read twice. What comes from a pipe is copied to a temporary file (in `TMPDIR`) without a
/// name, so that it is gone with this process.
fn seekable_input() -> io::Result<File> {
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    if input.stream_position().is_ok() {
        return Ok(input);
    }
    let path = std::env::temp_dir().join(format!("pollgate-import-{}", std::process::id()));
    let mut copy = private_file(&path)?;
    std::fs::remove_file(&path)?;
    io::copy(&mut input, &mut copy)?;
    copy.rewind()?;
    Ok(copy)
}

/// Prints all limits with their default values, units and meanings.
pub(crate) fn limits() -> ExitCode {
    // A closed standard output is not an error.
    let _unread = print_limits(&mut io::stdout().lock());
    ExitCode::SUCCESS
}

fn print_limits(out: &mut impl Write) -> io::Result<()> {
    let how = "Set a limit with --limit NAME=VALUE, with a variable such as POLLGATE_LIMITS__BODY_BYTES_MAX, or in the \
               [limits] table of the --config file. These are the defaults; write durations like 25s, 1m30s or 250ms.";
    write_paragraph(out, "", how)?;
    for Limit { name, default, unit, meaning } in Limits::list() {
        match default {
            Some(default) => writeln!(out, "\n{name}={default} ({unit})")?,
            None => writeln!(out, "\n{name} ({unit}; the default depends on the store)")?,
        }
        write_paragraph(out, "    ", meaning)?;
    }
    Ok(())
}

/// Writes `text` in lines of at most [`COLUMNS`] columns, each after `indent`.
fn write_paragraph(out: &mut impl Write, indent: &str, text: &str) -> io::Result<()> {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && indent.len() + line.len() + 1 + word.len() > COLUMNS {
            writeln!(out, "{indent}{line}")?;
            line.clear();
        }
        line.push_str(if line.is_empty() { "" } else { " " });
        line.push_str(word);
    }
    writeln!(out, "{indent}{line}")
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
