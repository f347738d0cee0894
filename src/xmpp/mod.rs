//! The XMPP front: a publish-subscribe service (XEP-0060) whose nodes are the streams that HTTP reads.
//!
//! [`Component`] connects it to an XMPP server, which has the clients. What does not depend on that link is what any other one needs,
//! such as BOSH or WebSocket:
//!
//! * `xml` turns the bytes of a stream, cut anywhere, into elements (`StreamDecoder`), or a whole frame into one (`parse_document`), within
//!   limits, and elements into bytes. Stanzas are in the namespace `jabber:client`; `in_namespace` moves those of another link. No IO.
//! * `stanza` says what a stanza is (`Stanza::read`), and makes answers and errors. `page` and `payload` do the same for pages of
//!   results and for messages. No IO.
//! * `PubsubService` answers requests: `PubsubService::handle(who, request)` returns the stanzas to send. `who` is a `Requester`, an address that the
//!   link has verified and its grants; a link with tokens makes one from the grants of its token. Requests of one address are
//!   to be handled one after the other.
//! * `JidSubscriptions` has the subscriptions of all addresses with their stored offsets; `PubsubService::deliver` reads what is due. A link that
//!   has the client itself notes what is `sent`, and `confirm`s what the client has acknowledged.

mod component;
mod delivery;
mod items;
mod jid;
mod nodes;
mod page;
mod payload;
mod service;
mod stanza;
mod subscribe;
mod subscriptions;
mod xml;

pub use component::{Component, ComponentSettings};
pub use jid::InvalidJid;
