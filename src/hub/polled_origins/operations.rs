//! The operations of the [`Hub`] on streams with an origin: they are created, filled and removed together with it.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::origin::{ORIGIN_BYTES, PolledOrigin, SESSIONS, SeenEntry};
use super::settings::OriginSettings;
use super::status::OriginStatus;
use crate::hub::changes::{ChangeContext, run_to_completion};
use crate::hub::{Creation, CreationError, Hub, SessionWalk};
use crate::stream::{
    Append, AppendError, AppendRefusal, Appended, ChangeError, ContentType, CreateError, CreateIfMissing,
    Created, Failure, Missing, SessionNames, StreamName, Tenant,
};

impl Hub {
    /// Reads the stored origins, before the gateway serves clients, and removes the origins of streams that have ended.
    pub async fn load_origins(&self) -> Result<(), Failure> {
        let mut newest: HashMap<StreamName, PolledOrigin> = HashMap::new();
        let mut outdated = Vec::new();
        let mut walk = SessionWalk::over(SessionNames::Own(SESSIONS));
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
                let is_same = known.content_type == content_type
                    && (known.lifetime, known.retention) == (lifetime, retention)
                    && self.origins.of(stream).is_some_and(|origin| *origin.settings() == settings);
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
        let origin = Arc::new(PolledOrigin::new(stream.clone(), settings, &owner, now));
        let mut append = Append::of(content_type.clone(), Default::default());
        (append.principal, append.create) = (creation.principal, Some(create));
        append.session = self.keeps_sessions().then(|| origin.creation());
        let context = self.change_context();
        let (stream, append) = (stream.clone(), Box::new(append));
        let created = run_to_completion(async move {
            let origins = context.origins.clone();
            let store = context.store.clone();
            let created = context.append(stream, append, now).await;
            match &created {
                Ok(appended) if appended.created => origins.add(origin),
                // Another client has created the stream meanwhile.
                Ok(_) => drop(store.change_session(origin.removal()).await),
                Err(_) => {}
            }
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
        match self.tail_of(origin.stream()).await? {
            Some(tail) => Err(AppendError::Refused { refusal: AppendRefusal::HasOrigin, tail }),
            None => {
                self.change_context().end_origin(&origin).await;
                Ok(())
            }
        }
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
        let session = self.keeps_sessions().then(|| origin.change(seen));
        let append = Box::new(Append { principal: origin.principal(), session, ..append });
        let (context, stream, now) = (self.change_context(), origin.stream().clone(), self.clock.now());
        let filled = run_to_completion(async move {
            let appended = context.append(stream, append, now).await;
            drop(has_ended);
            appended
        });
        let filled = filled.await;
        if filled.is_err() {
            origin.has_again(before);
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
        noted.await
    }

    /// Removes the origin of a stream that has ended, if it had one.
    pub(in crate::hub) async fn end_origin_of(&self, stream: &StreamName) {
        if let Some(origin) = self.origins.of(stream)
            && self.settled_tail(stream).await.is_none()
        {
            self.change_context().end_origin(&origin).await;
        }
    }
}

impl ChangeContext {
    /// Removes an origin, whose stream has ended.
    pub(in crate::hub) async fn end_origin(&self, origin: &Arc<PolledOrigin>) {
        let mut has_ended = origin.has_ended.lock().await;
        if std::mem::replace(&mut *has_ended, true) {
            return;
        }
        if self.store.outlives_process()
            && let Err(error) = self.store.change_session(origin.removal()).await
        {
            tracing::warn!(%error, "cannot remove the stored origin of a stream that has ended");
        }
        self.origins.remove(origin);
    }
}
