//! `GET /v1/names?prefix=…&after=…`: the names of streams that the client may read, each with its tail, in the order of the names. Edges find
//! the streams of wildcard filters by it ([`Upstream`](crate::store::Upstream)).
//!
//! A response has the result of one page of the store, so it may have no names and still be followed by another one.

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use serde_json::json;

use super::answer;
use super::credentials::Rights;
use super::error::Error;
use super::gateway::Gateway;
use super::target::{Parameter, Parameters, Query};
use crate::auth::Action;
use crate::http::conn::Body;
use crate::stream::{ChangeError, Offset, StreamName, Tenant};

/// The path of the names.
pub(super) const NAMES_PATH: &str = "/v1/names";

pub(super) const NAMES_METHODS: &str = "GET, OPTIONS";

/// A request for names.
pub(in crate::http) struct NamesRequest {
    prefix: String,
    after: Option<StreamName>,
    /// `None`: every client may read all streams.
    pub(super) rights: Option<Rights>,
}

impl NamesRequest {
    pub(super) fn parse(head: &Parts) -> Result<Self, Error> {
        let query = Query::parse(head.uri.query())?;
        let after = query.get(Parameter::After).map(StreamName::parse).transpose().map_err(Error::Name)?;
        Ok(Self { prefix: query.get(Parameter::Prefix).unwrap_or_default().to_owned(), after, rights: None })
    }

    /// Whether the client may know of a stream. Those of the gateway itself are only listed if the prefix asks for them.
    fn may_know(&self, name: &StreamName) -> bool {
        let is_asked_for = !name.local().starts_with('$') || self.prefix.starts_with('$');
        is_asked_for && self.rights.as_ref().is_none_or(|rights| rights.check(Action::Read, name).is_ok())
    }
}

impl Gateway {
    pub(super) async fn names(&self, request: &NamesRequest) -> Result<Response<Body>, Error> {
        let tenant =
            request.rights.as_ref().map_or_else(Tenant::default, |rights| rights.grants().tenant().clone());
        let prefix = [tenant.prefix(), &request.prefix].concat();
        let after = request.after.as_ref().map(|after| after.clone().of_tenant(&tenant));
        let page = self.hub.page_of_names(&prefix, after.as_ref()).await.map_err(ChangeError::Failed)?;
        let known = page.streams.iter().filter(|(name, _)| name.tenant() == tenant && request.may_know(name));
        let shown =
            |(name, tail): &(StreamName, Offset)| json!({"stream": name.local(), "tail": tail.to_string()});
        let names: Vec<_> = known.map(shown).collect();
        let body = json!({"streams": names, "next": page.next.as_ref().map(StreamName::local)});
        let mut answer: Response<Body> = answer::uncached(StatusCode::OK);
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        *answer.body_mut() = Body::full((body.to_string() + "\n").into());
        Ok(answer)
    }
}
