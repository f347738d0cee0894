//! A log whose last write was cut off: it opens, holds exactly the earlier writes, and rejects offsets after them.
//!
//! With `DAMAGE_STEP=1` it is cut at every byte of the last 64 KiB; by default at every 509th, and at every 131st by `tests/run
//! all`.

use std::fs;
use std::path::{Path, PathBuf};

use pollgate::stream::{Offset, ReadError, Start};
use tempfile::TempDir;

use crate::directory;

const STREAMS: [&str; 3] = ["a", "b", "c"];
const DAMAGED_BYTES: usize = 64 * 1024;
const SEGMENT_BYTES: u32 = 128 * 1024;

/// A log written by a process that was killed.
struct Written {
    _directory: TempDir,
    file: PathBuf,
    bytes: Vec<u8>,
    appends: Vec<Appended>,
}

/// One append: its stream, the offset after it, and the end of its record in the file.
struct Appended {
    stream: &'static str,
    tail: Offset,
    end: usize,
}

impl Written {
    async fn new() -> Self {
        let directory = directory::directory();
        let (world, _) = directory::world_of(directory.path(), SEGMENT_BYTES);
        for stream in STREAMS {
            world.open(stream).await;
        }
        let file = newest(directory.path());
        let mut appends = Vec::new();
        for n in 0.. {
            let stream = STREAMS[n % STREAMS.len()];
            let tail = world.push(stream, [n as u64, 1_000_000 + n as u64]).await;
            let end = used(&fs::read(&file).unwrap());
            appends.push(Appended { stream, tail, end });
            if end > DAMAGED_BYTES + 4096 {
                break;
            }
        }
        drop(world);
        let bytes = fs::read(&file).unwrap();
        Self { _directory: directory, file, bytes, appends }
    }

    /// Returns the content of `stream` if only the first `count` appends exist.
    fn content(&self, stream: &str, count: usize) -> String {
        let of_it = self.appends[..count].iter().enumerate().filter(|(_, append)| append.stream == stream);
        let values: Vec<_> = of_it.map(|(n, _)| format!("{n},{}", 1_000_000 + n)).collect();
        values.join(",")
    }

    /// Opens a copy of the store with `bytes` as its newest file, of which the first `whole` bytes are unchanged.
    async fn check(&self, bytes: &[u8], whole: usize, goes_on: bool) {
        let copy = directory::directory();
        fs::write(copy.path().join(self.file.file_name().unwrap()), bytes).unwrap();
        let count = self.appends.iter().take_while(|append| append.end <= whole).count();
        let (world, opened) = directory::world_of(copy.path(), SEGMENT_BYTES);
        for stream in STREAMS {
            assert_eq!(
                world.content(stream).await,
                self.content(stream, count),
                "{stream}, {whole} whole bytes"
            );
        }
        if let Some(kept) = count.checked_sub(1).map(|last| &self.appends[last]) {
            let end = world.read(kept.stream, Start::At(kept.tail)).await.unwrap();
            assert!(end.is_empty() && end.up_to_date, "{whole} whole bytes");
        }
        if let Some(lost) = self.appends.get(count).filter(|_| opened.may_lack_end) {
            world.push(lost.stream, [0, 0, 0]).await;
            let error = world.read(lost.stream, Start::At(lost.tail)).await.unwrap_err();
            assert!(matches!(error, ReadError::Gap(_)), "{whole} whole bytes: {error}");
        }
        if goes_on {
            world.push("a", [7, 8]).await;
            let content = world.content("a").await;
            drop(world);
            let (again, opened) = directory::world_of(copy.path(), SEGMENT_BYTES);
            assert!(!opened.may_lack_end, "it is met once");
            assert_eq!(again.content("a").await, content);
        }
    }
}

fn newest(directory: &Path) -> PathBuf {
    let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let mut logs: Vec<_> = files.filter(|path| path.extension().is_some_and(|it| it == "log")).collect();
    logs.sort();
    // The files after the first one are preallocated and empty.
    logs.remove(0)
}

/// Returns the number of bytes up to the last one that is not zero; JSON never ends with a zero.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Returns the distance of two damaged places in bytes.
pub fn step() -> usize {
    std::env::var("DAMAGE_STEP").map_or(509, |step| step.parse().unwrap())
}

#[tokio::test]
async fn a_log_torn_at_any_byte_holds_what_was_written_before() {
    let written = Written::new().await;
    let (end, first) = (used(&written.bytes), written.appends[0].end);
    let mut tried = 0;
    for cut in (first.max(end - DAMAGED_BYTES)..=end).step_by(step()) {
        // A file that ends at `cut`, and a file that is zero after it.
        written.check(&written.bytes[..cut], cut, tried % 16 == 0).await;
        let mut torn = written.bytes.clone();
        torn[cut..].fill(0);
        written.check(&torn, cut, tried % 16 == 0).await;
        tried += 1;
    }
    println!("torn at {tried} places in two ways: each time exactly what was before");
}
