//! The file in which `sub --state` remembers what was read.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;

use pollgate_client::{Message, Offset, ResumeToken, Start};
use serde::{Deserialize, Serialize};

use super::options::Beginning;

/// What was read, in memory and in the file.
#[derive(Debug)]
pub(crate) struct Handled {
    file: Option<PathBuf>,
    noted: StateFile,
}

/// What was read. A resume token lies between two responses, each with perhaps many messages; behind it, the offset of the last message of each stream
/// that was read.
#[derive(Debug, Default, Serialize, Deserialize)]
struct StateFile {
    resume: Option<ResumeToken>,
    #[serde(default)]
    behind: BTreeMap<String, String>,
}

impl Handled {
    /// Reads the file, if there is one.
    pub(crate) fn open(file: Option<PathBuf>) -> Result<Self, Box<dyn Error>> {
        let Some(path) = &file else { return Ok(Self { file, noted: StateFile::default() }) };
        let noted = match std::fs::read(path) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|error| format!("{} is not a file of --state: {error}", path.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => StateFile::default(),
            Err(error) => return Err(format!("{}: {error}", path.display()).into()),
        };
        Ok(Self { file, noted })
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.file.is_some()
    }

    /// Where to start: behind what was read, otherwise at `beginning`.
    pub(crate) fn start(&self, beginning: Beginning) -> Start {
        match (self.noted.resume.clone(), beginning) {
            // The first response was not read to its end.
            (None, _) if !self.noted.behind.is_empty() => Start::earliest(),
            (None, Beginning::Earliest) => Start::earliest(),
            (None, Beginning::Now) => Start::now(),
            (None, Beginning::Last(count)) => Start::history(count),
            (None, Beginning::At(offset)) => Start::at(offset),
            (Some(token), Beginning::Earliest) => Start::after(token).unknown_from_earliest(),
            (Some(token), Beginning::Last(count)) => Start::after(token).unknown_from_history(count),
            (Some(token), _) => Start::after(token),
        }
    }

    /// Whether a message was read before: it arrived in one response with the last one that was.
    pub(crate) fn has_read(&self, message: &Message) -> bool {
        let behind = self.noted.behind.get(&*message.stream).and_then(|offset| offset.parse::<Offset>().ok());
        message.offset.zip(behind).is_some_and(|(offset, behind)| offset.is_at_or_before(behind))
    }

    /// Remembers that a message was read.
    pub(crate) fn keep_message(&mut self, message: &Message) -> Result<(), Box<dyn Error>> {
        if let Some(offset) = message.offset {
            self.noted.behind.insert(message.stream.to_string(), offset.to_string());
            self.write()?;
        }
        Ok(())
    }

    /// Remembers that everything before the token was read.
    pub(crate) fn keep_token(&mut self, token: &ResumeToken) -> Result<(), Box<dyn Error>> {
        if self.noted.resume.as_ref() != Some(token) {
            self.noted = StateFile { resume: Some(token.clone()), behind: BTreeMap::new() };
            self.write()?;
        }
        Ok(())
    }

    /// Replaces the file at once, so that it is whole whenever this process is killed.
    fn write(&self) -> Result<(), Box<dyn Error>> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut new = file.clone().into_os_string();
        new.push(".new");
        let written =
            std::fs::write(&new, serde_json::to_vec(&self.noted)?).and_then(|()| std::fs::rename(&new, file));
        written.map_err(|error| format!("{}: {error}", file.display()).into())
    }
}
