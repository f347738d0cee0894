//! [`World`]: short helpers for streams, appends and reads of a store at any time of day.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use pollgate::stream::{
    Append, AppendError, Appended, Batch, ContentType, Create, CreateError, Created, Fork, Offset, Payload,
    Producer, ReadError, ReadLimit, Start, Store, StreamName,
};

/// Creates an empty store.
pub type MakeStore<'a> = &'a (dyn Fn() -> Made + Sync);

/// A store, and what it needs until it is dropped: a directory, or an engine.
pub struct Made {
    pub store: Box<dyn Store>,
    pub needs: Option<Box<dyn Send + Sync>>,
}

/// Returns the time at which every test begins.
pub fn noon() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// A store and the present time.
pub struct World {
    pub store: Box<dyn Store>,
    pub now: SystemTime,
    _needs: Option<Box<dyn Send + Sync>>,
}

pub fn name(text: &str) -> StreamName {
    StreamName::parse(text).unwrap()
}

pub fn json() -> ContentType {
    ContentType::parse("application/json").unwrap()
}

pub fn text() -> ContentType {
    ContentType::parse("text/plain").unwrap()
}

/// Returns JSON numbers as one append.
pub fn numbers(numbers: impl IntoIterator<Item = u64>) -> Payload {
    let mut joined = String::new();
    let mut ends = Vec::new();
    for number in numbers {
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(&number.to_string());
        ends.push(joined.len() as u32);
    }
    Payload::json(joined.into(), ends)
}

pub fn raw(bytes: &'static [u8]) -> Payload {
    Payload::raw(Bytes::from_static(bytes))
}

pub fn append(content_type: ContentType, payload: Payload) -> Append {
    Append::of(content_type, payload)
}

pub fn producer(epoch: u64, sequence: u64) -> Option<Producer> {
    Some(Producer { id: "p".into(), epoch, sequence })
}

pub fn fork_of(source: &str, offset: Option<Offset>, sub_offset: u64) -> Create {
    let fork = Fork { source: name(source), offset: offset.map(Start::At), sub_offset };
    Create { fork: Some(fork), ..Create::open(json()) }
}

/// Returns the content of a batch as text.
pub fn content(batch: &Batch) -> String {
    let separator: &[u8] = if batch.content_type.is_json() { b"," } else { b"" };
    String::from_utf8(batch.pieces.join(separator)).unwrap()
}

impl World {
    pub fn new(make: MakeStore<'_>) -> Self {
        let Made { store, needs } = make();
        Self { store, now: noon(), _needs: needs }
    }

    /// Uses an existing store.
    pub fn with(store: Box<dyn Store>) -> Self {
        Self { store, now: noon(), _needs: None }
    }

    pub fn later(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    pub async fn sweep(&self) -> Vec<StreamName> {
        self.store.sweep(self.now).await.unwrap()
    }

    pub async fn create(&self, stream: &str, create: Create) -> Result<Created, CreateError> {
        self.store.create(&name(stream), create, self.now).await
    }

    /// Creates an open JSON stream.
    pub async fn open(&self, stream: &str) -> Created {
        self.create(stream, Create::open(json())).await.unwrap()
    }

    pub async fn append(&self, stream: &str, append: Append) -> Result<Appended, AppendError> {
        self.store.append(&name(stream), append.into(), self.now).await
    }

    /// Appends JSON numbers and returns the offset after them.
    pub async fn push(&self, stream: &str, range: impl IntoIterator<Item = u64>) -> Offset {
        self.append(stream, append(json(), numbers(range))).await.unwrap().tail
    }

    pub async fn read(&self, stream: &str, start: Start) -> Result<Batch, ReadError> {
        let (stream, limit) = (name(stream), ReadLimit { bytes_max: 1 << 20 });
        let at_once = || {
            let read = self.store.read_at_once(&stream, start, limit, self.now)?;
            Some(format!("{read:?}"))
        };
        let before = at_once();
        let read = self.store.read(&stream, start, limit, self.now).await;
        // A store that can answer at once says the same, unless somebody has appended meanwhile.
        if before.is_some() && before == at_once() {
            assert_eq!(before, Some(format!("{read:?}")));
        }
        read
    }

    /// Reads all bytes of a stream, in several reads if needed.
    pub async fn read_all(&self, stream: &str) -> Vec<u8> {
        let (mut all, mut start) = (Vec::new(), Start::Earliest);
        loop {
            let batch = self.read(stream, start).await.unwrap();
            all.extend(batch.pieces.concat());
            start = Start::At(batch.next);
            if batch.up_to_date {
                return all;
            }
        }
    }

    /// Reads the content of a stream as text.
    pub async fn content(&self, stream: &str) -> String {
        content(&self.read(stream, Start::Earliest).await.unwrap())
    }
}
