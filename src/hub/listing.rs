//! The streams as the admin listener shows them in `/streams`.

use serde::Serialize;
use tokio::task::yield_now;

use super::Hub;
use super::waiters::ReadersByForm;
use crate::clock::rfc3339;
use crate::stream::{ChangeError, Description, Failure, Lifetime, Retention, StreamName, StreamPage};

/// Maximum number of names that one search for streams visits.
const VISITED_MAX: usize = 10_000;

/// Which streams a list has.
#[derive(Debug, Clone, Default)]
pub struct StreamQuery {
    /// Their names begin with this.
    pub prefix: String,
    /// Their names contain this.
    pub contains: String,
    /// They follow this name. `None`: the list begins with the first one.
    pub after: Option<StreamName>,
    /// Maximum number of streams.
    pub max: usize,
}

/// A part of the list of all streams, in the order of their names.
#[derive(Debug, Clone, Serialize)]
pub struct StreamListing {
    /// The streams.
    pub streams: Vec<StreamView>,
    /// The name after which the next part begins; `None` in the last one.
    pub next: Option<String>,
}

/// One stream as the admin listener shows it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamView {
    /// Its name.
    pub stream: String,
    /// Its content type.
    pub content_type: String,
    /// The offset of the earliest message that is kept.
    pub earliest: String,
    /// The offset after its last message.
    pub tail: String,
    /// Messages of a JSON stream that are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<u64>,
    /// Bytes of any other stream that are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Whether it is closed.
    pub closed: bool,
    /// Messages that it keeps at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_messages: Option<u64>,
    /// Bytes that it keeps at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// How long it keeps a message, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<u64>,
    /// After how many seconds without use it is removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u64>,
    /// When it is removed (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Readers that wait for it, and MQTT subscriptions to its name; those with wildcards are not counted.
    pub readers: usize,
    /// The same readers by delivery form.
    pub readers_by_form: ReadersByForm,
}

impl Hub {
    /// Lists streams. This is not a use of the streams. A search by a part of the name that has visited [`VISITED_MAX`] names returns
    /// what it has found, and the name from which it goes on.
    pub async fn list_streams(&self, query: &StreamQuery) -> Result<StreamListing, Failure> {
        let (mut streams, mut after, mut visited) = (Vec::new(), query.after.clone(), 0);
        loop {
            let page = self.store.page(&query.prefix, after.as_ref(), self.clock.now()).await?;
            for (name, _) in page.streams {
                if streams.len() >= query.max || visited >= VISITED_MAX && !query.contains.is_empty() {
                    return Ok(StreamListing { streams, next: after.map(|name| name.as_str().to_owned()) });
                }
                visited += 1;
                if !name.as_str().contains(&query.contains) {
                    after = Some(name);
                    continue;
                }
                match self.describe(&name).await {
                    Ok(description) => {
                        streams.push(StreamView::of(
                            &name,
                            &description,
                            self.waiters.readers_by_form(&name),
                        ));
                    }
                    // It has ended meanwhile.
                    Err(ChangeError::Missing(_)) => {}
                    Err(ChangeError::Failed(failure)) => return Err(failure),
                }
                after = Some(name);
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(StreamListing { streams, next: None }),
            }
            yield_now().await;
        }
    }

    /// Returns a page of the streams whose names begin with `prefix`, behind the name `after`. Without a prefix, it passes over the streams of
    /// tenants.
    pub async fn page_of_names(
        &self,
        prefix: &str,
        after: Option<&StreamName>,
    ) -> Result<StreamPage, Failure> {
        let page = self.store.page(prefix, after, self.clock.now()).await?;
        let is_of_tenant = |name: &StreamName| prefix.is_empty() && !name.tenant().is_default();
        let next =
            page.next.map(|next| if is_of_tenant(&next) { StreamName::behind_tenants() } else { next });
        Ok(StreamPage { next, ..page })
    }
}

impl StreamView {
    fn of(name: &StreamName, description: &Description, readers_by_form: ReadersByForm) -> Self {
        let Description { content_type, earliest, tail, closed, lifetime, retention, .. } = description;
        let kept = tail.position.since(earliest.position);
        let is_json = content_type.is_json();
        let Retention { messages_max, bytes_max, age_max } = *retention;
        let (ttl, expires_at) = match lifetime {
            Lifetime::Unlimited => (None, None),
            Lifetime::Idle(idle) => (Some(idle.as_secs()), None),
            Lifetime::Until(end) => (None, Some(rfc3339(*end))),
        };
        Self {
            stream: name.as_str().to_owned(),
            content_type: content_type.as_str().to_owned(),
            earliest: earliest.to_string(),
            tail: tail.to_string(),
            messages: is_json.then_some(kept),
            bytes: (!is_json).then_some(kept),
            closed: *closed,
            max_messages: messages_max,
            max_bytes: bytes_max,
            max_age: age_max.map(|age| age.as_secs()),
            ttl,
            expires_at,
            readers: readers_by_form.sum(),
            readers_by_form,
        }
    }
}
