//! Nodes, which are streams: created, deleted, described and listed (XEP-0060, sections 5 and 8; XEP-0030).

use minidom::Element;

use super::page::{PageQuery, PageStart};
use super::service::{ARCHIVE, DATA_FORM, DISCO_INFO, DISCO_ITEMS, PING, PUBSUB, stream_of};
use super::stanza::{StanzaError, failed};
use super::xml::{WithAttribute, element, is_text};
use super::{PubsubService, Requester};
use crate::auth::{Action, authorize};
use crate::hub::{Creation, CreationError, StreamWalk};
use crate::stream::{ChangeError, ContentType, CreateError, Description, Filter, Retention, StreamName};

/// What the service can do (XEP-0060, section 10).
const FEATURES: [&str; 15] = [
    PING,
    DISCO_INFO,
    DISCO_ITEMS,
    PUBSUB,
    "http://jabber.org/protocol/pubsub#auto-create",
    "http://jabber.org/protocol/pubsub#create-and-configure",
    "http://jabber.org/protocol/pubsub#create-nodes",
    "http://jabber.org/protocol/pubsub#delete-nodes",
    "http://jabber.org/protocol/pubsub#persistent-items",
    "http://jabber.org/protocol/pubsub#publish",
    "http://jabber.org/protocol/pubsub#retrieve-items",
    "http://jabber.org/protocol/pubsub#retrieve-subscriptions",
    "http://jabber.org/protocol/pubsub#rsm",
    "http://jabber.org/protocol/pubsub#subscribe",
    "urn:xmpp:sid:0",
];

/// Pages of streams that one request looks through. Each may have no stream that the client may read.
const SCANNED_PAGES_MAX: usize = 64;

/// What a node is created with.
#[derive(Debug, Default, PartialEq, Eq)]
struct NodeConfig {
    content_type: Option<ContentType>,
    messages_max: Option<u64>,
}

impl NodeConfig {
    /// Reads the form of a request (XEP-0060, section 8.1.3). Fields that say what the service does anyway may be there; any other
    /// is an error, so that no client believes that it holds.
    fn read(request: &Element) -> Result<Self, StanzaError> {
        let mut config = Self::default();
        let form =
            request.get_child("configure", PUBSUB).and_then(|configure| configure.get_child("x", DATA_FORM));
        for field in form.into_iter().flat_map(Element::children).filter(|child| child.is("field", DATA_FORM))
        {
            let value = field.get_child("value", DATA_FORM).map(Element::text).unwrap_or_default();
            let is_true = matches!(&*value, "1" | "true");
            match field.attr("var").unwrap_or_default() {
                "FORM_TYPE" => {}
                "pubsub#persist_items"
                | "pubsub#deliver_payloads"
                | "pubsub#deliver_notifications"
                | "pubsub#notify_delete"
                    if is_true => {}
                "pubsub#max_items" if value == "max" => {}
                "pubsub#max_items" => {
                    let count = value.parse().ok().filter(|count| *count > 0);
                    config.messages_max = Some(count.ok_or_else(StanzaError::not_acceptable)?);
                }
                "pubsub#type" => {
                    let content_type =
                        ContentType::parse(&value).map_err(|_| StanzaError::not_acceptable())?;
                    config.content_type = Some(content_type);
                }
                _ => {
                    return Err(
                        StanzaError::not_acceptable().with_text("the service does not have this option")
                    );
                }
            }
        }
        Ok(config)
    }
}

impl PubsubService {
    /// Creates a stream.
    pub(super) async fn create(
        &self,
        who: &Requester,
        request: &Element,
        create: &Element,
    ) -> Result<Option<Element>, StanzaError> {
        if create.attr("node").is_none() {
            // The service makes no names (XEP-0060, section 8.1.1).
            return Err(StanzaError::not_acceptable().because("nodeid-required"));
        }
        let name = stream_of(who, create)?;
        self.permit(who, Action::Create, &name).map_err(|_| StanzaError::forbidden())?;
        let NodeConfig { content_type, messages_max } = NodeConfig::read(request)?;
        let retention = messages_max.map(|max| Retention { messages_max: Some(max), ..Retention::default() });
        let principal = who.principal;
        let creation = Creation { principal, content_type, retention, ..Creation::default() };
        match self.hub.create(&name, creation).await {
            Ok(created) if created.fresh => {
                self.created(who, &name);
                Ok(None)
            }
            Ok(_) => Err(StanzaError::conflict()),
            Err(error) => Err(creation_error(&error)),
        }
    }

    /// Deletes a stream.
    pub(super) async fn delete(
        &self,
        who: &Requester,
        delete: &Element,
    ) -> Result<Option<Element>, StanzaError> {
        let name = stream_of(who, delete)?;
        self.permit(who, Action::Manage, &name).map_err(|_| StanzaError::forbidden())?;
        match self.hub.delete(&name).await {
            Ok(()) => {
                self.deleted(who, &name);
                Ok(None)
            }
            Err(ChangeError::Missing(_)) => Err(StanzaError::item_not_found()),
            Err(ChangeError::Failed(failure)) => Err(failed(failure)),
        }
    }

    /// Describes the service or a node (XEP-0030, section 3; XEP-0060, section 5.4).
    pub(super) async fn describe(&self, who: &Requester, query: &Element) -> Result<Element, StanzaError> {
        let said = element("query", DISCO_INFO);
        let feature = |name: &str| element("feature", DISCO_INFO).with("var", name).build();
        let identity = |kind: &str| {
            element("identity", DISCO_INFO).with("category", "pubsub").with("type", kind).build()
        };
        let Some(node) = query.attr("node") else {
            return Ok(said.append(identity("service")).append_all(FEATURES.map(feature)).build());
        };
        let description = self.readable(who, &stream_of(who, query)?).await?;
        let said = said.with("node", node).append(identity("leaf"));
        Ok(said.append_all([PUBSUB, ARCHIVE].map(feature)).append(meta_data(&description)).build())
    }

    /// The description of a stream that the client may read. A missing stream and a forbidden one look the same.
    pub(super) async fn readable(
        &self,
        who: &Requester,
        name: &StreamName,
    ) -> Result<Description, StanzaError> {
        self.permit(who, Action::Read, name).map_err(|_| StanzaError::item_not_found())?;
        self.hub.describe(name).await.map_err(|error| match error {
            ChangeError::Missing(_) => StanzaError::item_not_found(),
            ChangeError::Failed(failure) => failed(failure),
        })
    }

    /// Lists the streams that the client may read, in the order of their names (XEP-0060, section 5.2).
    pub(super) async fn list(&self, who: &Requester, query: &Element) -> Result<Element, StanzaError> {
        if query.attr("node").is_some() {
            // The items of a node are listed in its archive.
            return Err(StanzaError::not_implemented());
        }
        let page = self.page(query)?;
        let is_paged = page.is_some();
        let PageQuery { max, from } =
            page.unwrap_or(PageQuery { max: self.limits.xmpp_page_max, from: PageStart::First });
        let tenant = who.grants.tenant();
        let after = match from {
            PageStart::First => None,
            PageStart::After(node) => {
                let name = StreamName::parse(&node).map_err(|_| StanzaError::item_not_found())?;
                Some(name.of_tenant(tenant))
            }
            PageStart::Before(_) => return Err(StanzaError::not_implemented()),
        };
        let (names, is_complete) =
            if max > 0 { self.names(who, after, max).await? } else { (Vec::new(), false) };
        let item = |node: &String| {
            element("item", DISCO_ITEMS).with("jid", self.name.as_str()).with("node", node.as_str()).build()
        };
        let ends = names.first().cloned().zip(names.last().cloned());
        let said = element("query", DISCO_ITEMS).append_all(names.iter().map(item));
        let set = (is_paged || !is_complete).then(|| PageQuery::answer(ends));
        Ok(said.append_all(set).build())
    }

    /// Returns the names of at most `max` streams that the client may read, and whether no more follow.
    async fn names(
        &self,
        who: &Requester,
        after: Option<StreamName>,
        max: usize,
    ) -> Result<(Vec<String>, bool), StanzaError> {
        let all = [Filter::parse("#").map_err(|_| StanzaError::internal())?.of_tenant(who.grants.tenant())];
        // A client with rights to few of many streams does not wait for a look at the others.
        let mut walk =
            StreamWalk::over(who.grants.bounds(Action::Read).unwrap_or(&all)).starting_after(after);
        let mut names = Vec::new();
        for _ in 0..SCANNED_PAGES_MAX + walk.parts() {
            let Some(streams) = self.hub.next_streams(&mut walk).await else { return Ok((names, true)) };
            for (name, _) in streams {
                if authorize(&who.grants, Action::Read, &name).is_ok() && is_text(name.local()) {
                    names.push(name.local().to_owned());
                }
                if names.len() >= max {
                    return Ok((names, false));
                }
            }
        }
        // To go on, a client needs the name of a stream that it may read.
        if names.is_empty() { Err(StanzaError::resource_constraint()) } else { Ok((names, false)) }
    }
}

fn meta_data(description: &Description) -> Element {
    let field = |name: &str, value: String| {
        let value = element("value", DATA_FORM).append(value).build();
        element("field", DATA_FORM).with("var", name).append(value).build()
    };
    let max = description.retention.messages_max;
    let fields = [
        Some(("FORM_TYPE", "http://jabber.org/protocol/pubsub#meta-data".to_owned())),
        Some(("pubsub#type", description.content_type.as_str().to_owned())),
        max.map(|max| ("pubsub#max_items", max.to_string())),
        Some(("pollgate#closed", u8::from(description.closed).to_string())),
        Some(("pollgate#tail", description.tail.to_string())),
    ];
    let fields = fields.into_iter().flatten().map(|(name, value)| field(name, value));
    element("x", DATA_FORM).with("type", "result").append_all(fields).build()
}

fn creation_error(error: &CreationError) -> StanzaError {
    match error {
        CreationError::Store(CreateError::Failed(failure)) => failed(*failure),
        CreationError::Store(CreateError::ExistsDifferently | CreateError::NameTaken) => {
            StanzaError::conflict()
        }
        CreationError::TooManyOrigins { .. } => StanzaError::resource_constraint(),
        CreationError::Messages(_) | CreationError::Store(_) => StanzaError::not_acceptable(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::auth::{AuthSettings, Authenticator};
    use crate::clock::Clock;
    use crate::hub::Hub;
    use crate::limits::Limits;
    use crate::metrics::Metrics;
    use crate::store::Memory;
    use crate::xmpp::jid::Jid;
    use crate::xmpp::xml::parse_document;

    fn config(fields: &[(&str, &str)]) -> Result<NodeConfig, StanzaError> {
        let fields =
            fields.iter().map(|(name, value)| format!("<field var='{name}'><value>{value}</value></field>"));
        let text = format!(
            "<pubsub xmlns='{PUBSUB}'><create node='a'/><configure><x xmlns='{DATA_FORM}'>{}</x></configure></pubsub>",
            fields.collect::<String>()
        );
        NodeConfig::read(&parse_document(text.as_bytes(), 4096).unwrap())
    }

    #[test]
    fn options_hold_or_are_refused() {
        let known = [
            ("FORM_TYPE", "x"),
            ("pubsub#persist_items", "true"),
            ("pubsub#max_items", "7"),
            ("pubsub#type", "text/plain"),
        ];
        let content_type = Some(ContentType::parse("text/plain").unwrap());
        assert_eq!(config(&known), Ok(NodeConfig { content_type, messages_max: Some(7) }));
        assert_eq!(config(&[("pubsub#max_items", "max")]), Ok(NodeConfig::default()));
        for (name, value) in [
            ("pubsub#persist_items", "0"),
            ("pubsub#max_items", "0"),
            ("pubsub#max_items", "x"),
            ("pubsub#type", "no type"),
            ("pubsub#access_model", "whitelist"),
        ] {
            assert!(config(&[(name, value)]).is_err(), "{name}={value}");
        }
    }

    #[tokio::test]
    async fn a_client_with_rights_to_few_of_many_streams_finds_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.toml");
        let rule = "[[jid]]\nmatches = 'a@b'\nread = ['zz/+', 'm', 's1/#', 'zz/1']\n";
        std::fs::write(&path, rule).unwrap();
        let auth = Arc::new(Authenticator::new(&AuthSettings::read(&path).unwrap()).unwrap());
        let (limits, metrics, clock) = (Arc::new(Limits::default()), Metrics::new(), Clock::start());
        let store = Arc::new(Memory::default());
        let hub = Arc::new(Hub::new(store, limits.clone(), Arc::new(Metrics::new()), clock));
        let name = |text: &str| StreamName::parse(text).unwrap();
        let others = (0..20_000).map(|number| format!("other/{number}"));
        for text in others.chain(["zz/2", "m", "s1/x", "s10", "zz/1", "zz/1/x"].map(str::to_owned)) {
            hub.create(&name(&text), Creation::default()).await.unwrap();
        }
        let domain = Jid::parse("s.example").unwrap();
        let service = PubsubService::load(hub, limits, &metrics, clock, auth, domain).await.unwrap();
        let who = service.requester(Jid::parse("a@b/c").unwrap());
        let (names, is_complete) = service.names(&who, None, 50).await.unwrap();
        assert_eq!((&*names, is_complete), (&["m", "s1/x", "zz/1", "zz/2"].map(str::to_owned)[..], true));
        for (after, expected) in
            [("a", "m"), ("m", "s1/x"), ("other/7", "s1/x"), ("s1/x", "zz/1"), ("zz/1", "zz/2")]
        {
            let found = service.names(&who, Some(name(after)), 1).await.unwrap();
            assert_eq!(found, (vec![expected.to_owned()], false), "behind {after}");
        }
    }
}
