//! From the claims of a verified token to grants: the own claim `streams`, authorization details (RFC 9396), and the rules that the
//! settings have for an issuer that knows nothing of streams.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::grants::{Action, GrantList};
use super::settings::{Rule, TenantRule};
use crate::stream::{Filter, Tenant, is_literal_level};

/// The type of authorization details that grants streams (RFC 9396, section 2).
const DETAILS_TYPE: &str = "urn:pollgate:streams";

/// The claim with the tenant in the tokens of `pollgate token`.
const TENANT_CLAIM: &str = "tenant";

/// The longest life of a token: from `iat` to `exp`, or from now.
pub(super) const LIFE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How far the clocks of an issuer and of the gateway may differ.
pub(super) const LEEWAY: Duration = Duration::from_secs(30);

/// The most filters of one token.
const FILTERS_MAX: usize = 64;

/// The claims of a token that the gateway uses (RFC 7519, section 4).
#[derive(Debug, Default, Deserialize)]
pub(super) struct Claims {
    pub(super) sub: Option<String>,
    pub(super) jti: Option<String>,
    pub(super) exp: Option<f64>,
    pub(super) nbf: Option<f64>,
    pub(super) iat: Option<f64>,
    streams: Option<StreamsClaim>,
    authorization_details: Option<Vec<Value>>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// The claim `streams`: patterns for each action.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct StreamsClaim {
    read: Vec<String>,
    append: Vec<String>,
    create: Vec<String>,
    manage: Vec<String>,
}

/// One authorization detail of the type [`DETAILS_TYPE`].
#[derive(Debug, Deserialize)]
struct Detail {
    actions: Vec<String>,
    locations: Vec<String>,
}

/// Why claims give no grants. The texts tell the operator of the issuer what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidClaims {
    #[error("the pattern {0:?} is no filter of streams")]
    Pattern(String),
    #[error("the pattern {0:?} has a variable that is not a whole level, or an unknown one")]
    Variable(String),
    #[error(
        "the claim {0:?} names no tenant; a tenant is one level, and not the one of tokens without a tenant"
    )]
    Tenant(String),
    #[error(
        "the value of {0} cannot be a level of a name: it must have 1 to 64 bytes, no / + # and no leading $"
    )]
    Value(String),
    #[error("a token has at most {FILTERS_MAX} patterns")]
    TooMany,
    #[error(
        "an authorization detail of this gateway needs actions out of read, append, create, manage, and locations"
    )]
    Detail,
}

impl Claims {
    /// Claims that have nothing but a subject.
    pub(super) fn of_subject(subject: &str) -> Self {
        Self { sub: Some(subject.to_owned()), ..Self::default() }
    }

    /// The tenant that these claims put the client into. A claim that is to name it, and names none, refuses the token; otherwise it
    /// would belong to the default tenant.
    pub(super) fn tenant(&self, rule: &TenantRule) -> Result<Tenant, InvalidClaims> {
        let (claim, is_required) = match rule {
            TenantRule::Fixed(tenant) => return Ok(tenant.clone()),
            TenantRule::Claim(claim) => (claim.as_str(), true),
            TenantRule::Own => (TENANT_CLAIM, false),
        };
        let value = match claim {
            "sub" => self.sub.as_deref().map(Some),
            "jti" => self.jti.as_deref().map(Some),
            _ => self.others.get(claim).map(Value::as_str),
        };
        let Some(name) = value.or(is_required.then_some(None)) else { return Ok(Tenant::default()) };
        let tenant = name.and_then(|name| Tenant::parse(name).ok());
        // The default tenant is for issuers without tenants: nobody gets there by a name that they may have chosen.
        tenant.filter(|tenant| !tenant.is_default()).ok_or_else(|| InvalidClaims::Tenant(claim.to_owned()))
    }

    /// The grants of these claims in their tenant. One invalid pattern refuses the whole token, so that no mistake widens it.
    pub(super) fn grants(&self, rules: &[Rule], tenant: &Tenant) -> Result<GrantList, InvalidClaims> {
        let mut list = GrantList::default();
        if let Some(streams) = &self.streams {
            let of_each = [&streams.read, &streams.append, &streams.create, &streams.manage];
            for (action, patterns) in Action::ALL.into_iter().zip(of_each) {
                self.add(&mut list, action, patterns, tenant)?;
            }
        }
        for detail in self.authorization_details.iter().flatten() {
            // Details of other types are for other resources (RFC 9396, section 2).
            if detail.get("type").and_then(Value::as_str) != Some(DETAILS_TYPE) {
                continue;
            }
            let detail = Detail::deserialize(detail).map_err(|_| InvalidClaims::Detail)?;
            for name in &detail.actions {
                let action = Action::ALL.into_iter().find(|action| action.as_str() == name);
                self.add(&mut list, action.ok_or(InvalidClaims::Detail)?, &detail.locations, tenant)?;
            }
        }
        for rule in rules.iter().filter(|rule| self.has(&rule.claim, rule.contains.as_deref())) {
            let of_each = [&rule.read, &rule.append, &rule.create, &rule.manage];
            for (action, patterns) in Action::ALL.into_iter().zip(of_each) {
                self.add(&mut list, action, patterns, tenant)?;
            }
        }
        Ok(list)
    }

    fn add(
        &self,
        list: &mut GrantList,
        action: Action,
        patterns: &[String],
        tenant: &Tenant,
    ) -> Result<(), InvalidClaims> {
        for pattern in patterns {
            if list.len() >= FILTERS_MAX {
                return Err(InvalidClaims::TooMany);
            }
            let filter = self.filter(pattern, tenant)?;
            list.of_mut(action).push(filter);
        }
        Ok(())
    }

    /// Replaces the variables of a pattern, each of which has to be a whole level.
    fn filter(&self, pattern: &str, tenant: &Tenant) -> Result<Filter, InvalidClaims> {
        let invalid = || InvalidClaims::Pattern(pattern.to_owned());
        let mut levels = Vec::new();
        for level in pattern.split('/') {
            let variable = level.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            levels.push(match variable {
                Some("tenant") => tenant.as_str(),
                Some(variable) => self.value(variable, pattern)?,
                None if level.contains(['{', '}']) => {
                    return Err(InvalidClaims::Variable(pattern.to_owned()));
                }
                None => level,
            });
        }
        let filter = Filter::parse(&levels.join("/")).map_err(|_| invalid())?;
        // A text that matches no name, such as `a//b`, is a mistake of its author.
        if filter.exact().is_none() && !filter.has_wildcard() { Err(invalid()) } else { Ok(filter) }
    }

    /// The value of a variable, which becomes exactly one literal level.
    fn value(&self, variable: &str, pattern: &str) -> Result<&str, InvalidClaims> {
        let value = match variable {
            "sub" => self.sub.as_deref(),
            "claim:jti" => self.jti.as_deref(),
            _ => {
                let claim = variable.strip_prefix("claim:");
                let claim = claim.ok_or_else(|| InvalidClaims::Variable(pattern.to_owned()))?;
                self.others.get(claim).and_then(Value::as_str)
            }
        };
        value
            .filter(|value| is_literal_level(value))
            .ok_or_else(|| InvalidClaims::Value(format!("{{{variable}}}")))
    }

    /// Whether a claim contains a word: as a list of texts, or as a text of words that spaces separate, as `scope` is (RFC 8693,
    /// section 4.2). Without a word: whether the claim exists.
    fn has(&self, claim: &str, word: Option<&str>) -> bool {
        let value =
            if claim == "sub" { self.sub.clone().map(Value::from) } else { self.others.get(claim).cloned() };
        let (Some(value), Some(word)) = (&value, word) else { return value.is_some() };
        match value {
            Value::String(words) => words.split(' ').any(|own| own == word),
            Value::Array(words) => words.iter().any(|own| own.as_str() == Some(word)),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn grants(claims: Value, rules: &[Rule]) -> Result<Vec<(Action, String)>, InvalidClaims> {
        let list = Claims::deserialize(claims).unwrap().grants(rules, &Tenant::default())?;
        let of = |action| list.of(action).iter().map(move |filter| (action, filter.to_string()));
        Ok(Action::ALL.into_iter().flat_map(of).collect())
    }

    fn read(claims: Value) -> Result<Vec<String>, InvalidClaims> {
        Ok(grants(claims, &[])?.into_iter().map(|(_, filter)| filter).collect())
    }

    #[test]
    fn the_own_claim_and_authorization_details_give_the_same_grants() {
        let expected =
            Ok(vec![(Action::Read, "news/#".to_owned()), (Action::Append, "inbox/+/in".to_owned())]);
        assert_eq!(grants(json!({"streams": {"read": ["news/#"], "append": ["inbox/+/in"]}}), &[]), expected);
        let details = json!({"authorization_details": [
            {"type": "urn:pollgate:streams", "actions": ["read"], "locations": ["news/#"]},
            {"type": "payment", "amount": 3},
            {"type": "urn:pollgate:streams", "actions": ["append"], "locations": ["inbox/+/in"]},
        ]});
        assert_eq!(grants(details, &[]), expected);
    }

    #[test]
    fn a_variable_is_one_literal_level() {
        let claims = |pattern: &str| json!({"sub": "anna", "room": "7", "streams": {"read": [pattern]}});
        assert_eq!(read(claims("inbox/{sub}/+")), Ok(vec!["inbox/anna/+".to_owned()]));
        assert_eq!(read(claims("rooms/{claim:room}")), Ok(vec!["rooms/7".to_owned()]));
        for pattern in ["inbox/x-{sub}", "inbox/{other}", "inbox/{sub", "{claim:sub}", "{claim:absent}"] {
            assert!(read(claims(pattern)).is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_value_that_is_more_than_one_level_refuses_the_token() {
        for sub in ["#", "+", "a/b", "", ".", "..", "$auth", "a\0", &"x".repeat(65)] {
            let claims = json!({"sub": sub, "streams": {"read": ["inbox/{sub}"]}});
            assert_eq!(read(claims), Err(InvalidClaims::Value("{sub}".to_owned())), "{sub:?}");
        }
        assert!(read(json!({"streams": {"read": ["inbox/{sub}"]}})).is_err(), "no sub at all");
    }

    #[test]
    fn the_tenant_comes_from_the_rule_of_the_issuer_and_a_claim_that_names_none_refuses_the_token() {
        let tenant = |claims: &Value, rule: &TenantRule| {
            let tenant = Claims::deserialize(claims).unwrap().tenant(rule);
            tenant.map(|tenant| tenant.to_string()).map_err(|_| ())
        };
        let fixed = TenantRule::Fixed(Tenant::parse("acme").unwrap());
        let of_claim = TenantRule::Claim("org".to_owned());
        assert_eq!(tenant(&json!({"org": "beta", "tenant": "beta"}), &fixed), Ok("acme".to_owned()));
        assert_eq!(tenant(&json!({"org": "beta", "tenant": "acme"}), &of_claim), Ok("beta".to_owned()));
        assert_eq!(
            tenant(&json!({"org": "beta", "tenant": "acme"}), &TenantRule::Own),
            Ok("acme".to_owned())
        );
        assert_eq!(tenant(&json!({"sub": "s"}), &TenantRule::Claim("sub".to_owned())), Ok("s".to_owned()));
        assert_eq!(tenant(&json!({}), &TenantRule::Own), Ok("default".to_owned()));
        assert_eq!(tenant(&json!({"tenant": "beta"}), &of_claim), Err(()), "no claim");
        for value in [
            json!("#"),
            json!("+"),
            json!("a/b"),
            json!(""),
            json!("$tenant"),
            json!("a\0"),
            json!("x".repeat(65)),
            json!("default"),
            json!(["acme"]),
            json!(7),
            json!(null),
        ] {
            let claims = json!({"org": value, "tenant": value});
            assert_eq!(tenant(&claims, &of_claim), Err(()), "{value}");
            assert_eq!(tenant(&claims, &TenantRule::Own), Err(()), "{value}");
        }
    }

    #[test]
    fn the_variable_tenant_is_the_tenants_name_and_no_claim() {
        let claims = json!({"tenant": "x", "streams": {"read": ["orgs/{tenant}/#"]}});
        let claims = Claims::deserialize(claims).unwrap();
        for name in ["acme", "default"] {
            let list = claims.grants(&[], &Tenant::parse(name).unwrap()).unwrap();
            assert_eq!(list.of(Action::Read)[0].as_str(), format!("orgs/{name}/#"));
        }
    }

    #[test]
    fn one_invalid_part_refuses_the_whole_token() {
        for claims in [
            json!({"streams": {"read": ["news/#", "a/#/b"]}}),
            json!({"streams": {"read": ["a//b"]}}),
            json!({"streams": {"read": [""]}}),
            json!({"authorization_details": [{"type": "urn:pollgate:streams", "actions": ["write"], "locations": ["a"]}]}),
            json!({"authorization_details": [{"type": "urn:pollgate:streams", "locations": ["a"]}]}),
            json!({"streams": {"read": vec!["a"; 40], "append": vec!["a"; 40]}}),
        ] {
            assert!(grants(claims.clone(), &[]).is_err(), "{claims}");
        }
    }

    #[test]
    fn a_rule_applies_if_the_claim_contains_its_word() {
        let rule = Rule {
            claim: "scope".into(),
            contains: Some("chat".into()),
            read: vec!["chat/#".into()],
            ..Rule::default()
        };
        for (claims, expected) in [
            (json!({"scope": "openid chat"}), true),
            (json!({"scope": ["chat"]}), true),
            (json!({"scope": "chatter"}), false),
            (json!({"scope": {"chat": true}}), false),
            (json!({}), false),
        ] {
            let granted = grants(claims.clone(), std::slice::from_ref(&rule)).unwrap();
            assert_eq!(!granted.is_empty(), expected, "{claims}");
        }
        let any = Rule {
            claim: "sub".into(),
            contains: None,
            append: vec!["inbox/{sub}".into()],
            ..Rule::default()
        };
        assert_eq!(grants(json!({"sub": "a"}), &[any]), Ok(vec![(Action::Append, "inbox/a".to_owned())]));
    }
}
