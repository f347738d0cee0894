//! Streams in a store that several gateways use: a stream belongs to the gateway over which its client was last connected. A client that
//! resumes it elsewhere takes it along, with what the gateway before has stored.

use std::future::pending;
use std::sync::Arc;

use futures_util::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::ClientFront;
use super::resumption::{STREAM_SESSIONS, StreamOwner, StreamPlace, SuspendedStream, id_of, record_name};
use crate::hub::{ClaimNews, UNCLAIMED_MAX};
use crate::stream::{Failure, StoredSession};

/// Streams that are given to other gateways, or taken from gateways that have ended, at the same time.
const MOVED_AT_ONCE: usize = 64;

impl ClientFront {
    /// Takes a stream that its owner resumes, from whichever gateway has it. `None`: there is no such stream.
    pub(super) async fn take_stream(
        &self,
        id: &str,
        owner: &StreamOwner,
    ) -> Result<Option<(StreamPlace, SuspendedStream)>, Failure> {
        if let Some(taken) = self.streams.resume(id, owner).await {
            return Ok(Some(taken));
        }
        self.fetch_stream(id).await?;
        Ok(self.streams.resume(id, owner).await)
    }

    /// Makes this gateway the owner of a new stream.
    pub(super) async fn claim_stream(&self, id: &str) -> Result<(), Failure> {
        if self.hub.shares_sessions() {
            self.hub.claim(&record_name(id)).await?;
        }
        Ok(())
    }

    async fn fetch_stream(&self, id: &str) -> Result<(), Failure> {
        let is_one = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_one || !self.hub.shares_sessions() {
            return Ok(());
        }
        let _alone = self.moves.of(id).await;
        let session = record_name(id);
        // What does not exist is not claimed.
        if self.streams.has(id) || self.hub.stored_session(&session).await?.is_empty() {
            return Ok(());
        }
        let (entries, _) = self.hub.claim(&session).await?;
        self.adopt(StoredSession { client: session, entries }).await;
        Ok(())
    }

    /// Adds a stream whose owner this gateway has become.
    async fn adopt(&self, session: StoredSession) {
        if !self.streams.restore(&self.hub, &session, self.clock)
            && let Some(id) = id_of(&session.client)
        {
            self.forget_stream(id).await;
        }
    }

    /// Gives a stream to the gateway that wants it, or has it already.
    async fn give_stream(&self, session: Arc<str>) {
        let Some(id) = id_of(&session) else { return };
        let _alone = self.moves.of(id).await;
        self.streams.give(id).await;
        self.hub.release(&session, Some(self.clock.now() + UNCLAIMED_MAX)).await;
    }

    /// Takes a stream whose gateway has ended, so that it ends in time if its client does not come back.
    async fn take_orphan(&self, session: Arc<str>) {
        let Some(id) = id_of(&session) else { return };
        let _alone = self.moves.of(id).await;
        if self.streams.has(id) {
            return;
        }
        // If another gateway has it, or the store does not answer, there is nothing to do for now.
        if let Ok(Some(entries)) = self.hub.claim_orphan(&session).await {
            self.adopt(StoredSession { client: session.clone(), entries }).await;
        }
    }

    async fn take_news(&self, news: ClaimNews) {
        match news {
            ClaimNews::Wanted(session) => self.give_stream(session).await,
            ClaimNews::Orphaned(session) => self.take_orphan(session).await,
            ClaimNews::Known(_) | ClaimNews::Gone(_) | ClaimNews::Told(..) | ClaimNews::Missed => {}
        }
    }

    /// Follows what other gateways want. Never returns; runs as long as it is polled.
    pub(super) async fn follow_claims(&self) {
        let news = ReceiverStream::new(self.hub.follow_claims(STREAM_SESSIONS));
        news.for_each_concurrent(MOVED_AT_ONCE, |heard| self.take_news(heard)).await;
        // The hub, which tells the news, has ended.
        pending().await
    }
}
