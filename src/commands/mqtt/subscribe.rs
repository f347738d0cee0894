//! `pollgate sub` with an MQTT URL: prints messages, or runs a command for each, and acknowledges them afterwards.

use std::error::Error;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use mqtt_protocol_core::mqtt::common::HashSet;
use mqtt_protocol_core::mqtt::packet::{Packet, Property, Qos, RetainHandling, SubEntry, SubOpts, v5_0};
use pollgate_client::{Data, Item, Message};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::connection::{BrokerConnection, BrokerSession, ConnectError};
use super::{BrokerUrl, RemoteBroker};
use crate::commands::lines::Lines;
use crate::commands::options::{Beginning, SubscribeCommand};
use crate::commands::subscribe::{execute, until_signal_or_unread};

/// How long the broker keeps a session while this process is not connected, in seconds: an hour, and a week with `--state`.
const EXPIRY_SECONDS: [u32; 2] = [3600, 7 * 24 * 3600];

/// The file of `--state`: the broker remembers what this client has acknowledged.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionFile {
    mqtt_client: String,
}

/// Reads until the number of messages is reached, a signal arrives, or nobody reads the output any more.
pub(crate) async fn subscribe(
    command: SubscribeCommand,
    address: &BrokerUrl,
    beginning: Beginning,
) -> Result<ExitCode, Box<dyn Error>> {
    let retained = match command.from.unwrap_or(beginning) {
        Beginning::Now => RetainHandling::DoNotSendRetained,
        Beginning::Last(1) => RetainHandling::SendRetained,
        _ => {
            let what = "over MQTT, `sub` begins with the next message (--from now) or with the retained one (--from last:1)";
            return Err(format!("{what}; an HTTP URL of a gateway reads earlier messages").into());
        }
    };
    if !command.form.is_empty() {
        return Err("--form is for URLs of HTTP".into());
    }
    let session = session(command.state.as_deref())?;
    let has_wildcard = |filter: &String| filter.contains(['+', '#']);
    let lines = Lines {
        json: command.json,
        named: command.streams.len() > 1 || command.streams.iter().any(has_wildcard),
        to_terminal: io::stdout().is_terminal(),
    };
    let out = BufWriter::new(io::stdout().lock());
    let broker = RemoteBroker { address, args: &command.gateway };
    let reading = TopicReading { command: &command, broker, session, retained, lines, out, messages: 0 };
    until_signal_or_unread(reading.run()).await
}

/// The session in the file of `--state`, which is made if it does not exist; a new one without a file.
fn session(file: Option<&Path>) -> Result<BrokerSession, Box<dyn Error>> {
    let new = || format!("pollgate-{:016x}", fastrand::u64(..));
    let handled = HashSet::default();
    let Some(file) = file else {
        return Ok(BrokerSession { client: new(), is_new: true, expiry_seconds: EXPIRY_SECONDS[0], handled });
    };
    let of_file = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let SessionFile { mqtt_client: client } = match std::fs::read(file) {
        Ok(text) => serde_json::from_slice(&text)
            .map_err(|error| of_file(&format!("it is not the --state of an MQTT URL: {error}")))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let state = SessionFile { mqtt_client: new() };
            std::fs::write(file, serde_json::to_vec(&state)?).map_err(|error| of_file(&error))?;
            state
        }
        Err(error) => return Err(of_file(&error).into()),
    };
    Ok(BrokerSession { client, is_new: false, expiry_seconds: EXPIRY_SECONDS[1], handled })
}

struct TopicReading<'a> {
    command: &'a SubscribeCommand,
    broker: RemoteBroker<'a>,
    session: BrokerSession,
    /// What a new subscription gets of retained messages.
    retained: RetainHandling,
    lines: Lines,
    out: BufWriter<StdoutLock<'static>>,
    /// Messages that were handled.
    messages: u64,
}

impl TopicReading<'_> {
    async fn run(mut self) -> Result<ExitCode, Box<dyn Error>> {
        let (mut connection, mut is_known) = self.broker.connect_in_time(&self.session).await?;
        loop {
            match self.over(&mut connection, is_known).await {
                Ok(()) => {
                    // What was handled is acknowledged.
                    let _closed = connection.close(self.command.state.is_some()).await;
                    self.out.flush()?;
                    return Ok(ExitCode::SUCCESS);
                }
                Err(error) => match error.downcast_ref::<ConnectError>() {
                    Some(lost) if lost.is_passing() => self.remark(&format!("{lost}; connecting again")),
                    _ => return Err(error),
                },
            }
            self.session.handled = connection.handled();
            self.session.is_new = false;
            (connection, is_known) = self.broker.connect(&self.session).await?;
            if !is_known {
                self.remark("the broker has lost the session: messages may have been missed");
            }
        }
    }

    fn remark(&self, remark: &str) {
        if !self.command.quiet {
            eprintln!("pollgate: {remark}");
        }
    }

    /// Reads over one connection until the number of messages is reached.
    async fn over(
        &mut self,
        connection: &mut BrokerConnection,
        is_known: bool,
    ) -> Result<(), Box<dyn Error>> {
        if !is_known {
            let subscription = self.subscription(connection)?;
            connection.send(subscription)?;
        }
        while self.command.count.is_none_or(|count| self.messages < count) {
            if !connection.is_ready() {
                self.out.flush()?;
            }
            match connection.next().await? {
                Packet::V5_0Suback(ack) => {
                    let refused = ack.reason_codes().into_iter().find(|reason| reason.is_failure());
                    if let Some(reason) = refused {
                        return Err(format!("the broker refuses a subscription: {reason:?}").into());
                    }
                }
                Packet::V5_0Publish(publish) => self.take(publish, connection).await?,
                Packet::V5_0Pubrel(release) => {
                    let complete = v5_0::Pubcomp::builder().packet_id(release.packet_id()).build();
                    connection.send(complete.map_err(ConnectError::Protocol)?)?;
                }
                Packet::V5_0Disconnect(reason) => {
                    let reason = format!("the broker ends it: {:?}", reason.reason_code());
                    return Err(ConnectError::Lost(io::Error::other(reason)).into());
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn subscription(&self, connection: &mut BrokerConnection) -> Result<v5_0::Subscribe, Box<dyn Error>> {
        let id = connection.next_id().ok_or("the broker accepts no packets")?;
        let options = SubOpts::new().set_qos(Qos::ExactlyOnce).set_rh(self.retained);
        let entries = self.command.streams.iter().map(|filter| SubEntry::new(filter.as_str(), options));
        let entries = entries.collect::<Result<Vec<_>, _>>().map_err(ConnectError::Protocol)?;
        let packet = v5_0::Subscribe::builder().packet_id(id).entries(entries).build();
        Ok(packet.map_err(ConnectError::Protocol)?)
    }

    /// Handles a message, and acknowledges it.
    async fn take(
        &mut self,
        publish: v5_0::Publish,
        connection: &mut BrokerConnection,
    ) -> Result<(), Box<dyn Error>> {
        let bytes = Bytes::copy_from_slice(publish.payload().as_slice());
        match &self.command.exec {
            Some(exec) => {
                let mut lost = None;
                let mut run = std::pin::pin!(execute(exec, publish.topic_name(), None, &bytes));
                let ran = loop {
                    tokio::select! {
                        ran = &mut run => break ran,
                        error = connection.keep_alive(), if lost.is_none() => lost = Some(error),
                    }
                };
                ran?;
                // The message was handled; if the broker sends it again, it is not handled again.
                self.messages += 1;
                lost.map_or(Ok(()), Err)?;
            }
            None => {
                let item = Item::Message(message(&publish, bytes)?);
                self.lines.write(&mut self.out, &item)?;
                if self.command.state.is_some() {
                    self.out.flush()?;
                }
                self.messages += 1;
            }
        }
        let id = publish.packet_id().unwrap_or_default();
        match publish.qos() {
            Qos::AtMostOnce => {}
            Qos::AtLeastOnce => {
                let ack = v5_0::Puback::builder().packet_id(id).build();
                connection.send(ack.map_err(ConnectError::Protocol)?)?;
            }
            Qos::ExactlyOnce => {
                let received = v5_0::Pubrec::builder().packet_id(id).build();
                connection.send(received.map_err(ConnectError::Protocol)?)?;
            }
        }
        Ok(connection.flush().await?)
    }
}

/// A message as the other commands print it: a line. Text is printed as a string of JSON would be.
fn message(publish: &v5_0::Publish, bytes: Bytes) -> Result<Message, Box<dyn Error>> {
    let content_type = publish.props().iter().find_map(|property| match property {
        Property::ContentType(content_type) => Some(content_type.val()),
        _ => None,
    });
    let text = String::from_utf8(bytes.to_vec()).ok();
    let json = text.clone().filter(|_| content_type == Some("application/json"));
    let data = match (json.and_then(|json| RawValue::from_string(json).ok()), text) {
        (Some(json), _) => Data::Json(json),
        (None, Some(text)) => Data::Json(to_raw_value(&text)?),
        (None, None) => Data::Binary(bytes),
    };
    Ok(Message { stream: Arc::from(publish.topic_name()), data, offset: None, time: None })
}
