//! Space of deleted data is reclaimed, and nothing else is lost.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pollgate::store::Memory;
use pollgate::stream::{
    Append, Create, CreateError, Missing, Offset, Payload, ReadError, ReadLimit, Retention, Start,
};
use tokio::time::Instant;

use crate::directory::{SEGMENT_BYTES, directory, size, world, world_at, world_of, world_without_cache};
use crate::suite::*;

/// Waits until the store takes at most `bytes` bytes.
async fn shrinks(directory: &Path, bytes: u64) {
    let since = Instant::now();
    while size(directory) > bytes {
        assert!(since.elapsed() < Duration::from_secs(60), "still {} bytes", size(directory));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn file(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{number:010}.log"))
}

/// Waits until a file is removed.
async fn is_given_up(directory: &Path, number: u32) {
    let since = Instant::now();
    while file(directory, number).exists() {
        assert!(since.elapsed() < Duration::from_secs(60), "file {number} stays");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Returns the number of the newest file with records.
fn active(directory: &Path) -> u32 {
    let files = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let used = files.filter(|path| {
        // A file may be removed meanwhile.
        let bytes = std::fs::read(path).unwrap_or_default();
        path.extension().is_some_and(|it| it == "log") && bytes.iter().skip(64).any(|byte| *byte != 0)
    });
    used.map(|path| path.file_stem().unwrap().to_str().unwrap().parse().unwrap()).max().unwrap()
}

/// Appends to a new stream until another file is written to, and deletes the stream, so that its data is garbage.
async fn waste_a_file(world: &World, directory: &Path) {
    world.create("waste", Create::open(text())).await.unwrap();
    let before = active(directory);
    while active(directory) == before {
        world.append("waste", message(b'w')).await.unwrap();
    }
    world.store.delete(&name("waste"), world.now).await.unwrap();
}

fn message(letter: u8) -> Append {
    append(text(), Payload::raw(vec![letter; 500].into()))
}

#[tokio::test]
async fn a_stream_with_a_limit_takes_little_more_space_than_the_limit() {
    const LIMIT: u64 = 4 << 20;
    let directory = directory();
    let (world, _) = world(directory.path());
    let retention = Retention { bytes_max: Some(LIMIT), ..Retention::default() };
    world.create("s", Create { retention: Some(retention), ..Create::open(text()) }).await.unwrap();
    world.open("kept").await;
    let mut most = 0;
    for n in 0..16_000u64 {
        let message = Payload::raw(vec![b'a' + (n % 26) as u8; 1000].into());
        world.append("s", append(text(), message)).await.unwrap();
        if n % 100 == 0 {
            world.push("kept", [n]).await;
            most = most.max(size(directory.path()));
        }
    }
    // The file that is written to, and one that is prepared.
    let allowed = LIMIT * 12 / 10 + 2 * u64::from(SEGMENT_BYTES);
    println!("16 MB through a limit of 4 MiB: at most {most} bytes on disk, {allowed} allowed");
    assert!(most <= allowed, "{most} > {allowed}");
    let before = world.read_all("s").await;
    drop(world);
    let (again, _) = crate::directory::world(directory.path());
    assert!(again.read_all("s").await == before, "a restart does not change it");
    assert_eq!(again.content("kept").await.split(',').count(), 160);
}

/// The messages are larger than the data that is moved between two groups of changes, so messages are moved and committed
/// before the state of their streams is examined.
#[tokio::test]
async fn streams_that_began_with_a_message_outlive_the_segment_in_which_they_began() {
    const SEGMENT: u32 = 2 << 20;
    let directory = directory();
    let (world, _) = world_of(directory.path(), SEGMENT);
    let retention = Retention { messages_max: Some(1), ..Retention::default() };
    world.create("passing", Create { retention: Some(retention), ..Create::open(text()) }).await.unwrap();
    let message = |size: usize| append(text(), Payload::raw(vec![b'x'; size].into()));
    for n in 0..20 {
        if n % 2 == 0 {
            world.append(&format!("begun/{n}"), message(40_000).or_create()).await.unwrap();
        } else {
            let payload = Payload::raw(vec![b'x'; 40_000].into());
            let create = Create { payload, ..Create::open(text()) };
            world.create(&format!("begun/{n}"), create).await.unwrap();
        }
    }
    for _ in 0..100 {
        world.append("passing", message(100_000)).await.unwrap();
    }
    shrinks(directory.path(), 3 * u64::from(SEGMENT)).await;
    drop(world);
    let (again, _) = world_of(directory.path(), SEGMENT);
    for n in 0..20 {
        assert_eq!(again.content(&format!("begun/{n}")).await.len(), 40_000, "begun/{n}");
    }
}

#[tokio::test]
async fn the_space_of_deleted_and_aged_messages_is_reclaimed() {
    let directory = directory();
    let (mut world, _) = world(directory.path());
    let empty = size(directory.path());
    let old = Retention { age_max: Some(Duration::from_secs(60)), ..Retention::default() };
    world.create("aged", Create { retention: Some(old), ..Create::open(text()) }).await.unwrap();
    world.create("deleted", Create::open(text())).await.unwrap();
    for stream in ["aged", "deleted"] {
        for _ in 0..2000 {
            let message = Payload::raw(vec![b'x'; 1000].into());
            world.append(stream, append(text(), message)).await.unwrap();
        }
    }
    assert!(size(directory.path()) > 4_000_000);
    world.store.delete(&name("deleted"), world.now).await.unwrap();
    world.later(61);
    world.sweep().await;
    shrinks(directory.path(), empty + 2 * u64::from(SEGMENT_BYTES)).await;
    drop(world);
    let (again, opened) = crate::directory::world(directory.path());
    assert_eq!((opened.streams, again.read_all("aged").await.len()), (1, 0));
}

/// 1. The first file is nearly full of a stream that stays, and holds the first message of another one.
/// 2. The second file holds only further messages of that other stream.
/// 3. For a fork of it they all become too old, so that the second file is removed; the first one is not.
/// 4. After a restart the fork is unchanged: without the message that is left in the first file, and with its own message.
#[tokio::test]
async fn messages_that_a_fork_inherited_and_trimmed_do_not_come_back() {
    let directory = directory();
    let (mut world, _) = world_of(directory.path(), 16 * 1024);
    for stream in ["stays", "source"] {
        world.create(stream, Create::open(text())).await.unwrap();
    }
    for _ in 0..29 {
        world.append("stays", message(b's')).await.unwrap();
    }
    for n in 0..34 {
        world.append("source", message(b'A' + n)).await.unwrap();
    }
    let retention = Some(Retention { age_max: Some(Duration::from_secs(60)), ..Retention::default() });
    let fork = Create { retention, content_type: text(), ..fork_of("source", None, 0) };
    world.create("fork", fork).await.unwrap();
    world.store.delete(&name("source"), world.now).await.unwrap();
    world.later(61);
    world.append("fork", message(b'z')).await.unwrap();
    is_given_up(directory.path(), 2).await;
    assert!(file(directory.path(), 1).exists());
    drop(world);
    let (again, _) = world_of(directory.path(), 16 * 1024);
    assert_eq!(again.read_all("fork").await, [b'z'; 500]);
    assert_eq!(again.read_all("stays").await.len(), 14_500);
}

/// 1. The first file is nearly full of a stream that stays, and holds the creation of another one.
/// 2. That other stream is deleted, which is recorded in the second file; a fork keeps its name.
/// 3. The second file is removed, so that the state of the stream is written again: it has ended.
/// 4. The fork is deleted too, and the file with that state is removed.
/// 5. After a restart the stream is still gone, although the first file holds its creation.
#[tokio::test]
async fn a_name_that_was_kept_for_a_fork_does_not_come_back() {
    let directory = directory();
    let (world, _) = world_of(directory.path(), 16 * 1024);
    for stream in ["stays", "source"] {
        world.create(stream, Create::open(text())).await.unwrap();
    }
    while active(directory.path()) == 1 {
        world.append("stays", message(b's')).await.unwrap();
    }
    let fork = Create { content_type: text(), ..fork_of("source", None, 0) };
    world.create("fork", fork).await.unwrap();
    world.store.delete(&name("source"), world.now).await.unwrap();
    waste_a_file(&world, directory.path()).await;
    is_given_up(directory.path(), 2).await;
    world.store.delete(&name("fork"), world.now).await.unwrap();
    let with_state = active(directory.path());
    waste_a_file(&world, directory.path()).await;
    is_given_up(directory.path(), with_state).await;
    assert!(file(directory.path(), 1).exists());
    drop(world);
    let (again, opened) = world_of(directory.path(), 16 * 1024);
    assert_eq!(opened.streams, 1);
    let gone = again.read("source", Start::Earliest).await.unwrap_err();
    assert_eq!(gone, ReadError::Missing(Missing::NotFound));
}

/// The file with the creation and the deletion of a source is removed, so that its state is written again: a fork has its name.
#[tokio::test]
async fn a_name_stays_taken_for_a_fork_when_the_files_with_its_records_are_removed() {
    let directory = directory();
    let (world, _) = world_of(directory.path(), 16 * 1024);
    world.open("source").await;
    world.push("source", [1]).await;
    world.create("fork", fork_of("source", None, 0)).await.unwrap();
    world.store.delete(&name("source"), world.now).await.unwrap();
    waste_a_file(&world, directory.path()).await;
    is_given_up(directory.path(), 1).await;
    drop(world);
    let (again, _) = world_of(directory.path(), 16 * 1024);
    assert_eq!(again.content("fork").await, "1");
    assert_eq!(again.create("source", Create::open(json())).await.unwrap_err(), CreateError::NameTaken);
}

/// A damaged record that is still in use is not removed, nor are the records beside it.
#[tokio::test]
async fn a_file_with_a_damaged_record_in_use_stays() {
    let directory = directory();
    let world = world_without_cache(directory.path(), 16 * 1024, noon());
    world.create("stays", Create::open(text())).await.unwrap();
    for letter in b"abc" {
        world.append("stays", message(*letter)).await.unwrap();
    }
    let first = file(directory.path(), 1);
    let bytes = std::fs::read(&first).unwrap();
    let at = bytes.windows(9).position(|bytes| bytes == b"bbbbbbbbb").unwrap();
    std::fs::File::options().write(true).open(&first).unwrap().write_all_at(b"x", at as u64).unwrap();
    for _ in 0..4 {
        let before = active(directory.path());
        waste_a_file(&world, directory.path()).await;
        if before > 1 {
            is_given_up(directory.path(), before).await;
        }
    }
    assert!(first.exists());
    let limit = ReadLimit { bytes_max: 1 };
    let read = world.store.read(&name("stays"), Start::Earliest, limit, world.now).await.unwrap();
    assert_eq!(read.pieces, [vec![b'a'; 500]]);
}

/// Readers find records that are moved while they read.
#[tokio::test]
async fn messages_can_be_read_while_they_are_moved() {
    const KEPT: u64 = 300;
    let directory = directory();
    let world = world_without_cache(directory.path(), 16 * 1024, noon());
    let retention = Some(Retention { bytes_max: Some(2000), ..Retention::default() });
    world.create("waste", Create { retention, ..Create::open(text()) }).await.unwrap();
    world.open("kept").await;
    let write = async {
        for n in 0..KEPT {
            world.push("kept", [n]).await;
            for _ in 0..10 {
                world.append("waste", message(b'w')).await.unwrap();
            }
        }
    };
    let read = async {
        let (mut reads, mut count) = (0, 0);
        while count < KEPT {
            let content = world.content("kept").await;
            count = content.split_terminator(',').count() as u64;
            assert_eq!(content, (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
            reads += 1;
        }
        reads
    };
    let ((), reads) = tokio::join!(write, read);
    println!("{reads} reads of all while {} files were written", active(directory.path()));
    assert!(!file(directory.path(), 1).exists() && reads > 0);
}

/// A store on disk and a store in memory that get the same requests.
struct Pair {
    disk: World,
    model: World,
}

/// Observed state of a stream, without the epochs, which differ.
#[derive(Debug, PartialEq)]
struct Seen(Result<(String, u64, u64, bool, Option<String>), String>);

impl Pair {
    /// Sends the same request to both stores, which must answer the same.
    async fn both<T, E: std::fmt::Debug>(&self, act: impl AsyncFn(&World) -> Result<T, E>) {
        let (disk, model) = (act(&self.disk).await, act(&self.model).await);
        let kind = |outcome: &Result<T, E>| {
            outcome.as_ref().err().map(|error| {
                // Compared up to the first offset, since its epoch differs.
                format!("{error:?}").split("epoch").next().unwrap().to_owned()
            })
        };
        assert_eq!(kind(&disk), kind(&model));
    }

    async fn compare(&self, stream: &str) {
        assert_eq!(seen(&self.disk, stream).await, seen(&self.model, stream).await, "{stream}");
    }
}

async fn seen(world: &World, stream: &str) -> Seen {
    let described = world.store.describe(&name(stream), world.now).await;
    Seen(match described {
        Err(missing) => Err(format!("{missing:?}")),
        Ok(described) => {
            let positions = (described.earliest.position.0, described.tail.position.0);
            let retained = world.retained(stream).await;
            Ok((world.content(stream).await, positions.0, positions.1, described.closed, retained))
        }
    })
}

/// After any requests, over restarts and while space is reclaimed, the store on disk has the same content as the store in
/// memory. `SAME_AS_MEMORY=1000000` runs more steps.
#[tokio::test]
async fn the_store_on_disk_has_the_same_content_as_the_store_in_memory() {
    const STREAMS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let steps = std::env::var("SAME_AS_MEMORY").map_or(20_000, |steps| steps.parse().unwrap());
    let seed = std::env::var("SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let directory = directory();
    let open = |restarts: u32, now| match restarts % 2 {
        0 => world_at(directory.path(), 16 * 1024, now),
        _ => world_without_cache(directory.path(), 16 * 1024, now),
    };
    let mut pair = Pair { disk: open(0, noon()), model: World::with(Box::new(Memory::new())) };
    let (mut restarts, mut most) = (0, 0);
    for step in 0..steps {
        let stream = STREAMS[random.usize(..STREAMS.len())];
        match random.u32(..100) {
            0..60 => {
                let most = if random.u32(..4) == 0 { 90 } else { 4 };
                let values: Vec<_> = (0..random.u64(1..most)).map(|value| step * 100 + value).collect();
                let close = random.u32(..2000) == 0;
                let plain = match random.u32(..8) {
                    0 => annotated(numbers(values), "ada", random.bool()),
                    _ => append(json(), numbers(values)),
                };
                let sequence = random.u64(..4);
                let by = if random.bool() { producer(step / 500, sequence) } else { None };
                let append = Append { close, producer: by, ..plain };
                pair.both(async |world| world.append(stream, append.clone()).await).await;
            }
            60..75 => {
                let retention = Retention {
                    messages_max: random.bool().then(|| random.u64(1..300)),
                    bytes_max: random.bool().then(|| random.u64(1..5000)),
                    age_max: random.bool().then(|| Duration::from_secs(random.u64(1..100))),
                };
                let retention = random.bool().then_some(retention);
                let payload = if random.bool() { numbers([step]) } else { Payload::default() };
                let create = Create { retention, payload, ..Create::open(json()) };
                pair.both(async |world| world.create(stream, create.clone()).await).await;
            }
            75..80 => {
                let source = STREAMS[random.usize(..STREAMS.len())];
                let (point, behind) = (random.f64(), random.u64(..3));
                let fork = async |world: &World| {
                    let tail = world.store.describe(&name(source), world.now).await;
                    let offset = tail.ok().map(|it| at(it.earliest, it.tail, point));
                    let create = fork_of(source, offset, behind);
                    world.create(stream, create).await
                };
                pair.both(fork).await;
            }
            80 => {
                pair.both(async |world| world.store.delete(&name(stream), world.now).await).await;
            }
            81..83 => {
                pair.both(async |world| world.store.clear_retained(&name(stream), world.now).await).await;
            }
            83..97 => pair.compare(stream).await,
            97..99 => {
                let seconds = random.u64(..20);
                pair.disk.later(seconds);
                pair.model.later(seconds);
                pair.disk.sweep().await;
                pair.model.sweep().await;
            }
            _ => {
                let now = pair.disk.now;
                drop(pair.disk);
                restarts += 1;
                pair.disk = open(restarts, now);
                for stream in STREAMS {
                    pair.compare(stream).await;
                }
            }
        }
        most = most.max(size(directory.path()));
    }
    for stream in STREAMS {
        pair.compare(stream).await;
    }
    println!("{steps} steps and {restarts} restarts: the same; at most {most} bytes on disk");
}

/// Returns one of two offsets, both of which are valid in a JSON stream.
fn at(earliest: Offset, tail: Offset, part: f64) -> Offset {
    let between = (tail.position.0 - earliest.position.0) as f64 * part;
    if between < 1.0 { earliest } else { tail }
}
