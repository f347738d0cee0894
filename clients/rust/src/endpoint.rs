//! The gateway as a client is configured for it: its address, and the header fields that each request carries.

use hyper::header::HOST;
use hyper::http::request::Builder;
use hyper::{Method, Request};

use crate::connector::Connector;
use crate::credentials::Credentials;
use crate::origin::Origin;
use crate::tls::Tls;

/// Where requests go, and what each of them carries.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) origin: Origin,
    /// For `https`.
    pub(crate) tls: Option<Tls>,
    pub(crate) credentials: Credentials,
    /// Opens the connections, if the client does not.
    pub(crate) connector: Option<Connector>,
}

impl Endpoint {
    /// Begins a request with the fields that all requests have.
    pub(crate) fn request(&self, method: Method, target: String) -> Builder {
        let mut request = Request::builder().method(method).uri(target).header(HOST, &self.origin.authority);
        if let Some(headers) = request.headers_mut() {
            self.credentials.put_into(headers);
        }
        request
    }
}
