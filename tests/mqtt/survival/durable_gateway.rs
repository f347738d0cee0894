//! A gateway that stores on disk, and is killed and started again.

use std::net::SocketAddr;

use tempfile::TempDir;
use tokio::sync::watch;

use crate::world::mqtt::{Hello, Mqtt};
use crate::world::{Gateway, PATIENCE};

/// A gateway with a store directory, which is removed on drop.
pub(super) struct DurableGateway {
    pub(super) gateway: Gateway,
    folder: TempDir,
    home: watch::Sender<Option<SocketAddr>>,
}

/// The present address of the gateway. A client that loses its connection waits here for the next one.
#[derive(Clone)]
pub(super) struct Home(watch::Receiver<Option<SocketAddr>>);

impl DurableGateway {
    pub(super) async fn start() -> Self {
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a new folder");
        let gateway = start(&folder).await;
        let home = watch::Sender::new(Some(gateway.mqtt));
        Self { gateway, folder, home }
    }

    /// Kills the gateway with SIGKILL.
    pub(super) async fn kill(&mut self) {
        self.home.send_replace(None);
        self.gateway.signal("KILL");
        self.gateway.ended(PATIENCE).await;
    }

    /// Starts another gateway on the same store.
    pub(super) async fn start_again(&mut self) {
        self.gateway = start(&self.folder).await;
        self.home.send_replace(Some(self.gateway.mqtt));
    }

    pub(super) async fn kill_and_start(&mut self) {
        self.kill().await;
        self.start_again().await;
    }

    /// Drains the gateway, and starts another one on the same store.
    pub(super) async fn restart(&mut self) {
        self.home.send_replace(None);
        self.gateway.signal("TERM");
        self.gateway.ended(PATIENCE).await;
        self.start_again().await;
    }

    /// Returns the current address.
    pub(super) fn home(&self) -> Home {
        Home(self.home.subscribe())
    }

    /// Connects a client.
    pub(super) async fn connect(&self, hello: &Hello) -> Mqtt {
        Mqtt::connect(self.gateway.mqtt, hello).await
    }
}

async fn start(folder: &TempDir) -> Gateway {
    let folder = folder.path().to_str().expect("UTF-8");
    Gateway::start(&["--store", folder, "--sync", "always"]).await
}

impl Home {
    /// Connects to the gateway, or waits for the next one.
    pub(super) async fn connect(&mut self, hello: &Hello) -> Mqtt {
        loop {
            let address = *self.0.wait_for(Option::is_some).await.expect("there will be one");
            if let Some(client) = Mqtt::try_connect(address.expect("it is some"), hello).await {
                return client;
            }
            self.0.changed().await.expect("there will be another one");
        }
    }
}
