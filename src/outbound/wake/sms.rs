//! SMS over SMPP 3.4: one bind as a transceiver to a message centre, opened with the first wake.
//!
//! The protocol is spoken here and not by a crate: the part that wakes need is small, and the crate `smpp34` brings 14 others.
//!
//! * A wake whose response does not come counts as sent: sending it again would cost again, and might arrive twice.
//! * A message centre that throttles pauses the whole bind, so that no wake overtakes another.
//! * Receipts are handed to the hub. If it does not keep up, the message centre is asked to repeat them.

mod pdu;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::clock::Clock;
use crate::hub::Verdict;
pub(super) use pdu::Receipt;
pub use pdu::SmsContent;
use pdu::{Pdu, Submission, command, status};

/// How long a connection and its bind may take, and how long a response.
const BIND_TIME: Duration = Duration::from_secs(10);
const RESPONSE_TIME: Duration = Duration::from_secs(10);

/// The message centre is asked this often whether it is still there.
const ENQUIRE_INTERVAL: Duration = Duration::from_secs(30);

/// After a failed bind, the next one waits for this time.
const REBIND_PAUSE: Duration = Duration::from_secs(5);

/// How long a throttled bind is left alone.
const THROTTLE_PAUSE: Duration = Duration::from_secs(10);

/// Submissions without a response.
const WINDOW: usize = 10;

/// Wakes that wait for the bind.
const WAITING_MAX: usize = 64;

/// Receipts that wait for the hub.
const RECEIPTS_MAX: usize = 256;

/// Bytes that are read at once.
const READ_BYTES: usize = 4096;

/// A message centre, and how the gateway is known there.
#[derive(Clone)]
pub struct SmscSettings {
    /// `HOST:PORT`.
    pub address: String,
    /// The name of the gateway.
    pub system_id: String,
    /// Its password.
    pub password: String,
    /// The sender that phones show: a number, or a name.
    pub source: String,
    /// What phones get.
    pub content: SmsContent,
}

/// Shows no password.
impl fmt::Debug for SmscSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmscSettings").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A message centre. The bind is opened with the first submission.
pub struct Smsc {
    settings: Arc<SmscSettings>,
    waiting: OnceLock<mpsc::Sender<Waiting>>,
    receipts: mpsc::Sender<Receipt>,
    arrived: Mutex<mpsc::Receiver<Receipt>>,
}

/// A wake that waits for the bind or for its response.
struct Waiting {
    submission: Submission,
    answer: oneshot::Sender<Verdict>,
}

impl Smsc {
    /// Checks the settings. The error is a text for the operator.
    pub fn new(settings: SmscSettings) -> Result<Self, &'static str> {
        let texts = [&settings.system_id, &settings.password, &settings.source];
        if texts.iter().any(|text| !text.is_ascii() || text.contains('\0') || text.len() > 20) {
            return Err("id, password and sender must be at most 20 ASCII characters");
        }
        if pdu::content(&settings.content, "0123456789abcdef").is_none() {
            return Err("the text is longer than one SMS: 160 characters of GSM 7 bit, or 70 others");
        }
        let (receipts, arrived) = mpsc::channel(RECEIPTS_MAX);
        let (settings, arrived) = (Arc::new(settings), Mutex::new(arrived));
        Ok(Self { settings, waiting: OnceLock::new(), receipts, arrived })
    }

    /// Waits for the next receipt.
    pub(super) async fn receipt(&self) -> Option<Receipt> {
        self.arrived.lock().await.recv().await
    }

    /// Submits a wake to a telephone number, for as long as `ttl`.
    pub(super) async fn submit(&self, number: &str, wake: &str, ttl: Duration, clock: Clock) -> Verdict {
        let Some(content) = pdu::content(&self.settings.content, wake) else {
            return Verdict::config("the text does not fit into one SMS");
        };
        let source = self.settings.source.clone();
        let submission = Submission { source, number: number.to_owned(), content, ttl };
        let waiting = self.waiting.get_or_init(|| {
            let (sender, receiver) = mpsc::channel(WAITING_MAX);
            tokio::spawn(run(self.settings.clone(), receiver, self.receipts.clone(), clock));
            sender
        });
        let (answer, verdict) = oneshot::channel();
        if waiting.try_send(Waiting { submission, answer }).is_err() {
            return Verdict::Retry { after: REBIND_PAUSE };
        }
        verdict.await.unwrap_or(Verdict::Retry { after: REBIND_PAUSE })
    }
}

/// Keeps the bind while there are wakes. Ends when the last sender is gone.
async fn run(
    settings: Arc<SmscSettings>,
    mut waiting: mpsc::Receiver<Waiting>,
    receipts: mpsc::Sender<Receipt>,
    clock: Clock,
) {
    let mut first = None;
    loop {
        if first.is_none() {
            first = waiting.recv().await;
        }
        let Some(begun) = first.take() else { return };
        let mut bind = Bind::new(&settings, &receipts, clock);
        bind.queue.push_back(begun);
        let connected = timeout(BIND_TIME, TcpStream::connect(&settings.address)).await;
        let verdict = match connected {
            Ok(Ok(stream)) => match bind.serve(stream, &mut waiting).await {
                Ended::ByCentre => Verdict::Retry { after: REBIND_PAUSE },
                Ended::Refused(verdict) => verdict,
                Ended::NoSenders => return,
            },
            Ok(Err(error)) => {
                tracing::warn!(address = settings.address, %error, "cannot connect to the message centre");
                Verdict::Retry { after: REBIND_PAUSE }
            }
            Err(_) => Verdict::Retry { after: REBIND_PAUSE },
        };
        bind.queue.drain(..).for_each(|waiting| drop(waiting.answer.send(verdict.clone())));
        sleep(REBIND_PAUSE).await;
    }
}

/// Why a bind is over.
enum Ended {
    /// The connection has ended or failed.
    ByCentre,
    /// The message centre does not accept the bind.
    Refused(Verdict),
    /// Nobody submits any more.
    NoSenders,
}

/// One connection to a message centre.
struct Bind<'a> {
    settings: &'a SmscSettings,
    receipts: &'a mpsc::Sender<Receipt>,
    clock: Clock,
    next_sequence: u32,
    /// Wakes that are not submitted yet, in order.
    queue: VecDeque<Waiting>,
    /// Submissions without a response, by sequence number, with the time at which they count as sent.
    open: HashMap<u32, (oneshot::Sender<Verdict>, Instant)>,
    /// Nothing is submitted before.
    paused_until: Instant,
    enquire_at: Instant,
    is_bound: bool,
}

impl<'a> Bind<'a> {
    fn new(settings: &'a SmscSettings, receipts: &'a mpsc::Sender<Receipt>, clock: Clock) -> Self {
        let now = Instant::now();
        Self {
            settings,
            receipts,
            clock,
            next_sequence: 1,
            queue: VecDeque::new(),
            open: HashMap::new(),
            paused_until: now,
            enquire_at: now + ENQUIRE_INTERVAL,
            is_bound: false,
        }
    }

    /// Binds and submits until the connection ends.
    async fn serve<S: AsyncRead + AsyncWrite + Send>(
        &mut self,
        stream: S,
        waiting: &mut mpsc::Receiver<Waiting>,
    ) -> Ended {
        let (mut reader, mut writer) = split(stream);
        let sequence = self.sequence();
        if writer
            .write_all(&Pdu::bind(sequence, &self.settings.system_id, &self.settings.password).encode())
            .await
            .is_err()
        {
            return Ended::ByCentre;
        }
        let bind_until = Instant::now() + BIND_TIME;
        let mut received = Vec::new();
        let ended = loop {
            let mut outgoing = Vec::new();
            self.submit_queued(&mut outgoing);
            if writer.write_all(&outgoing).await.is_err() {
                break Ended::ByCentre;
            }
            let mut buffer = [0; READ_BYTES];
            let has_room = self.queue.len() < WINDOW;
            let until = self.next_timer(bind_until);
            let mut outgoing = Vec::new();
            tokio::select! {
                count = reader.read(&mut buffer) => {
                    let count = count.unwrap_or(0);
                    received.extend_from_slice(buffer.get(..count).unwrap_or_default());
                    match self.receive(&mut received, &mut outgoing) {
                        Err(ended) => break ended,
                        Ok(()) if count == 0 => break Ended::ByCentre,
                        Ok(()) => {}
                    }
                }
                more = waiting.recv(), if has_room => match more {
                    Some(more) => self.queue.push_back(more),
                    None => break Ended::NoSenders,
                },
                () = sleep_until(until) => {
                    if !self.is_bound && Instant::now() >= bind_until {
                        break Ended::ByCentre;
                    }
                    self.handle_due(&mut outgoing);
                }
            }
            if writer.write_all(&outgoing).await.is_err() {
                break Ended::ByCentre;
            }
        };
        // What was submitted may have arrived.
        self.open.drain().for_each(|(_, (answer, _))| drop(answer.send(Verdict::Ok { id: None })));
        let unbind = Pdu::empty(command::UNBIND, self.sequence()).encode();
        let _gone: io::Result<()> = writer.write_all(&unbind).await;
        ended
    }

    fn sequence(&mut self) -> u32 {
        let sequence = self.next_sequence;
        // The specification allows 1 to 0x7fffffff.
        self.next_sequence = if sequence >= 0x7fff_ffff { 1 } else { sequence + 1 };
        sequence
    }

    fn submit_queued(&mut self, outgoing: &mut Vec<u8>) {
        let now = Instant::now();
        while self.is_bound && self.open.len() < WINDOW && self.paused_until <= now {
            let Some(Waiting { submission, answer }) = self.queue.pop_front() else { return };
            let sequence = self.sequence();
            outgoing.extend(Pdu::submit(sequence, &submission).encode());
            self.open.insert(sequence, (answer, now + RESPONSE_TIME));
        }
    }

    fn next_timer(&self, bind_until: Instant) -> Instant {
        let now = Instant::now();
        let responses = self.open.values().map(|(_, until)| *until);
        let bind = (!self.is_bound).then_some(bind_until);
        let pause = (!self.queue.is_empty() && self.paused_until > now).then_some(self.paused_until);
        responses.chain(bind).chain(pause).fold(self.enquire_at, Instant::min)
    }

    fn handle_due(&mut self, outgoing: &mut Vec<u8>) {
        let now = Instant::now();
        for (_, (answer, _)) in self.open.extract_if(|_, (_, until)| *until <= now) {
            let _gone = answer.send(Verdict::Ok { id: None });
        }
        if self.enquire_at <= now {
            self.enquire_at = now + ENQUIRE_INTERVAL;
            let sequence = self.sequence();
            outgoing.extend(Pdu::empty(command::ENQUIRE_LINK, sequence).encode());
        }
    }

    /// Handles the whole packets at the beginning of `received`, and removes them.
    fn receive(&mut self, received: &mut Vec<u8>, outgoing: &mut Vec<u8>) -> Result<(), Ended> {
        while let Some(pdu) = Pdu::take(received).map_err(|_| Ended::ByCentre)? {
            match pdu.command {
                command::BIND_TRANSCEIVER_RESP | command::GENERIC_NACK if !self.is_bound => {
                    if pdu.status != status::OK || pdu.command == command::GENERIC_NACK {
                        tracing::error!(status = pdu.status, "the message centre refuses the bind");
                        return Err(Ended::Refused(bind_verdict(pdu.status)));
                    }
                    self.is_bound = true;
                }
                command::SUBMIT_SM_RESP | command::GENERIC_NACK => {
                    let Some((answer, _)) = self.open.remove(&pdu.sequence) else { continue };
                    let verdict = self.submit_verdict(&pdu);
                    let _gone = answer.send(verdict);
                }
                command::DELIVER_SM => {
                    let is_taken = pdu.receipt().is_none_or(|receipt| {
                        let (state, error) = (receipt.state.as_str(), &receipt.error);
                        tracing::debug!(state, error, "receipt of an SMS");
                        self.receipts.try_send(receipt).is_ok()
                    });
                    let code = if is_taken { status::OK } else { status::QUEUE_FULL };
                    outgoing.extend(Pdu::deliver_response(pdu.sequence, code).encode());
                }
                command::ENQUIRE_LINK => {
                    outgoing.extend(Pdu::empty(command::ENQUIRE_LINK_RESP, pdu.sequence).encode());
                }
                command::UNBIND => {
                    outgoing.extend(Pdu::empty(command::UNBIND_RESP, pdu.sequence).encode());
                    return Err(Ended::ByCentre);
                }
                // A request that wakes have no use for. Responses have the highest bit.
                other if other & command::RESPONSE == 0 => {
                    outgoing.extend(Pdu::nack(pdu.sequence).encode());
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn submit_verdict(&mut self, pdu: &Pdu) -> Verdict {
        match pdu.status {
            status::OK => Verdict::Ok { id: pdu.message_id().map(Box::from) },
            status::THROTTLED | status::QUEUE_FULL => {
                self.paused_until = Instant::now() + THROTTLE_PAUSE;
                Verdict::Slow { until: self.clock.wall() + THROTTLE_PAUSE }
            }
            status::SYSTEM_ERROR | status::SUBMIT_FAILED => Verdict::Retry { after: REBIND_PAUSE },
            // A phone that is off for long may get the same; only receipts tell that a number is gone.
            other => Verdict::bad(format!("the message centre refuses the SMS: status {other:#04x}")),
        }
    }
}

fn bind_verdict(code: u32) -> Verdict {
    match code {
        status::SYSTEM_ERROR | status::THROTTLED | status::QUEUE_FULL | status::ALREADY_BOUND => {
            Verdict::Retry { after: REBIND_PAUSE }
        }
        other => Verdict::config(format!("the message centre refuses the bind: status {other:#04x}")),
    }
}
