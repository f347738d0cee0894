//! An MQTT client without automatic behavior: it sends what a scenario tells it to, and shows each received packet.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mqtt_protocol_core::mqtt::packet::{Property, Qos, SubEntry, SubOpts, v3_1_1, v5_0};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

mod packet;

use super::PATIENCE;
pub use packet::{
    Message, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, SUBSCRIBE, UNSUBSCRIBE, ack_bytes, filters_bytes,
    publish_bytes,
};
use packet::{parse, to_qos};

/// Parameters of a CONNECT.
#[derive(Debug, Clone)]
pub struct Hello {
    pub id: String,
    pub version: u8,
    pub clean: bool,
    pub keep_alive: u16,
    /// Properties, for version 5.
    pub properties: Vec<Property>,
    /// Topic, payload and properties of the will.
    pub will: Option<(String, String, Vec<Property>)>,
    /// Sent with an arbitrary user name.
    pub password: Option<String>,
}

/// A connected client. A drop closes its socket without a DISCONNECT.
pub struct Mqtt {
    stream: TcpStream,
    read: Vec<u8>,
    inbox: VecDeque<Packet>,
    version: u8,
    last_id: u16,
    /// The gateway's CONNACK: session present, code, properties.
    pub connack: (bool, u8, Vec<Property>),
}

impl Hello {
    /// A client of version 5 with a clean start and without a persistent session.
    pub fn new(id: &str) -> Self {
        let id = id.to_owned();
        Self {
            id,
            version: 5,
            clean: true,
            keep_alive: 60,
            properties: Vec::new(),
            will: None,
            password: None,
        }
    }

    /// A client whose session is kept for an hour.
    pub fn lasting(id: &str) -> Self {
        let expiry = mqtt_protocol_core::mqtt::packet::SessionExpiryInterval::new(3600).unwrap();
        Self { clean: false, ..Self::new(id) }.with(expiry)
    }

    /// Adds a property.
    pub fn with(mut self, property: impl Into<Property>) -> Self {
        self.properties.push(property.into());
        self
    }

    /// Encodes the CONNECT.
    pub fn bytes(&self) -> Vec<u8> {
        let will = self.will.as_ref();
        if self.version == 4 {
            let connect = v3_1_1::Connect::builder().client_id(&*self.id).unwrap().clean_session(self.clean);
            let connect = connect.keep_alive(self.keep_alive);
            let connect = match will {
                Some((topic, payload, _)) => {
                    connect.will_message(&**topic, payload.as_str(), Qos::AtLeastOnce, false).unwrap()
                }
                None => connect,
            };
            let connect = match &self.password {
                Some(password) => connect.user_name("any").unwrap().password(password.as_str()).unwrap(),
                None => connect,
            };
            return connect.build().unwrap().to_continuous_buffer();
        }
        let connect = v5_0::Connect::builder().client_id(&*self.id).unwrap().clean_start(self.clean);
        let connect = connect.keep_alive(self.keep_alive).props(self.properties.clone());
        let connect = match will {
            Some((topic, payload, properties)) => connect
                .will_message(&**topic, payload.as_str(), Qos::AtLeastOnce, false)
                .unwrap()
                .will_props(properties.clone()),
            None => connect,
        };
        let connect = match &self.password {
            Some(password) => connect.user_name("any").unwrap().password(password.as_str()).unwrap(),
            None => connect,
        };
        connect.build().unwrap().to_continuous_buffer()
    }
}

impl Mqtt {
    /// Connects, and waits for the CONNACK, which must accept.
    pub async fn connect(address: SocketAddr, hello: &Hello) -> Self {
        Self::try_connect(address, hello).await.expect("the gateway listens and answers")
    }

    /// Like [`Self::connect`], from an address of the loopback network.
    pub async fn connect_from(local: IpAddr, address: SocketAddr, hello: &Hello) -> Self {
        let mut client = Self::open_from(local, address, hello.version).await;
        client.introduce(hello).await.expect("the gateway answers");
        client
    }

    /// Opens a connection from an address of the loopback network, and sends nothing.
    pub async fn open_from(local: IpAddr, address: SocketAddr, version: u8) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::new(local, 0)).expect("an address of the loopback network");
        Self::over(socket.connect(address).await.expect("the gateway listens"), version)
    }

    /// Like [`Self::connect`]; `None` if the gateway is gone or ends meanwhile.
    pub async fn try_connect(address: SocketAddr, hello: &Hello) -> Option<Self> {
        let mut client = Self::try_open(address, hello.version).await.ok()?;
        client.introduce(hello).await?;
        Some(client)
    }

    /// Sends the CONNECT, and waits for the CONNACK, which must accept. `None` if the gateway is gone.
    async fn introduce(&mut self, hello: &Hello) -> Option<()> {
        self.try_send(&hello.bytes()).await.ok()?;
        match self.receive().await? {
            Packet::Connack { present, code: 0, properties } => self.connack = (present, 0, properties),
            other => panic!("{other:?}"),
        }
        Some(())
    }

    /// Opens a connection, and sends nothing.
    pub async fn open(address: SocketAddr, version: u8) -> Self {
        Self::try_open(address, version).await.expect("the gateway listens")
    }

    async fn try_open(address: SocketAddr, version: u8) -> std::io::Result<Self> {
        Ok(Self::over(TcpStream::connect(address).await?, version))
    }

    fn over(stream: TcpStream, version: u8) -> Self {
        stream.set_nodelay(true).expect("a socket");
        let (read, inbox) = (Vec::new(), VecDeque::new());
        Self { stream, read, inbox, version, last_id: 0, connack: (false, 0, Vec::new()) }
    }

    /// Sends bytes unchanged.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).await.expect("the gateway takes it");
    }

    /// Sends bytes; an error if the gateway has closed the connection.
    pub async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Returns the next packet; `None` when the gateway has closed the connection.
    pub async fn receive(&mut self) -> Option<Packet> {
        match self.inbox.pop_front() {
            Some(packet) => Some(packet),
            None => timeout(PATIENCE, self.read_packet()).await.expect("a packet in time"),
        }
    }

    /// Returns a packet that arrives within this time, if any; for packets that must not arrive.
    pub async fn receive_within(&mut self, while_: Duration) -> Option<Packet> {
        timeout(while_, self.receive()).await.ok().flatten()
    }

    async fn read_packet(&mut self) -> Option<Packet> {
        loop {
            if let Some((packet, length)) = parse(&self.read, self.version) {
                self.read.drain(..length);
                return Some(packet);
            }
            match self.stream.read_buf(&mut self.read).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Returns the first packet that `wanted` accepts; earlier ones are kept for later.
    async fn receive_that<T>(&mut self, wanted: impl Fn(&Packet) -> Option<T>) -> T {
        for at in 0..self.inbox.len() {
            if let Some(found) = wanted(&self.inbox[at]) {
                self.inbox.remove(at);
                return found;
            }
        }
        loop {
            let packet = timeout(PATIENCE, self.read_packet()).await.expect("a packet in time");
            let packet = packet.expect("no end before its time");
            match wanted(&packet) {
                Some(found) => return found,
                None => self.inbox.push_back(packet),
            }
        }
    }

    /// Returns an unused packet id.
    pub fn next_id(&mut self) -> u16 {
        self.last_id += 1;
        self.last_id
    }

    /// Subscribes and returns the granted QoS.
    pub async fn subscribe(&mut self, filter: &str, qos: u8) -> u8 {
        self.subscribe_with(filter, SubOpts::new().set_qos(to_qos(qos)), Vec::new()).await
    }

    /// Subscribes with options of version 5 and returns the granted QoS.
    pub async fn subscribe_with(&mut self, filter: &str, options: SubOpts, properties: Vec<Property>) -> u8 {
        let id = self.next_id();
        let entries = vec![SubEntry::new(filter, options).unwrap()];
        let bytes = if self.version == 4 {
            v3_1_1::Subscribe::builder()
                .packet_id(id)
                .entries(entries)
                .build()
                .unwrap()
                .to_continuous_buffer()
        } else {
            let subscribe = v5_0::Subscribe::builder().packet_id(id).entries(entries).props(properties);
            subscribe.build().unwrap().to_continuous_buffer()
        };
        self.send(&bytes).await;
        self.receive_that(|packet| match packet {
            Packet::Suback(of, codes) if *of == id => Some(codes[0]),
            _ => None,
        })
        .await
    }

    /// Subscribes to many filters in one packet and returns the granted QoS of each.
    pub async fn subscribe_all(&mut self, filters: &[String]) -> Vec<u8> {
        let id = self.next_id();
        self.send(&filters_bytes(SUBSCRIBE, id, filters)).await;
        self.receive_that(|packet| match packet {
            Packet::Suback(of, codes) if *of == id => Some(codes.clone()),
            _ => None,
        })
        .await
    }

    /// Unsubscribes from many filters in one packet and returns the reasons.
    pub async fn unsubscribe_all(&mut self, filters: &[String]) -> Vec<u8> {
        let id = self.next_id();
        self.send(&filters_bytes(UNSUBSCRIBE, id, filters)).await;
        self.receive_that(|packet| match packet {
            Packet::Unsuback(of, codes) if *of == id => Some(codes.clone()),
            _ => None,
        })
        .await
    }

    /// Unsubscribes from a filter and returns the reason.
    pub async fn unsubscribe(&mut self, filter: &str) -> u8 {
        self.unsubscribe_all(&[filter.to_owned()]).await[0]
    }

    /// Publishes, waits for the last acknowledgement, and returns the reason.
    pub async fn publish(&mut self, topic: &str, payload: impl AsRef<[u8]>, qos: u8) -> u8 {
        self.publish_with(topic, payload.as_ref(), qos, false, Vec::new()).await
    }

    /// Publishes with properties of version 5.
    pub async fn publish_with(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: u8,
        retain: bool,
        properties: Vec<Property>,
    ) -> u8 {
        let id = self.next_id();
        self.send(&publish_bytes(self.version, topic, payload, qos, id, (false, retain), properties)).await;
        let kind = match qos {
            0 => return 0,
            1 => PUBACK,
            _ => PUBREC,
        };
        let reason = self.receive_ack(kind, id).await;
        if qos == 2 && reason < 0x80 {
            self.acknowledge(PUBREL, id).await;
            return self.receive_ack(PUBCOMP, id).await;
        }
        reason
    }

    /// Waits for an acknowledgement and returns its reason.
    pub async fn receive_ack(&mut self, kind: u8, id: u16) -> u8 {
        self.receive_that(|packet| match packet {
            Packet::Ack(of_kind, of, reason) if *of_kind == kind && *of == id => Some(*reason),
            _ => None,
        })
        .await
    }

    /// Sends an acknowledgement.
    pub async fn acknowledge(&mut self, kind: u8, id: u16) {
        self.send(&ack_bytes(kind, id)).await;
    }

    /// Returns the next message without acknowledging it.
    pub async fn message(&mut self) -> Message {
        self.receive_that(|packet| match packet {
            Packet::Publish(message) => Some((**message).clone()),
            _ => None,
        })
        .await
    }

    /// Returns the next message after acknowledging it completely.
    pub async fn take(&mut self) -> Message {
        let message = self.message().await;
        match message.qos {
            0 => {}
            1 => self.acknowledge(PUBACK, message.id).await,
            _ => {
                self.acknowledge(PUBREC, message.id).await;
                self.receive_ack(PUBREL, message.id).await;
                self.acknowledge(PUBCOMP, message.id).await;
            }
        }
        message
    }

    /// Sends a DISCONNECT with a reason, and waits for the end of the connection.
    pub async fn disconnect(mut self, reason: u8) {
        let bytes: &[u8] = if self.version == 4 { &[0xe0, 0] } else { &[0xe0, 1, reason] };
        self.send(bytes).await;
        while self.receive().await.is_some() {}
    }

    /// Sends a PINGREQ and waits for the PINGRESP.
    pub async fn ping(&mut self) {
        self.send(&[0xc0, 0]).await;
        self.receive_that(|packet| (*packet == Packet::Pingresp).then_some(())).await;
    }
}
