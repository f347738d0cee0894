//! The handshake of a connection: CONNECT and CONNACK (MQTT 5, sections 3.1 and 3.2).

use std::future::pending;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;

use super::authorization::METHOD;
use super::codec::{Breach, Connack, Connect, Incoming, OutgoingPacket, Reason, Version};
use super::connection::Connection;
use super::session_store::Negotiated;
use super::sessions::session_key;
use super::wire::{Wire, WireProgress};
use super::{Broker, Peer};
use crate::stream::{Principal, StreamName};

/// Maximum number of reads, of up to 4 KiB each, while a CONNACK is delayed. A client that sends more than
/// that before its CONNACK is no longer watched for a disconnect.
const EARLY_READS_MAX: usize = 4;

/// Bytes that a connection may hold before its CONNECT is complete without taking from the bound that all
/// such connections share.
const UNKNOWN_CLIENT_BYTES: usize = 4 * 1024;

/// Length of an assigned client id, in characters.
const ASSIGNED_ID_LENGTH: usize = 22;

impl Broker {
    /// Performs the handshake. `None`: the connection has been refused, or the client is gone.
    pub(super) async fn connect<S: AsyncRead + AsyncWrite + Send + Unpin>(
        self: Arc<Self>,
        mut wire: Wire<S>,
        peer: Peer,
        refuse: bool,
    ) -> Option<Box<Connection<S>>> {
        let connect_timeout = self.limits.mqtt_connect_timeout.get();
        let connect = match timeout(connect_timeout, self.first_packet(&mut wire)).await {
            Ok(Some(Ok(connect))) => connect,
            Ok(Some(Err(Breach(reason)))) => return self.refuse(wire, reason).await,
            Ok(None) | Err(_) => return None,
        };
        wire.version = Some(connect.version);
        wire.limit(self.limits.mqtt_packet_bytes_max, connect.packet_bytes_max);
        let auditor = self.auditor(&peer);
        let grants = match self.authenticate(&connect, &peer) {
            Ok(grants) => grants,
            Err(reason) => {
                if let Some(auditor) = &auditor {
                    auditor.refused(None, Some(&connect.client_id), None, &format!("CONNACK {reason:?}"));
                }
                return self.refuse(wire, reason).await;
            }
        };
        let principal = grants.principal().unwrap_or(peer.principal);
        let id = match connect.client_id.as_str() {
            "" => assigned_id(),
            id => id.to_owned(),
        };
        let key = session_key(grants.subject(), &id);
        let client = match self.admit(&connect, key, principal, refuse).await {
            Ok(client) => client,
            Err(reason) => return self.refuse(wire, reason).await,
        };
        // A device may reconnect before the gateway notices that its old connection is broken. It then keeps its place.
        let open = match self.hub.open(grants.tenant(), self.sessions.is_attached(&client)) {
            Ok(open) => open,
            Err(_full) => {
                self.hub.count_refusal(grants.tenant());
                return self.refuse(wire, Reason::QuotaExceeded).await;
            }
        };
        let assigned = connect.client_id.is_empty().then_some(id);
        let keep_alive = self.keep_alive(&connect);
        let negotiated = self.negotiated(&connect, keep_alive);
        let connack = Connack {
            reason: Reason::Success,
            session_present: false,
            receive_maximum: self.limits.mqtt_in_flight_max,
            packet_bytes_max: self.limits.mqtt_packet_bytes_max,
            topic_alias_maximum: self.limits.mqtt_topic_aliases_max,
            assigned_client_id: assigned,
            session_expiry: (negotiated.session_expiry != connect.session_expiry)
                .then_some(negotiated.session_expiry),
            keep_alive: (keep_alive != connect.keep_alive).then_some(keep_alive),
            authentication_method: connect.authentication.is_some().then_some(METHOD),
        };
        if !wire.fits(&OutgoingPacket::Connack(connack.clone())) {
            // The client accepts no packet that could tell it anything (MQTT 5, section 3.1.2.11.4).
            return self.refuse(wire, Reason::PacketTooLarge).await;
        }
        if self.sessions.is_attached(&client) {
            if let Some(auditor) = &auditor {
                auditor.took_over(&grants, &connect.client_id);
            }
            let delay = self.takeovers.count(&client, ());
            if !delay.is_zero() && !is_connected_after(&mut wire, delay).await {
                return None;
            }
        }
        let Some(found) = self.sessions.attach(&client, principal).await else {
            return self.refuse(wire, Reason::ServerUnavailable).await;
        };
        let (found, was_elsewhere) = match self.claim(found).await {
            Ok(claimed) => claimed,
            Err(reason) => return self.refuse(wire, reason).await,
        };
        if was_elsewhere {
            let delay = self.takeovers.count(&client, ());
            if !delay.is_zero() && !is_connected_after(&mut wire, delay).await {
                self.give_back(found.attached, found.away).await;
                return None;
            }
        }
        let opened = match self.open_session(found, &connect, &negotiated, &grants).await {
            Ok(opened) => opened,
            Err(reason) => return self.refuse(wire, reason).await,
        };
        wire.put(&OutgoingPacket::Connack(Connack { session_present: opened.is_present, ..connack }));
        let may_renew = connect.authentication.is_some();
        Some(Box::new(Connection::new(self, wire, opened, negotiated, (grants, may_renew, auditor), open)))
    }

    /// Reads the first packet, which must be a CONNECT. `None`: the client is gone.
    ///
    /// The client is still unknown, so the bytes that it makes the gateway hold beyond
    /// [`UNKNOWN_CLIENT_BYTES`] are taken from the bound that all such connections share.
    async fn first_packet<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        wire: &mut Wire<S>,
    ) -> Option<Result<Box<Connect>, Breach>> {
        let mut shared: Option<SemaphorePermit<'_>> = None;
        loop {
            match wire.next() {
                Ok(Some(Incoming::Connect(connect))) => return Some(Ok(connect)),
                Ok(Some(_)) => return Some(Err(Breach(Reason::ProtocolError))),
                Err(breach) => return Some(Err(breach)),
                Ok(None) => match wire.progress().await {
                    Ok(WireProgress::Read | WireProgress::Written) => {}
                    Ok(WireProgress::Ended) | Err(_) => return None,
                },
            }
            let taken = shared.as_ref().map_or(0, SemaphorePermit::num_permits);
            let more = wire.held_bytes().saturating_sub(UNKNOWN_CLIENT_BYTES + taken);
            match self.connecting.try_acquire_many(u32::try_from(more).unwrap_or(u32::MAX)) {
                Ok(permit) => match &mut shared {
                    Some(shared) => shared.merge(permit),
                    None => shared = Some(permit),
                },
                Err(_) => return Some(Err(Breach(Reason::ServerUnavailable))),
            }
        }
    }

    /// Checks whether the client may connect, and returns the key of its session.
    async fn admit(
        &self,
        connect: &Connect,
        key: Arc<str>,
        principal: Principal,
        refuse: bool,
    ) -> Result<Arc<str>, Reason> {
        if refuse {
            return Err(Reason::ConnectionRateExceeded);
        }
        if self.hub.is_draining() {
            return Err(Reason::ServerUnavailable);
        }
        // Bridges have wills below `$SYS`, which is refused when the will is due.
        if connect.will.as_ref().is_some_and(|will| StreamName::of_topic(&will.topic).is_err()) {
            return Err(Reason::TopicNameInvalid);
        }
        let id = connect.client_id.as_str();
        match id {
            // The client could not resume this session, since it would not know its id.
            "" if connect.version == Version::V3 && !connect.clean_start => {
                return Err(Reason::ClientIdentifierNotValid);
            }
            _ if id.len() > self.limits.mqtt_client_id_bytes_max => {
                return Err(Reason::ClientIdentifierNotValid);
            }
            _ => {}
        }
        if !self.sessions.knows(&key) {
            self.make_room(principal).await?;
        }
        Ok(key)
    }

    /// Makes room for another session of `principal`: if there are too many, of the principal or in total,
    /// disconnected sessions are discarded. Fails with `QuotaExceeded` if that is not enough.
    async fn make_room(&self, principal: Principal) -> Result<(), Reason> {
        self.end_excess(principal, true).await;
        while self.sessions.len() >= self.limits.mqtt_sessions_max
            && let Some((attached, away)) = self.sessions.take_oldest()
        {
            self.discard(attached, away).await;
        }
        let is_full = self.sessions.len() >= self.limits.mqtt_sessions_max;
        if is_full || !self.sessions.has_room(principal, true) { Err(Reason::QuotaExceeded) } else { Ok(()) }
    }

    /// The keep alive of the connection.
    fn keep_alive(&self, connect: &Connect) -> Duration {
        let longest = self.limits.mqtt_keep_alive_max.get();
        match (connect.version, connect.keep_alive) {
            // A CONNACK of 3.1.1 cannot announce another value.
            (Version::V3, wanted) => wanted,
            (Version::V5, Duration::ZERO) => longest,
            (Version::V5, wanted) => wanted.min(longest),
        }
    }

    /// Settings of the connection: the requests of the client, within the limits of the gateway.
    fn negotiated(&self, connect: &Connect, keep_alive: Duration) -> Negotiated {
        let limits = &self.limits;
        let aliases = connect.topic_alias_maximum.min(limits.mqtt_topic_aliases_max);
        Negotiated {
            keep_alive_millis: u32::try_from(keep_alive.as_millis()).unwrap_or(u32::MAX),
            session_expiry: connect.session_expiry.min(limits.mqtt_session_expiry_max.get()),
            in_flight_max: connect.receive_maximum.min(limits.mqtt_in_flight_max),
            last_alias: NonZeroU16::new(aliases),
            will: connect.will.clone().map(Box::new),
            is_bridge: connect.is_bridge,
        }
    }

    /// Sends the reason and closes the connection. Nothing is sent while the version of the client is
    /// unknown.
    async fn refuse<S: AsyncRead + AsyncWrite + Unpin, T>(
        &self,
        mut wire: Wire<S>,
        reason: Reason,
    ) -> Option<T> {
        self.metrics.refused.inc();
        // A client of an unsupported version understands the CONNACK of 3.1.1.
        let is_told = match wire.version {
            Some(Version::V5) => true,
            Some(Version::V3) => reason.connect_return_code().is_some(),
            None => reason == Reason::UnsupportedProtocolVersion,
        };
        if is_told {
            wire.put(&OutgoingPacket::Connack(Connack {
                reason,
                session_present: false,
                receive_maximum: 0,
                packet_bytes_max: 0,
                topic_alias_maximum: 0,
                assigned_client_id: None,
                session_expiry: None,
                keep_alive: None,
                authentication_method: None,
            }));
        }
        let _gone = timeout(self.limits.mqtt_connect_timeout.get(), wire.close()).await;
        None
    }
}

/// Waits for `delay`. Returns whether the client is still connected.
async fn is_connected_after<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>, delay: Duration) -> bool {
    let ended = async {
        for _ in 0..EARLY_READS_MAX {
            if !matches!(wire.progress().await, Ok(WireProgress::Read | WireProgress::Written)) {
                return;
            }
        }
        pending().await
    };
    timeout(delay, ended).await.is_err()
}

fn assigned_id() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(ASSIGNED_ID_LENGTH).collect()
}
