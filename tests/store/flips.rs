//! Damage in the middle of a log: all other records are intact, each stream with a loss reports one gap, and nothing else is
//! changed.
//!
//! A bit is flipped at every 509th byte of a store of five segments, at every 257th by `tests/run all`, or at the distance in
//! `DAMAGE_STEP`.

use std::fs;
use std::path::{Path, PathBuf};

use pollgate::store::{OpenError, check};
use pollgate::stream::{Append, Create, GapReason, Offset, Payload, ReadError, SessionChange, Start};
use tempfile::TempDir;

use crate::damage::step;
use crate::directory::{copy, directory, open_with, world_despite_damage, world_of};
use crate::suite::*;

const STREAMS: [&str; 4] = ["a", "b", "c", "last"];
const SEGMENT_BYTES: u32 = 16 * 1024;
const SEGMENTS: usize = 5;

/// A store written by a process that was killed.
struct Written {
    directory: TempDir,
    /// Offset of the beginning of each stream.
    starts: Vec<Offset>,
    appends: Vec<Appended>,
}

/// An append, and the end of its record.
struct Appended {
    stream: usize,
    text: String,
    file: PathBuf,
    end: usize,
}

/// Everything that a reader of a whole stream receives.
#[derive(Debug, Default, PartialEq)]
struct Told {
    text: String,
    gaps: usize,
    next: Option<Offset>,
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let mut logs: Vec<_> = files.filter(|path| path.extension().is_some_and(|it| it == "log")).collect();
    logs.sort();
    logs
}

/// Returns the number of bytes up to the last one that is not zero.
fn used(file: &Path) -> usize {
    fs::read(file).unwrap().iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Returns the file that is being written, and its used bytes.
fn end(directory: &Path) -> (PathBuf, usize) {
    let mut used = files(directory).into_iter().map(|file| (file.clone(), used(&file)));
    // A file with bytes after its header has been written to.
    used.rfind(|(_, used)| *used > 64).unwrap()
}

impl Written {
    async fn new() -> Self {
        let directory = directory();
        let (world, _) = world_of(directory.path(), SEGMENT_BYTES);
        let mut starts = Vec::new();
        for stream in STREAMS {
            starts.push(world.create(stream, Create::open(text())).await.unwrap().tail);
        }
        let mut appends = Vec::new();
        for n in 0.. {
            // Three streams that are written all the time, and one with a single message in the first segment.
            let stream = if n == 20 { 3 } else { n % 3 };
            let text = format!("[{n}:{}]", "x".repeat(n * 7 % 300));
            let payload = Payload::raw(text.clone().into_bytes().into());
            world.append(STREAMS[stream], append(crate::suite::text(), payload)).await.unwrap();
            let (file, end) = end(directory.path());
            let is_last = files(directory.path()).get(SEGMENTS - 1) == Some(&file) && end > 8 * 1024;
            appends.push(Appended { stream, text, file, end });
            if is_last {
                break;
            }
        }
        drop(world);
        Self { directory, starts, appends }
    }

    /// Returns the append whose record is at a byte of a file; `None` for a record of another kind.
    fn at(&self, file: &Path, byte: usize) -> Option<usize> {
        self.appends.iter().position(|append| append.file == file && append.end > byte)
    }

    /// Returns the text of a stream without one append.
    fn text(&self, stream: usize, without: Option<usize>) -> String {
        let of_it = self
            .appends
            .iter()
            .enumerate()
            .filter(|(n, append)| append.stream == stream && Some(*n) != without);
        of_it.map(|(_, append)| append.text.as_str()).collect()
    }

    /// Copies the store with other content in one file.
    fn copy(&self, file: &Path, bytes: &[u8]) -> TempDir {
        let copied = directory();
        copy(self.directory.path(), copied.path());
        fs::write(copied.path().join(file.file_name().unwrap()), bytes).unwrap();
        copied
    }

    async fn read(&self, world: &World, stream: usize) -> Told {
        let (mut told, mut start) = (Told::default(), Start::At(self.starts[stream]));
        loop {
            match world.read(STREAMS[stream], start).await {
                Ok(batch) => {
                    told.text.push_str(&content(&batch));
                    told.next = Some(batch.next);
                    start = Start::At(batch.next);
                    if batch.up_to_date {
                        return told;
                    }
                }
                Err(ReadError::Gap(gap)) => {
                    let is_damage = matches!(gap.reason, GapReason::Damaged { .. });
                    assert!(is_damage, "{}: {:?}", STREAMS[stream], gap.reason);
                    told.gaps += 1;
                    start = Start::At(gap.earliest);
                }
                Err(error) => panic!("{}: {error}", STREAMS[stream]),
            }
        }
    }

    /// Checks that all streams are unchanged except for at most one append, and returns that.
    async fn without_one(&self, world: &World, at: Option<usize>, what: &str) -> Option<usize> {
        let mut lost = None;
        for (stream, name) in STREAMS.into_iter().enumerate() {
            let told = self.read(world, stream).await;
            if told.text == self.text(stream, None) {
                assert_eq!(told.gaps, 0, "{what}: {name} has lost nothing");
                continue;
            }
            assert_eq!(
                at.map(|at| self.appends[at].stream),
                Some(stream),
                "{what}: {name} has lost something else"
            );
            assert!(told.text == self.text(stream, at), "{what}: {name}");
            assert_eq!(told.gaps, 1, "{what}: {name} tells its gap once");
            lost = at;
        }
        lost
    }
}

#[tokio::test]
async fn a_flipped_bit_loses_only_the_record_that_it_hits() {
    let written = Written::new().await;
    let (mut tried, mut lost) = (0, 0);
    for file in &files(written.directory.path())[..SEGMENTS] {
        let whole = fs::read(file).unwrap();
        for at in (0..used(file)).step_by(step()) {
            let what = format!("{}, byte {at}", file.file_name().unwrap().display());
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << fastrand::u32(..8);
            let copied = written.copy(file, &bytes);
            let Err(error) = open_with(copied.path(), SEGMENT_BYTES) else { panic!("{what}: opened") };
            assert!(matches!(error, OpenError::Damaged { .. }), "{what}: {error}");
            assert!(error.to_string().contains("--accept-damage"), "{error}");
            let checked = check(copied.path()).unwrap();
            assert_eq!(checked.damage.len(), 1, "{what}: {:?}", checked.damage);

            let world = world_despite_damage(copied.path(), SEGMENT_BYTES);
            let at_byte = written.at(file, at);
            let gone = written.without_one(&world, at_byte, &what).await;
            lost += usize::from(gone.is_some());
            assert_eq!(checked.lost.len(), usize::from(gone.is_some()), "{what}: {:?}", checked.lost);
            // A file of which no message is lost may be reclaimed with its damage, such as a half full one with a damaged header.
            let path = copied.path().join(file.file_name().unwrap());
            let is_reported = |world: &World| world.store.is_damaged() || (gone.is_none() && !path.exists());
            assert!(is_reported(&world), "{what}");
            for stream in STREAMS {
                world.append(stream, append(text(), raw(b"!"))).await.unwrap();
            }
            drop(world);

            // Damage is accepted once, and reported as long as it is there.
            let (again, _) = world_of(copied.path(), SEGMENT_BYTES);
            assert!(is_reported(&again), "{what}");
            for stream in 0..STREAMS.len() {
                let told = written.read(&again, stream).await;
                let without = gone.filter(|gone| written.appends[*gone].stream == stream);
                assert!(told.text == written.text(stream, without) + "!", "{what}");
                assert_eq!(told.gaps, usize::from(without.is_some()), "{what}");
            }
            match fs::read(&path) {
                Ok(now) => {
                    assert!(now[..used(file)] == bytes[..used(file)], "{what}: what was there is still there")
                }
                Err(error) => assert!(is_reported(&again), "{what}: {error}"),
            }
            drop(again);
            tried += 1;
        }
    }
    println!("flipped {tried} bits: {lost} records of messages lost, each alone and told once");
    assert!(lost > tried / 2, "{lost} of {tried}");
}

/// Whole sectors are lost together with the records in them and those that begin in them.
#[tokio::test]
async fn lost_sectors_lose_only_the_records_in_them() {
    let written = Written::new().await;
    for file in &files(written.directory.path())[1..SEGMENTS - 1] {
        let mut bytes = fs::read(file).unwrap();
        bytes[4096..5120].fill(0);
        let copied = written.copy(file, &bytes);
        assert!(open_with(copied.path(), SEGMENT_BYTES).is_err());
        let world = world_despite_damage(copied.path(), SEGMENT_BYTES);
        let hit = |append: &&Appended| {
            append.file == *file && append.end > 4096 && append.end - append.text.len() < 5120
        };
        for (stream, name) in STREAMS.into_iter().enumerate() {
            let told = written.read(&world, stream).await;
            let lost: Vec<_> = written.appends.iter().filter(hit).filter(|it| it.stream == stream).collect();
            let mut expected = written.text(stream, None);
            for append in &lost {
                expected = expected.replace(&append.text, "");
            }
            assert!(told.text == expected, "{name}");
            assert!(told.gaps >= usize::from(!lost.is_empty()), "{name}");
        }
    }
}

/// A record is damaged while the store is open: its readers get a gap, and read on.
#[tokio::test]
async fn a_record_that_is_damaged_at_run_time_is_a_gap() {
    let written = Written::new().await;
    let copied = directory();
    copy(written.directory.path(), copied.path());
    let (world, _) = world_of(copied.path(), SEGMENT_BYTES);
    assert!(!world.store.is_damaged());
    let appends = &written.appends;
    let hit = appends.iter().position(|append| append.text.len() > 200 && append.stream == 1).unwrap();
    let file = copied.path().join(appends[hit].file.file_name().unwrap());
    let mut bytes = fs::read(&file).unwrap();
    bytes[appends[hit].end - 100] ^= 4;
    fs::write(&file, bytes).unwrap();
    for round in 0..2 {
        assert_eq!(written.without_one(&world, Some(hit), &format!("round {round}")).await, Some(hit));
        assert!(world.store.is_damaged());
    }
    drop(world);
    let error = open_with(copied.path(), SEGMENT_BYTES).map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    let world = world_despite_damage(copied.path(), SEGMENT_BYTES);
    assert_eq!(written.without_one(&world, Some(hit), "opened again").await, Some(hit));
}

/// MQTT sessions cannot tell their clients a gap, so a flipped bit loses nothing of them.
#[tokio::test]
async fn a_flipped_bit_loses_nothing_of_a_session() {
    let directory = directory();
    let (world, _) = world_of(directory.path(), SEGMENT_BYTES);
    world.create("s", Create::open(text())).await.unwrap();
    for number in 0..30 {
        world
            .change("ada", &format!("a{}={number} b={} -a{}", number % 4, number * 7, (number + 1) % 4))
            .await;
        let session = SessionChange {
            client: "bob".into(),
            anew: number == 9,
            entries: vec![(format!("key {number}").into(), Some("value".into()))],
        };
        world.append("s", Append { session: Some(session), ..append(text(), raw(b"x")) }).await.unwrap();
        if number == 20 {
            world.store.change_session(SessionChange::end("ada".into())).await.unwrap();
        }
    }
    let before = (world.session("ada").await, world.session("bob").await);
    drop(world);
    let file = &files(directory.path())[0];
    let whole = fs::read(file).unwrap();
    for at in (64..used(file)).step_by(step().div_ceil(5)) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << fastrand::u32(..8);
        let copied = crate::directory::directory();
        copy(directory.path(), copied.path());
        fs::write(copied.path().join(file.file_name().unwrap()), bytes).unwrap();
        for _ in 0..2 {
            let world = world_despite_damage(copied.path(), SEGMENT_BYTES);
            assert_eq!((world.session("ada").await, world.session("bob").await), before, "byte {at}");
            world.change("carl", "c=1").await;
        }
    }
}
