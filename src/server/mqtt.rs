//! Connections that speak MQTT, over TCP or over a WebSocket of the gateway.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use crate::http::conn::{ConnectionState, GuardedStream, MqttSocket, Phase};
use crate::limits::Limits;
use crate::mqtt::{Broker, WebSocketBytes};

/// How soon the kernel asks after a client that has agreed on no keep alive and may be gone without a word.
const SILENT_FOR: Duration = Duration::from_secs(300);

/// Serves a TCP connection to its end. `refuse`: it is one too many, and is told so.
pub(super) async fn serve(
    stream: TcpStream,
    broker: Arc<Broker>,
    limits: Arc<Limits>,
    state: Arc<ConnectionState>,
    mut phase: watch::Receiver<Phase>,
    refuse: bool,
) -> io::Result<()> {
    SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(SILENT_FOR))?;
    let io = Box::new(GuardedStream::new(stream, Bytes::new(), state, limits, phase.clone()));
    tokio::select! {
        () = broker.serve(io, refuse) => {}
        _ = phase.wait_for(|phase| *phase >= Phase::Stopped) => {}
    }
    Ok(())
}

/// Serves the WebSockets that the HTTP front hands over, until that front is gone.
pub(super) async fn serve_sockets(
    broker: Arc<Broker>,
    packet_bytes_max: usize,
    mut sockets: mpsc::Receiver<MqttSocket>,
) {
    while let Some(MqttSocket { io, state }) = sockets.recv().await {
        let broker = broker.clone();
        tokio::spawn(async move {
            broker.serve(Box::new(WebSocketBytes::new(io, packet_bytes_max)), false).await;
            drop(state);
        });
    }
}
