//! The command `readme`: makes the tables and pictures of the documents anew.
//!
//! A table stands between two comments of its document, and its data is a file of `docs/tables`: the commands that measure it, its
//! columns, and its cells. The commands run as users run them, and what they print becomes the data, which becomes the text. A test
//! compares data and text, so that neither changes alone.

mod document;
mod picture;
mod printed;
mod table;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::servers::{Scratch, ServerError};

use document::Document;
use printed::Printed;
use table::Table;

pub use table::names;

/// Where the data of the tables is, in the repository.
const FOLDER: &str = "docs/tables";

/// Which tables are made, and where.
#[derive(Debug, Clone)]
pub struct Readme {
    /// Names of tables; empty for all.
    pub tables: Vec<String>,
    /// Makes them with a tiny workload.
    pub is_short: bool,
    /// Folder that the documents and the data are written to; `None` is the repository.
    pub into: Option<PathBuf>,
}

/// Why tables cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ReadmeError {
    /// A file cannot be read or written.
    #[error("{0}: {1}")]
    File(String, std::io::Error),
    /// The data of a table has another form.
    #[error("{0}: {1}")]
    Data(String, serde_json::Error),
    /// There is no such table.
    #[error("no table {0}; there are {1}")]
    Unknown(String, String),
    /// A document lacks the comments around a table.
    #[error("{0} has no comments around the table {1}")]
    Unmarked(String, String),
    /// These tables could not be made; the others were.
    #[error("not made: {0}")]
    Unmade(String),
    /// A command failed.
    #[error("loadtest {0}: {1}")]
    Failed(String, String),
    /// What a command printed has no such column or line.
    #[error("loadtest {0} printed no {1:?}")]
    Missing(String, String),
    /// The picture of a page cannot be taken.
    #[error("no picture {0}: {1}")]
    Picture(String, String),
    /// No folder for temporary files.
    #[error(transparent)]
    Scratch(#[from] ServerError),
}

/// Returns the folder of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("")
}

fn read(path: &Path) -> Result<String, ReadmeError> {
    std::fs::read_to_string(path).map_err(|error| ReadmeError::File(path.display().to_string(), error))
}

fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<(), ReadmeError> {
    let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    folder
        .and_then(|()| std::fs::write(path, bytes))
        .map_err(|error| ReadmeError::File(path.display().to_string(), error))
}

impl Readme {
    /// Makes the tables one after another. `told` is called with the name of each file that was written. A table whose commands fail, as on a
    /// machine that is too busy, does not stop those after it; the error names it in the end.
    pub fn make(&self, mut told: impl FnMut(&str)) -> Result<(), ReadmeError> {
        let all = names()?;
        let wanted = if self.tables.is_empty() { &all } else { &self.tables };
        if let Some(unknown) = wanted.iter().find(|name| !all.contains(name)) {
            return Err(ReadmeError::Unknown(unknown.clone(), all.join(", ")));
        }
        let mut unmade = Vec::new();
        for name in wanted {
            match self.make_table(name, &mut told) {
                Err(error @ (ReadmeError::Failed(..) | ReadmeError::Missing(..))) => {
                    unmade.push(format!("{name} ({error})"));
                }
                made => made?,
            }
        }
        if unmade.is_empty() { Ok(()) } else { Err(ReadmeError::Unmade(unmade.join(", "))) }
    }

    fn make_table(&self, name: &str, told: &mut impl FnMut(&str)) -> Result<(), ReadmeError> {
        let from = repository();
        let into = self.into.clone().unwrap_or_else(|| from.clone());
        let mut table = Table::read(&from, name)?;
        if table.sources.is_empty() {
            return Ok(());
        }
        let scratch = Scratch::new("readme")?;
        table.rows = self.measured(&table, &scratch)?;
        let (made, present) = (into.join(&table.document), from.join(&table.document));
        // Another table of the same document may have been made.
        let before = read(if made.exists() { &made } else { &present })?;
        write(&made, Document::new(&before).with(&table)?)?;
        write(&into.join(FOLDER).join(name).with_extension("json"), table.json()?)?;
        told(&format!("{} in {}", table.path(), table.document));
        if let Some(path) = &table.picture {
            picture::take(&scratch.path().join("report.html"), &into.join(path))?;
            told(path);
        }
        Ok(())
    }

    /// Runs the commands of a table, and returns its rows.
    fn measured(&self, table: &Table, scratch: &Scratch) -> Result<Vec<Vec<String>>, ReadmeError> {
        let mut rows = Vec::new();
        for source in &table.sources {
            let line = if self.is_short { &source.short } else { &source.arguments };
            let printed = Printed::parse(&run(line, scratch)?);
            let missing = |what: &str| ReadmeError::Missing(line.clone(), what.to_owned());
            match &source.label {
                Some(label) => {
                    let cells = printed.beside(&source.from).map_err(missing)?;
                    rows.push([vec![label.clone()], cells].concat());
                }
                None => {
                    let from: Vec<_> = table.columns.iter().map(|column| &*column.from).collect();
                    rows.extend(printed.rows(&from).map_err(missing)?);
                }
            }
        }
        Ok(rows)
    }
}

/// Runs this program, and returns what it prints. Reports are written to `folder`.
fn run(line: &str, folder: &Scratch) -> Result<String, ReadmeError> {
    let failed = |why: String| ReadmeError::Failed(line.to_owned(), why);
    let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let mut command = Command::new(program);
    command.args(table::words(line)).current_dir(folder.path()).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().map_err(|error| failed(error.to_string()))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(said).ok_or_else(|| failed(output.status.to_string()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn the_documents_have_the_tables_that_their_data_makes() {
        let names = names().unwrap();
        assert!(names.len() >= 7, "{names:?}");
        for name in names {
            let table = Table::read(&repository(), &name).unwrap();
            let text = read(&repository().join(&table.document)).unwrap();
            let made = Document::new(&text).with(&table).unwrap();
            assert!(
                text == made,
                "{} and {} disagree: loadtest readme --table {name} makes both",
                table.document,
                table.path()
            );
            for source in &table.sources {
                for line in [&source.arguments, &source.short] {
                    let parsed =
                        Cli::try_parse_from(["loadtest".to_owned()].into_iter().chain(table::words(line)));
                    assert!(parsed.is_ok(), "{name}: {}", parsed.unwrap_err());
                }
            }
        }
    }

    #[test]
    fn each_marked_table_of_a_document_has_data() {
        for document in ["README.md", "docs/comparison.md"] {
            let text = read(&repository().join(document)).unwrap();
            let comments = text.lines().filter_map(|line| line.strip_prefix("<!-- table docs/tables/"));
            for name in comments.filter_map(|rest| Some(rest.split_once(".json")?.0)) {
                assert_eq!(Table::read(&repository(), name).unwrap().document, document, "{name}");
            }
        }
    }
}
