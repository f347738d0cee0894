//! What operators do with a store on disk while no gateway has it open: check it, export it, import it.

mod export;
mod import;
mod line;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use crate::clock::Clock;
use crate::store::{Checked, Disk, DiskOptions, OpenError, SyncPolicy, check};
use crate::stream::{ReadError, Store};

pub use import::ImportError;

/// Why an operator did not get what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// The store can not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A file can not be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The store can not be read.
    #[error("stream {stream}: {error}")]
    Read {
        /// The stream.
        stream: String,
        /// Why.
        error: ReadError,
    },
    /// A line can not be imported.
    #[error("line {line}: {error}")]
    Import {
        /// Its number, from 1.
        line: usize,
        /// Why.
        error: ImportError,
    },
}

/// Reads all of a store, changes nothing, and prints what there is. Fails if something is damaged.
pub fn check_store(directory: &Path) -> Result<ExitCode, MaintenanceError> {
    let Checked { streams, records, messages, bytes, files, damage } = check(directory)?;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{streams} streams, {messages} messages, {records} records, {bytes} bytes in {files} files"
    )?;
    for place in &damage {
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

/// Writes all streams and their messages as lines of JSON, to a file or to standard output.
pub async fn export_store(directory: &Path, file: Option<&Path>) -> Result<ExitCode, MaintenanceError> {
    let (store, clock) = open(directory)?;
    let mut out: Box<dyn Write> = match file {
        Some(file) => Box::new(BufWriter::new(File::create_new(file)?)),
        None => Box::new(BufWriter::new(io::stdout())),
    };
    let exported = export::export(&store, clock.now(), &mut out).await?;
    out.flush()?;
    store.close().await;
    eprintln!("exported {} streams, {} messages", exported.streams, exported.messages);
    Ok(ExitCode::SUCCESS)
}

/// Makes the streams that lines of JSON tell of, from a file or from standard input. All is durable when it returns.
pub async fn import_store(directory: &Path, file: Option<&Path>) -> Result<ExitCode, MaintenanceError> {
    let (store, clock) = open(directory)?;
    let imported = match file {
        Some(file) => import::import(&store, clock.now(), BufReader::new(File::open(file)?)).await,
        None => import::import(&store, clock.now(), BufReader::new(io::stdin())).await,
    };
    store.close().await;
    let imported = imported?;
    eprintln!("imported {} streams, {} messages", imported.streams, imported.messages);
    Ok(ExitCode::SUCCESS)
}

/// How much was taken from one place to another.
#[derive(Debug, Clone, Copy, Default)]
struct Moved {
    streams: usize,
    messages: usize,
}

/// The store, which is synced when it is closed.
fn open(directory: &Path) -> Result<(Disk, Clock), MaintenanceError> {
    let clock = Clock::start();
    let options = DiskOptions::new(SyncPolicy::Never);
    let (store, _) = Disk::open(directory, options, Arc::new(()), clock.now())?;
    Ok((store, clock))
}
