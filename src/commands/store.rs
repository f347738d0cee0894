//! `pollgate store`: checks, exports and imports a store on disk, and prints what came of it.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pollgate::config::StoreCommand;
use pollgate::maintenance::OfflineStore;
use pollgate::store::{Checked, check};

/// Runs the command. The exit code is a failure if `check` finds damage.
pub(crate) async fn run(command: StoreCommand) -> Result<ExitCode, Box<dyn Error>> {
    match command {
        StoreCommand::Check { directory } => Ok(print_check(&check(&directory)?)?),
        StoreCommand::Export { directory, file } => export(&directory, file).await,
        StoreCommand::Import { directory, file } => import(&directory, file).await,
    }
}

fn print_check(checked: &Checked) -> io::Result<ExitCode> {
    let Checked { streams, records, messages, bytes, files, damage } = checked;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{streams} streams, {messages} messages, {records} records, {bytes} bytes in {files} files"
    )?;
    for place in damage {
        writeln!(out, "damaged: {place}")?;
    }
    if damage.is_empty() {
        writeln!(out, "all records are whole")?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(
        out,
        "what follows the first damage is not served; the gateway cuts it off when it opens the store"
    )?;
    Ok(ExitCode::FAILURE)
}

/// To a new file, or to standard output.
async fn export(directory: &Path, file: Option<PathBuf>) -> Result<ExitCode, Box<dyn Error>> {
    let store = OfflineStore::open(directory)?;
    let mut out: Box<dyn Write> = match file {
        Some(file) => Box::new(BufWriter::new(File::create_new(file)?)),
        None => Box::new(BufWriter::new(io::stdout())),
    };
    let exported = store.export(&mut out).await?;
    store.close().await;
    eprintln!("exported {} streams, {} messages", exported.streams, exported.messages);
    Ok(ExitCode::SUCCESS)
}

/// From a file, or from standard input.
async fn import(directory: &Path, file: Option<PathBuf>) -> Result<ExitCode, Box<dyn Error>> {
    let store = OfflineStore::open(directory)?;
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
