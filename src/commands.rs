//! The subcommands of `pollgate`, what they print, and their exit codes: `serve` runs the gateway until a signal, `store`
//! checks, exports and imports a store on disk, `limits` lists all limits.

mod bench;
mod command_line;
mod gateway;
mod handled;
mod lines;
mod mqtt;
mod options;
mod progress;
mod publish;
mod serve;
mod streams;
mod subscribe;

use std::error::Error;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use indicatif::ProgressBar;
use pollgate::config::{EngineCommand, PatternArgs, StoreCommand, TokenCommand, UserCommand};
use pollgate::limits::{Limit, Limits};
use pollgate::maintenance::{Checked, EngineAccess, MaintenanceError, OfflineStore, check, check_export};
use pollgate::tokens::{NewUser, Patterns, generate_key, sign, user_settings};

pub(crate) use command_line::{Cli, Command, Tool};
use mqtt::BrokerUrl;
use options::{Beginning, SubscribeCommand};
pub(crate) use serve::serve;

/// Columns of the paragraphs that `limits` prints.
const COLUMNS: usize = 100;

/// Runs a command that is no gateway.
pub(crate) async fn run(tool: Tool) -> Result<ExitCode, Box<dyn Error>> {
    match tool {
        Tool::Pub(command) => match BrokerUrl::parse(&command.gateway.url) {
            Some(address) => mqtt::publish(command, &address?).await,
            None => publish::publish(command).await,
        },
        Tool::Sub(command) => subscribe(command, Beginning::Now).await,
        Tool::Follow(command) => subscribe(command, Beginning::Last(10)).await,
        Tool::Ls(command) => streams::list(command).await,
        Tool::Stat(command) => streams::stat(command).await,
        Tool::Rm(command) => streams::remove(command).await,
        Tool::Bench(command) => bench::bench(command).await,
        Tool::Store(command) => store(command).await,
        Tool::Engine(command) => engine(command).await,
        Tool::Limits => Ok(limits()),
        Tool::Keygen { file } => keygen(&file),
        Tool::Token(command) => token(command),
        Tool::User(command) => user(command),
        Tool::Completions { shell } => Ok(command_line::completions(shell)),
        Tool::Man { directory } => command_line::man(&directory),
    }
}

async fn subscribe(command: SubscribeCommand, beginning: Beginning) -> Result<ExitCode, Box<dyn Error>> {
    match BrokerUrl::parse(&command.gateway.url) {
        Some(address) => mqtt::subscribe(command, &address?, beginning).await,
        None => subscribe::subscribe(command, beginning).await,
    }
}

/// Makes a key, and says what to do with it.
fn keygen(file: &Path) -> Result<ExitCode, Box<dyn Error>> {
    generate_key(file)?;
    let file = file.display();
    println!(
        "made {file}; `pollgate --auth {file}` accepts the tokens that `pollgate token --key-file {file}` makes"
    );
    Ok(ExitCode::SUCCESS)
}

/// Prints a token.
fn token(command: TokenCommand) -> Result<ExitCode, Box<dyn Error>> {
    let TokenCommand { key_file, streams, expires, subject, tenant } = command;
    println!("{}", sign(&key_file, &subject, tenant.as_deref(), &patterns(streams), expires.get())?);
    Ok(ExitCode::SUCCESS)
}

fn patterns(PatternArgs { read, append, create, manage }: PatternArgs) -> Patterns {
    Patterns { read, append, create, manage }
}

/// Prints the settings of a user, whose password is the first line of standard input.
fn user(command: UserCommand) -> Result<ExitCode, Box<dyn Error>> {
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
async fn store(command: StoreCommand) -> Result<ExitCode, Box<dyn Error>> {
    match command {
        StoreCommand::Check { directory } => {
            let progress = progress::spinner("reading the store");
            let checked = check(&directory).map_err(|error| of_store("check", &directory, &error));
            progress.finish_and_clear();
            Ok(print_check(&checked?)?)
        }
        StoreCommand::Export { directory, accept_damage, file } => {
            export(&directory, accept_damage, file).await
        }
        StoreCommand::Import { directory, file } => import(&directory, file).await,
    }
}

/// Checks an engine, or prints what it stores.
async fn engine(command: EngineCommand) -> Result<ExitCode, Box<dyn Error>> {
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
    let opening = progress::spinner("reading the store");
    let store = OfflineStore::open(directory, accept_damage);
    opening.finish_and_clear();
    let store = store.map_err(|error| of_store("export", directory, &error))?;
    // Lines of the export and what shows progress would overwrite each other.
    let is_shown = file.is_some() || !io::stdout().is_terminal();
    let writing = if is_shown { progress::bytes(None, "exporting") } else { ProgressBar::hidden() };
    let exported = match &file {
        Some(path) => {
            let file = private_file(path).map_err(|error| of_file(path, &error))?;
            let mut out = BufWriter::new(writing.wrap_write(&file));
            let exported = match store.export(&mut out).await {
                Ok(exported) => file.sync_all().map(|()| exported).map_err(MaintenanceError::Write),
                Err(error) => Err(error),
            };
            if exported.is_err() {
                // The export is incomplete in any case.
                let _left = std::fs::remove_file(path);
            }
            exported.map_err(|error| of_file(path, &error))
        }
        None => {
            let mut out = BufWriter::new(writing.wrap_write(io::stdout()));
            store.export(&mut out).await.map_err(|error| error.to_string())
        }
    };
    writing.finish_and_clear();
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
    let total = export.metadata().ok().map(|file| file.len());
    let reading = progress::bytes(total, "checking the export");
    let export = check_export(BufReader::new(reading.wrap_read(export)));
    let mut export = export.map_err(|error| of_export(&error))?;
    reading.set_message("reading the store");
    let store = OfflineStore::open_or_create(directory);
    let store = store.map_err(|error| of_store("import into", directory, &error))?;
    reading.set_message("importing");
    let imported = store.import(&mut export).await;
    reading.set_message("syncing");
    store.close().await;
    reading.finish_and_clear();
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
fn limits() -> ExitCode {
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
