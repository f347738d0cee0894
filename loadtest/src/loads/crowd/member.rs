//! One member of a crowd, which holds requests of one form on one connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use http_body_util::BodyExt;
use hyper::{StatusCode, Uri};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_websockets::ClientBuilder;

use super::Form;
use crate::dialects::LiveForm;
use crate::loads::HOLD;
use crate::loads::poller::Poller;
use crate::wire::{Connection, LeanConnection, Mqtt, WireError, open_one_of_many};
use crate::workload::MessageId;

/// The answer to a held poll.
pub(in crate::loads) struct Answer {
    /// When it was read.
    pub(in crate::loads) at: Instant,
    /// The messages in it.
    pub(in crate::loads) messages: Vec<MessageId>,
}

/// A member of the crowd.
pub(super) struct Member {
    /// Index in the crowd, from 0.
    pub(super) number: usize,
    pub(super) poller: Poller,
    pub(super) asked: Arc<AtomicUsize>,
    pub(super) answers: mpsc::UnboundedSender<Answer>,
    pub(super) turn: watch::Receiver<()>,
}

impl Member {
    /// Holds requests of the given form until the crowd is dropped; an error is recorded as a trouble.
    pub(super) async fn run(mut self, form: Form) {
        let ended = match form {
            Form::LongPoll => self.poll().await,
            Form::Sse => self.follow().await,
            Form::WebSocket => self.listen().await,
            Form::Mqtt => self.subscribe().await,
        };
        if let Err(error) = ended {
            self.poller.scene.tally.troubles.note(format!("polling: {error}"));
        }
    }

    async fn open(&self) -> Result<TcpStream, WireError> {
        Ok(open_one_of_many(self.poller.scene.instance(self.number), self.number).await?)
    }

    /// Holds one poll per turn.
    async fn poll(&mut self) -> Result<(), WireError> {
        let mut connection = LeanConnection::over(self.open().await?);
        loop {
            connection.send(&self.poller.poll(Some(HOLD))?).await?;
            self.asked.fetch_add(1, Ordering::Release);
            let (at, answer) = connection.answer().await?;
            let messages = self.poller.messages(answer.status, &answer.body)?;
            // The receiver is gone when the crowd is dropped.
            let _gone = self.answers.send(Answer { at, messages });
            if self.turn.changed().await.is_err() {
                return Ok(());
            }
            // Parsed only now: before, it would have delayed members that still had to read their answer.
            self.poller.read(&answer.response()?)?;
        }
    }

    /// Reads events until the response ends, which is an error.
    async fn follow(&mut self) -> Result<(), WireError> {
        let mut connection = Connection::over(self.open().await?).await?;
        let Poller { scene, stream, offset } = &self.poller;
        let request = scene.dialect()?.follow(stream, offset.as_deref(), LiveForm::Sse, None);
        let mut answer = connection.send(scene.addressed(request)?).await?;
        if answer.status() != StatusCode::OK {
            return Err(WireError::Status(answer.status()));
        }
        self.asked.fetch_add(1, Ordering::Release);
        while let Some(frame) = answer.frame().await {
            frame?;
        }
        Err(WireError::Closed)
    }

    /// Reads a WebSocket until it ends, which is an error.
    async fn listen(&mut self) -> Result<(), WireError> {
        let Poller { scene, stream, offset } = &self.poller;
        let target = scene.dialect()?.live(stream, offset.as_deref(), LiveForm::WebSocket, None);
        let uri = format!("ws://{}{target}", scene.instance(self.number));
        let uri: Uri = uri.parse().map_err(hyper::http::Error::from)?;
        let (mut socket, _answer) = ClientBuilder::from_uri(uri).connect_on(self.open().await?).await?;
        self.asked.fetch_add(1, Ordering::Release);
        while let Some(message) = socket.next().await {
            message?;
        }
        Err(WireError::Closed)
    }

    /// Subscribes to the stream, and reads until an error.
    async fn subscribe(&mut self) -> Result<(), WireError> {
        let mut session = Mqtt::open(self.open().await?, &format!("member-{}", self.number), None).await?;
        session.subscribe(&self.poller.stream).await?;
        self.asked.fetch_add(1, Ordering::Release);
        loop {
            session.next().await?;
        }
    }
}
