//! [`BrokerConnection`]: one connection to a broker, as a series of packets.

use std::collections::VecDeque;
use std::fmt;
use std::future::pending;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use mqtt_protocol_core::mqtt::Version;
use mqtt_protocol_core::mqtt::common::{Cursor, HashSet};
use mqtt_protocol_core::mqtt::connection::{Event, Sendable, TimerKind, role};
use mqtt_protocol_core::mqtt::packet::{MaximumPacketSize, Packet, Property, SessionExpiryInterval, v5_0};
use mqtt_protocol_core::mqtt::prelude::GenericPacketTrait;
use mqtt_protocol_core::mqtt::result_code::{ConnectReasonCode, MqttError};
use tokio::time::{Instant, sleep_until, timeout};

use super::address::BrokerLogin;
use super::transport::BrokerStream;

/// Interval of pings on a connection without other packets, in seconds.
const KEEP_ALIVE_SECONDS: u16 = 30;

/// The longest time for the answer to a ping and to CONNECT.
const ANSWER_TIME: Duration = Duration::from_secs(15);

/// Packets that wait while a command runs; then nothing more is read. The broker is told no Receive Maximum: mosquitto 2.0 exceeds it, for which the
/// library would end the connection.
const WAITING_MAX: usize = 1000;

/// The largest packet that is received.
const PACKET_BYTES_MAX: u32 = 64 << 20;

/// What the broker keeps for this client between connections.
pub(super) struct BrokerSession {
    pub(super) client: String,
    /// An earlier session ends with the connection.
    pub(super) is_new: bool,
    /// How long it is kept after a connection, in seconds.
    pub(super) expiry_seconds: u32,
    /// Messages of QoS 2 that were handled and that the broker may send again.
    pub(super) handled: HashSet<u16>,
}

/// Why there is no connection, or none any more.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// There is none, or it broke.
    Lost(io::Error),
    /// The broker refuses it.
    Refused(ConnectReasonCode),
    /// The broker or this client has violated the protocol.
    Protocol(MqttError),
    /// The broker is not trusted, or the settings of TLS cannot be used.
    Tls(String),
    /// The token cannot be read.
    Token(String),
}

impl ConnectError {
    /// Whether another attempt may succeed.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Lost(_) => true,
            Self::Refused(reason) => matches!(
                reason,
                ConnectReasonCode::ServerUnavailable
                    | ConnectReasonCode::ServerBusy
                    | ConnectReasonCode::QuotaExceeded
                    | ConnectReasonCode::ConnectionRateExceeded
            ),
            Self::Protocol(_) | Self::Tls(_) | Self::Token(_) => false,
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(error) => write!(f, "the connection is lost: {error}"),
            Self::Refused(reason) => write!(f, "the broker refuses the connection: {reason:?}"),
            Self::Protocol(error) => write!(f, "MQTT: {error}"),
            Self::Tls(error) => write!(f, "TLS: {error}"),
            Self::Token(error) => f.write_str(error),
        }
    }
}

impl std::error::Error for ConnectError {}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

/// A connection whose CONNECT was accepted.
pub(super) struct BrokerConnection {
    transport: BrokerStream,
    protocol: mqtt_protocol_core::mqtt::Connection<role::Client>,
    /// Received bytes that were not parsed yet.
    unparsed: BytesMut,
    unwritten: BytesMut,
    received: VecDeque<Packet>,
    /// When a ping is due.
    ping_at: Option<Instant>,
    /// When the answer to a ping is late.
    late_at: Option<Instant>,
}

impl BrokerConnection {
    /// Sends CONNECT and waits for the answer. The second value says whether the broker knew the session.
    pub(super) async fn open(
        transport: BrokerStream,
        login: BrokerLogin,
        session: &BrokerSession,
    ) -> Result<(Self, bool), ConnectError> {
        let mut protocol = mqtt_protocol_core::mqtt::Connection::new(Version::V5_0);
        protocol.set_auto_pub_response(false);
        protocol.set_pingresp_recv_timeout(ANSWER_TIME.as_millis() as u64);
        let (unparsed, unwritten, received, ping_at, late_at) = Default::default();
        let mut connection = Self { transport, protocol, unparsed, unwritten, received, ping_at, late_at };
        let connect = connect(login, session).map_err(ConnectError::Protocol)?;
        connection.send(connect)?;
        connection.protocol.restore_qos2_publish_handled(session.handled.clone());
        let answer = timeout(ANSWER_TIME, connection.next()).await;
        match answer.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? {
            Packet::V5_0Connack(connack) => match connack.reason_code() {
                ConnectReasonCode::Success => Ok((connection, connack.session_present())),
                refused => Err(ConnectError::Refused(refused)),
            },
            _ => Err(ConnectError::Protocol(MqttError::ProtocolError)),
        }
    }

    /// The messages of QoS 2 that the broker may send again although they were handled. For the library, a message is handled when it was
    /// received.
    pub(super) fn handled(&self) -> HashSet<u16> {
        let mut handled = self.protocol.get_qos2_publish_handled();
        for packet in &self.received {
            if let Packet::V5_0Publish(waiting) = packet {
                waiting.packet_id().map(|id| handled.remove(&id));
            }
        }
        handled
    }

    /// An unused packet id. `None`: the broker wants acknowledged what it has got first.
    pub(super) fn next_id(&mut self) -> Option<u16> {
        match self.protocol.get_receive_maximum_vacancy_for_send() {
            Some(0) => None,
            _ => self.protocol.acquire_packet_id().ok(),
        }
    }

    /// Queues a packet, which [`next`](Self::next) and [`flush`](Self::flush) write.
    pub(super) fn send(&mut self, packet: impl Sendable<role::Client, u16>) -> Result<(), ConnectError> {
        let events = self.protocol.checked_send(packet);
        self.follow(events)
    }

    /// Writes what is queued.
    pub(super) async fn flush(&mut self) -> Result<(), ConnectError> {
        Ok(self.transport.write(&mut self.unwritten).await?)
    }

    /// Whether a packet has arrived already.
    pub(super) fn is_ready(&self) -> bool {
        !self.received.is_empty()
    }

    /// The next packet of the broker. Meanwhile it is pinged.
    ///
    /// Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Packet, ConnectError> {
        loop {
            if let Some(packet) = self.received.pop_front() {
                return Ok(packet);
            }
            self.progress().await?;
        }
    }

    /// Reads, writes and pings while the caller handles an earlier packet. Completes only if the connection is lost.
    pub(super) async fn keep_alive(&mut self) -> ConnectError {
        loop {
            if let Err(error) = self.progress().await {
                return error;
            }
        }
    }

    /// Writes, reads or pings.
    async fn progress(&mut self) -> Result<(), ConnectError> {
        self.flush().await?;
        let has_room = self.received.len() < WAITING_MAX;
        tokio::select! {
            read = self.transport.read(&mut self.unparsed), if has_room => {
                read?;
                self.parse()
            }
            () = until(self.ping_at) => {
                self.ping_at = None;
                let events = self.protocol.notify_timer_fired(TimerKind::PingreqSend);
                self.follow(events)
            }
            // What is not read may be the answer.
            () = until(self.late_at), if has_room => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
        }
    }

    fn parse(&mut self) -> Result<(), ConnectError> {
        let bytes = self.unparsed.split();
        let mut cursor = Cursor::new(&*bytes);
        while (cursor.position() as usize) < bytes.len() {
            let events = self.protocol.recv(&mut cursor);
            self.follow(events)?;
        }
        Ok(())
    }

    /// Does what the protocol wants done.
    fn follow(&mut self, events: Vec<Event>) -> Result<(), ConnectError> {
        for event in events {
            match event {
                Event::NotifyPacketReceived(packet) => self.received.push_back(packet),
                Event::RequestSendPacket { packet, .. } => {
                    self.unwritten.extend_from_slice(&packet.to_continuous_buffer());
                }
                Event::RequestTimerReset { kind, duration_ms } => {
                    *self.timer(kind) = Some(Instant::now() + Duration::from_millis(duration_ms));
                }
                Event::RequestTimerCancel(kind) => *self.timer(kind) = None,
                Event::NotifyError(error) => return Err(ConnectError::Protocol(error)),
                // After DISCONNECT, or an error, which is told, too.
                Event::RequestClose | Event::NotifyPacketIdReleased(_) => {}
            }
        }
        Ok(())
    }

    fn timer(&mut self, kind: TimerKind) -> &mut Option<Instant> {
        match kind {
            TimerKind::PingreqSend => &mut self.ping_at,
            // A client receives no pings.
            TimerKind::PingrespRecv | TimerKind::PingreqRecv => &mut self.late_at,
        }
    }

    /// Ends the connection. The session ends with it unless it `is_kept`.
    pub(super) async fn close(mut self, is_kept: bool) -> Result<(), ConnectError> {
        let expiry = SessionExpiryInterval::new(0).map(Property::from).map_err(ConnectError::Protocol)?;
        let disconnect = v5_0::Disconnect::builder();
        let disconnect = if is_kept {
            disconnect.build()
        } else {
            // Properties need a reason.
            let reason = mqtt_protocol_core::mqtt::result_code::DisconnectReasonCode::NormalDisconnection;
            disconnect.reason_code(reason).props(vec![expiry]).build()
        };
        self.send(disconnect.map_err(ConnectError::Protocol)?)?;
        self.flush().await
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

fn connect(login: BrokerLogin, session: &BrokerSession) -> Result<v5_0::Connect, MqttError> {
    let mut connect = v5_0::Connect::builder()
        .client_id(session.client.as_str())?
        .clean_start(session.is_new)
        .keep_alive(KEEP_ALIVE_SECONDS)
        .props(vec![
            SessionExpiryInterval::new(session.expiry_seconds)?.into(),
            MaximumPacketSize::new(PACKET_BYTES_MAX)?.into(),
        ]);
    if login.user.is_some() || login.password.is_some() {
        // Brokers of MQTT 3.1.1, and the library, take no password without a user name.
        connect = connect.user_name(login.user.unwrap_or_default())?;
    }
    if let Some(password) = login.password {
        connect = connect.password(password.as_str())?;
    }
    connect.build()
}
