//! Readers: [`Follower`], which continues at its offset through outages, and reads of whole streams.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio::task::JoinHandle;

use crate::crew::Stream;
use crate::home::Home;
use crate::ledger::Ledger;
use crate::verdict::Verdict;
use crate::world::{Form, Gateway, Kind, Place, Reader, Refusal, get, until};

/// A client that reads by long polls and keeps only its offset. A drop ends it.
pub(crate) struct Follower {
    read: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

/// A whole log, and the offset of its tail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) messages: Vec<String>,
    pub(crate) offset: String,
}

impl Follower {
    pub(crate) fn start(home: &Home, stream: &Stream) -> Self {
        let read = Arc::default();
        let task = tokio::spawn(follow(home.clone(), stream.path.clone(), Arc::clone(&read)));
        Self { read, task }
    }

    /// Waits until it has `messages` messages, and returns all messages read until then.
    pub(crate) async fn until_it_has(self, messages: usize) -> Vec<String> {
        let what = format!("a follower has {messages} messages");
        until(&what, async || self.task.is_finished() || self.read.lock().len() >= messages).await;
        assert!(!self.task.is_finished(), "a follower was told what it did not expect");
        self.read.lock().clone()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Continues at the offset after every end of a connection. A server error is retried; an invalid offset panics.
async fn follow(home: Home, stream: String, read: Arc<Mutex<Vec<String>>>) {
    let mut offset = "-1".to_owned();
    loop {
        let mut connection = home.connect().await;
        loop {
            let poll = get(format!("{stream}?offset={offset}&live=long-poll&timeout=1"));
            let Some(answer) = home.send(&mut connection, poll).await else { break };
            match answer.status.as_u16() {
                200 | 204 => offset = answer.next_offset(),
                500.. => break,
                _ => panic!("a reader of {stream} at {offset}, {} messages: {answer:?}", read.lock().len()),
            }
            if !answer.body.is_empty() {
                let messages: Vec<&RawValue> = serde_json::from_slice(&answer.body).expect("a JSON array");
                read.lock().extend(messages.into_iter().map(|message| message.get().to_owned()));
            }
        }
    }
}

impl Log {
    /// Reads a whole stream.
    pub(crate) async fn of(gateway: &Gateway, stream: &Stream) -> Result<Self, Refusal> {
        let mut reader = Self::reader(gateway, stream, "-1").await?;
        let mut read = Vec::new();
        loop {
            let batch = reader.next().await?.expect("nobody closes it");
            read.extend(batch.data);
            if batch.up_to_date {
                let text = String::from_utf8(read).expect("UTF-8");
                return Ok(Self { messages: text.lines().map(str::to_owned).collect(), offset: batch.next });
            }
        }
    }

    /// Returns a reader by short polls from `offset`, or the refusal.
    pub(crate) async fn reader(gateway: &Gateway, stream: &Stream, offset: &str) -> Result<Reader, Refusal> {
        let place = Place { address: gateway.address, path: stream.path.clone(), kind: Kind::Json };
        Reader::open(&place, Form::ShortPoll, offset).await
    }
}

/// Reads every stream from its beginning and checks that all acknowledged messages are there, once and in order.
pub(crate) async fn expect_all(gateway: &Gateway, streams: &[Stream], ledger: &Ledger) -> Vec<Log> {
    let mut logs = Vec::new();
    for stream in streams {
        let log = Log::of(gateway, stream).await.expect("the stream is there");
        let verdict = Verdict::on(&log.messages, &ledger.on(&stream.path, &stream.publishers));
        assert_eq!(verdict, Verdict::CLEAN, "{}", stream.path);
        logs.push(log);
    }
    logs
}
