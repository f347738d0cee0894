//! Items, which are messages: published, and read page by page as items of a node or as results of its archive (XEP-0060, sections 6.5
//! and 7.1; XEP-0313; XEP-0359).
//!
//! The id of an item is the offset after its message, which is also what a reader sends in any other delivery form to go on. An id that
//! a publisher chooses tells a repetition: the same content as that of the last item with this id is not appended again.

use std::sync::Arc;

use minidom::Element;

use super::jid::Jid;
use super::page::{PageQuery, PageStart};
use super::payload::{InvalidPayload, Published, payload_of};
use super::service::{ARCHIVE, DATA_FORM, PUBSUB, read_error, stream_of};
use super::stanza::{StanzaError, failed};
use super::subscriptions::session_name;
use super::xml::{CLIENT, WithAttribute, element};
use super::{PubsubService, Requester};
use crate::auth::{Action, authorize};
use crate::clock::rfc3339;
use crate::stream::{
    Annotation, Append, AppendError, AppendRefusal, Appended, ContentType, Encoding, Message, MessageLimit,
    Messages, Offset, PRODUCER_ID_BYTES_MAX, Position, Producer, ProducerRefusal, QoS, Start, StreamName,
};

pub(super) const EVENT: &str = "http://jabber.org/protocol/pubsub#event";
const STANZA_ID: &str = "urn:xmpp:sid:0";
const DELAY: &str = "urn:xmpp:delay";
const FORWARD: &str = "urn:xmpp:forward:0";

/// Items that one request may name.
const NAMED_ITEMS_MAX: usize = 16;

/// Size of an answer in multiples of the messages of one event of a live form.
const PAGE_EVENTS: usize = 4;

/// What the ids of producers begin with that stand for ids of items.
const PRODUCERS: &str = "xmpp:";

/// What the ids of producers begin with that stand for clients which may send requests again.
const SESSION_PRODUCERS: &str = "xmpp-session:";

/// Appends of one item, each of which another publisher with the same id may have overtaken.
const EPOCH_ATTEMPTS_MAX: usize = 4;

/// The last epoch that a producer can have.
const EPOCH_MAX: u64 = (1 << 53) - 1;

/// A page of the messages of a stream.
struct Page {
    messages: Vec<Message>,
    content_type: ContentType,
    /// No message follows in the direction of the query.
    is_complete: bool,
}

impl Page {
    fn ends(&self) -> Option<(String, String)> {
        let ends = self.messages.first().zip(self.messages.last());
        ends.map(|(first, last)| (first.next.to_string(), last.next.to_string()))
    }
}

/// The epoch of the producer of an item whose id its publisher has chosen: the checksum of the content, below a number that grows if the
/// checksum does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ContentEpoch(u64);

impl ContentEpoch {
    const CHECKSUM_BITS: u32 = 32;

    fn first(content: &[u8]) -> Self {
        Self(crc32c::crc32c(content).into())
    }

    fn checksum(self) -> u64 {
        self.0 & ((1 << Self::CHECKSUM_BITS) - 1)
    }

    /// The epoch of this content after that of the last item. `None`: it is the same content.
    fn behind(self, last: Self) -> Option<Self> {
        let is_greater = self.checksum() > last.checksum();
        let number = (last.0 >> Self::CHECKSUM_BITS) + u64::from(!is_greater);
        (self.checksum() != last.checksum()).then(|| Self(number << Self::CHECKSUM_BITS | self.checksum()))
    }
}

impl PubsubService {
    /// Appends an item.
    pub(super) async fn publish(
        &self,
        who: &Requester,
        request: &Element,
        publish: &Element,
    ) -> Result<Element, StanzaError> {
        let name = stream_of(who, publish)?;
        self.permit(who, Action::Append, &name).map_err(|_| StanzaError::forbidden())?;
        if request.get_child("publish-options", PUBSUB).is_some() {
            return Err(StanzaError::unsupported("publish-options"));
        }
        let mut items = publish.children().filter(|child| child.is("item", PUBSUB));
        let item = items.next().ok_or_else(|| StanzaError::bad_request().because("item-required"))?;
        let payload =
            item.children().next().ok_or_else(|| StanzaError::bad_request().because("payload-required"))?;
        if items.next().is_some() || item.children().nth(1).is_some() {
            return Err(StanzaError::bad_request().because("invalid-payload"));
        }
        let published = Published::of(payload)
            .map_err(|InvalidPayload| StanzaError::bad_request().because("invalid-payload"))?;
        if published.bytes.len() > self.limits.body_bytes_max {
            return Err(StanzaError::not_acceptable().because("payload-too-big"));
        }
        let may_create = authorize(&who.grants, Action::Create, &name).is_ok();
        let id = item.attr("id").filter(|id| !id.is_empty());
        let append = self.append(who, published, id)?;
        let append = if may_create { append.or_create() } else { append };
        let appended = match (id, &who.place) {
            (None, Some(_)) => self.append_in_place(who, &name, append).await,
            _ => self.append_once(who, &name, append).await,
        };
        let appended = match appended {
            Ok(appended) => appended,
            // The same as without the right to append, so that it does not tell which streams exist.
            Err(AppendError::Missing(_)) if !may_create => {
                self.refused(who, &name, Action::Create);
                return Err(StanzaError::forbidden());
            }
            Err(error) => return Err(append_error(&error)),
        };
        let said = element("publish", PUBSUB).with("node", name.local());
        let said = match appended {
            // Which offset the first one got is not known.
            None => said,
            Some(tail) => said.append(element("item", PUBSUB).with("id", tail.to_string()).build()),
        };
        Ok(element("pubsub", PUBSUB).append(said.build()).build())
    }

    /// Appends, and returns the new tail. `None`: it is a repetition. The epoch of the producer tells the content, so that another one
    /// with the same id is appended, also if its checksum is smaller than that of the last one.
    async fn append_once(
        &self,
        who: &Requester,
        name: &StreamName,
        append: Append,
    ) -> Result<Option<Offset>, AppendError> {
        let Some(producer) = &append.producer else {
            let appended = self.hub.publish(name, append).await?;
            return Ok(self.appended(who, name, &appended));
        };
        let (mut epoch, mut attempts) = (ContentEpoch(producer.epoch), 0);
        loop {
            let mut attempt = append.clone();
            // Behind the last epoch, a repetition is appended rather than that a message is lost.
            let has_epoch = epoch.0 <= EPOCH_MAX;
            attempt.producer = has_epoch.then(|| Producer { epoch: epoch.0, ..producer.clone() });
            match self.hub.publish(name, attempt).await {
                Ok(appended) => return Ok(self.appended(who, name, &appended)),
                Err(AppendError::Refused {
                    refusal: AppendRefusal::Producer(ProducerRefusal::StaleEpoch { current }),
                    ..
                }) if attempts < EPOCH_ATTEMPTS_MAX => match epoch.behind(ContentEpoch(current)) {
                    Some(later) => (epoch, attempts) = (later, attempts + 1),
                    None => return Ok(None),
                },
                Err(error) => return Err(error),
            }
        }
    }

    /// Appends what the client may have sent before, and returns the new tail. `None`: it has.
    async fn append_in_place(
        &self,
        who: &Requester,
        name: &StreamName,
        append: Append,
    ) -> Result<Option<Offset>, AppendError> {
        match self.hub.publish(name, append.clone()).await {
            Ok(appended) => Ok(self.appended(who, name, &appended)),
            Err(AppendError::Refused { refusal: AppendRefusal::Producer(refusal), .. }) => match refusal {
                ProducerRefusal::StaleEpoch { .. } => Ok(None),
                // The stream remembers no more clients. A repetition is appended rather than that a message is lost.
                _ => {
                    let appended = self.hub.publish(name, Append { producer: None, ..append }).await?;
                    Ok(self.appended(who, name, &appended))
                }
            },
            Err(error) => Err(error),
        }
    }

    /// Returns the new tail. `None`: it is a repetition.
    fn appended(&self, who: &Requester, name: &StreamName, appended: &Appended) -> Option<Offset> {
        if appended.created {
            self.created(who, name);
        }
        (!appended.duplicate).then_some(appended.tail)
    }

    fn append(&self, who: &Requester, published: Published, id: Option<&str>) -> Result<Append, StanzaError> {
        let Published { bytes, content_type } = published;
        if id.is_some_and(|id| id.len() > PRODUCER_ID_BYTES_MAX) {
            return Err(StanzaError::not_acceptable().with_text("the id of an item has at most 256 bytes"));
        }
        let annotation = Annotation {
            publisher: (&*session_name(&who.jid)).into(),
            qos: QoS::ExactlyOnce,
            retain: false,
            expires_at: None,
            is_text: content_type.encoding() == Encoding::Text,
            content_type: Some(content_type.as_str().into()),
            response_topic: None,
            correlation: None,
            user_properties: Vec::new(),
        };
        let ContentEpoch(epoch) = ContentEpoch::first(&bytes);
        // No producer of HTTP has such an id, whose epochs would fence it.
        let producer =
            |id: [&str; 2], epoch| Producer { id: id.concat().into(), epoch, sequence: 0 }.of(who.principal);
        let producer = match (id, &who.place) {
            (Some(id), _) => Some(producer([PRODUCERS, id], epoch)),
            (None, Some(place)) => Some(producer([SESSION_PRODUCERS, &place.session], place.number)),
            (None, None) => None,
        };
        let append = Append::of_any_type(bytes, content_type, self.limits.json_depth_max);
        Ok(Append { principal: who.principal, annotation: Some(Arc::new(annotation)), producer, ..append })
    }

    /// Returns items of a node: those that are named, a page, or the last ones.
    pub(super) async fn items(
        &self,
        who: &Requester,
        request: &Element,
        items: &Element,
    ) -> Result<Element, StanzaError> {
        let name = stream_of(who, items)?;
        self.permit(who, Action::Read, &name).map_err(|_| StanzaError::item_not_found())?;
        let named: Vec<_> = items.children().filter_map(|item| item.attr("id")).collect();
        let asked = match items.attr("max_items") {
            Some(count) => count.parse().map_err(|_| StanzaError::bad_request())?,
            None => usize::MAX,
        };
        let max = self.limits.xmpp_page_max.min(asked);
        let said = element("items", PUBSUB).with("node", name.local());
        let (said, set) = if named.is_empty() {
            let query = self.page(request)?;
            let is_paged = query.is_some();
            let page =
                self.read(&name, query.unwrap_or(PageQuery { max, from: PageStart::Before(None) })).await?;
            let set = is_paged.then(|| PageQuery::answer(page.ends()));
            (
                said.append_all(
                    page.messages.iter().map(|message| self.item(message, &page.content_type, PUBSUB)),
                ),
                set,
            )
        } else if named.len() <= NAMED_ITEMS_MAX {
            let mut found = Vec::new();
            for id in named {
                found.extend(self.named_item(&name, id).await?);
            }
            (said.append_all(found), None)
        } else {
            return Err(StanzaError::not_acceptable());
        };
        Ok(element("pubsub", PUBSUB).append(said.build()).append_all(set).build())
    }

    /// The item with an id; `None`: there is none, or its message does not begin within the last 64 KiB before the offset.
    async fn named_item(&self, name: &StreamName, id: &str) -> Result<Option<Element>, StanzaError> {
        let Ok(offset) = id.parse::<Offset>() else { return Ok(None) };
        let page = self.read_back(name, 1, Some(offset)).await?;
        let mut found = page.messages.iter().filter(|message| message.next == offset);
        Ok(found.next().map(|message| self.item(message, &page.content_type, PUBSUB)))
    }

    /// Sends a page of the archive of a node: a message for each result, and what the answer says.
    pub(super) async fn query_archive(
        &self,
        who: &Requester,
        query: &Element,
        stanzas: &mut Vec<Element>,
    ) -> Result<Element, StanzaError> {
        let name = stream_of(who, query)?;
        self.permit(who, Action::Read, &name).map_err(|_| StanzaError::item_not_found())?;
        let mut fields = query.get_child("x", DATA_FORM).into_iter().flat_map(Element::children);
        let is_filter =
            |field: &Element| field.is("field", DATA_FORM) && field.attr("var") != Some("FORM_TYPE");
        if fields.any(is_filter) || query.get_child("flip-page", ARCHIVE).is_some() {
            return Err(
                StanzaError::not_implemented().with_text("the archive has no filters; page by offsets")
            );
        }
        let max = self.limits.xmpp_page_max;
        let page = self.page(query)?.unwrap_or(PageQuery { max, from: PageStart::First });
        let page = self.read(&name, page).await?;
        let query_id = query.attr("queryid");
        stanzas.extend(page.messages.iter().map(|message| {
            let result = element("result", ARCHIVE).with("id", message.next.to_string());
            let result = match query_id {
                Some(id) => result.with("queryid", id),
                None => result,
            };
            let at = rfc3339(self.clock.wall_offset().to_wall(message.at));
            let forwarded = element("forwarded", FORWARD)
                .append(element("delay", DELAY).with("stamp", at).build())
                .append(self.notification(&name, message, &page.content_type, &who.jid));
            let result = result.append(forwarded.build()).build();
            element("message", CLIENT)
                .with("from", self.name.as_str())
                .with("to", who.jid.as_str())
                .append(result)
                .build()
        }));
        let fin = element("fin", ARCHIVE).append(PageQuery::answer(page.ends()));
        Ok(if page.is_complete { fin.with("complete", "true") } else { fin }.build())
    }

    /// The stanza that tells a subscriber of a message. Its id says where it begins, for the case that it is returned.
    pub(super) fn notification(
        &self,
        name: &StreamName,
        message: &Message,
        content_type: &ContentType,
        to: &Jid,
    ) -> Element {
        let item = self.item(message, content_type, EVENT);
        let items = element("items", EVENT).with("node", name.local()).append(item).build();
        let stanza_id = element("stanza-id", STANZA_ID)
            .with("id", message.next.to_string())
            .with("by", self.name.as_str());
        element("message", CLIENT)
            .with("from", self.name.as_str())
            .with("to", to.as_str())
            .with("id", format!("{}:{}", message.start, name.local()))
            .append(element("event", EVENT).append(items).build())
            .append(stanza_id.build())
            .build()
    }

    fn item(&self, message: &Message, content_type: &ContentType, namespace: &str) -> Element {
        // What is around the payload takes less than the rest.
        let bytes_max = self.limits.xmpp_stanza_bytes_max / 4 * 3;
        let payload = payload_of(message, content_type, bytes_max);
        element("item", namespace).with("id", message.next.to_string()).append(payload).build()
    }

    /// Reads a page of a stream that the client may read.
    async fn read(&self, name: &StreamName, query: PageQuery) -> Result<Page, StanzaError> {
        let offset = |id: String| id.parse::<Offset>().map_err(|_| StanzaError::item_not_found());
        let start = match query.from {
            PageStart::First => Start::Earliest,
            PageStart::After(id) => Start::At(offset(id)?),
            PageStart::Before(None) => return self.read_back(name, query.max, None).await,
            PageStart::Before(Some(id)) => {
                let offset = offset(id)?;
                // The message whose id this is does not belong to the page.
                let Some(end) = offset.position.0.checked_sub(1) else {
                    return Err(StanzaError::item_not_found());
                };
                return self
                    .read_back(name, query.max, Some(Offset { position: Position(end), ..offset }))
                    .await;
            }
        };
        let read = self.hub.messages(name, start, self.page_limit(query.max)).await.map_err(read_error)?;
        let Messages { mut messages, content_type, up_to_date, .. } = read;
        let is_complete = up_to_date && messages.len() <= query.max;
        messages.truncate(query.max);
        Ok(Page { messages, content_type, is_complete })
    }

    /// Reads the last messages that end at `end` at the latest; `None`: at the tail.
    async fn read_back(
        &self,
        name: &StreamName,
        max: usize,
        end: Option<Offset>,
    ) -> Result<Page, StanzaError> {
        let mut count = max;
        loop {
            let search_bytes = self.limits.history_bytes_max;
            let start =
                self.hub.start_of_last(name, count as u64, search_bytes, end).await.map_err(read_error)?;
            // One more, to see whether the page reaches its end. If it does not, because of its bytes, it has to begin later.
            let limit = self.page_limit(count.saturating_add(1));
            let read = self.hub.messages(name, start, limit).await.map_err(read_error)?;
            let Messages { mut messages, content_type, up_to_date, next, .. } = read;
            if !up_to_date && count > 1 && end.is_none_or(|end| next <= end) {
                count = count.min(messages.len()).div_ceil(2);
                continue;
            }
            messages.retain(|message| end.is_none_or(|end| message.next <= end));
            messages.truncate(max);
            // Positions alone: `start` may have a later epoch than the earliest message.
            let earliest = self.hub.describe(name).await.map(|described| described.earliest.position);
            let is_complete = matches!(start, Start::At(start) if earliest == Ok(start.position));
            return Ok(Page { messages, content_type, is_complete });
        }
    }

    fn page_limit(&self, max: usize) -> MessageLimit {
        let bytes_max = self.limits.tail_bytes_max.saturating_mul(PAGE_EVENTS);
        MessageLimit { bytes_max, count_max: max.max(1) }
    }
}

fn append_error(error: &AppendError) -> StanzaError {
    match error {
        AppendError::Empty | AppendError::NoContentType | AppendError::Messages(_) => {
            StanzaError::bad_request().because("invalid-payload")
        }
        AppendError::Missing(_) => StanzaError::item_not_found(),
        AppendError::Refused { refusal, .. } => match refusal {
            AppendRefusal::Producer(_) => StanzaError::resource_constraint(),
            AppendRefusal::Closed => StanzaError::not_allowed().with_text("the stream is closed"),
            _ => StanzaError::not_acceptable(),
        },
        AppendError::Failed(failure) => failed(*failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Authenticator, Grants};
    use crate::clock::Clock;
    use crate::hub::Hub;
    use crate::limits::Limits;
    use crate::metrics::Metrics;
    use crate::store::Memory;
    use crate::stream::Principal;
    use crate::xmpp::RequestPlace;
    use crate::xmpp::stanza::Request;
    use crate::xmpp::xml::parse_document;

    #[test]
    fn each_content_has_a_later_epoch_than_the_one_before_it() {
        let [low, high] = [ContentEpoch(3), ContentEpoch(9)];
        assert_eq!((low.behind(low), high.behind(low)), (None, Some(high)));
        let again = low.behind(high).unwrap();
        assert!(again.0 > high.0 && low.behind(again).is_none());
        assert_eq!(high.behind(again).map(ContentEpoch::checksum), Some(9));
        assert!(high.behind(again).unwrap().0 > again.0);
        assert_ne!(ContentEpoch::first(b"on"), ContentEpoch::first(b"off"));
    }

    /// Publications of the same content: again at the same place, at a later one, and by another session.
    #[tokio::test(start_paused = true)]
    async fn what_a_client_sends_again_at_the_same_place_is_appended_once() {
        let (limits, clock) = (Arc::new(Limits::default()), Clock::start());
        let metrics = Arc::new(Metrics::new());
        let hub = Arc::new(Hub::new(Arc::new(Memory::default()), limits.clone(), metrics.clone(), clock));
        let (auth, client) = (Arc::new(Authenticator::open()), Principal::GATEWAY);
        let (name, metrics) = (Jid::parse("s.example").unwrap(), metrics.xmpp().clone());
        let service = PubsubService::of_client((hub.clone(), limits), metrics, clock, auth, name, client);
        let text = format!(
            "<pubsub xmlns='{PUBSUB}'><publish node='a'><item><json xmlns='urn:xmpp:json:0'>1</json></item></publish></pubsub>"
        );
        for (session, number, tail) in [("x", 1, 1), ("x", 1, 1), ("x", 3, 2), ("x", 1, 2), ("y", 1, 3)] {
            let payload = parse_document(text.as_bytes(), 1000).unwrap();
            let who = Requester {
                jid: Jid::parse("a@b").unwrap(),
                grants: Arc::new(Grants::everything()),
                principal: client,
                place: Some(Box::new(RequestPlace { session: session.into(), number })),
            };
            let answers = service.handle(&who, Request { id: "1".into(), is_set: true, payload }).await;
            assert_eq!(answers[0].attr("type"), Some("result"), "{session} {number}");
            let stream = hub.describe(&StreamName::parse("a").unwrap()).await.unwrap();
            assert_eq!(stream.tail.position.0, tail, "{session} {number}");
        }
    }
}
