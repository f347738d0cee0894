//! Imports an export into a store: all of it or nothing. The export is read to its end before anything is created.

use std::collections::HashSet;
use std::io::{BufRead, Seek, SeekFrom};
use std::time::SystemTime;

use super::error::{ImportError, MaintenanceError};
use crate::clock::{Clock, WallOffset};
use crate::export::TransferCount;
use crate::export::line::{EndLine, ForkNote, Line, MessageLine, StreamLine};
use crate::stream::{
    Append, AppendError, ChangeError, ContentType, Create, CreateError, Epoch, Fork, Missing, Payload, Start,
    Store, StreamName,
};

/// An export that is known to be complete and valid.
pub struct CheckedExport<R> {
    reader: R,
}

/// The stream that the following message lines belong to.
struct Current {
    name: StreamName,
    content_type: ContentType,
    /// The append that closes the stream after its last message.
    closing: Option<Append>,
    /// The epoch with which the import is attached to the stream, so that an idle lifetime does not elapse between messages that
    /// were appended long after each other. `None`: the stream has ended since the export and is left out.
    attached: Option<Epoch>,
}

/// Imports lines into a store.
struct Importer<'a> {
    store: &'a dyn Store,
    now: SystemTime,
    wall: SystemTime,
    offset: WallOffset,
    current: Option<Current>,
    count: TransferCount,
}

/// Reads an export to its end and checks that it is complete and valid.
pub fn check_export<R: BufRead + Seek>(mut reader: R) -> Result<CheckedExport<R>, MaintenanceError> {
    let (mut checker, mut line, mut number) = (Checker::default(), String::new(), 0);
    while read_line(&mut reader, &mut line)? {
        number += 1;
        checker.check_line(&line).map_err(|error| MaintenanceError::Import { line: number, error })?;
    }
    if !checker.has_ended {
        return Err(MaintenanceError::Import { line: number.max(1), error: ImportError::CutOff });
    }
    reader.seek(SeekFrom::Start(0)).map_err(MaintenanceError::Read)?;
    Ok(CheckedExport { reader })
}

/// Reads the next line without its end. Returns whether there is one.
fn read_line(reader: &mut impl BufRead, line: &mut String) -> Result<bool, MaintenanceError> {
    line.clear();
    match reader.read_line(line) {
        Ok(0) => Ok(false),
        Ok(_) => {
            line.truncate(line.trim_end_matches(['\n', '\r']).len());
            Ok(true)
        }
        Err(error) => Err(MaintenanceError::Read(error)),
    }
}

/// Checks the lines of an export without a store.
#[derive(Default)]
struct Checker {
    count: TransferCount,
    /// The streams so far that forks may have as their source.
    names: HashSet<StreamName>,
    has_ended: bool,
}

impl Checker {
    fn check_line(&mut self, line: &str) -> Result<(), ImportError> {
        if self.has_ended {
            return Err(ImportError::AfterEnd);
        }
        match Line::parse(line)? {
            Line::Stream(line) => {
                let name = StreamName::stored(&line.stream)?;
                ContentType::parse(line.content_type())?;
                if let Some(ForkNote { source, .. }) = &line.fork
                    && !self.names.contains(&StreamName::stored(source)?)
                {
                    return Err(ImportError::Source);
                }
                if !self.names.insert(name) {
                    return Err(ImportError::Exists);
                }
                self.count.streams += 1;
            }
            Line::Message(_) if self.count.streams == 0 => return Err(ImportError::NoStream),
            Line::Message(line) => {
                line.bytes().ok_or(ImportError::Content)?;
                self.count.messages += 1;
            }
            Line::End(EndLine { error: Some(error), .. }) => return Err(ImportError::BrokenOff(error)),
            Line::End(EndLine { end: false, .. }) => return Err(ImportError::CutOff),
            Line::End(EndLine { streams, messages, .. }) => {
                let (said, found) = (TransferCount { streams, messages }, self.count);
                if said != found {
                    return Err(ImportError::Count { said: said.to_string(), found: found.to_string() });
                }
                self.has_ended = true;
            }
        }
        Ok(())
    }
}

impl<R: BufRead + Seek> CheckedExport<R> {
    /// Calls `each` with the lines of the export and their numbers, from the first one on.
    async fn for_each(
        &mut self,
        mut each: impl AsyncFnMut(usize, Line) -> Result<(), ImportError>,
    ) -> Result<(), MaintenanceError> {
        self.reader.seek(SeekFrom::Start(0)).map_err(MaintenanceError::Read)?;
        let (mut text, mut number) = (String::new(), 0);
        while read_line(&mut self.reader, &mut text)? {
            number += 1;
            let done = match Line::parse(&text) {
                Ok(line) => each(number, line).await,
                Err(error) => Err(error.into()),
            };
            done.map_err(|error| MaintenanceError::Import { line: number, error })?;
        }
        Ok(())
    }

    /// Deletes the streams of the lines before `end`. Returns how many are left, and why.
    async fn undo(
        &mut self,
        store: &dyn Store,
        now: SystemTime,
        end: usize,
    ) -> Result<Option<(usize, ChangeError)>, MaintenanceError> {
        let mut left = None;
        self.for_each(async |number, line| {
            if let Line::Stream(line) = line
                && number < end
                && let Err(error) = store.delete(&StreamName::stored(&line.stream)?, now).await
                // One that had ended before the import was left out.
                && !matches!(error, ChangeError::Missing(_))
            {
                left = Some((left.map_or(1, |(count, _)| count + 1), error));
            }
            Ok(())
        })
        .await?;
        Ok(left)
    }
}

/// Creates the streams of `export` with their messages, except those whose `Stream-Expires-At` has passed. The streams must not
/// exist. If a line cannot be imported, the streams before it are deleted again. Returns how much was imported.
pub(super) async fn import<R: BufRead + Seek>(
    store: &dyn Store,
    clock: Clock,
    export: &mut CheckedExport<R>,
) -> Result<TransferCount, MaintenanceError> {
    let now = clock.now();
    if store.streams() > 0 {
        export.for_each(async |_, line| must_be_new(store, &line, now).await).await?;
    }
    let (wall, offset, count) = (clock.wall(), clock.wall_offset(), TransferCount::default());
    let mut importer = Importer { store, now, wall, offset, current: None, count };
    let imported = export.for_each(async |_, line| importer.import(line).await).await;
    let Err(MaintenanceError::Import { line, error }) = imported else {
        return imported.map(|()| importer.count);
    };
    Err(match export.undo(store, now, line).await? {
        None => MaintenanceError::Import { line, error },
        Some((left, reason)) => MaintenanceError::NotUndone { line, error, left, reason },
    })
}

async fn must_be_new(store: &dyn Store, line: &Line, now: SystemTime) -> Result<(), ImportError> {
    let Line::Stream(line) = line else { return Ok(()) };
    match store.describe(&StreamName::stored(&line.stream)?, now).await {
        Err(ChangeError::Missing(Missing::NotFound)) => Ok(()),
        Ok(_) | Err(ChangeError::Missing(Missing::Deleted)) => Err(ImportError::Exists),
        Err(ChangeError::Failed(failure)) => Err(AppendError::from(failure).into()),
    }
}

impl Importer<'_> {
    async fn import(&mut self, line: Line) -> Result<(), ImportError> {
        match line {
            Line::Stream(line) => {
                self.close().await?;
                self.create(&line).await
            }
            Line::Message(line) => self.append(line).await,
            Line::End(_) => self.close().await,
        }
    }

    async fn create(&mut self, line: &StreamLine) -> Result<(), ImportError> {
        let name = StreamName::stored(&line.stream)?;
        if line.has_ended(self.wall) {
            tracing::warn!(stream = %name, "left out: the stream has expired since the export");
            let content_type = ContentType::parse(line.content_type())?;
            self.current = Some(Current { name, content_type, closing: None, attached: None });
            return Ok(());
        }
        let fork = match &line.fork {
            Some(note) => self.fork(note, &name).await?,
            None => None,
        };
        let (create, closing) = line.creation(fork, self.offset)?;
        let content_type = create.content_type.clone();
        // A source may keep less than at the time of the export, because its messages are older now.
        let plain = Create { fork: None, ..create.clone() };
        let mut created = self.store.create(&name, create, self.now).await;
        if let Err(CreateError::ForkTrimmed(_)) = created {
            tracing::warn!(stream = %name, "the source of a fork no longer keeps the messages that they share");
            created = self.store.create(&name, plain, self.now).await;
        }
        match created {
            Ok(created) if created.fresh => {}
            Ok(_) | Err(CreateError::ExistsDifferently | CreateError::NameTaken) => {
                return Err(ImportError::Exists);
            }
            Err(error) => return Err(error.into()),
        }
        self.count.streams += 1;
        let attached = self.store.attach(&name);
        self.current = Some(Current { name, content_type, closing, attached });
        Ok(())
    }

    /// The fork point, counted from the earliest message that the imported source keeps. `None`: it does not keep the point.
    async fn fork(&self, note: &ForkNote, fork: &StreamName) -> Result<Option<Fork>, ImportError> {
        let source = StreamName::stored(&note.source)?;
        // A source that has expired is left out.
        let described = self.store.describe(&source, self.now).await.ok();
        let earliest = described.map(|described| described.earliest.position.0);
        let Some(sub_offset) = earliest.and_then(|earliest| note.at.checked_sub(earliest)) else {
            tracing::warn!(stream = %fork, "the source of a fork no longer keeps the messages that they share");
            return Ok(None);
        };
        Ok(Some(Fork { source, offset: Some(Start::Earliest), sub_offset }))
    }

    async fn append(&mut self, line: MessageLine) -> Result<(), ImportError> {
        let current = self.current.as_ref().ok_or(ImportError::NoStream)?;
        if current.attached.is_none() {
            return Ok(());
        }
        let bytes = line.bytes().ok_or(ImportError::Content)?;
        let annotation = match line.said {
            Some(said) => Some(said.into_annotation(self.offset).ok_or(ImportError::Content)?),
            None => None,
        };
        let payload = match current.content_type.is_json() {
            true => Payload::json(bytes, Vec::new()),
            false => Payload::message(bytes),
        };
        let content_type = current.content_type.clone();
        let append = Append { annotation, ..Append::of(content_type, payload) };
        self.store.append(&current.name, append.into(), self.offset.to_stored(line.at.into())).await?;
        self.count.messages += 1;
        Ok(())
    }

    /// Ends the current stream, and closes it if the export says that it was closed.
    async fn close(&mut self) -> Result<(), ImportError> {
        let Some(Current { name, closing, attached, .. }) = self.current.take() else { return Ok(()) };
        if let Some(closing) = closing {
            self.store.append(&name, closing.into(), self.now).await?;
        }
        if let Some(epoch) = attached {
            self.store.detach(&name, epoch, self.now);
        }
        Ok(())
    }
}
