//! A small MQTT 5 client: packets are encoded by a library, the session is implemented here.

use std::time::Duration;

use mqtt_protocol_core::mqtt::Arc;
use mqtt_protocol_core::mqtt::packet::v5_0::{Connack, Connect, Pingreq, Puback, Publish, Suback, Subscribe};
use mqtt_protocol_core::mqtt::packet::{
    DecodeResult, FixedHeader, Qos, SubEntry, SubOpts, VariableByteInteger,
};
use mqtt_protocol_core::mqtt::result_code::{ConnectReasonCode, MqttError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};

use super::WireError;
use crate::strategies::Heartbeat;

/// Default interval between two pings.
const PING_EVERY: Duration = Duration::from_secs(40);

/// Ratio of the announced keep alive to the interval of pings, so that a late ping does not violate it.
const KEEP_ALIVE_OF_INTERVAL: f64 = 1.5;

/// A session over a connection. A drop closes the connection without a DISCONNECT.
pub struct Mqtt<IO> {
    io: IO,
    read: Vec<u8>,
    ping_every: Duration,
    next_ping: Instant,
    next_id: u16,
}

impl From<MqttError> for WireError {
    fn from(error: MqttError) -> Self {
        Self::Mqtt(error.to_string())
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Mqtt<IO> {
    /// Opens a clean session with a ping per heartbeat.
    pub async fn open(io: IO, client: &str, heartbeat: Heartbeat) -> Result<Self, WireError> {
        let ping_every = heartbeat.unwrap_or(PING_EVERY);
        let keep_alive = ping_every.mul_f64(KEEP_ALIVE_OF_INTERVAL).as_secs();
        let seconds = u16::try_from(keep_alive).unwrap_or(u16::MAX);
        let connect = Connect::builder().client_id(client)?.clean_start(true).keep_alive(seconds).build()?;
        let next_ping = Instant::now() + ping_every;
        let mut session = Self { io, read: Vec::new(), ping_every, next_ping, next_id: 1 };
        session.write(&connect.to_continuous_buffer()).await?;
        let answer = session.expect(FixedHeader::Connack).await?;
        match Connack::parse(&answer)?.0.reason_code() {
            ConnectReasonCode::Success => Ok(session),
            reason => Err(WireError::Mqtt(format!("CONNECT was answered {reason:?}"))),
        }
    }

    /// Subscribes to a topic with QoS 1.
    pub async fn subscribe(&mut self, topic: &str) -> Result<(), WireError> {
        let entry = SubEntry::new(topic, SubOpts::new().set_qos(Qos::AtLeastOnce))?;
        let subscribe = Subscribe::builder().packet_id(self.id()).entries(vec![entry]).build()?;
        self.write(&subscribe.to_continuous_buffer()).await?;
        let answer = self.expect(FixedHeader::Suback).await?;
        let reasons = Suback::parse(&answer)?.0.reason_codes();
        let granted = reasons.iter().all(|reason| reason.is_success());
        granted.then_some(()).ok_or_else(|| WireError::Mqtt(format!("SUBSCRIBE was answered {reasons:?}")))
    }

    /// Publishes with QoS 1, without waiting for the acknowledgement, which [`Self::next`] skips.
    pub async fn publish(&mut self, topic: &str, message: &str) -> Result<(), WireError> {
        let publish = Publish::builder()
            .topic_name(topic)?
            .qos(Qos::AtLeastOnce)
            .packet_id(self.id())
            .payload(message.as_bytes())
            .build()?;
        self.write(&publish.to_continuous_buffer()).await
    }

    /// Acknowledges the next message and returns it. The future may be dropped and called again while it waits for data.
    pub async fn next(&mut self) -> Result<Publish, WireError> {
        loop {
            let Some((first, body)) = self.packet().await? else { continue };
            if first & 0xf0 != FixedHeader::Publish as u8 {
                continue;
            }
            let (message, _) = Publish::parse(first & 0x0f, Arc::from(body))?;
            if let Some(id) = message.packet_id() {
                let acknowledgement = Puback::builder().packet_id(id).build()?;
                self.write(&acknowledgement.to_continuous_buffer()).await?;
            }
            return Ok(message);
        }
    }

    /// Returns the body of the next packet, which must be of this kind.
    async fn expect(&mut self, kind: FixedHeader) -> Result<Vec<u8>, WireError> {
        loop {
            match self.packet().await? {
                Some((first, body)) if first == kind as u8 => return Ok(body),
                Some((first, _)) => {
                    return Err(WireError::Mqtt(format!("packet {first:#x} instead of {kind:?}")));
                }
                None => {}
            }
        }
    }

    /// Returns the first byte and the body of the next packet; `None` after it has sent a ping.
    async fn packet(&mut self) -> Result<Option<(u8, Vec<u8>)>, WireError> {
        loop {
            if let Some(packet) = self.take_packet()? {
                return Ok(Some(packet));
            }
            tokio::select! {
                read = self.io.read_buf(&mut self.read) => if read? == 0 { return Err(WireError::Closed) },
                () = sleep_until(self.next_ping) => {
                    let ping = Pingreq::new();
                    self.next_ping = Instant::now() + self.ping_every;
                    self.write(&ping.to_continuous_buffer()).await?;
                    return Ok(None);
                }
            }
        }
    }

    fn take_packet(&mut self) -> Result<Option<(u8, Vec<u8>)>, WireError> {
        let Some((first, rest)) = self.read.split_first() else { return Ok(None) };
        let (length, digits) = match VariableByteInteger::decode_stream(rest) {
            DecodeResult::Ok(length, digits) => (length.to_u32() as usize, digits),
            DecodeResult::Incomplete => return Ok(None),
            DecodeResult::Err(error) => return Err(WireError::Mqtt(error.to_owned())),
        };
        let Some(body) = rest.get(digits..digits + length) else { return Ok(None) };
        let packet = (*first, body.to_vec());
        self.read.drain(..1 + digits + length);
        Ok(Some(packet))
    }

    async fn write(&mut self, packet: &[u8]) -> Result<(), WireError> {
        Ok(self.io.write_all(packet).await?)
    }

    fn id(&mut self) -> u16 {
        let id = self.next_id;
        self.next_id = id.checked_add(1).unwrap_or(1);
        id
    }
}
