//! [`Table`]: the data of a table in a document.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{FOLDER, ReadmeError, read, repository};

/// A table: where it stands, how it is made, and its cells.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Table {
    /// Its name, that of its file.
    #[serde(skip)]
    pub(super) name: String,
    /// The document, relative to the repository.
    pub(super) document: String,
    /// The commands whose output it holds; none if it is written by hand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) sources: Vec<Source>,
    /// Why it is written by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) by_hand: Option<String>,
    /// A picture of the plots of the last command's report, relative to the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) picture: Option<String>,
    /// Its columns.
    pub(super) columns: Vec<Column>,
    /// Its cells.
    pub(super) rows: Vec<Vec<String>>,
}

/// A command whose output a table holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Source {
    /// The command line, without the name of this program.
    pub(super) arguments: String,
    /// The same with a tiny workload, for a test.
    pub(super) short: String,
    /// First cell of the one row of a load beside a rival; `None`: the lines that are printed are rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) label: Option<String>,
    /// The columns that are printed of a load.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) from: Vec<String>,
}

/// A column of a table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Column {
    /// Its header in the document.
    pub(super) header: String,
    /// The columns that are printed, whose cells it joins; none if the rows are those of loads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) from: Vec<String>,
}

/// Returns the names of all tables.
pub fn names() -> Result<Vec<String>, ReadmeError> {
    let folder = repository().join(FOLDER);
    let files =
        std::fs::read_dir(&folder).map_err(|error| ReadmeError::File(folder.display().to_string(), error))?;
    let names = files
        .flatten()
        .filter_map(|file| file.file_name().to_str()?.strip_suffix(".json").map(str::to_owned));
    let mut names: Vec<_> = names.collect();
    names.sort();
    Ok(names)
}

/// Splits a line as the shell does, with quoted words.
pub(super) fn words(line: &str) -> impl Iterator<Item = String> {
    line.split('\'').enumerate().flat_map(|(index, part)| match index % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.to_owned()],
    })
}

impl Table {
    /// Reads the data of a table.
    pub(super) fn read(repository: &Path, name: &str) -> Result<Self, ReadmeError> {
        let path = format!("{FOLDER}/{name}.json");
        let text = read(&repository.join(&path))?;
        let table: Self = serde_json::from_str(&text).map_err(|error| ReadmeError::Data(path, error))?;
        Ok(Self { name: name.to_owned(), ..table })
    }

    /// Returns the path of the data, relative to the repository.
    pub(super) fn path(&self) -> String {
        format!("{FOLDER}/{}.json", self.name)
    }

    /// Returns the data as it is stored.
    pub(super) fn json(&self) -> Result<String, ReadmeError> {
        let json = serde_json::to_string_pretty(self);
        Ok(json.map_err(|error| ReadmeError::Data(self.path(), error))? + "\n")
    }

    /// Returns the comment before the table, which says how it is made.
    pub(super) fn comment(&self) -> String {
        let how = match (self.sources.as_slice(), &self.by_hand) {
            ([], Some(why)) => format!("by hand: {why}"),
            ([], None) => "by hand".to_owned(),
            ([first], _) => format!("loadtest {}", first.arguments),
            ([first, others @ ..], _) => format!("loadtest {} and {} more", first.arguments, others.len()),
        };
        format!("<!-- table {}: {how} -->", self.path())
    }

    /// Returns the lines of the table.
    pub(super) fn markdown(&self) -> String {
        let line = |cells: Vec<&str>| match cells.iter().all(|cell| cell.is_empty()) {
            true => "|".repeat(cells.len() + 1),
            false => {
                cells
                    .iter()
                    .map(|cell| if cell.is_empty() { "| ".to_owned() } else { format!("| {cell} ") })
                    .collect::<String>()
                    + "|"
            }
        };
        let headers = line(self.columns.iter().map(|column| &*column.header).collect());
        let rows = self.rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
        [headers, format!("|{}", "---|".repeat(self.columns.len()))]
            .into_iter()
            .chain(rows)
            .collect::<Vec<_>>()
            .join("\n")
    }
}
