//! What a client may do: lists of filters per action, and the one function that decides.

mod stored;

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::SystemTime;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::stream::{Filter, Principal, StreamName, TENANTS, Tenant, split_tenant};

/// The first levels of names that no client may use: those of the gateway's own streams, and of the streams of all tenants in the
/// hub.
const OWN_LEVELS: [&str; 2] = ["$auth", TENANTS];

/// What a client asks to do with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read its messages, or ask for its tail.
    Read,
    /// Append messages, or close it.
    Append,
    /// Create it, or confirm that it exists as described.
    Create,
    /// Delete it.
    Manage,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 4] = [Self::Read, Self::Append, Self::Create, Self::Manage];

    /// The name in tokens, settings and error texts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Append => "append",
            Self::Create => "create",
            Self::Manage => "manage",
        }
    }
}

/// The client has no right to the action. Says nothing about the stream, so that it is the same for a missing one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the credentials of this client do not allow it to {} this stream", .0.as_str())]
pub struct Forbidden(pub Action);

/// The filters of each action. A client may do what any of them allows; there are no exceptions to subtract.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrantList {
    pub(super) read: Vec<Filter>,
    pub(super) append: Vec<Filter>,
    pub(super) create: Vec<Filter>,
    pub(super) manage: Vec<Filter>,
}

impl GrantList {
    pub(super) fn of(&self, action: Action) -> &[Filter] {
        match action {
            Action::Read => &self.read,
            Action::Append => &self.append,
            Action::Create => &self.create,
            Action::Manage => &self.manage,
        }
    }

    pub(super) fn of_mut(&mut self, action: Action) -> &mut Vec<Filter> {
        match action {
            Action::Read => &mut self.read,
            Action::Append => &mut self.append,
            Action::Create => &mut self.create,
            Action::Manage => &mut self.manage,
        }
    }

    /// The number of filters of all actions.
    pub(super) fn len(&self) -> usize {
        Action::ALL.iter().map(|action| self.of(*action).len()).sum()
    }

    /// Memory of the filters, in bytes. A filter has its text, and the name of the stream if it is exact.
    fn bytes(&self) -> usize {
        let filters = Action::ALL.iter().flat_map(|action| self.of(*action));
        filters.map(|filter| size_of::<Filter>() + 2 * filter.as_str().len()).sum()
    }

    pub(super) fn extend(&mut self, other: &Self) {
        for action in Action::ALL {
            self.of_mut(action).extend_from_slice(other.of(action));
        }
    }

    /// The same filters for the streams of a tenant.
    fn of_tenant(mut self, tenant: &Tenant) -> Self {
        for action in Action::ALL {
            for filter in self.of_mut(action) {
                *filter = filter.of_tenant(tenant);
            }
        }
        self
    }
}

/// What tells whether a token or a certificate stands, as [fingerprints](super::crypto::fingerprint): the key that verified it, its
/// id, its subject, and when it was issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TokenFacts {
    pub(super) key: u64,
    pub(super) id: Option<u64>,
    pub(super) subject: u64,
    /// In seconds since 1970; 0 if the token does not say.
    pub(super) issued_at: u64,
}

impl TokenFacts {
    /// The same in 16 bytes, for what waits in large numbers. It is not exact, see [`CoarseStanding`](super::CoarseStanding).
    pub(super) fn mark(&self) -> (NonZeroU64, u64) {
        let key_and_id = u64::from(coarse(self.key)) << 32 | u64::from(self.id.map_or(0, coarse));
        let subject_and_time = u64::from(coarse(self.subject)) << 32 | (self.issued_at & u64::from(u32::MAX));
        // The half of the key is never 0.
        (NonZeroU64::new(key_and_id).unwrap_or(NonZeroU64::MIN), subject_and_time)
    }
}

/// A part of a digest, which is not 0.
#[allow(clippy::cast_possible_truncation, reason = "a part is what it is for")]
pub(super) fn coarse(digest: u64) -> u32 {
    digest as u32 | 1
}

/// Identifies credentials after the connection and the process that verified them have ended, see
/// [`Authenticator::recall`](super::Authenticator::recall). Has no token, and none can be made from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialRecord {
    pub(super) facts: TokenFacts,
    pub(super) expires_at: SystemTime,
}

impl CredentialRecord {
    /// Serializes the record for a store that does not interpret it. `None`: it cannot be serialized.
    pub fn to_bytes(&self) -> Option<Box<[u8]>> {
        postcard::to_allocvec(self).ok().map(Vec::into_boxed_slice)
    }
}

/// The rights of one client, from its credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants {
    tenant: Tenant,
    /// The filters are those of the tenant in the hub.
    scope: Scope,
    subject: Option<Arc<str>>,
    principal: Option<Principal>,
    expires_at: Option<SystemTime>,
    token: Option<TokenFacts>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope {
    Everything,
    Listed(GrantList),
}

impl Grants {
    /// The rights of every client of a gateway without authorization.
    pub fn everything() -> Self {
        Self::without_credentials(Scope::Everything)
    }

    /// Memory of the rights, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let filters = match &self.scope {
            Scope::Everything => 0,
            Scope::Listed(list) => list.bytes(),
        };
        size_of::<Self>() + self.subject().map_or(0, str::len) + filters
    }

    /// The rights of clients without credentials.
    pub fn anonymous(list: GrantList) -> Self {
        Self::without_credentials(Scope::Listed(list))
    }

    fn without_credentials(scope: Scope) -> Self {
        let (subject, principal, expires_at, token) = (None, None, None, None);
        Self { tenant: Tenant::default(), scope, subject, principal, expires_at, token }
    }

    /// The rights of `subject`, which is unique among all issuers, to streams of `tenant`, until `expires_at` by the time of day.
    /// Subjects of two tenants are two subjects, whatever their names; no issuer's name begins with `$`.
    pub(super) fn of(
        tenant: Tenant,
        subject: &str,
        list: GrantList,
        expires_at: SystemTime,
        token: Option<TokenFacts>,
    ) -> Self {
        let subject = [tenant.prefix(), subject].concat();
        let scope = Scope::Listed(list.of_tenant(&tenant));
        let (principal, expires_at) = (None, Some(expires_at));
        Self { scope, tenant, subject: None, principal, expires_at, token }.of_subject(&subject)
    }

    /// The same rights for `subject`, which quotas apply to.
    pub(super) fn of_subject(self, subject: &str) -> Self {
        let name = digest(&SHA256, subject.as_bytes());
        let first = name.as_ref().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        Self { subject: Some(subject.into()), principal: Some(Principal::of_subject(first)), ..self }
    }

    /// The same rights, which do not end while the gateway runs.
    pub(super) fn without_end(self) -> Self {
        Self { expires_at: None, ..self }
    }

    /// The tenant of the client. A front turns the names and filters that the client sends into those of the tenant in the hub.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// What tells whether the token of the client stands. `None`: the client has no token.
    pub(super) fn token(&self) -> Option<&TokenFacts> {
        self.token.as_ref()
    }

    /// Identifies the token in 16 bytes, for [`CoarseStanding::allows`](super::CoarseStanding::allows). `None`: the client has
    /// no token.
    pub fn mark(&self) -> Option<(NonZeroU64, u64)> {
        self.token.map(|token| token.mark())
    }

    /// What to keep of the credentials if they are to be checked after a restart. `None`: the client has none.
    pub fn record(&self) -> Option<CredentialRecord> {
        Some(CredentialRecord { facts: self.token?, expires_at: self.expires_at? })
    }

    /// When the rights end, by the time of day; `None`: not while the gateway runs.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.expires_at
    }

    /// Whether the rights can end while the gateway runs.
    pub(super) fn may_end(&self) -> bool {
        self.expires_at.is_some() || self.token.is_some()
    }

    /// The filters outside of which [`authorize`] allows an action on no stream. `None`: it allows it on all streams of clients.
    pub fn bounds(&self, action: Action) -> Option<&[Filter]> {
        match &self.scope {
            Scope::Everything => None,
            Scope::Listed(list) => Some(list.of(action)),
        }
    }

    /// Whom quotas apply to. `None`: the address of the client, which has no token.
    pub fn principal(&self) -> Option<Principal> {
        self.principal
    }

    /// Who has the rights: the prefix of the tenant, and issuer and subject of the token. `None`: a client without credentials.
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// Whether nothing at all is allowed.
    pub fn is_empty(&self) -> bool {
        matches!(&self.scope, Scope::Listed(list) if list.len() == 0)
    }

    /// Whether the gateway checks no credentials at all.
    pub fn is_unrestricted(&self) -> bool {
        self.scope == Scope::Everything
    }
}

/// Decides whether a client may do `action` to `stream`, which is the name in the hub. Every front calls it before it asks the hub. A
/// name that is not of the client's tenant is forbidden, whatever is granted.
pub fn authorize(grants: &Grants, action: Action, stream: &StreamName) -> Result<(), Forbidden> {
    let is_allowed = is_of_tenant(grants, stream.as_str())
        && match &grants.scope {
            Scope::Everything => true,
            Scope::Listed(list) => list.of(action).iter().any(|filter| filter.matches(stream)),
        };
    if is_allowed { Ok(()) } else { Err(Forbidden(action)) }
}

/// Decides whether a client may do `action` to every stream that `filter` can match: one granted filter has to cover it.
pub fn authorize_filter(grants: &Grants, action: Action, filter: &Filter) -> Result<(), Forbidden> {
    let is_allowed = is_of_tenant(grants, filter.as_str())
        && match &grants.scope {
            Scope::Everything => true,
            Scope::Listed(list) => list.of(action).iter().any(|granted| granted.covers(filter)),
        };
    if is_allowed { Ok(()) } else { Err(Forbidden(action)) }
}

/// Whether a name or a filter of the hub belongs to the client's tenant, and is not one that no client may use.
fn is_of_tenant(grants: &Grants, name: &str) -> bool {
    let (prefix, local) = split_tenant(name);
    prefix == grants.tenant.prefix() && !is_own(local)
}

/// Whether the first level of a name or a filter, as a client sends it, is one that no client may use. One that begins with a wildcard
/// matches no name that begins with `$`.
pub fn is_own(name: &str) -> bool {
    let is_below = |rest: &str| rest.is_empty() || rest.starts_with('/');
    name.starts_with('$') && OWN_LEVELS.iter().any(|own| name.strip_prefix(own).is_some_and(is_below))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> StreamName {
        StreamName::parse(text).unwrap()
    }

    fn grants(read: &[&str]) -> Grants {
        let read = read.iter().map(|text| Filter::parse(text).unwrap()).collect();
        let list = GrantList { read, ..GrantList::default() };
        Grants::of(Tenant::default(), "someone", list, SystemTime::UNIX_EPOCH, None)
    }

    fn of_tenant(tenant: &str, grants: &Grants) -> Grants {
        let Scope::Listed(list) = grants.scope.clone() else { panic!("a list") };
        Grants::of(Tenant::parse(tenant).unwrap(), "someone", list, SystemTime::UNIX_EPOCH, None)
    }

    #[test]
    fn any_filter_of_the_action_allows_and_those_of_other_actions_do_not() {
        let grants = grants(&["news/#", "inbox/me/+"]);
        for (action, stream, expected) in [
            (Action::Read, "news", true),
            (Action::Read, "news/local/today", true),
            (Action::Read, "inbox/me/1", true),
            (Action::Read, "inbox/me", false),
            (Action::Read, "inbox/you/1", false),
            (Action::Append, "news", false),
            (Action::Create, "news", false),
            (Action::Manage, "news", false),
        ] {
            let outcome = authorize(&grants, action, &name(stream));
            assert_eq!(outcome.is_ok(), expected, "{action:?} of {stream}");
            assert!(outcome.is_ok() || outcome == Err(Forbidden(action)));
        }
    }

    #[test]
    fn a_filter_needs_one_granted_filter_that_covers_it() {
        let grants = grants(&["news/#", "inbox/+"]);
        let allowed =
            |text: &str| authorize_filter(&grants, Action::Read, &Filter::parse(text).unwrap()).is_ok();
        assert!(allowed("news/+/today") && allowed("inbox/+") && allowed("inbox/me"));
        assert!(!allowed("#") && !allowed("+") && !allowed("inbox/#") && !allowed("+/me"));
    }

    #[test]
    fn wildcards_do_not_reach_the_gateways_own_streams() {
        let wide = grants(&["#"]);
        assert!(authorize(&wide, Action::Read, &name("a/b")).is_ok());
        assert!(authorize(&wide, Action::Read, &name("$auth/revocations")).is_err());
        assert!(authorize_filter(&wide, Action::Read, &Filter::parse("$auth/#").unwrap()).is_err());
    }

    #[test]
    fn no_pattern_reaches_the_streams_of_authorization() {
        for grants in [grants(&["$auth/#", "$auth/+", "$auth/revocations", "$authors"]), Grants::everything()]
        {
            for own in ["$auth/revocations", "$auth/#", "$auth/+", "$auth"] {
                assert!(
                    authorize_filter(&grants, Action::Read, &Filter::parse(own).unwrap()).is_err(),
                    "{own}"
                );
            }
            assert!(authorize(&grants, Action::Read, &name("$auth/revocations")).is_err());
            assert!(authorize(&grants, Action::Read, &name("$authors")).is_ok());
        }
    }

    /// Also with names as the hub has them, which a front would have let through by mistake.
    #[test]
    fn rights_are_those_to_streams_of_the_clients_tenant() {
        let patterns = ["#", "$tenant/#", "$tenant/beta/#", "$tenant/acme/#", "$SYS/#"];
        let wide = grants(&patterns);
        let clients = [wide.clone(), of_tenant("acme", &wide), of_tenant("beta", &wide)];
        for (client, grants) in clients.iter().enumerate() {
            for (of, prefix) in ["", "$tenant/acme/", "$tenant/beta/"].into_iter().enumerate() {
                let locals =
                    [("a/b", true), ("$SYS/x", true), ("$auth/revocations", false), ("$tenant", false)];
                for (local, is_usable) in locals {
                    let name = name(&format!("{prefix}{local}"));
                    let outcome = authorize(grants, Action::Read, &name).is_ok();
                    assert_eq!(outcome, client == of && is_usable, "{name} by {:?}", grants.tenant);
                }
                for local in ["#", "a/#", "+/b"] {
                    let filter = Filter::parse(&format!("{prefix}{local}")).unwrap();
                    let outcome = authorize_filter(grants, Action::Read, &filter).is_ok();
                    assert_eq!(outcome, client == of, "{filter} by {:?}", grants.tenant);
                }
            }
            for text in ["$tenant", "$tenant/#", "$tenant/+", "$tenant/+/#", "$tenant/+/a/b"] {
                let filter = Filter::parse(text).unwrap();
                assert!(authorize_filter(grants, Action::Read, &filter).is_err(), "{filter}");
                let own = filter.of_tenant(grants.tenant());
                assert!(authorize_filter(grants, Action::Read, &own).is_err(), "{own}");
            }
        }
        let [default, acme, beta] = clients;
        assert!(default.subject() != acme.subject() && acme.subject() != beta.subject());
        assert!(default.principal() != acme.principal() && acme.principal() != beta.principal());
    }

    #[test]
    fn without_authorization_everything_is_allowed_and_without_grants_nothing() {
        let (open, none) = (Grants::everything(), Grants::anonymous(GrantList::default()));
        for action in Action::ALL {
            assert!(authorize(&open, action, &name("a")).is_ok());
            assert!(authorize(&none, action, &name("a")).is_err());
            assert!(authorize_filter(&open, action, &Filter::parse("#").unwrap()).is_ok());
            assert!(authorize_filter(&none, action, &Filter::parse("a").unwrap()).is_err());
        }
    }
}
