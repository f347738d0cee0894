//! The paths of the gateway's resources, as the OpenAPI description has them. No other path is routed, and a test compares them with the
//! description, so that a resource cannot be added without being described.

use super::files::File;

/// The paths of resources besides files. `{…}` stands for a segment, `{stream}` at the end for one or more, of which
/// the first is not the one that the protocol reserves.
const PATHS: [&str; 19] = [
    "/v1/stream/{stream}",
    "/v1/streams",
    "/v1/names",
    "/v1/ticket",
    "/v1/cookie",
    "/v1/devices",
    "/v1/devices/{device}",
    "/v1/devices/{device}/wake",
    "/v1/stream/__ds/jwks.json",
    "/v1/stream/__ds/subscriptions/{subscription}",
    "/v1/stream/__ds/subscriptions/{subscription}/streams",
    "/v1/stream/__ds/subscriptions/{subscription}/streams/{stream}",
    "/v1/stream/__ds/subscriptions/{subscription}/claim",
    "/v1/stream/__ds/subscriptions/{subscription}/ack",
    "/v1/stream/__ds/subscriptions/{subscription}/callback",
    "/v1/stream/__ds/subscriptions/{subscription}/release",
    "/mqtt",
    "/v1/xmpp",
    "/v1/bosh",
];

/// Whether there may be a resource at a path. `*` is the server as a whole.
pub(super) fn has(path: &str) -> bool {
    path == "*" || PATHS.iter().any(|template| matches(template, path)) || File::at(path).is_some()
}

fn matches(template: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    for part in template.split('/') {
        match segments.next() {
            Some(segment) if part == "{stream}" => return segment != "__ds",
            Some(segment) if part.starts_with('{') || part == segment => {}
            _ => return false,
        }
    }
    segments.next().is_none()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::stream::Shortage;

    fn description() -> Value {
        serde_json::from_str(include_str!("../../web/openapi.json")).unwrap()
    }

    #[test]
    fn each_resource_is_described() {
        let description = description();
        let described = description["paths"].as_object().unwrap().keys().map(String::as_str);
        let described: BTreeSet<_> = described.filter(|path| File::at(path).is_none()).collect();
        assert_eq!(described, BTreeSet::from(PATHS));
    }

    #[test]
    fn each_problem_type_is_described() {
        let description = description();
        let kinds = description["components"]["schemas"]["Problem"]["properties"]["type"]["enum"].as_array();
        let described: BTreeSet<_> = kinds.unwrap().iter().map(|kind| kind.as_str().unwrap()).collect();
        // In the mapping of errors, each type stands behind a status.
        let literals = include_str!("error/problem.rs").split("(StatusCode::").skip(1).filter_map(|rest| {
            let (_status, literal) = rest.split_once(", \"")?;
            literal.split_once("\")").map(|(kind, _)| kind)
        });
        let kinds = literals.chain(Shortage::ALL.into_iter().map(Shortage::as_str));
        let kinds: BTreeSet<_> = kinds.map(|kind| format!("urn:pollgate:{kind}")).collect();
        assert_eq!(described, kinds.iter().map(String::as_str).collect());
    }

    #[test]
    fn a_resource_is_found_by_the_segments_of_its_path() {
        for path in
            ["/", "*", "/v1/streams", "/v1/stream/a/b", "/v1/stream/", "/v1/devices/a/wake", "/page.js"]
        {
            assert!(has(path), "{path}");
        }
        for path in
            ["", "/v1", "/v1/stream", "/v1/streams/a", "/v1/devices/a/b", "/v1/stream/__ds/a", "/favicon.ico"]
        {
            assert!(!has(path), "{path}");
        }
    }
}
