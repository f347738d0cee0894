//! Files: the page that shows the delivery forms side by side, the JavaScript client, the dashboard, and the descriptions of the API. They are
//! compiled into the binary. The client is the npm package in `clients/js`, with the modules at the same relative paths.

use std::hash::{DefaultHasher, Hasher};
use std::sync::LazyLock;

use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use super::answer;
use super::error::Error;
use super::fields;
use crate::http::conn::Body;
use crate::http::conn::bare;

/// The `Content-Security-Policy` of the page: it may load, run and connect to nothing but the gateway that served it.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file and the header fields of its response.
#[derive(Debug)]
pub(in crate::http) struct File {
    /// The path of its URL.
    path: &'static str,
    /// The content type.
    content_type: &'static str,
    /// The content.
    text: &'static str,
    /// The `Content-Security-Policy` of a page; `None` for other files.
    policy: Option<&'static str>,
    /// The entity tag, with quotes: a hash of the text.
    tag: String,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const JSON: &str = "application/json";
const TYPESCRIPT: &str = "application/typescript; charset=utf-8";

/// A module that `pollgate.js` imports.
macro_rules! client_module {
    ($name:literal) => {
        File::new(
            concat!("/pollgate/", $name, ".js"),
            JAVASCRIPT,
            include_str!(concat!("../../../clients/js/src/pollgate/", $name, ".js")),
        )
    };
}

static FILES: LazyLock<[File; 26]> = LazyLock::new(|| {
    [
        File::new("/", HTML, include_str!("../../web/index.html")),
        File::new("/openapi.json", JSON, include_str!("../../web/openapi.json")),
        File::new("/asyncapi.json", JSON, include_str!("../../web/asyncapi.json")),
        File::new("/page.js", JAVASCRIPT, include_str!("../../web/page.js")),
        File::new("/mqtt.js", JAVASCRIPT, include_str!("../../web/mqtt.js")),
        File::new("/sleep.js", JAVASCRIPT, include_str!("../../web/sleep.js")),
        File::new("/wake.js", JAVASCRIPT, include_str!("../../web/wake.js")),
        File::new("/page.css", CSS, include_str!("../../web/page.css")),
        File::new("/pollgate.d.ts", TYPESCRIPT, include_str!("../../../clients/js/pollgate.d.ts")),
        File::new("/pollgate.js", JAVASCRIPT, include_str!("../../../clients/js/src/pollgate.js")),
        client_module!("devices"),
        client_module!("fallback"),
        client_module!("forms"),
        client_module!("http"),
        client_module!("memory-store"),
        client_module!("network-memory"),
        client_module!("platform"),
        client_module!("policy"),
        client_module!("publisher"),
        client_module!("reader"),
        client_module!("settings"),
        client_module!("shared-connection"),
        client_module!("shared-position"),
        client_module!("subscription"),
        client_module!("tabs"),
        client_module!("unpack"),
    ]
});

/// The dashboard, which the admin listener serves.
static DASHBOARD: LazyLock<[File; 4]> = LazyLock::new(|| {
    let page = |path| File::new(path, HTML, include_str!("../../web/dashboard.html"));
    [
        page("/"),
        page("/dashboard"),
        File::new("/dashboard.css", CSS, include_str!("../../web/dashboard.css")),
        File::new("/dashboard.js", JAVASCRIPT, include_str!("../../web/dashboard.js")),
    ]
});

impl File {
    fn new(path: &'static str, content_type: &'static str, text: &'static str) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(text.as_bytes());
        let policy = content_type.starts_with("text/html").then_some(PAGE_POLICY);
        Self { path, content_type, text, policy, tag: format!("\"{:016x}\"", hasher.finish()) }
    }

    /// Returns the file at a path.
    pub(in crate::http) fn at(path: &str) -> Option<&'static Self> {
        FILES.iter().find(|file| file.path == path)
    }

    /// Returns the file of the dashboard at a path.
    pub(super) fn of_dashboard(path: &str) -> Option<&'static Self> {
        DASHBOARD.iter().find(|file| file.path == path)
    }
}

/// The methods of a file.
pub(super) const FILE_METHODS: &str = "GET, HEAD, OPTIONS";

/// A request for a file.
#[derive(Debug)]
pub(in crate::http) struct GetFile {
    file: &'static File,
    if_none_match: Option<String>,
}

impl GetFile {
    pub(in crate::http) fn parse(file: &'static File, head: &Parts) -> Result<Self, Error> {
        if head.method != Method::GET && head.method != Method::HEAD {
            return Err(Error::MethodNotAllowed { allowed: FILE_METHODS });
        }
        let if_none_match = fields::list(&head.headers, &IF_NONE_MATCH);
        Ok(Self { file, if_none_match })
    }

    /// Returns the file, or 304. Caches have to revalidate it each time, so that page and client always match the gateway.
    pub(in crate::http) fn answer(self) -> Response<Body> {
        let Self { file, if_none_match } = self;
        let known = if_none_match.is_some_and(|tags| answer::matches(&tags, file.tag.as_bytes()));
        let mut answer = match known {
            true => bare(StatusCode::NOT_MODIFIED, Body::empty()),
            false => bare(StatusCode::OK, Body::full(file.text.into())),
        };
        let headers = answer.headers_mut();
        headers.insert(ETAG, fields::value(&file.tag));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(file.content_type));
        if let Some(policy) = file.policy {
            headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
        }
        answer::secure(headers);
        answer
    }
}
