//! Connections that speak MQTT, over TCP or over a WebSocket of the gateway.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::Phase;
use super::guard::Guarded;
use crate::http::{Link, Tunnel};
use crate::limits::Limits;
use crate::mqtt::{Broker, WebSocketBytes};

/// How soon the kernel asks after a client that has agreed on no keep alive and may be gone without a word.
const SILENT_FOR: Duration = Duration::from_secs(300);

/// Serves a TCP connection to its end. `refuse`: it is one too many, and is told so.
pub(super) async fn serve(
    stream: TcpStream,
    broker: Arc<Broker>,
    limits: Arc<Limits>,
    link: Arc<Link>,
    mut phase: watch::Receiver<Phase>,
    refuse: bool,
) -> io::Result<()> {
    SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(SILENT_FOR))?;
    let io = Box::new(Guarded::new(stream, Bytes::new(), link, limits, phase.clone()));
    tokio::select! {
        () = broker.serve(io, refuse) => {}
        _ = phase.wait_for(|phase| *phase >= Phase::Stopped) => {}
    }
    Ok(())
}

/// What serves a WebSocket that speaks MQTT.
pub(super) fn tunnel(broker: Arc<Broker>, packet_bytes_max: usize) -> Tunnel {
    Arc::new(move |upgraded| {
        let (broker, io) = (broker.clone(), TokioIo::new(upgraded));
        Box::pin(broker.serve(Box::new(WebSocketBytes::new(io, packet_bytes_max)), false))
    })
}
