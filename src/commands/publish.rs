//! `pollgate pub`: publishes a message, or each line of standard input.

use std::error::Error;
use std::io::{self, BufRead, Read};
use std::process::ExitCode;

use pollgate_client::{Client, Producer, PublishError};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};

use super::gateway::{answered, client};
use super::options::PublishCommand;
use super::progress;

/// Content type of a stream that is created without another one.
const JSON: &str = "application/json";

/// Most messages that wait for an acknowledgement, so that standard input is read no faster than the gateway takes messages.
const UNACKNOWLEDGED_MAX: usize = 4096;

/// Longest line of standard input. A gateway takes no message this long.
pub(super) const LINE_BYTES_MAX: u64 = 64 << 20;

/// Publishes what the command says, and waits until the gateway has acknowledged all of it.
pub(crate) async fn publish(command: PublishCommand) -> Result<ExitCode, Box<dyn Error>> {
    let publisher = LinePublisher::start(&command).await?;
    match command.message.as_deref().unwrap_or("-") {
        "-" if command.whole => {
            let mut message = Vec::new();
            io::stdin().lock().take(LINE_BYTES_MAX).read_to_end(&mut message)?;
            publisher.publish_one(message).await?;
        }
        "-" => publisher.publish_lines().await?,
        message => publisher.publish_one(message.into()).await?,
    }
    Ok(ExitCode::SUCCESS)
}

struct LinePublisher<'a> {
    command: &'a PublishCommand,
    producer: Producer,
}

impl<'a> LinePublisher<'a> {
    /// Finds out what the stream takes. A stream that does not exist is created by the first message.
    async fn start(command: &'a PublishCommand) -> Result<Self, Box<dyn Error>> {
        let client: Client = client(&command.gateway)?;
        let info = answered(&command.gateway, client.stream_info(&command.stream)).await?;
        let content_type = match (&info, &command.content_type) {
            (Some(info), _) => info.content_type.clone(),
            (None, Some(content_type)) => content_type.clone(),
            (None, None) => JSON.to_owned(),
        };
        Ok(Self { command, producer: client.producer(&command.stream, &content_type) })
    }

    async fn publish_one(&self, message: Vec<u8>) -> Result<(), Box<dyn Error>> {
        let message = self.message(message)?;
        answered(&self.command.gateway, self.producer.publish(message)).await
    }

    async fn publish_lines(&self) -> Result<(), Box<dyn Error>> {
        let (lines, mut read) = mpsc::channel(64);
        let reading = spawn_blocking(move || read_lines(|line| lines.blocking_send(line).is_ok()));
        let progress = progress::messages("published");
        let mut unacknowledged = JoinSet::new();
        while let Some(line) = read.recv().await {
            unacknowledged.spawn(self.producer.publish(self.message(line)?));
            while unacknowledged.len() >= UNACKNOWLEDGED_MAX {
                self.next_acknowledgement(&mut unacknowledged).await?;
                progress.inc(1);
            }
        }
        while !unacknowledged.is_empty() {
            self.next_acknowledgement(&mut unacknowledged).await?;
            progress.inc(1);
        }
        progress.finish_and_clear();
        Ok(reading.await??)
    }

    async fn next_acknowledgement(
        &self,
        unacknowledged: &mut JoinSet<Result<(), PublishError>>,
    ) -> Result<(), Box<dyn Error>> {
        let next = async { unacknowledged.join_next().await.unwrap_or(Ok(Ok(()))) };
        answered(&self.command.gateway, next).await?.map_err(Into::into)
    }

    /// The message as the stream takes it. In a JSON stream, text that does not begin like JSON is a string.
    fn message(&self, text: Vec<u8>) -> Result<Vec<u8>, Box<dyn Error>> {
        if self.producer.takes_json() { as_json(text, self.command.string) } else { Ok(text) }
    }
}

/// The text as a value of JSON. Text that does not begin like JSON is a string, and any text is if `is_string`.
pub(super) fn as_json(text: Vec<u8>, is_string: bool) -> Result<Vec<u8>, Box<dyn Error>> {
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&text);
    let begins_like_json = matches!(text.trim_ascii_start().first(), Some(b'{' | b'[' | b'"'));
    match is_json {
        Ok(_) if !is_string => Ok(text),
        Err(error) if begins_like_json && !is_string => {
            Err(format!("the message begins like JSON and is none: {error}; --string publishes it as text")
                .into())
        }
        _ => Ok(serde_json::to_vec(&String::from_utf8(text)?)?),
    }
}

/// Reads the lines of standard input, without their ends, until `take` refuses one.
pub(super) fn read_lines(mut take: impl FnMut(Vec<u8>) -> bool) -> io::Result<()> {
    let mut input = io::stdin().lock();
    loop {
        let mut line = Vec::new();
        if input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.pop_if(|byte| *byte == b'\n').is_some() {
            line.pop_if(|byte| *byte == b'\r');
        }
        if !take(line) {
            return Ok(());
        }
    }
}
