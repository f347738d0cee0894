//! The link of a phone: what the network that it is in does to its connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use parking_lot::Mutex;
use pollgate::server::Running;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::day::Network;
use super::deaths::{Deaths, Life};
use super::trace::Trace;
use crate::model::energy::PacketEvent;
use crate::network::{Middlebox, Opener, begins_request};
use crate::wire::{Headers, Unacknowledged, pair};

/// Most bytes per read.
const READ_BYTES: usize = 16 * 1024;

/// Least time until a lost packet is sent again; two round trips if that is more. It doubles while the packet is lost again.
const RETRANSMISSION: Duration = Duration::from_millis(200);

/// Time until a lost SYN is sent again (RFC 6298, section 2.1).
const SYN_RETRANSMISSION: Duration = Duration::from_secs(1);

/// How long the gateway's system sends a packet again that nobody acknowledges, before it gives the connection up: the gateway's
/// default of `write_timeout`, which it sets as TCP_USER_TIMEOUT.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// The way between one phone and the gateway.
#[derive(Debug)]
pub(super) struct Link {
    phone: u32,
    network: watch::Sender<Option<Network>>,
    /// The hostile network behind the network that the phone is in, since its first connection there.
    behind: Mutex<Option<Arc<Middlebox>>>,
    random: Mutex<Rng>,
    packets: Mutex<Packets>,
    trace: Arc<Trace>,
    began: Instant,
}

/// What passed a phone's link.
#[derive(Debug, Default, Clone)]
pub(super) struct Packets {
    /// Packets at the phone, each with the radio that it used.
    pub(super) events: Vec<(PacketEvent, Arc<str>)>,
    /// HTTP requests.
    pub(super) requests: u64,
    /// Content bytes in both directions.
    pub(super) bytes: u64,
    /// Connections that were opened.
    pub(super) connections: u64,
    /// Connections that the network forgot.
    pub(super) forgotten: u64,
    /// Times at which bytes arrived after a second or more of silence on their connection.
    pub(super) arrivals: u64,
    /// What the phone believed of its connections.
    pub(super) deaths: Deaths,
}

/// A connection's network, and whether it still passes anything.
struct Carried {
    link: Arc<Link>,
    network: Network,
    radio: Arc<str>,
    /// Told of changes of the network, each of which changes the phone's address.
    changes: watch::Receiver<Option<Network>>,
    /// When the last packet was sent or arrived; `None` once the network has forgotten the connection.
    last_packet: Mutex<Option<Instant>>,
    unacknowledged: Mutex<Unacknowledged>,
    life: Life,
}

impl Link {
    pub(super) fn new(phone: u32, seed: u64, trace: Arc<Trace>, began: Instant) -> Self {
        let random = Mutex::new(Rng::with_seed(seed));
        let (network, behind) = (watch::Sender::new(None), Mutex::default());
        Self { phone, network, behind, random, packets: Mutex::default(), trace, began }
    }

    /// Puts the phone into another network, or into none. Its connections pass nothing from now on.
    pub(super) fn enter(&self, network: Option<Network>) {
        self.note("enters", network.as_ref().map_or(0, |network| network.name.len() as u64));
        *self.behind.lock() = None;
        self.network.send_replace(network);
    }

    /// What passed until now.
    pub(super) fn packets(&self) -> Packets {
        self.packets.lock().clone()
    }

    pub(super) fn note(&self, what: &str, number: u64) {
        self.trace.note(self.began.elapsed(), self.phone, what, number);
    }

    /// Opens a connection to the gateway. Pends while there is no network.
    pub(super) async fn connect(self: Arc<Self>, gateway: Arc<Running>) -> io::Result<TcpStream> {
        let mut changes = self.network.subscribe();
        let Some(network) = changes.borrow_and_update().clone() else { return std::future::pending().await };
        self.packets.lock().connections += 1;
        let radio: Arc<str> = network.radio.as_str().into();
        self.count(Headers::OPENING, &radio);
        // A connection that was begun in another network is never answered.
        let handshake = self.delay(&network, SYN_RETRANSMISSION) + self.delay(&network, SYN_RETRANSMISSION);
        if timeout(handshake, changes.changed()).await.is_ok() {
            return std::future::pending().await;
        }
        let (phone_end, near) = pair()?;
        let (gateway_end, far) = pair()?;
        let [a, b, c, d] = (0x0a00_0000 | self.phone).to_be_bytes();
        let address = SocketAddr::from(([a, b, c, d], 40_000));
        match &network.behind {
            None => gateway.serve(gateway_end, address).await,
            Some(profile) => {
                let start = || Arc::new(Middlebox::simulated(profile, opener(gateway, address)));
                self.behind.lock().get_or_insert_with(start).carry(gateway_end);
            }
        }
        let last_packet = Mutex::new(Some(Instant::now()));
        let unacknowledged = Mutex::default();
        let life = Life::new();
        let carried = Carried { link: self, network, radio, changes, last_packet, unacknowledged, life };
        tokio::spawn(carried.carry(near, far));
        Ok(phone_end)
    }

    /// How long a packet takes one way, with the times that it is lost.
    fn delay(&self, network: &Network, retransmission: Duration) -> Duration {
        let mut random = self.random.lock();
        let jitter = -network.jitter * (1.0 - random.f64()).ln();
        let mut delay = Duration::from_secs_f64(network.round_trip / 2.0 + jitter);
        let mut again = retransmission.max(Duration::from_secs_f64(2.0 * network.round_trip));
        while random.f64() < network.loss {
            delay += again;
            again *= 2;
        }
        delay
    }

    /// Counts what the phone sends and receives now, with the headers of its packets.
    fn count(&self, bytes: Headers, radio: &Arc<str>) {
        let at = self.began.elapsed();
        let packets = [(true, bytes.up), (false, bytes.down)].into_iter().filter(|(_, bytes)| *bytes > 0);
        let events = packets.map(|(up, bytes)| {
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            (PacketEvent { at, up, bytes }, radio.clone())
        });
        self.packets.lock().events.extend(events);
    }
}

/// Opens connections to the gateway, from behind a hostile network.
fn opener(gateway: Arc<Running>, address: SocketAddr) -> Opener {
    Arc::new(move || {
        let gateway = gateway.clone();
        Box::pin(async move {
            let (near, far) = pair()?;
            gateway.serve(far, address).await;
            Ok(near)
        })
    })
}

impl Carried {
    /// Relays until both ends have closed. If the gateway's system gives a silent connection up, the phone is not told.
    async fn carry(self, mut near: TcpStream, mut far: TcpStream) {
        let ended = {
            let ((from_phone, to_phone), (from_gateway, to_gateway)) = (near.split(), far.split());
            let up = self.way(true, from_phone, to_gateway);
            let down = self.way(false, from_gateway, to_phone);
            tokio::try_join!(up, down)
        };
        // Another error is the end of a connection that one side has closed.
        if ended.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::TimedOut) {
            self.closed_by_phone();
        }
        if ended.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            drop(far);
            self.drop_all(near).await;
        }
    }

    /// Drops what the phone sends until it closes.
    async fn drop_all(&self, mut near: TcpStream) {
        let mut buffer = vec![0; READ_BYTES];
        while let Ok(count @ 1..) = near.read(&mut buffer).await {
            self.count(true, count);
        }
        self.closed_by_phone();
    }

    /// Counts whether the phone was right to give the connection up.
    fn closed_by_phone(&self) {
        if self.has_moved() {
            return;
        }
        let idle = self.network.nat_idle.map(Duration::from_secs_f64);
        let forgotten_at = self.last_packet.lock().zip(idle).map(|(last, idle)| last + idle);
        self.link.packets.lock().deaths.add(self.life.closed_by_phone(forgotten_at));
    }

    async fn way(
        &self,
        up: bool,
        from: impl AsyncRead + Unpin,
        to: impl AsyncWrite + Unpin,
    ) -> io::Result<()> {
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::try_join!(self.send(up, from, sender), self.arrive(up, to, receiver)).map(drop)
    }

    /// Takes what one side sends, and assigns each packet its time of arrival, in order.
    async fn send(
        &self,
        up: bool,
        mut from: impl AsyncRead + Unpin,
        on_the_way: mpsc::UnboundedSender<(Instant, Bytes)>,
    ) -> io::Result<()> {
        let mut arrives = Instant::now();
        let mut unacknowledged = None;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let count = match unacknowledged {
                Some(since) if !up => {
                    let given_up = since + USER_TIMEOUT;
                    tokio::select! {
                        biased;
                        count = from.read(&mut buffer) => count?,
                        () = sleep_until(given_up) => return Err(io::ErrorKind::TimedOut.into()),
                    }
                }
                _ => from.read(&mut buffer).await?,
            };
            let bytes = buffer.get(..count).unwrap_or_default();
            if up && bytes.is_empty() {
                self.closed_by_phone();
            }
            if up && !bytes.is_empty() {
                self.count(up, bytes.len());
                self.link.packets.lock().requests += u64::from(begins_request(bytes));
            }
            if !self.passes() {
                unacknowledged.get_or_insert(Instant::now());
                if bytes.is_empty() {
                    // Nobody learns of the end, so this side stays open for the other.
                    sleep(USER_TIMEOUT).await;
                    return Err(io::ErrorKind::TimedOut.into());
                }
                continue;
            }
            arrives = arrives.max(Instant::now() + self.link.delay(&self.network, RETRANSMISSION));
            // The receiver is gone after a write error, which ends this future, too.
            let _gone = on_the_way.send((arrives, Bytes::copy_from_slice(bytes)));
            if bytes.is_empty() {
                if up {
                    self.link.count(Headers::CLOSING, &self.radio);
                } else {
                    self.life.closed_by_gateway();
                }
                return Ok(());
            }
        }
    }

    async fn arrive(
        &self,
        up: bool,
        mut to: impl AsyncWrite + Unpin,
        mut on_the_way: mpsc::UnboundedReceiver<(Instant, Bytes)>,
    ) -> io::Result<()> {
        while let Some((due, bytes)) = on_the_way.recv().await {
            sleep_until(due).await;
            if self.has_moved() {
                continue;
            }
            // What was sent before the network forgot the connection arrives, and renews nothing.
            if let Some(last) = self.last_packet.lock().as_mut() {
                *last = Instant::now();
            }
            if !up && !bytes.is_empty() {
                self.count(up, bytes.len());
            }
            to.write_all(&bytes).await?;
        }
        to.shutdown().await
    }

    /// Counts content that the phone sends or receives now, and the acknowledgements of what came before.
    fn count(&self, up: bool, content: usize) {
        let bytes = content as u64;
        let mut all = self.unacknowledged.lock().burst(up, bytes, Instant::now());
        *(if up { &mut all.up } else { &mut all.down }) += bytes;
        if !up && self.life.arrived() {
            self.link.packets.lock().arrivals += 1;
        }
        self.link.count(all, &self.radio);
        self.link.packets.lock().bytes += bytes;
        self.link.note(if up { "sends" } else { "receives" }, bytes);
    }

    /// Whether the phone is in another network than at the begin of the connection.
    fn has_moved(&self) -> bool {
        self.changes.has_changed().unwrap_or(true)
    }

    /// Whether a packet that is sent now arrives some time.
    fn passes(&self) -> bool {
        if self.has_moved() {
            return false;
        }
        let mut last = self.last_packet.lock();
        let Some(since) = *last else { return false };
        let idle = since.elapsed().as_secs_f64();
        if let Some(most) = self.network.nat_idle.filter(|most| idle > *most) {
            *last = None;
            self.life.died(since + Duration::from_secs_f64(most));
            drop(last);
            self.link.packets.lock().forgotten += 1;
            self.link.note("forgotten", 0);
            return false;
        }
        *last = Some(Instant::now());
        true
    }
}
