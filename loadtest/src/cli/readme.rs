//! Options of `readme`.

use std::path::PathBuf;

use clap::Args;

use crate::readme::Readme;

/// Options of `readme`.
#[derive(Debug, Clone, Args)]
pub struct ReadmeOptions {
    /// Name of a table of docs/tables; repeatable [default: all]
    #[arg(long, value_name = "NAME")]
    pub table: Vec<String>,
    /// Make them with a tiny workload, to see that they can be made
    #[arg(long, requires = "into")]
    pub short: bool,
    /// Write documents, data and pictures to this folder instead of the repository
    #[arg(long, value_name = "FOLDER")]
    pub into: Option<PathBuf>,
}

impl ReadmeOptions {
    /// Returns what is to be made.
    pub fn readme(&self) -> Readme {
        Readme { tables: self.table.clone(), is_short: self.short, into: self.into.clone() }
    }
}
