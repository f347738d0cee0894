//! Handles SUBSCRIBE and UNSUBSCRIBE: subscriptions of a session, and its memberships in the groups of shared subscriptions.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::consume_budget;

use super::authorization::{check_filter, in_hub};
use super::codec::{OutgoingPacket, Reason, RetainHandling, Subscribe, SubscriptionOptions, Unsubscribe};
use super::connection::{Connection, Ending};
use super::groups;
use super::walks::CatchUp;
use crate::hub::StreamWalk;
use crate::stream::{Filter, FilterMap, QoS};

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection<S> {
    /// Handles SUBSCRIBE. A filter that occurs twice counts once, with its last options. Matching streams are
    /// sent from their current tails on.
    pub(super) async fn subscribe(&mut self, Subscribe { id, mut filters }: Subscribe) -> Result<(), Ending> {
        self.restart_retained();
        for (_, options) in filters.iter_mut().filter(|_| self.negotiated.is_bridge) {
            (options.no_local, options.retain_as_published) = (true, true);
        }
        let (mut granted, mut new) = (Vec::with_capacity(filters.len()), FilterMap::default());
        for (filter, options) in &mut filters {
            consume_budget().await;
            *filter = in_hub(filter, self.grants.tenant());
            if let Err(reason) = check_filter(&self.grants, filter) {
                self.broker.hub.count_refusal(self.grants.tenant());
                if let Some(auditor) = self.auditor() {
                    auditor.refused(Some(&self.grants), None, Some(&filter.to_string()), "SUBSCRIBE");
                }
                granted.push(Err(reason));
                continue;
            }
            let shared = groups::stream_filter(filter);
            if self.broker.refused_filters.contains(shared.as_ref().unwrap_or(filter).local()) {
                granted.push(Err(Reason::UnspecifiedError));
                continue;
            }
            granted.push(match shared {
                Some(streams) => self.add_shared(filter, streams, *options).await,
                None => self.add(filter, *options, &mut new),
            });
        }
        if let Err(reason) = self.begin(&new).await {
            self.end_subscriptions(&new).await;
            for ((filter, _), granted) in filters.iter().zip(&mut granted) {
                consume_budget().await;
                if new.get(filter).is_some() {
                    *granted = Err(reason);
                }
            }
        }
        self.respond(&OutgoingPacket::Suback(id, granted))
    }

    pub(super) async fn unsubscribe(
        &mut self,
        Unsubscribe { id, filters }: Unsubscribe,
    ) -> Result<(), Ending> {
        self.restart_retained();
        let (mut reasons, mut ended) = (Vec::with_capacity(filters.len()), FilterMap::default());
        for filter in filters {
            consume_budget().await;
            let filter = in_hub(&filter, self.grants.tenant());
            let existed = if groups::stream_filter(&filter).is_some() {
                self.leave_group(&filter)
            } else {
                let exists = self.session.subscriptions().get(&filter).is_some();
                exists && ended.insert(filter, ()).is_none()
            };
            reasons.push(if existed { Reason::Success } else { Reason::NoSubscriptionExisted });
        }
        if !ended.is_empty() {
            self.end_subscriptions(&ended).await;
        }
        self.respond(&OutgoingPacket::Unsuback(id, reasons))
    }

    /// Adds a subscription, and adds it to `new` if it is new; otherwise replaces its options.
    fn add(
        &mut self,
        filter: &Filter,
        options: SubscriptionOptions,
        new: &mut FilterMap<()>,
    ) -> Result<QoS, Reason> {
        if self.session.subscriptions().get(filter).is_none() {
            self.check_number()?;
        }
        let filter = &self.broker.hub.shared_filter(filter);
        if self.session.subscribe(filter.clone(), options) {
            // Streams are marked from now on and read afterwards: a message in between is seen twice rather
            // than never.
            self.subscriber.add(filter.clone());
            new.insert(filter.clone(), ());
        }
        let wants_retained = match options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => new.get(filter).is_some(),
            RetainHandling::DoNotSend => false,
        };
        if wants_retained {
            self.session.begin_retained(filter.clone());
        }
        Ok(options.qos)
    }

    /// Checks whether the client may have another subscription.
    fn check_number(&self) -> Result<(), Reason> {
        let subscriptions = self.session.subscriptions().len() + self.session.shared().len();
        if subscriptions < self.broker.limits.mqtt_subscriptions_max {
            Ok(())
        } else {
            Err(Reason::QuotaExceeded)
        }
    }

    /// Adds a shared subscription, or replaces its options. A new group begins at the tails of the existing
    /// streams.
    async fn add_shared(
        &mut self,
        key: &Filter,
        streams: Filter,
        options: SubscriptionOptions,
    ) -> Result<QoS, Reason> {
        if self.session.change_shared(key, options) {
            return Ok(options.qos);
        }
        self.check_number()?;
        self.session.add_shared(key.clone(), streams, options);
        if let Err(reason) = self.enter_group(key).await {
            self.leave_group(key);
            return Err(reason);
        }
        Ok(options.qos)
    }

    /// Makes the connection a member of the group of a shared subscription of its session.
    pub(super) async fn enter_group(&mut self, key: &Filter) -> Result<(), Reason> {
        let Some(streams) = groups::stream_filter(key) else { return Ok(()) };
        let group = self.broker.groups.group(key);
        self.subscriber.add(streams.clone());
        let member = group.enter(self.subscriber.marker(), self.session.is_stored());
        self.session.enter_group(key, group.clone(), member);
        self.broker.claim_group(&group).await;
        if group.has_begun() {
            self.pending().catch_up = Some(CatchUp::of(&self.session));
            self.charge()?;
            return self.broker.store_group(&group).await;
        }
        let mut walk = StreamWalk::over([&streams]);
        while let Some(found) = self.broker.hub.next_streams(&mut walk).await {
            for (name, tail) in found {
                if streams.matches(&name) {
                    group.begin_stream(name, tail);
                }
            }
            self.charge()?;
        }
        group.begin();
        self.broker.store_group(&group).await
    }

    /// Ends a shared subscription. Returns whether it existed.
    pub(super) fn leave_group(&mut self, key: &Filter) -> bool {
        let existed = self.session.remove_shared(key);
        if let Some(streams) =
            groups::stream_filter(key).filter(|streams| existed && !self.session.has(streams))
        {
            self.subscriber.remove(&streams);
        }
        existed
    }

    /// Starts new subscriptions at the tails of the existing streams. Fails if the session would become too
    /// large.
    async fn begin(&mut self, new: &FilterMap<()>) -> Result<(), Reason> {
        self.charge()?;
        let mut walk = StreamWalk::over(new.filters());
        while let Some(streams) = self.broker.hub.next_streams(&mut walk).await {
            for (name, tail) in streams {
                if !self.session.has_offset(&name) && self.session.subscriptions().begin_to_want(&name) {
                    self.session.set_offset(name, tail);
                }
            }
            self.charge()?;
        }
        new.filters().for_each(|filter| self.session.begin(filter));
        Ok(())
    }

    /// Ends subscriptions, some of which may not exist, and forgets the offsets that no other subscription
    /// needs.
    pub(super) async fn end_subscriptions(&mut self, ended: &FilterMap<()>) {
        for filter in ended.filters() {
            consume_budget().await;
            self.session.unsubscribe(filter);
            if !self.session.has(filter) {
                self.subscriber.remove(filter);
            }
        }
        let mut over = Vec::new();
        for name in self.session.streams() {
            consume_budget().await;
            if self.session.is_over(name, ended) {
                over.push(name.clone());
            }
        }
        for name in &over {
            consume_budget().await;
            self.session.forget_offset(name);
        }
        self.attached.charge(self.bytes());
    }
}
