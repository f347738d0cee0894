//! The way of a client to the gateway, on which connections are refused, delayed, cut at any byte, buffered, or silently lost.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::scenario::LinkPlan;
use super::world::{Flag, World};
use crate::wire::pair;

/// Most bytes of a packet.
const PACKET_BYTES: usize = 4096;

/// How long the gateway's system sends a packet again that nobody acknowledges, as `write_timeout` says.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// The way of one client.
pub(super) struct Link {
    world: Arc<World>,
    client: u32,
    random: Mutex<Rng>,
}

/// What happens to a connection.
#[derive(Debug, Clone, Copy)]
struct Plan {
    /// Time of a packet one way.
    delay: Duration,
    fault: Option<Fault>,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Refused,
    /// Cut behind this many bytes to the gateway.
    CutUp(usize),
    /// Cut behind this many bytes from the gateway: with 0, the response to a request that was taken is lost.
    CutDown(usize),
    /// From this time on nothing passes, and no side is told.
    Silent(Duration),
    /// The way from the gateway passes nothing until it has this many bytes, or until nothing came for this time.
    Buffered(usize, Duration),
}

impl Link {
    pub(super) fn new(world: Arc<World>, client: u32, random: Rng) -> Self {
        Self { world, client, random: Mutex::new(random) }
    }

    pub(super) async fn connect(self: Arc<Self>) -> io::Result<TcpStream> {
        let plan = if self.world.calm.is_set() { Plan::CALM } else { self.plan() };
        sleep(2 * plan.delay).await;
        if let Some(Fault::Refused) = plan.fault {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let Some((gateway, dead)) = self.world.gateway() else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let (client_end, near) = pair()?;
        let (gateway_end, far) = pair()?;
        let [high, low] = (self.client as u16).to_be_bytes();
        gateway.serve(gateway_end, SocketAddr::from((Ipv4Addr::new(10, 0, high, low), 40_000))).await;
        self.world.note(self.client, &format!("connects: {plan:?}"));
        tokio::spawn(carry(plan, near, far, dead, self.world.calm.clone()));
        Ok(client_end)
    }

    fn plan(&self) -> Plan {
        let (mut random, links) = (self.random.lock(), self.world.links());
        let faults = [(links.refused, 0), (links.cut, 1), (links.silent, 2), (links.buffered, 3)];
        let drawn = faults.into_iter().find(|(share, _)| random.f64() < *share);
        let fault = drawn.map(|(_, kind)| match kind {
            0 => Fault::Refused,
            1 if random.f64() < 0.35 => Fault::CutUp(random.usize(0..400)),
            1 => Fault::CutDown(if random.f64() < 0.4 { 0 } else { random.usize(1..1200) }),
            2 => Fault::Silent(Duration::from_millis(random.u64(0..20_000))),
            _ => Fault::Buffered(random.usize(1..8000), Duration::from_millis(random.u64(500..20_000))),
        });
        Plan { delay: draw_delay(&mut random, links), fault }
    }
}

impl Plan {
    /// A connection without faults.
    const CALM: Self = Self { delay: Duration::from_millis(5), fault: None };
}

fn draw_delay(random: &mut Rng, links: LinkPlan) -> Duration {
    let most = links.delay.as_millis() as u64;
    // Most connections are quick, so that those that overtake others are the exception.
    let most = if random.f64() < 0.3 { most } else { most / 20 };
    Duration::from_millis(random.u64(0..=most))
}

/// Relays until one side closes, a fault ends the connection, or the gateway is dead. A connection that is slow or has a fault
/// ends when all is calm, unless it is silent already: that is for the client to find out.
async fn carry(plan: Plan, mut near: TcpStream, mut far: TcpStream, dead: Arc<Flag>, calm: Arc<Flag>) {
    let silence = match plan.fault {
        Some(Fault::Silent(after)) => Some(after),
        _ => None,
    };
    let is_quick = plan.fault.is_none() && plan.delay < Duration::from_millis(50);
    let is_silent = {
        let ((from_client, to_client), (from_gateway, to_gateway)) = (near.split(), far.split());
        let (mut up, mut down) = (Way::of(plan), Way::of(plan));
        match plan.fault {
            Some(Fault::CutUp(behind)) => up.cut = Some(behind),
            Some(Fault::CutDown(behind)) => down.cut = Some(behind),
            Some(Fault::Buffered(bytes, idle)) => down.buffer = Some((bytes, idle)),
            _ => {}
        }
        let relay = async {
            tokio::try_join!(up.relay(from_client, to_gateway), down.relay(from_gateway, to_client))
        };
        tokio::select! {
            biased;
            () = dead.wait() => false,
            () = calm.wait(), if !is_quick => false,
            _ended = relay => false,
            () = sleep(silence.unwrap_or_default()), if silence.is_some() => true,
        }
    };
    if is_silent {
        let give_up = async {
            sleep(USER_TIMEOUT).await;
            drop(far);
        };
        tokio::join!(give_up, swallow(near));
    }
}

/// Takes what a client sends, until it closes.
async fn swallow(mut near: TcpStream) {
    let mut buffer = vec![0; PACKET_BYTES];
    while near.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
}

/// One direction of a connection.
struct Way {
    delay: Duration,
    cut: Option<usize>,
    buffer: Option<(usize, Duration)>,
}

impl Way {
    fn of(plan: Plan) -> Self {
        Self { delay: plan.delay, cut: None, buffer: None }
    }

    async fn relay(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
    ) -> io::Result<()> {
        let (mut packet, mut passed) = (vec![0; PACKET_BYTES], 0);
        loop {
            let mut held = Vec::new();
            let mut count = from.read(&mut packet).await?;
            let is_end = loop {
                held.extend_from_slice(packet.get(..count).unwrap_or_default());
                let Some((bytes, idle)) = self.buffer.filter(|_| count > 0) else { break count == 0 };
                if held.len() >= bytes {
                    break false;
                }
                match timeout(idle, from.read(&mut packet)).await {
                    Ok(read) => count = read?,
                    Err(_) => break false,
                }
            };
            if !self.delay.is_zero() {
                sleep(self.delay).await;
            }
            let most = self.cut.map_or(held.len(), |cut| cut.saturating_sub(passed).min(held.len()));
            to.write_all(held.get(..most).unwrap_or_default()).await?;
            passed += held.len();
            if !held.is_empty() && self.cut.is_some_and(|cut| passed >= cut) {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            if is_end {
                return to.shutdown().await;
            }
        }
    }
}
