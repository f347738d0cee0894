//! Network access of readers: counted connections, HTTP requests, server-sent events, MQTT, XMPP, NATS and Redis.

mod answer;
mod connection;
mod events;
mod lean;
mod meter;
mod mqtt;
pub(crate) mod nats;
mod packets;
mod pair;
mod redis;
mod transport;
mod xmpp;

pub use answer::RawAnswer;
pub use connection::{Connection, Request, WireError, accepted, open, open_one_of_many};
pub use events::{Event, Events};
pub use lean::LeanConnection;
pub use meter::{Meter, Metered, Totals, TotalsAt};
pub use mqtt::Mqtt;
pub(crate) use nats::{Operation as NatsOperation, Operations as NatsOperations};
pub(crate) use packets::{Headers, Unacknowledged};
pub(crate) use pair::pair;
pub use redis::RedisConnection;
pub use transport::{Dialer, Io, ReadWrite, Transport};
pub(crate) use xmpp::XmppStream;
pub use xmpp::{BoshSession, XmppService, XmppSocket, XmppUser, request as pubsub_request};
