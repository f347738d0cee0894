//! Addresses of XMPP: what their owners may do. The server that sends a stanza through a component's link vouches for its address.

use std::time::SystemTime;

use super::certificates::variable_of;
use super::claims::{Claims, InvalidClaims};
use super::grants::{GrantList, Grants};
use super::settings::JidRule;
use crate::stream::Tenant;

/// The beginning of the subjects of addresses, in place of the issuer of a token. No issuer has such a name.
pub(super) const SUBJECTS: &str = "jid:";

/// Returns the grants of an address without its resource: those of all matching rules of one tenant, which the first one sets, and
/// the public ones.
pub(super) fn grants(
    jid: &str,
    rules: &[(Tenant, JidRule)],
    public: &GrantList,
) -> Result<Grants, InvalidClaims> {
    let (mut list, mut own) = (GrantList::default(), None);
    for (tenant, rule) in rules {
        let Some(variable) = variable_of(&rule.matches, jid) else { continue };
        if *own.get_or_insert(tenant) == tenant {
            list.extend(&Claims::of_subject(variable).grants(&[rule.as_rule()], tenant)?);
        }
    }
    let tenant = own.cloned().unwrap_or_default();
    // Public streams are those of the default tenant.
    if tenant.is_default() {
        list.extend(public);
    }
    let subject = subject(jid);
    Ok(Grants::of(tenant, &subject, list, SystemTime::UNIX_EPOCH, None).without_end())
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
        let Ok(grants) = grants(jid, &rules, &public) else { return false };
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
