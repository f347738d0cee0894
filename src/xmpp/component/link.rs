//! A link that is open: reads stanzas of the server's clients, answers them, and sends notifications while the server takes them.
//!
//! The component protocol has no acknowledgements. So the gateway sends a ping to itself behind its notifications, a *barrier*. The
//! server sends it back behind the errors of messages that it could not deliver, so it has received everything before the barrier. Prosody
//! has then written the messages to its clients' sockets or its archive. ejabberd has one process for each client; a message may still be
//! in the queue of that process. If ejabberd is killed then, the message is lost.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use minidom::Element;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::consume_budget;
use tokio::time::{Instant, sleep_until, timeout};

use super::handshake::{ACCEPT, HandshakeError, LinkedStream, READ_BYTES, barrier, reason};
use super::requests::{JidRequests, TooMany};
use crate::stream::{Failure, Offset, StreamName};
use crate::xmpp::jid::Jid;
use crate::xmpp::stanza::{Stanza, StanzaError, answer, wants_answer};
use crate::xmpp::subscriptions::SubscriptionKey;
use crate::xmpp::xml::{CLIENT, STREAMS, StreamDecoder, StreamEvent, XmlError, in_namespace};
use crate::xmpp::{PubsubService, drain_begins};

/// Bytes that wait to be written, beyond which nothing more is read or sent. One stanza or answer may exceed it.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;

/// Subscriptions with messages that are not confirmed, beyond which no more are sent.
const UNCONFIRMED_MAX: usize = 4096;

/// Subscriptions that are served before the socket is looked at again.
const TURNS_MAX: usize = 64;

/// Changed streams that are taken at once.
const CHANGED_MAX: usize = 64;

/// Pause between two barriers if nothing is sent; it finds links that are dead.
const IDLE_BARRIER: Duration = Duration::from_secs(30);

/// How long a barrier may take to come back.
const BARRIER_TIMEOUT: Duration = Duration::from_secs(60);

/// Delay before changed offsets are stored.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// How long the last bytes may take.
const LAST_BYTES_TIME: Duration = Duration::from_secs(1);

/// Why a link has ended. The texts are for the operator.
#[derive(Debug)]
pub(super) enum LinkEnd {
    /// The gateway drains.
    Draining,
    NotOpened(HandshakeError),
    Lost(io::Error),
    /// The server has closed the stream, for a reason that it may have told.
    Closed(Option<String>),
    Xml(XmlError),
    /// The server does not answer.
    Silent,
    /// Another gateway has become the component.
    Superseded,
}

impl fmt::Display for LinkEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Draining => write!(f, "the gateway drains"),
            Self::NotOpened(error) => write!(f, "{error}"),
            Self::Lost(error) => write!(f, "{error}"),
            Self::Closed(None) => write!(f, "the server closed the link"),
            Self::Closed(Some(reason)) => write!(f, "the server closed the link: {reason}"),
            Self::Xml(error) => write!(f, "the server sent what XMPP does not allow: {error}"),
            Self::Superseded => write!(f, "another gateway is the component"),
            Self::Silent => write!(f, "the server has not answered for {} s", BARRIER_TIMEOUT.as_secs()),
        }
    }
}

/// The state of a link besides its socket.
struct ComponentLink<'a> {
    service: &'a PubsubService,
    decoder: StreamDecoder,
    input: BytesMut,
    output: BytesMut,
    requests: JidRequests<'a>,
    barriers: Barriers,
    save_at: Option<Instant>,
}

/// The barriers of a link, of which at most one is on its way.
struct Barriers {
    last: u64,
    /// When the one on its way has to be back, and what was sent before it.
    sent: Option<(Instant, Vec<(SubscriptionKey, Offset)>)>,
    /// When the next one is sent if nothing else is.
    next_at: Instant,
}

/// Serves a link to its end.
pub(super) async fn serve(
    service: &PubsubService,
    stream: LinkedStream,
    draining: &mut watch::Receiver<bool>,
) -> LinkEnd {
    let LinkedStream { mut socket, decoder, input } = stream;
    let (mut reader, mut writer) = socket.split();
    let mut link = ComponentLink::new(service, decoder, input);
    let end = loop {
        if let Err(end) = link.take_input() {
            break end;
        }
        link.fill().await;
        let may_read = link.has_room();
        if may_read {
            link.input.reserve(READ_BYTES);
        }
        let (may_notify, has_due) = (link.may_notify(), service.subscriptions.with(|table| table.has_due()));
        let timer_at = link.next_timer();
        tokio::select! {
            read = reader.read_buf(&mut link.input), if may_read => match read {
                Ok(0) => break LinkEnd::Closed(None),
                Ok(_) => {}
                Err(error) => break LinkEnd::Lost(error),
            },
            written = writer.write(&link.output), if !link.output.is_empty() => match written {
                Ok(bytes) => link.output.advance(bytes),
                Err(error) => break LinkEnd::Lost(error),
            },
            stanzas = link.requests.next() => stanzas.into_iter().for_each(|stanza| link.put(stanza)),
            () = service.subscriptions.changed(CHANGED_MAX), if may_notify && !has_due => {}
            () = std::future::ready(()), if may_notify && has_due => {}
            () = sleep_until(timer_at) => if let Err(end) = link.handle_timer().await {
                break end;
            },
            () = drain_begins(draining) => break LinkEnd::Draining,
        }
    };
    // Their clients are not answered otherwise, and may not know whether they have appended.
    let finish = async {
        while link.requests.len() > 0 {
            let stanzas = link.requests.next().await;
            stanzas.into_iter().for_each(|stanza| link.put(stanza));
        }
        link.output.extend_from_slice(b"</stream:stream>");
        let written = writer.write_all(&link.output).await;
        let _closed = writer.shutdown().await;
        written
    };
    if matches!(end, LinkEnd::Draining | LinkEnd::Xml(_)) {
        let _best_effort = timeout(LAST_BYTES_TIME, finish).await;
    }
    end
}

impl<'a> ComponentLink<'a> {
    fn new(service: &'a PubsubService, decoder: StreamDecoder, input: BytesMut) -> Self {
        service.subscriptions.with(|table| table.begin_link());
        let next_at = Instant::now() + IDLE_BARRIER;
        Self {
            service,
            decoder,
            input,
            output: BytesMut::new(),
            requests: JidRequests::new(service.limits.xmpp_requests_per_jid_max),
            barriers: Barriers { last: 0, sent: None, next_at },
            save_at: None,
        }
    }

    /// Whether further stanzas may be taken.
    fn has_room(&self) -> bool {
        self.output.len() < OUTPUT_BYTES_MAX && self.requests.len() < self.service.limits.xmpp_requests_max
    }

    /// Whether further notifications may be sent.
    fn may_notify(&self) -> bool {
        self.output.len() < OUTPUT_BYTES_MAX
            && self.service.subscriptions.with(|table| table.unconfirmed_len()) < UNCONFIRMED_MAX
    }

    /// Takes stanzas from the bytes that were read, while there is room.
    fn take_input(&mut self) -> Result<(), LinkEnd> {
        while self.has_room() && !self.input.is_empty() {
            let mut bytes = &*self.input;
            let found = self.decoder.next(&mut bytes).map_err(LinkEnd::Xml)?;
            let left = bytes.len();
            self.input.advance(self.input.len() - left);
            match found {
                None => break,
                Some(StreamEvent::Opened(_)) => {}
                Some(StreamEvent::Closed) => return Err(LinkEnd::Closed(None)),
                Some(StreamEvent::Stanza(error)) if error.is("error", STREAMS) => {
                    return Err(LinkEnd::Closed(Some(reason(&error))));
                }
                Some(StreamEvent::Stanza(stanza)) => self.handle(in_namespace(stanza, ACCEPT, CLIENT)),
            }
        }
        Ok(())
    }

    /// Handles a stanza. The server vouches for the address that it is from.
    fn handle(&mut self, stanza: Element) {
        let address = |name| stanza.attr(name).and_then(|text| Jid::parse(text).ok());
        let (Some(from), Some(to)) = (address("from"), address("to")) else { return };
        let name = &self.service.name;
        let (id, wants_answer) = (stanza.attr("id").unwrap_or_default().to_owned(), wants_answer(&stanza));
        if from == *name {
            if self.barriers.is_back(&id) {
                self.confirm();
            }
            return;
        }
        let read = if to == *name { Stanza::read(stanza) } else { Err(StanzaError::service_unavailable()) };
        let error = match read {
            Ok(Stanza::Request(request)) => {
                let (service, who) = (self.service, self.service.requester(from.clone()));
                match self.requests.push(&from, async move { service.handle(&who, request).await }) {
                    Ok(()) => return,
                    Err(TooMany) => StanzaError::resource_constraint(),
                }
            }
            Ok(Stanza::Presence { available }) => {
                return self.service.subscriptions.with(|table| table.presence(&from, available));
            }
            Ok(Stanza::Returned(id)) => return self.returned(&from, &id),
            Ok(Stanza::Answer | Stanza::Other) => return,
            Err(error) => error,
        };
        if wants_answer {
            self.put(answer(&id, Some(&to), &from, Err(error)));
        }
    }

    /// A notification could not be delivered. It is sent again once its address is available.
    fn returned(&mut self, jid: &Jid, id: &str) {
        let Some((start, node)) = id.split_once(':') else { return };
        let tenant = self.service.requester(jid.clone()).grants.tenant().clone();
        let Some((start, stream)) = start.parse().ok().zip(StreamName::parse(node).ok()) else { return };
        let key = SubscriptionKey { stream: stream.of_tenant(&tenant), jid: jid.clone() };
        if self.service.subscriptions.with(|table| table.returned(&key, start)) {
            self.service.metrics.returned.inc();
        }
    }

    /// Sends notifications while there is room, and a barrier behind them.
    async fn fill(&mut self) {
        for _ in 0..TURNS_MAX {
            if !self.may_notify() {
                break;
            }
            let Some(due) = self.service.subscriptions.with(|table| table.take_due()) else { break };
            consume_budget().await;
            for notification in self.service.deliver(&due).await {
                self.put(notification.stanza);
            }
        }
        let is_needed = self.service.subscriptions.with(|table| table.unconfirmed_len() > 0);
        if self.barriers.sent.is_none() && (is_needed || self.barriers.next_at <= Instant::now()) {
            self.send_barrier();
        }
        let has_unsaved = self.service.subscriptions.with(|table| table.has_unsaved());
        if has_unsaved && self.save_at.is_none() {
            self.save_at = Some(Instant::now() + SAVE_INTERVAL);
        }
    }

    /// Puts a stanza into the output.
    fn put(&mut self, stanza: Element) {
        self.output.extend_from_slice(&self.service.encode(stanza, ACCEPT));
    }

    fn send_barrier(&mut self) {
        let unconfirmed = self.service.subscriptions.with(|table| table.unconfirmed());
        self.barriers.last += 1;
        self.barriers.sent = Some((Instant::now() + BARRIER_TIMEOUT, unconfirmed));
        let id = self.barriers.id();
        self.put(barrier(self.service.name.as_str(), &id));
    }

    /// The barrier is back.
    fn confirm(&mut self) {
        let Some((_, sent)) = self.barriers.sent.take() else { return };
        self.barriers.next_at = Instant::now() + IDLE_BARRIER;
        self.service.subscriptions.with(|table| table.confirm(sent));
    }

    fn next_timer(&self) -> Instant {
        let barrier = self.barriers.sent.as_ref().map_or(self.barriers.next_at, |(deadline, _)| *deadline);
        self.save_at.map_or(barrier, |save_at| save_at.min(barrier))
    }

    async fn handle_timer(&mut self) -> Result<(), LinkEnd> {
        let now = Instant::now();
        if self.barriers.sent.as_ref().is_some_and(|(deadline, _)| *deadline <= now) {
            return Err(LinkEnd::Silent);
        }
        if self.save_at.take_if(|at| *at <= now).is_some() {
            match self.service.subscriptions.save().await {
                Ok(true) => self.save_at = Some(now),
                Ok(false) => {}
                Err(Failure::Superseded) => return Err(LinkEnd::Superseded),
                Err(error) => {
                    tracing::error!(%error, "cannot store the offsets of XMPP subscriptions; will retry");
                    self.save_at = Some(now + SAVE_INTERVAL);
                }
            }
        }
        Ok(())
    }
}

impl Barriers {
    fn id(&self) -> String {
        format!("barrier-{}", self.last)
    }

    /// Whether a stanza of the gateway itself, with this id, is the barrier on its way.
    fn is_back(&self, id: &str) -> bool {
        self.sent.is_some() && id == self.id()
    }
}
