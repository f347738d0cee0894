//! Origins of a store that several gateways use: all gateways know all origins, and one of them at a time, the owner, polls each. Another
//! gateway that has readers tells the owner, which tells all others the state of the origin after each poll.
//!
//! The owner changes what was seen of an origin in one step with the append to its stream, which the store refuses if there is another
//! owner by then. So nothing is appended twice, even by a gateway that was stopped and goes on.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::origin::{PolledOrigin, session_of};
use super::status::{OriginState, OriginStatus};
use crate::hub::{ClaimNews, Hub, SessionWalk, until_answered};
use crate::stream::{Description, Failure, ORIGIN_SESSIONS, SessionNames, StoredSession, StreamName};

/// What gateways tell each other of an origin.
#[derive(Serialize, Deserialize)]
enum OriginNote {
    /// The stream has readers at the gateway that tells. Without a known state, the owner tells it again.
    Read { knows_state: bool },
    /// What readers are told, by the owner.
    Status(OriginStatus),
}

async fn drain_begins(draining: &mut watch::Receiver<bool>) {
    let _begun = draining.wait_for(|draining| *draining).await;
}

fn stream_of(session: &str) -> Option<StreamName> {
    StreamName::stored(session.strip_prefix(ORIGIN_SESSIONS)?).ok()
}

impl Hub {
    /// Returns the origin of a stream with this description, if it has one. The news of it may still be on their way to this gateway.
    pub async fn origin_of_described(
        &self,
        stream: &StreamName,
        description: &Description,
    ) -> Result<Option<Arc<PolledOrigin>>, Failure> {
        match self.origins.of(stream) {
            None if description.has_origin => {
                let _alone = self.origins.moves.of(stream).await;
                self.learn_origin(stream).await
            }
            known => Ok(known),
        }
    }

    /// Reads the origin of a stream from the store, whichever gateway polls it. No other task may move it meanwhile.
    async fn learn_origin(&self, stream: &StreamName) -> Result<Option<Arc<PolledOrigin>>, Failure> {
        let entries = self.stored_session(&session_of(stream)).await?;
        Ok(self.note_origin(stream, &entries, |origin| origin.elsewhere()))
    }

    /// Notes what the store has of an origin: without entries, it has ended. A new one begins as `begin` says.
    fn note_origin(
        &self,
        stream: &StreamName,
        entries: &[(Bytes, Bytes)],
        begin: impl FnOnce(PolledOrigin) -> PolledOrigin,
    ) -> Option<Arc<PolledOrigin>> {
        let stored = StoredSession { client: session_of(stream), entries: entries.to_vec() };
        let stored = PolledOrigin::stored(stored, &self.budget);
        if stored.is_none() && !entries.is_empty() {
            tracing::error!(%stream, "a stored origin is damaged; its stream is not filled any more");
        }
        let known = self.origins.of(stream);
        if let Some(known) = &known
            && stored.as_ref().is_some_and(|stored| known.is_same(stored))
        {
            return Some(known.clone());
        }
        if let Some(former) = known {
            self.origins.remove(&former);
        }
        let origin = Arc::new(begin(stored?));
        self.origins.add(origin.clone());
        Some(origin)
    }

    /// Tells the gateway that polls an origin that its stream is read here.
    pub async fn tell_origin_is_read(&self, origin: &PolledOrigin) {
        let knows_state = origin.status().state != OriginState::Pending;
        self.tell_of_origin(origin, &OriginNote::Read { knows_state }).await;
    }

    /// Tells other gateways what readers are told of an origin that this one polls.
    pub async fn tell_origin_status(&self, origin: &PolledOrigin) {
        if self.shares_sessions() {
            self.tell_of_origin(origin, &OriginNote::Status(OriginStatus::clone(&origin.status()))).await;
        }
    }

    async fn tell_of_origin(&self, origin: &PolledOrigin, note: &OriginNote) {
        let Some((claims, note)) = self.store.claims().zip(serde_json::to_string(note).ok()) else { return };
        if let Err(error) = claims.tell(&origin.session, &note).await {
            tracing::debug!(%error, "cannot tell other gateways of an origin");
        }
    }

    /// Notes that a change of an origin was refused because this gateway does not own it.
    pub(super) fn note_lost_origin(&self, origin: &PolledOrigin) {
        self.claim_listeners.tell(ClaimNews::Wanted(origin.session.clone()));
    }

    /// Another gateway may have become the owner of an origin. If there is none, this one polls on.
    async fn lose_origin(&self, origin: &PolledOrigin) {
        let _alone = self.origins.moves.of(origin.stream()).await;
        self.leave_origin(origin).await;
        self.try_origin(origin.stream()).await;
    }

    /// Ends the claim of this gateway on an origin.
    async fn leave_origin(&self, origin: &PolledOrigin) {
        origin.leaves();
        self.release(&origin.session, Some(self.clock.now())).await;
    }

    /// Polls the origin of a stream from now on if no gateway does that. No other task may move it meanwhile.
    async fn try_origin(&self, stream: &StreamName) {
        if self.is_draining() || self.origins.of(stream).is_some_and(|origin| origin.is_here()) {
            return;
        }
        let session = session_of(stream);
        // If another gateway has it, or the store does not answer, there is nothing to do for now.
        let Ok(Some(entries)) = self.claim_orphan(&session).await else { return };
        match self.note_origin(stream, &entries, |origin| origin.elsewhere()) {
            Some(origin) => origin.comes(entries),
            None => self.release(&session, None).await,
        }
    }

    /// Keeps the list of all origins up to date, and polls those that no other gateway polls, until the gateway drains.
    pub async fn follow_origin_claims(&self) {
        if !self.shares_sessions() {
            return;
        }
        let mut news = self.follow_claims(SessionNames::Own(ORIGIN_SESSIONS));
        let mut draining = self.draining();
        until_answered(|| self.find_origins()).await;
        let mut has_left = false;
        loop {
            let heard = tokio::select! {
                heard = news.recv() => Some(heard),
                () = drain_begins(&mut draining), if !has_left => None,
            };
            match heard {
                Some(Some(heard)) => self.hear_of_origin(heard).await,
                // The hub, which has the sender, has ended.
                Some(None) => return,
                None => {
                    has_left = true;
                    self.leave_origins().await;
                }
            }
        }
    }

    /// Leaves all origins to other gateways, which is faster than if they had to notice the end of this one.
    async fn leave_origins(&self) {
        for origin in self.origins.all().into_iter().filter(|origin| origin.is_here()) {
            let _alone = self.origins.moves.of(origin.stream()).await;
            self.leave_origin(&origin).await;
        }
    }

    async fn hear_of_origin(&self, heard: ClaimNews) {
        let (ClaimNews::Known(session)
        | ClaimNews::Gone(session)
        | ClaimNews::Told(session, _)
        | ClaimNews::Wanted(session)
        | ClaimNews::Orphaned(session)) = &heard
        else {
            return until_answered(|| self.find_origins()).await;
        };
        let Some(stream) = stream_of(session) else { return };
        let known = self.origins.of(&stream);
        match &heard {
            ClaimNews::Told(_, note) => {
                if let Some(origin) = known {
                    self.hear_note(&origin, note).await;
                }
            }
            ClaimNews::Wanted(_) => match known {
                Some(origin) => self.lose_origin(&origin).await,
                None => self.release(session, None).await,
            },
            ClaimNews::Orphaned(_) => {
                let _alone = self.origins.moves.of(&stream).await;
                self.try_origin(&stream).await;
            }
            _ => {
                let _alone = self.origins.moves.of(&stream).await;
                if until_answered(|| self.learn_origin(&stream)).await.is_none() {
                    self.release(session, None).await;
                }
            }
        }
    }

    async fn hear_note(&self, origin: &PolledOrigin, note: &str) {
        match serde_json::from_str(note) {
            Ok(OriginNote::Read { knows_state }) if origin.is_here() => {
                origin.note_reader();
                if !knows_state {
                    self.tell_origin_status(origin).await;
                }
            }
            Ok(OriginNote::Status(status)) if !origin.is_here() => origin.has_status(status),
            // A gateway hears its own notes, too.
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "another version of the gateway tells of an origin"),
        }
    }

    /// Brings the list of all origins up to date, and polls those that no gateway polls.
    async fn find_origins(&self) -> Result<(), Failure> {
        let mut found = self.list_origins().await?;
        found.extend(self.origins.all().iter().map(|origin| origin.stream().clone()));
        for stream in found {
            let _alone = self.origins.moves.of(&stream).await;
            if self.learn_origin(&stream).await?.is_some() {
                self.try_origin(&stream).await;
            }
        }
        Ok(())
    }

    async fn list_origins(&self) -> Result<HashSet<StreamName>, Failure> {
        let (mut walk, mut found) = (SessionWalk::over(SessionNames::Own(ORIGIN_SESSIONS)), HashSet::new());
        while let Some(sessions) = self.next_sessions(&mut walk).await? {
            found.extend(sessions.iter().filter_map(|stored| stream_of(&stored.client)));
        }
        Ok(found)
    }

    /// Reads the stored origins, before the gateway serves clients.
    pub(super) async fn load_shared_origins(&self) -> Result<(), Failure> {
        for stream in self.list_origins().await? {
            let _alone = self.origins.moves.of(&stream).await;
            self.learn_origin(&stream).await?;
        }
        Ok(())
    }
}
