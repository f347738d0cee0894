//! `pub` and `sub` with an MQTT URL: they talk to a gateway, or to any other broker of MQTT 5, over TCP, TLS or WebSocket.
//!
//! `mqtt-protocol-core`, which parses the packets of the gateway's clients, too, has the protocol. `rumqttc` is not used: it depends on crates
//! that are not maintained, and on a second version of rustls-webpki.

mod address;
mod connection;
mod publish;
mod subscribe;
mod transport;

pub(crate) use address::BrokerUrl;
pub(crate) use publish::publish;
pub(crate) use subscribe::subscribe;

use std::error::Error;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::gateway::{NoGateway, token};
use super::options::GatewayArgs;
use address::BrokerLogin;
use connection::{BrokerConnection, BrokerSession, ConnectError};

/// First and longest pause before another attempt to connect.
const PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(20)];

/// A broker, and how to connect to it again.
struct RemoteBroker<'a> {
    address: &'a BrokerUrl,
    args: &'a GatewayArgs,
}

impl RemoteBroker<'_> {
    /// Connects, with further attempts while nobody answers. The second value says whether the broker knew the session.
    async fn connect(&self, session: &BrokerSession) -> Result<(BrokerConnection, bool), ConnectError> {
        let mut pause = PAUSES[0];
        loop {
            match self.attempt(session).await {
                Err(error) if error.is_passing() => {}
                attempted => return attempted,
            }
            sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(PAUSES[1]);
        }
    }

    /// Connects within the time of `--timeout`.
    async fn connect_in_time(
        &self,
        session: &BrokerSession,
    ) -> Result<(BrokerConnection, bool), Box<dyn Error>> {
        let limit = self.args.timeout.get();
        match timeout(limit, self.connect(session)).await {
            Ok(connected) => Ok(connected?),
            Err(_) => Err(self.no_answer().into()),
        }
    }

    fn no_answer(&self) -> NoGateway {
        NoGateway { url: self.address.to_string(), limit: self.args.timeout.get() }
    }

    async fn attempt(&self, session: &BrokerSession) -> Result<(BrokerConnection, bool), ConnectError> {
        // A token is read again each time, as it may have been replaced.
        let login = match &self.address.login {
            Some(login) => login.clone(),
            None => BrokerLogin { user: None, password: token(self.args).map_err(ConnectError::Token)? },
        };
        let transport = transport::connect(self.address, self.args.ca.as_deref()).await?;
        BrokerConnection::open(transport, login, session).await
    }
}
