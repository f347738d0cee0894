//! The task of a subscription: does what the policy says, and hands over what comes.

use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::attempt::Form;
use crate::attempt::{End, Ended};
use crate::connection::Connection;
use crate::envelope::{Envelope, Got};
use crate::event::Event;
use crate::forms::Reading;
use crate::item::Item;
use crate::policy::{Policy, Step};
use crate::refusal::{Refusal, is_about_credentials};
use crate::request::Wanted;
use crate::resume_token::Move;
use crate::settings::Shared;

/// A connection that was used before and breaks so soon had been closed already: it says nothing about the network.
const STALE: Duration = Duration::from_secs(1);

/// What an envelope brought, and where the resume token is behind all of it.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) items: Vec<Item>,
    pub(crate) token: Move,
}

/// Where a task hands over what comes.
pub(crate) struct Outlet {
    pub(crate) deliveries: mpsc::Sender<Delivery>,
    pub(crate) form: watch::Sender<Option<Form>>,
}

/// What the task has.
pub(crate) struct Reader {
    shared: Arc<Shared>,
    network: watch::Receiver<Arc<str>>,
    wanted: Wanted,
    policy: Policy,
    idle: Option<Connection>,
    outlet: Outlet,
    /// The token has moved without messages, and nobody had asked for more.
    token_untold: bool,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>, wanted: Wanted, outlet: Outlet) -> Self {
        let network = shared.network.subscribe();
        let known = shared.memory.lock().of(&network.borrow());
        let policy = Policy::new(shared.settings.clone(), known, fastrand::Rng::new(), Instant::now());
        Self { shared, network, wanted, policy, idle: None, outlet, token_untold: false }
    }

    /// Reads until the subscription is dropped, or nothing can be read for good.
    pub(crate) async fn run(mut self) {
        loop {
            self.notice_network();
            let step = self.policy.next(Instant::now());
            self.tell();
            match step {
                Step::Wait(until) => select! {
                    () = sleep_until(until) => {}
                    _changed = self.network.changed() => self.network.mark_changed(),
                },
                Step::Read => {
                    let version = self.shared.endpoint.credentials.version();
                    let ended = self.attempt().await;
                    let is_outdated = version != self.shared.endpoint.credentials.version();
                    match ended {
                        // The token was replaced while the request was under way: it is repeated with the new one.
                        ended if is_outdated && ended.status().is_some_and(is_about_credentials) => {}
                        Ended::Attempt(End::Refused(status)) if self.policy.is_final(status) => {
                            return self.finish(Item::Refused(Refusal::of_credentials(status))).await;
                        }
                        Ended::Attempt(end) => self.policy.ended(end, Instant::now()),
                        Ended::ForGood(refusal) => return self.finish(Item::Refused(refusal)).await,
                        Ended::Intercepted(error) => {
                            self.shared.on_event.tell(&Event::Untrusted(error));
                            self.policy.ended(End::NotGateway, Instant::now());
                        }
                        Ended::Untrusted(error) => return self.finish(Item::Untrusted(error)).await,
                    }
                }
            }
            self.tell();
        }
    }

    async fn attempt(&mut self) -> Ended {
        let mut reading = match self.open().await {
            Ok(reading) => reading,
            Err(ended) => return ended,
        };
        loop {
            match in_time(&self.policy, &mut self.network, reading.next()).await {
                Ok(Got::Bytes) => self.policy.alive(Instant::now()),
                Ok(Got::Envelope(envelope)) => self.take(envelope).await,
                Err(ended) => {
                    if let Ended::Attempt(End::Clean) = ended {
                        self.idle = reading.into_connection();
                    }
                    return ended;
                }
            }
        }
    }

    async fn open(&mut self) -> Result<Reading, Ended> {
        loop {
            let endpoint = &self.shared.endpoint;
            let connecting = Connection::reused_or_new(self.idle.take(), endpoint);
            let connecting = async { connecting.await.map_err(Ended::from) };
            let (connection, reused) = in_time(&self.policy, &mut self.network, connecting).await?;
            let connected = Instant::now();
            self.policy.connected(connected);
            let opening = Reading::open(connection, &self.wanted, self.policy.attempt(), endpoint);
            match in_time(&self.policy, &mut self.network, opening).await {
                Err(Ended::Attempt(End::Cut)) if reused && connected.elapsed() < STALE => {}
                Err(ended) => return Err(ended),
                Ok(reading) => {
                    self.policy.answered(Instant::now());
                    return Ok(reading);
                }
            }
        }
    }

    async fn take(&mut self, envelope: Envelope) {
        let Envelope { items, token, up_to_date } = envelope;
        self.policy.envelope(up_to_date, Instant::now());
        self.tell();
        if !token.apply(&mut self.wanted.token) && items.is_empty() {
            return;
        }
        let token = if self.token_untold { Move::to(self.wanted.token.as_ref()) } else { token };
        let is_empty = items.is_empty();
        let sent = self.outlet.deliveries.try_send(Delivery { items, token });
        self.token_untold = is_empty && sent.is_err();
        if let Err(TrySendError::Full(delivery)) = sent
            && !is_empty
        {
            // Nobody takes it only when the subscription, and this task with it, is about to be dropped.
            let since = Instant::now();
            let _taken = self.outlet.deliveries.send(delivery).await;
            self.policy.handed_over(since, Instant::now());
        }
    }

    /// Hands over the last item.
    async fn finish(self, last: Item) {
        let delivery = Delivery { items: vec![last], token: Move::Stay };
        let _taken = self.outlet.deliveries.send(delivery).await;
    }

    fn notice_network(&mut self) {
        if self.network.has_changed().unwrap_or(false) {
            let label = self.network.borrow_and_update().clone();
            let known = self.shared.memory.lock().of(&label);
            self.policy.network_changed(known, Instant::now());
            self.idle = None;
        }
    }

    /// Tells and keeps what the policy has found out.
    fn tell(&mut self) {
        for event in self.policy.take_events() {
            if let Event::Form { to, .. } = event {
                self.outlet.form.send_replace(Some(to));
            }
            self.shared.on_event.tell(&event);
        }
        if let Some(known) = self.policy.take_learned() {
            self.shared.memory.lock().remember(known);
        }
    }
}

/// Does `work` until the policy loses its patience or the network changes.
async fn in_time<T>(
    policy: &Policy,
    network: &mut watch::Receiver<Arc<str>>,
    work: impl Future<Output = Result<T, Ended>>,
) -> Result<T, Ended> {
    select! {
        biased;
        result = work => result,
        _changed = network.changed() => {
            network.mark_changed();
            Err(End::Left.into())
        }
        () = sleep_until(policy.attempt().deadline()) => {
            Err(policy.attempt().expired(Instant::now()).into())
        }
    }
}
