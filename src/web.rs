//! What browsers get: a page that shows the ways of delivering side by side, and the JavaScript client.
//!
//! The files are part of the program, so nothing is read while it runs and nothing comes from elsewhere.

use std::hash::{DefaultHasher, Hasher};
use std::sync::LazyLock;

/// What the page may load, run and talk to: the gateway that it came from.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file and what is said of it.
#[derive(Debug)]
pub struct File {
    /// Where it is.
    path: &'static str,
    /// Its content type.
    pub content_type: &'static str,
    /// Its content.
    pub text: &'static str,
    /// Its `Content-Security-Policy`, if it is a page.
    pub policy: Option<&'static str>,
    /// Its entity tag, with quotes. It changes with the text.
    pub tag: String,
}

static FILES: LazyLock<[File; 5]> = LazyLock::new(|| {
    [
        File::new("/", "text/html; charset=utf-8", include_str!("web/index.html")),
        File::new("/page.js", "text/javascript; charset=utf-8", include_str!("web/page.js")),
        File::new("/page.css", "text/css; charset=utf-8", include_str!("web/page.css")),
        File::new("/pollgate.js", "text/javascript; charset=utf-8", include_str!("web/pollgate.js")),
        File::new(
            "/pollgate.d.ts",
            "application/typescript; charset=utf-8",
            include_str!("web/pollgate.d.ts"),
        ),
    ]
});

impl File {
    fn new(path: &'static str, content_type: &'static str, text: &'static str) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(text.as_bytes());
        let policy = content_type.starts_with("text/html").then_some(PAGE_POLICY);
        Self { path, content_type, text, policy, tag: format!("\"{:016x}\"", hasher.finish()) }
    }

    /// The file at a path.
    pub fn at(path: &str) -> Option<&'static Self> {
        FILES.iter().find(|file| file.path == path)
    }
}
