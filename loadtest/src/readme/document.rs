//! [`Document`]: a text with tables between comments.

use super::table::Table;
use super::{FOLDER, ReadmeError};

/// The comment after a table.
const END: &str = "<!-- end of table -->";

/// A document in Markdown.
pub(super) struct Document<'a> {
    text: &'a str,
}

impl<'a> Document<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text }
    }

    /// Returns the text with another table in the place of the one of its name.
    pub(super) fn with(&self, table: &Table) -> Result<String, ReadmeError> {
        let parts = || {
            let begin = self.text.find(&format!("{}.json", beginning(&table.name)))?;
            let (before, rest) = self.text.split_at_checked(begin)?;
            let (_, after) = rest.split_once(END)?;
            Some((before, after))
        };
        let unmarked = || ReadmeError::Unmarked(table.document.clone(), table.name.clone());
        let (before, after) = parts().ok_or_else(unmarked)?;
        Ok(format!("{before}{}\n{}\n{END}{after}", table.comment(), table.markdown()))
    }
}

/// Returns how the comment before a table begins.
fn beginning(name: &str) -> String {
    format!("<!-- table {FOLDER}/{name}")
}
