//! `pollgate pub` with an MQTT URL: publishes with QoS 1, and waits until the broker has acknowledged everything.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, Read};
use std::process::ExitCode;

use mqtt_protocol_core::mqtt::common::HashSet;
use mqtt_protocol_core::mqtt::packet::{ContentType, Packet, Qos, v5_0};
use mqtt_protocol_core::mqtt::result_code::PubackReasonCode;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::connection::{BrokerConnection, BrokerSession, ConnectError};
use super::{BrokerUrl, RemoteBroker};
use crate::commands::options::PublishCommand;
use crate::commands::publish::{LINE_BYTES_MAX, as_json, read_lines};

/// Most messages that wait for an acknowledgement.
const UNACKNOWLEDGED_MAX: usize = 4096;

/// Publishes what the command says.
pub(crate) async fn publish(
    command: PublishCommand,
    address: &BrokerUrl,
) -> Result<ExitCode, Box<dyn Error>> {
    let (lines, read) = mpsc::channel(64);
    let reading = match command.message.clone().unwrap_or_else(|| "-".to_owned()) {
        message if message != "-" => spawn_blocking(move || {
            let _ended = lines.blocking_send(message.into_bytes());
            Ok(())
        }),
        _ if command.whole => spawn_blocking(move || {
            let mut message = Vec::new();
            io::stdin().lock().take(LINE_BYTES_MAX).read_to_end(&mut message)?;
            let _ended = lines.blocking_send(message);
            Ok(())
        }),
        _ => spawn_blocking(move || read_lines(|line| lines.blocking_send(line).is_ok())),
    };
    let broker = RemoteBroker { address, args: &command.gateway };
    let waiting = VecDeque::new();
    Publishing { command: &command, broker, read: Some(read), waiting }.run().await?;
    reading.await??;
    Ok(ExitCode::SUCCESS)
}

struct Publishing<'a> {
    command: &'a PublishCommand,
    broker: RemoteBroker<'a>,
    /// `None`: there are no more messages to read.
    read: Option<mpsc::Receiver<Vec<u8>>>,
    /// Messages that are not acknowledged yet, in their order.
    waiting: VecDeque<Vec<u8>>,
}

/// The messages of [`Publishing::waiting`] that were sent over a connection, by their packet ids, in the same order.
type SentIds = VecDeque<u16>;

impl Publishing<'_> {
    /// Publishes everything, over as many connections as that takes. What was not acknowledged before a connection broke is sent again.
    async fn run(mut self) -> Result<(), Box<dyn Error>> {
        let client = format!("pollgate-{:016x}", fastrand::u64(..));
        let session = BrokerSession { client, is_new: true, expiry_seconds: 0, handled: HashSet::default() };
        loop {
            let (mut connection, _) = self.broker.connect_in_time(&session).await?;
            match self.over(&mut connection).await {
                Ok(()) => {
                    // Everything is acknowledged.
                    let _closed = connection.close(false).await;
                    return Ok(());
                }
                Err(error) if error.downcast_ref().is_some_and(ConnectError::is_passing) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Publishes over one connection until everything is acknowledged.
    async fn over(&mut self, connection: &mut BrokerConnection) -> Result<(), Box<dyn Error>> {
        let mut sent = SentIds::new();
        loop {
            while let Some(message) = self.waiting.get(sent.len())
                && let Some(id) = connection.next_id()
            {
                connection.send(self.packet(id, message)?)?;
                sent.push_back(id);
            }
            if self.waiting.is_empty() && self.read.is_none() {
                return Ok(());
            }
            let limit = self.command.gateway.timeout.get();
            let has_room = self.waiting.len() < UNACKNOWLEDGED_MAX;
            let is_waiting = !self.waiting.is_empty();
            let packet = async {
                match is_waiting {
                    true => {
                        timeout(limit, connection.next()).await.map_err(|_| self.broker.no_answer().into())
                    }
                    false => Ok::<_, Box<dyn Error>>(connection.next().await),
                }
            };
            tokio::select! {
                line = next_line(&mut self.read), if has_room => match line {
                    Some(line) => self.waiting.push_back(self.message(line)?),
                    None => self.read = None,
                },
                packet = packet => self.take(packet??, &mut sent)?,
            }
        }
    }

    /// Takes an acknowledgement.
    fn take(&mut self, packet: Packet, sent: &mut SentIds) -> Result<(), Box<dyn Error>> {
        match packet {
            Packet::V5_0Puback(ack) => {
                if let Some(reason) = ack.reason_code().filter(PubackReasonCode::is_failure) {
                    return Err(refused(reason).into());
                }
                if let Some(index) = sent.iter().position(|id| *id == ack.packet_id()) {
                    sent.remove(index);
                    self.waiting.remove(index);
                }
                Ok(())
            }
            Packet::V5_0Disconnect(reason) => {
                let reason = format!("the broker ends the connection: {:?}", reason.reason_code());
                Err(ConnectError::Lost(io::Error::other(reason)).into())
            }
            _ => Ok(()),
        }
    }

    /// The message as it is published. With the content type of JSON, text that does not begin like JSON is a string.
    fn message(&self, text: Vec<u8>) -> Result<Vec<u8>, Box<dyn Error>> {
        match self.command.content_type.as_deref() {
            Some("application/json") => as_json(text, self.command.string),
            _ => Ok(text),
        }
    }

    fn packet(&self, id: u16, message: &[u8]) -> Result<v5_0::Publish, Box<dyn Error>> {
        let builder = v5_0::Publish::builder()
            .topic_name(self.command.stream.as_str())
            .and_then(|builder| {
                let content_type = self.command.content_type.as_deref().map(ContentType::new).transpose()?;
                Ok(builder.props(content_type.map(Into::into).into_iter().collect::<Vec<_>>()))
            })
            .map_err(ConnectError::Protocol)?;
        let packet = builder.qos(Qos::AtLeastOnce).packet_id(id).payload(message).build();
        Ok(packet.map_err(ConnectError::Protocol)?)
    }
}

async fn next_line(read: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match read {
        Some(read) => read.recv().await,
        None => std::future::pending().await,
    }
}

fn refused(reason: PubackReasonCode) -> String {
    let what_to_do = match reason {
        PubackReasonCode::PayloadFormatInvalid => {
            "; a JSON stream of a gateway needs --content-type application/json"
        }
        _ => "",
    };
    format!("the broker refuses a message: {reason:?}{what_to_do}")
}
