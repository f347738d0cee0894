//! The operations of the [`Hub`] on streams with an origin: they are created, filled and removed together with it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::origin::{ORIGIN_BYTES, PolledOrigin, SeenEntry};
use super::settings::OriginSettings;
use super::status::{OriginState, OriginStatus};
use crate::hub::changes::{ChangeContext, run_to_completion};
use crate::hub::{Creation, CreationError, Hub, SessionWalk};
use crate::stream::{
    Append, AppendError, AppendRefusal, Appended, ChangeError, ClaimFrom, ContentType, CreateError,
    CreateIfMissing, Created, Description, Failure, Missing, ORIGIN_SESSIONS, SessionClaim, SessionNames,
    StreamName, Tenant,
};

/// Attempts to create a stream with an origin that another gateway creates or moves at this moment, and the delay between them.
const ATTEMPTS: usize = 5;
const ATTEMPT_DELAY: Duration = Duration::from_millis(20);

impl Hub {
    /// Reads the stored origins, before the gateway serves clients, and removes the origins of streams that have ended.
    pub async fn load_origins(&self) -> Result<(), Failure> {
        if self.shares_sessions() {
            return self.load_shared_origins().await;
        }
        let mut newest: HashMap<StreamName, PolledOrigin> = HashMap::new();
        let mut outdated = Vec::new();
        let mut walk = SessionWalk::over(SessionNames::Own(ORIGIN_SESSIONS));
        while let Some(sessions) = self.next_sessions(&mut walk).await? {
            for stored in sessions {
                let Some(origin) = PolledOrigin::stored(stored, &self.budget) else {
                    tracing::error!("a stored origin is damaged; its stream is not filled any more");
                    continue;
                };
                match newest.remove(origin.stream()) {
                    Some(known) => {
                        let (old, new) = if known.created_at < origin.created_at {
                            (known, origin)
                        } else {
                            (origin, known)
                        };
                        outdated.push(old);
                        newest.insert(new.stream().clone(), new);
                    }
                    None => drop(newest.insert(origin.stream().clone(), origin)),
                }
            }
        }
        for origin in newest.into_values() {
            match self.tail_of(origin.stream()).await? {
                Some(_) => self.origins.add(Arc::new(origin)),
                None => outdated.push(origin),
            }
        }
        for origin in outdated {
            if let Err(error) = self.store.change_session(origin.removal()).await {
                tracing::warn!(%error, "cannot remove the stored origin of a stream that has ended");
            }
        }
        Ok(())
    }

    /// Takes the receiver of all origins: those that were stored, and later ones. `None`: it was taken before.
    pub fn take_origins(&self) -> Option<mpsc::UnboundedReceiver<Arc<PolledOrigin>>> {
        self.origins.take_poller()
    }

    /// Returns the origin of a stream, if it has one.
    pub fn origin_of(&self, stream: &StreamName) -> Option<Arc<PolledOrigin>> {
        self.origins.of(stream)
    }

    /// Returns the state of the origin of a stream, if it has one.
    pub fn origin_status(&self, stream: &StreamName) -> Option<Arc<OriginStatus>> {
        self.origins.of(stream).map(|origin| origin.status())
    }

    /// Whether any stream has an origin.
    pub fn has_origins(&self) -> bool {
        self.origins.count() > 0
    }

    /// Whether somebody waits for a stream or subscribes to it.
    pub fn has_readers(&self, stream: &StreamName) -> bool {
        self.waiters.has_readers(stream)
    }

    /// Creates a stream that is filled from an origin, or succeeds if it exists with the same configuration. Body, fork and `closed` of
    /// the creation are not used.
    pub async fn create_polled(
        &self,
        stream: &StreamName,
        creation: Creation,
        settings: OriginSettings,
    ) -> Result<Created, CreationError> {
        self.admit_rate(stream, creation.principal, 0).map_err(CreateError::Failed)?;
        for _ in 1..ATTEMPTS {
            match self.try_create_polled(stream, creation.clone(), settings.clone()).await {
                Err(CreationError::Store(CreateError::Failed(Failure::Superseded))) => {
                    sleep(ATTEMPT_DELAY).await;
                }
                outcome => return outcome,
            }
        }
        self.try_create_polled(stream, creation, settings).await
    }

    async fn try_create_polled(
        &self,
        stream: &StreamName,
        creation: Creation,
        settings: OriginSettings,
    ) -> Result<Created, CreationError> {
        let one_at_a_time = self.origins.creating.clone().lock_owned().await;
        let settings = OriginSettings {
            interval: settings.interval.at_least(self.limits.origin_interval_min.get()),
            ..settings
        };
        let content_type = creation.content_type.clone().unwrap_or_else(ContentType::octet_stream);
        match self.describe(stream).await {
            Ok(known) => {
                let retention = creation.retention.unwrap_or(self.default_retention);
                let lifetime = creation.lifetime.unwrap_or_default();
                let origin = self.origin_of_described(stream, &known).await.map_err(CreateError::Failed)?;
                let is_same = known.content_type == content_type
                    && (known.lifetime, known.retention) == (lifetime, retention)
                    && origin.is_some_and(|origin| *origin.settings() == settings);
                return if is_same {
                    let (tail, closed, epoch) = (known.tail, known.closed, known.tail.epoch);
                    Ok(Created { fresh: false, tail, closed, content_type, epoch })
                } else {
                    Err(CreateError::ExistsDifferently.into())
                };
            }
            Err(ChangeError::Missing(Missing::Deleted)) => return Err(CreateError::NameTaken.into()),
            Err(ChangeError::Missing(Missing::NotFound)) => self.end_origin_of(stream).await,
            Err(ChangeError::Failed(failure)) => return Err(CreateError::Failed(failure).into()),
        }
        self.admit_origin(&stream.tenant())?;
        let owner = self.budget.owner_in(stream.tenant(), creation.principal);
        owner.admit(ORIGIN_BYTES).map_err(|shortage| CreateError::Failed(shortage.into()))?;
        let create = CreateIfMissing {
            retention: self.default_retention,
            asked_retention: creation.retention,
            lifetime: creation.lifetime,
        };
        let now = self.clock.now();
        let origin = PolledOrigin::new(stream.clone(), settings, &owner, now);
        let mut append = Append::of(content_type.clone(), Default::default());
        (append.principal, append.create) = (creation.principal, Some(create));
        append.session = self.keeps_sessions().then(|| origin.creation());
        let (context, append) = (self.change_context(), Box::new(append));
        let created = run_to_completion(async move {
            let created = context.begin_polled(origin, append, now).await;
            drop(one_at_a_time);
            created
        });
        match created.await {
            Ok(appended) if appended.created => {
                let Appended { tail, closed, epoch, .. } = appended;
                Ok(Created { fresh: true, tail, closed, content_type, epoch })
            }
            Ok(_) => Err(CreateError::ExistsDifferently.into()),
            Err(AppendError::Failed(failure)) => Err(CreateError::Failed(failure).into()),
            Err(AppendError::Missing(Missing::Deleted)) => Err(CreateError::NameTaken.into()),
            Err(_) => Err(CreateError::ExistsDifferently.into()),
        }
    }

    fn admit_origin(&self, tenant: &Tenant) -> Result<(), CreationError> {
        let limits = &self.limits;
        let counts = [
            (self.origins.count(), limits.origins_max, "origins_max"),
            (self.origins.count_of(tenant), limits.origins_per_tenant_max, "origins_per_tenant_max"),
        ];
        match counts.into_iter().find(|(count, max, _)| count >= max) {
            Some((_, max, limit)) => Err(CreationError::TooManyOrigins { max, limit }),
            None => Ok(()),
        }
    }

    /// Refuses a creation or an append of a client to a stream that is filled from an origin. The origin of a stream that has ended does
    /// not count any more.
    pub(in crate::hub) async fn refuse_if_polled(
        &self,
        origin: Arc<PolledOrigin>,
    ) -> Result<(), AppendError> {
        match self.description_of(origin.stream()).await? {
            Some(found) if self.has_kept(&found) => {
                Err(AppendError::Refused { refusal: AppendRefusal::HasOrigin, tail: found.tail })
            }
            _ => {
                self.change_context().end_origin(&origin).await;
                Ok(())
            }
        }
    }

    /// Whether a stream with this description still has the origin that this gateway knows. A later stream of the name may have been
    /// created without one at another gateway.
    fn has_kept(&self, found: &Description) -> bool {
        found.has_origin || !self.shares_sessions()
    }

    /// Appends messages of the origin, together with what the poller has seen. Fails like an append to a missing stream if the stream
    /// has ended.
    pub async fn fill(
        &self,
        origin: &PolledOrigin,
        append: Append,
        seen: Vec<SeenEntry>,
    ) -> Result<Appended, AppendError> {
        let has_ended = origin.has_ended.clone().lock_owned().await;
        if *has_ended {
            return Err(Missing::NotFound.into());
        }
        // Readers that the append wakes are told that the origin answers.
        let before = origin.status();
        origin.succeeded(self.clock.wall(), None);
        if before.state != OriginState::Ok {
            self.tell_origin_status(origin).await;
        }
        let session = self.keeps_sessions().then(|| origin.change(seen));
        let mut append = Box::new(Append { principal: origin.principal(), session, ..append });
        let traced = self.begin_trace(origin.stream(), &mut append);
        let (context, stream, now) = (self.change_context(), origin.stream().clone(), self.clock.now());
        let filled = run_to_completion(async move {
            let appended = context.append(stream, append, now, traced).await;
            drop(has_ended);
            appended
        });
        let filled = filled.await;
        if let Err(error) = &filled {
            origin.has_again(before);
            if *error == Failure::Superseded.into() {
                self.note_lost_origin(origin);
            }
        }
        filled
    }

    /// Stores what the poller has seen of an origin that has nothing new.
    pub async fn note_seen(&self, origin: &PolledOrigin, seen: Vec<SeenEntry>) -> Result<(), Failure> {
        let has_ended = origin.has_ended.clone().lock_owned().await;
        if *has_ended || !self.keeps_sessions() {
            return Ok(());
        }
        let (store, change) = (self.store.clone(), origin.change(seen));
        let noted = run_to_completion(async move {
            let noted = store.change_session(change).await;
            drop(has_ended);
            noted
        });
        let noted = noted.await;
        if noted == Err(Failure::Superseded) {
            self.note_lost_origin(origin);
        }
        noted
    }

    /// Whether a stream has an origin that any gateway polls, in a store that several use.
    pub async fn has_shared_origin(&self, stream: &StreamName) -> bool {
        self.settled_description(stream).await.is_some_and(|found| found.has_origin)
    }

    /// Removes the origin of a stream that has ended, if it had one.
    pub async fn end_origin_of(&self, stream: &StreamName) {
        let Some(origin) = self.origins.of(stream) else { return };
        let found = self.settled_description(stream).await;
        if found.is_none_or(|found| !self.has_kept(&found)) {
            self.change_context().end_origin(&origin).await;
        }
    }
}

impl ChangeContext {
    /// Creates a stream by its first append, which has no messages, and its origin with it. In a store that several gateways use, this
    /// one has to own the origin for that.
    async fn begin_polled(
        self,
        origin: PolledOrigin,
        append: Box<Append>,
        now: SystemTime,
    ) -> Result<Appended, AppendError> {
        let (store, origins, stream) = (self.store.clone(), self.origins.clone(), origin.stream().clone());
        let _alone = origins.moves.of(&stream).await;
        let claims = store.claims();
        if let Some(claims) = claims {
            match claims.claim(&origin.session, ClaimFrom::Nobody, now).await? {
                SessionClaim::Granted(entries) if entries.is_empty() => {}
                // Another gateway creates the stream, or has created it.
                SessionClaim::Granted(_) => {
                    claims.release(&origin.session, Some(now)).await;
                    return Err(Failure::Superseded.into());
                }
                SessionClaim::Held => return Err(Failure::Superseded.into()),
            }
        }
        let created = self.append(stream, append, now, None).await;
        match &created {
            Ok(appended) if appended.created => {
                origins.add(Arc::new(origin));
                return created;
            }
            // Another client has created the stream meanwhile.
            Ok(_) => drop(store.change_session(origin.removal()).await),
            Err(_) => {}
        }
        if let Some(claims) = claims {
            claims.release(&origin.session, Some(now)).await;
        }
        created
    }

    /// Removes an origin, whose stream has ended. A store that several gateways use has removed it with the stream.
    pub(in crate::hub) async fn end_origin(&self, origin: &Arc<PolledOrigin>) {
        let mut has_ended = origin.has_ended.lock().await;
        if std::mem::replace(&mut *has_ended, true) {
            return;
        }
        if let Some(claims) = self.store.claims() {
            claims.release(&origin.session, None).await;
        } else if self.store.outlives_process()
            && let Err(error) = self.store.change_session(origin.removal()).await
        {
            tracing::warn!(%error, "cannot remove the stored origin of a stream that has ended");
        }
        self.origins.remove(origin);
    }
}
