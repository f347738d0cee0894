//! The stored form of rights, for a client that goes on at another gateway or after a restart without sending its credentials again.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{Action, GrantList, Grants, Scope, TokenFacts};
use crate::stream::{Filter, Tenant};

/// The rights of a client with a subject. The record has no token, so nobody can log in with it.
#[derive(Serialize, Deserialize)]
struct GrantsRecord {
    tenant: String,
    /// With the prefix of the tenant.
    subject: String,
    /// The filters of each action, as the hub has them.
    filters: [Vec<String>; Action::ALL.len()],
    expires_at: Option<SystemTime>,
    token: Option<TokenFacts>,
}

impl Grants {
    /// Serializes the rights for a store that does not interpret them. `None`: the client has no credentials, so that its rights are those
    /// of all such clients.
    pub fn to_bytes(&self) -> Option<Box<[u8]>> {
        let (Scope::Listed(list), Some(subject)) = (&self.scope, self.subject()) else { return None };
        let texts = |action| list.of(action).iter().map(|filter| filter.as_str().to_owned()).collect();
        let record = GrantsRecord {
            tenant: self.tenant.as_str().to_owned(),
            subject: subject.to_owned(),
            filters: Action::ALL.map(texts),
            expires_at: self.expires_at,
            token: self.token,
        };
        postcard::to_allocvec(&record).ok().map(Vec::into_boxed_slice)
    }

    /// Reads what [`to_bytes`](Self::to_bytes) returned. `None`: it is damaged. Whether the rights still count is another matter.
    pub(in crate::auth) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let GrantsRecord { tenant, subject, filters, expires_at, token } =
            postcard::from_bytes(bytes).ok()?;
        let mut list = GrantList::default();
        for (action, texts) in Action::ALL.into_iter().zip(&filters) {
            *list.of_mut(action) =
                texts.iter().map(|text| Filter::parse(text)).collect::<Result<_, _>>().ok()?;
        }
        let (tenant, scope) = (Tenant::parse(&tenant).ok()?, Scope::Listed(list));
        let grants = Self { tenant, scope, subject: None, principal: None, expires_at, token };
        Some(grants.of_subject(&subject))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rights_are_the_same_after_they_were_stored() {
        let filters = |texts: &[&str]| texts.iter().map(|text| Filter::parse(text).unwrap()).collect();
        let list =
            GrantList { read: filters(&["a/#", "$SYS/+"]), append: filters(&["b"]), ..GrantList::default() };
        let token = TokenFacts { key: 1, id: Some(2), subject: 3, issued_at: 4 };
        let expires_at = SystemTime::UNIX_EPOCH + Duration::from_millis(12_345);
        for tenant in [Tenant::default(), Tenant::parse("acme").unwrap()] {
            let grants = Grants::of(tenant, "anna", list.clone(), expires_at, Some(token));
            assert_eq!(Grants::from_bytes(&grants.to_bytes().unwrap()), Some(grants.clone()));
            let user = grants.without_end();
            assert_eq!(Grants::from_bytes(&user.to_bytes().unwrap()), Some(user));
        }
        assert_eq!(Grants::everything().to_bytes(), None);
        assert_eq!(Grants::anonymous(list).to_bytes(), None);
        assert_eq!(Grants::from_bytes(b"\x01"), None);
    }
}
