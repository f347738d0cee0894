//! Tenants: each has streams of its own, whatever their names.
//!
//! In the hub and in the store, the name of a tenant's stream begins with `$tenant/NAME/`, which no client can type: a front adds it
//! once, when it admits a request, and what clients are shown has lost it again ([`StreamName::local`](super::StreamName::local)).
//! Streams of the tenant `default` have their names alone.

use std::fmt;
use std::sync::Arc;

/// The first level of the names of all tenants' streams but those of the default tenant.
pub const TENANTS: &str = "$tenant";

/// The name of the tenant of clients that have none.
const DEFAULT: &str = "default";

/// The longest level that a claim may become, in bytes.
const LEVEL_BYTES_MAX: usize = 64;

/// The longest [prefix](Tenant::prefix), in bytes.
pub(super) const TENANT_PREFIX_BYTES_MAX: usize = TENANTS.len() + LEVEL_BYTES_MAX + 2;

/// A tenant. Cheap to clone.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant {
    /// What the names of its streams begin with; `None` for the default tenant.
    prefix: Option<Arc<str>>,
}

/// The text cannot be the name of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidTenant;

impl Tenant {
    /// Parses the name of a tenant, which is one literal level of at most 64 bytes.
    pub fn parse(name: &str) -> Result<Self, InvalidTenant> {
        match name {
            DEFAULT => Ok(Self::default()),
            _ if is_literal_level(name) => Ok(Self { prefix: Some(format!("{TENANTS}/{name}/").into()) }),
            _ => Err(InvalidTenant),
        }
    }

    /// The tenant that a name of the hub, or a filter of such names, belongs to.
    pub fn of(text: &str) -> Self {
        let (prefix, _) = split_tenant(text);
        Self { prefix: (!prefix.is_empty()).then(|| prefix.into()) }
    }

    /// Whether this is the tenant of clients that have none.
    pub fn is_default(&self) -> bool {
        self.prefix.is_none()
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        self.prefix
            .as_ref()
            .map_or(DEFAULT, |prefix| prefix.get(TENANTS.len() + 1..prefix.len() - 1).unwrap_or_default())
    }

    /// What the names of its streams begin with; empty for the default tenant.
    pub fn prefix(&self) -> &str {
        self.prefix.as_deref().unwrap_or_default()
    }
}

/// Splits a name of the hub, or a filter of such names, into the prefix of its tenant and the rest. The prefix is empty for the
/// default tenant.
pub fn split_tenant(text: &str) -> (&str, &str) {
    let tenant = text.strip_prefix(TENANTS).and_then(|rest| rest.strip_prefix('/'));
    match tenant.and_then(|rest| rest.find('/')) {
        Some(length) => text.split_at(TENANTS.len() + length + 2),
        None => ("", text),
    }
}

/// Whether a text can stand for one level of a filter or of a name, and for nothing else.
pub fn is_literal_level(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= LEVEL_BYTES_MAX
        && !text.contains(['/', '+', '#'])
        && !text.starts_with('$')
        && !text.chars().any(char::is_control)
        && !matches!(text, "." | "..")
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for InvalidTenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tenant is one level of at most 64 bytes, without / + # and without a leading $")
    }
}

impl std::error::Error for InvalidTenant {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{Filter, StreamName};

    fn tenant(name: &str) -> Tenant {
        Tenant::parse(name).unwrap()
    }

    fn name(text: &str) -> StreamName {
        StreamName::parse(text).unwrap()
    }

    #[test]
    fn a_tenant_is_one_literal_level() {
        for text in ["acme", "a.b", "Über", "%2F", &"x".repeat(64)] {
            assert_eq!(tenant(text).as_str(), text);
            assert!(!tenant(text).is_default());
        }
        for text in ["", "a/b", "a+", "#", "$x", ".", "..", "a\0", "a\u{1e}b", &"x".repeat(65)] {
            assert_eq!(Tenant::parse(text), Err(InvalidTenant), "{text:?}");
        }
        assert_eq!((tenant("default"), tenant("default").as_str()), (Tenant::default(), "default"));
    }

    #[test]
    fn a_name_and_its_tenant_are_found_from_the_name_of_the_hub() {
        for (of, local, hub) in [
            ("default", "a/b", "a/b"),
            ("acme", "a/b", "$tenant/acme/a/b"),
            ("acme", "$SYS/x", "$tenant/acme/$SYS/x"),
            ("a", "$tenant/b/c", "$tenant/a/$tenant/b/c"),
        ] {
            let in_hub = name(local).of_tenant(&tenant(of));
            assert_eq!((in_hub.as_str(), in_hub.local(), in_hub.tenant()), (hub, local, tenant(of)));
            assert_eq!(in_hub.topic().as_deref(), Some(local));
        }
        for incomplete in ["$tenant", "$tenant/acme", "$tenants/acme/a"] {
            assert_eq!(
                (name(incomplete).local(), name(incomplete).tenant()),
                (incomplete, Tenant::default())
            );
        }
        let longest = StreamName::of_topic(&"/".repeat(199)).unwrap().of_tenant(&tenant(&"x".repeat(64)));
        assert_eq!(StreamName::stored(longest.as_str()), Ok(longest));
    }

    /// Whatever a filter matches in a tenant is what it matches of the default tenant's names, and nothing of another tenant.
    #[test]
    fn a_filter_of_a_tenant_matches_its_names_as_it_matches_the_same_names_without_tenants() {
        let filters =
            ["#", "+", "a", "+/b", "a/#", "a/+", "+/#", "$SYS/#", "$tenant/a/#", "$tenant/#", "+/acme/#"];
        let names = ["a", "a/b", "b/b", "$SYS/x", "$SYS", "acme", "x/acme/a"].map(name);
        let tenants = ["default", "acme", "acme2", "a"].map(tenant);
        for text in filters {
            let filter = Filter::parse(text).unwrap();
            for of in &tenants {
                // The front refuses such a filter of the default tenant, see `auth::authorize_filter`.
                if of.is_default() && text.starts_with("$tenant/") {
                    continue;
                }
                let own = filter.of_tenant(of);
                for in_tenant in &tenants {
                    for name in &names {
                        let expected = of == in_tenant && filter.matches(name);
                        let name = name.clone().of_tenant(in_tenant);
                        let is_prefix = name.as_str().starts_with(own.prefix());
                        assert_eq!(own.matches(&name), expected, "{own} and {name}");
                        assert!(is_prefix || !expected, "{own} and {name}");
                    }
                }
                let not_typed = |text: &&str| !text.starts_with("$tenant/");
                for other in filters.into_iter().filter(not_typed).map(|text| Filter::parse(text).unwrap()) {
                    let covers = own.covers(&other.of_tenant(of));
                    assert_eq!(covers, filter.covers(&other), "{own} and {other}");
                    assert!(!own.covers(&other.of_tenant(&tenant("other"))), "{own} and {other}");
                }
            }
        }
        assert_eq!(Filter::parse("#").unwrap().of_tenant(&tenant("a")).prefix(), "$tenant/a/");
    }
}
