//! Which origins a browser's page may open WebSockets from. They are not held back by CORS, so somebody has to ask
//! (RFC 6455, section 10.2).

/// Allowed origins besides the gateway's own host.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    allowed: Vec<String>,
}

impl Origins {
    /// Origins such as `https://example.com`; `*` is any.
    pub fn new(allowed: Vec<String>) -> Self {
        Self { allowed }
    }

    /// Whether a page of `origin` may connect to `host`. A client that names no origin is no browser.
    pub(super) fn allow(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        let same_host = authority.is_some() && authority == host;
        same_host || self.allowed.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_host_the_list_and_those_who_are_no_browser() {
        let origins = Origins::new(vec!["https://app.example".into()]);
        let host = Some("gate.example:4437");
        for (origin, allowed) in [
            (None, true),
            (Some("http://gate.example:4437"), true),
            (Some("https://app.example"), true),
            (Some("HTTPS://APP.example"), true),
            (Some("http://gate.example"), false),
            (Some("https://evil.example"), false),
            (Some("null"), false),
        ] {
            assert_eq!(origins.allow(origin, host), allowed, "{origin:?}");
        }
        assert!(Origins::new(vec!["*".into()]).allow(Some("null"), host));
        assert!(!Origins::default().allow(Some("null"), None));
    }
}
