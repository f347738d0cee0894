//! Addresses of XMPP: what their owners may do. The server that sends a stanza through a component's link vouches for its address.

use std::sync::Arc;
use std::time::SystemTime;

use moka::sync::Cache;

use super::certificates::variable_of;
use super::claims::{Claims, InvalidClaims};
use super::crypto::fingerprint;
use super::grants::{GrantList, Grants, TokenFacts};
use super::settings::JidRule;
use crate::stream::Tenant;

/// The beginning of the subjects of addresses, in place of the issuer of a token. No issuer has such a name.
pub(super) const SUBJECTS: &str = "jid:";

/// Memory of the grants of addresses that are remembered, in bytes.
const REMEMBERED_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The rules of addresses.
#[derive(Debug)]
pub(super) struct JidRules {
    rules: Vec<(Tenant, JidRule)>,
    public: GrantList,
    /// The grants of addresses that have sent stanzas lately. The rules do not change while the gateway runs.
    remembered: Cache<Arc<str>, Arc<Grants>>,
}

impl JidRules {
    pub(super) fn new(rules: Vec<(Tenant, JidRule)>, public: GrantList) -> Self {
        let bytes = |jid: &Arc<str>, grants: &Arc<Grants>| jid.len() + grants.bytes();
        let remembered = Cache::builder()
            .max_capacity(REMEMBERED_BYTES_MAX)
            .weigher(move |jid, grants| u32::try_from(bytes(jid, grants)).unwrap_or(u32::MAX))
            .build();
        Self { rules, public, remembered }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Returns the grants of an address without its resource. If they do not stand, it may do what everybody may.
    pub(super) fn standing(
        &self,
        jid: &str,
        subject: impl FnOnce() -> u64,
        stands: impl FnOnce(&Grants) -> bool,
    ) -> Result<Arc<Grants>, InvalidClaims> {
        let grants = self.grants(jid, subject).inspect_err(|error| {
            tracing::debug!("a rule is not for the address {jid}: {error}");
        })?;
        if stands(&grants) {
            return Ok(grants);
        }
        let tenant = grants.tenant().clone();
        Ok(Arc::new(self.granting(jid, tenant, GrantList::default(), None)))
    }

    /// Returns what the rules grant: all matching ones of one tenant, which the first one sets, and the public streams. A revocation of
    /// `subject` ends it.
    fn grants(&self, jid: &str, subject: impl FnOnce() -> u64) -> Result<Arc<Grants>, InvalidClaims> {
        if let Some(remembered) = self.remembered.get(jid) {
            return Ok(remembered);
        }
        let (mut list, mut own) = (GrantList::default(), None);
        for (tenant, rule) in &self.rules {
            let Some(variable) = variable_of(&rule.matches, jid) else { continue };
            if *own.get_or_insert(tenant) == tenant {
                list.extend(&Claims::of_subject(variable).grants(&[rule.as_rule()], tenant)?);
            }
        }
        let tenant = own.cloned().unwrap_or_default();
        let facts = TokenFacts { key: key(), id: None, subject: subject(), issued_at: 0 };
        let grants = Arc::new(self.granting(jid, tenant, list, Some(facts)));
        self.remembered.insert(jid.into(), grants.clone());
        Ok(grants)
    }

    fn granting(&self, jid: &str, tenant: Tenant, mut list: GrantList, facts: Option<TokenFacts>) -> Grants {
        // Public streams are those of the default tenant.
        if tenant.is_default() {
            list.extend(&self.public);
        }
        Grants::of(tenant, &subject(jid), list, SystemTime::UNIX_EPOCH, facts).without_end()
    }
}

/// Stands for the key that has verified an address: that of the server is checked when the link is opened.
pub(super) fn key() -> u64 {
    fingerprint(&[SUBJECTS.as_bytes()])
}

/// The subject of an address.
pub(super) fn subject(jid: &str) -> String {
    format!("{SUBJECTS} {jid}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Action, authorize};
    use crate::stream::{Filter, StreamName};

    fn rule(matches: &str, tenant: Option<&str>, read: &str) -> (Tenant, JidRule) {
        let rule = JidRule { matches: matches.into(), read: vec![read.into()], ..JidRule::default() };
        (tenant.map_or_else(Tenant::default, |name| Tenant::parse(name).unwrap()), rule)
    }

    fn may_read(jid: &str, stream: &str) -> bool {
        let rules = [
            rule("*@example.org", None, "inbox/{sub}/#"),
            rule("alice@example.org", None, "news"),
            rule("*@acme.example", Some("acme"), "#"),
        ];
        let public = GrantList { read: vec![Filter::parse("public/#").unwrap()], ..GrantList::default() };
        let rules = JidRules::new(rules.into(), public);
        let Ok(grants) = rules.standing(jid, || 1, |_| true) else { return false };
        assert_eq!(rules.standing(jid, || 1, |_| true).unwrap(), grants, "they are remembered");
        let revoked = rules.standing(jid, || 1, |_| false).unwrap();
        assert_eq!((revoked.tenant(), revoked.principal()), (grants.tenant(), grants.principal()));
        for (text, expected) in
            [("public/x", grants.tenant().is_default()), ("inbox/alice/1", false), ("news", false)]
        {
            let name = StreamName::parse(text).unwrap().of_tenant(revoked.tenant());
            assert_eq!(authorize(&revoked, Action::Read, &name).is_ok(), expected, "{jid} reads {text}");
        }
        assert!(grants.principal().is_some() && grants.expires_at().is_none());
        let name = StreamName::parse(stream).unwrap().of_tenant(grants.tenant());
        authorize(&grants, Action::Read, &name).is_ok()
    }

    #[test]
    fn rules_are_for_addresses_and_domains() {
        for (jid, stream, expected) in [
            ("alice@example.org", "inbox/alice/1", true),
            ("alice@example.org", "inbox/bob/1", false),
            ("alice@example.org", "news", true),
            ("bob@example.org", "news", false),
            ("alice@example.org.evil", "inbox/alice/1", false),
            ("bob@acme.example", "anything", true),
            ("bob@acme.example", "public/x", true),
            ("eve@elsewhere.example", "public/x", true),
            ("eve@elsewhere.example", "news", false),
            // It is no level of a name.
            ("+@example.org", "inbox/alice/1", false),
        ] {
            assert_eq!(may_read(jid, stream), expected, "{jid} reads {stream}");
        }
    }
}
