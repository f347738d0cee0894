//! [`Parent`]: the requests of an edge to its parent, one for each step that the edge does not do itself.
//!
//! No request is repeated after it may have arrived: the parent would append twice what has no producer.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::{BufMut, Bytes, BytesMut};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::access::UpstreamAccess;
use super::answer::{
    ParentPage, appended, change_error, create_error, created, description, names, page, read_error,
};
use crate::clock::rfc3339;
use crate::http_client::{AddressPolicy, Destination, ExchangeLimits, HttpClient};
use crate::metrics::UpstreamMetrics;
use crate::stream::{
    Append, AppendError, AppendType, Appended, ChangeError, ContentType, Create, CreateError, Created,
    Description, Failure, Lifetime, Payload, ReadError, Start, StreamName, StreamPage, Tenant, split_tenant,
};

/// Connections to the parent for single requests. Further requests wait.
const CONNECTIONS_MAX: usize = 64;

/// How long a request may take, from the connection to the last byte.
const EXCHANGE_TIME: Duration = Duration::from_secs(30);

/// Room in a response besides its messages.
const FRAMING_BYTES: usize = 64 * 1024;

/// Characters that are escaped in the path of a stream.
const RESERVED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// The parent of an edge.
pub(super) struct Parent {
    client: HttpClient,
    destination: Destination,
    limits: ExchangeLimits,
    /// The tokens of the requests.
    pub(super) access: UpstreamAccess,
    /// Whether the last request was answered.
    is_reachable: AtomicBool,
    metrics: UpstreamMetrics,
}

impl Parent {
    /// A parent whose responses have at most `body_bytes_max` bytes of messages.
    pub(super) fn new(
        destination: Destination,
        access: UpstreamAccess,
        body_bytes_max: usize,
        metrics: UpstreamMetrics,
    ) -> Self {
        Self {
            // The operator has named the destination, so the policy for URLs of clients does not apply to it.
            client: HttpClient::new(AddressPolicy::default(), CONNECTIONS_MAX),
            destination,
            limits: ExchangeLimits {
                time: EXCHANGE_TIME,
                body_bytes_max: body_bytes_max.saturating_add(FRAMING_BYTES),
            },
            access,
            // Until a request fails.
            is_reachable: AtomicBool::new(true),
            metrics,
        }
    }

    /// Whether the last request was answered.
    pub(super) fn is_reachable(&self) -> bool {
        self.is_reachable.load(Ordering::Relaxed)
    }

    /// Asks for the methods of a resource, to learn whether the parent is reachable.
    pub(super) async fn probe(&self) {
        let (target, fields) = ("/v1/streams".to_owned(), HeaderMap::new());
        let _answered = self.send(&Tenant::default(), Method::OPTIONS, target, fields, Bytes::new()).await;
    }

    /// Reads from `start` on without waiting, with the boundaries of appends.
    pub(super) async fn read(
        &self,
        name: &StreamName,
        start: Start,
        now: SystemTime,
    ) -> Result<ParentPage, ReadError> {
        let target = format!("{}?offset={}&lengths=1", path_of(name), text_of(start));
        self.metrics.asked("read");
        let tenant = name.tenant();
        let response = self.send(&tenant, Method::GET, target, HeaderMap::new(), Bytes::new()).await?;
        match response.status() {
            StatusCode::OK => Ok(page(&response, start, now).ok_or(Failure::Unreachable)?),
            _ => Err(read_error(&response)),
        }
    }

    /// Returns the metadata of a stream.
    pub(super) async fn describe(&self, name: &StreamName) -> Result<Description, ChangeError> {
        self.metrics.asked("describe");
        let (tenant, fields) = (name.tenant(), HeaderMap::new());
        let response = self.send(&tenant, Method::HEAD, path_of(name), fields, Bytes::new()).await?;
        match response.status() {
            StatusCode::OK => Ok(description(&response).ok_or(Failure::Unreachable)?),
            _ => Err(change_error(&response)),
        }
    }

    /// Returns a page of the streams of one tenant whose names begin with `prefix`, behind `after`. `None`: the parent does not tell.
    pub(super) async fn names(
        &self,
        prefix: &str,
        after: Option<&StreamName>,
    ) -> Result<Option<StreamPage>, Failure> {
        let escaped = |text: &str| utf8_percent_encode(text, RESERVED).to_string();
        let after = after.map(|after| format!("&after={}", escaped(after.local()))).unwrap_or_default();
        let (tenant, (_, prefix)) = (Tenant::of(prefix), split_tenant(prefix));
        self.metrics.asked("names");
        let target = format!("/v1/names?prefix={}{after}", escaped(prefix));
        let response = match self.send(&tenant, Method::GET, target, HeaderMap::new(), Bytes::new()).await {
            // Without a token for the tenant.
            Err(Failure::UpstreamRefused(_)) => return Ok(None),
            response => response?,
        };
        match response.status() {
            StatusCode::OK => {
                let StreamPage { streams, next } = names(response.body()).ok_or(Failure::Unreadable)?;
                let streams = streams.into_iter().map(|(name, tail)| (name.of_tenant(&tenant), tail));
                let next = next.map(|next| next.of_tenant(&tenant));
                Ok(Some(StreamPage { streams: streams.collect(), next }))
            }
            status if status.is_server_error() => Err(Failure::Unreachable),
            _ => Ok(None),
        }
    }

    /// Forwards a creation.
    pub(super) async fn create(&self, name: &StreamName, create: &Create) -> Result<Created, CreateError> {
        let mut fields = FieldWriter::default();
        fields.put(CONTENT_TYPE, create.content_type.as_str());
        match create.lifetime {
            Some(Lifetime::Idle(idle)) => fields.put_name("stream-ttl", idle.as_secs()),
            Some(Lifetime::Until(end)) => fields.put_name("stream-expires-at", rfc3339(end)),
            Some(Lifetime::Unlimited) | None => {}
        }
        let retention = create.retention.unwrap_or_default();
        fields.put_some("stream-max-messages", retention.messages_max);
        fields.put_some("stream-max-bytes", retention.bytes_max);
        fields.put_some("stream-max-age", retention.age_max.map(|age| age.as_secs()));
        fields.put_some("stream-closed", create.closed.then_some("true"));
        if let Some(fork) = &create.fork {
            fields.put_name("stream-forked-from", path_of(&fork.source));
            fields.put_some("stream-fork-offset", fork.offset.map(text_of));
            fields.put_some("stream-fork-sub-offset", (fork.sub_offset > 0).then_some(fork.sub_offset));
        }
        self.metrics.asked("create");
        let (tenant, body) = (name.tenant(), body_of(&create.payload));
        let response = self.send(&tenant, Method::PUT, path_of(name), fields.0, body).await?;
        match response.status() {
            StatusCode::OK | StatusCode::CREATED => {
                Ok(created(&response, &create.content_type).ok_or(Failure::Unreachable)?)
            }
            _ => Err(create_error(&response)),
        }
    }

    /// Forwards an append, whose messages are split.
    pub(super) async fn append(
        &self,
        name: &StreamName,
        append: &Append,
        of_stream: Option<&ContentType>,
    ) -> Result<Appended, AppendError> {
        let mut fields = FieldWriter::default();
        let content_type = match &append.content_type {
            AppendType::Undeclared => None,
            AppendType::Declared(declared) => Some(declared),
            AppendType::OfStream { .. } => of_stream,
        };
        fields.put_some("content-type", content_type.map(ContentType::as_str));
        fields.put_some("stream-closed", append.close.then_some("true"));
        fields.put_some("stream-seq", append.sequence.as_deref());
        if let Some(producer) = &append.producer {
            fields.put_name("producer-id", &*producer.id);
            fields.put_name("producer-epoch", producer.epoch);
            fields.put_name("producer-seq", producer.sequence);
        }
        let create = if append.create.is_some() { "?create=1" } else { "" };
        self.metrics.asked("append");
        let target = format!("{}{create}", path_of(name));
        let (tenant, body) = (name.tenant(), body_of(&append.payload));
        let response = self.send(&tenant, Method::POST, target, fields.0, body).await?;
        appended(&response, append)
    }

    /// Forwards a deletion.
    pub(super) async fn delete(&self, name: &StreamName) -> Result<(), ChangeError> {
        self.metrics.asked("delete");
        let (tenant, fields) = (name.tenant(), HeaderMap::new());
        let response = self.send(&tenant, Method::DELETE, path_of(name), fields, Bytes::new()).await?;
        if response.status().is_success() { Ok(()) } else { Err(change_error(&response)) }
    }

    /// Sends a request about streams of a tenant.
    async fn send(
        &self,
        tenant: &Tenant,
        method: Method,
        target: String,
        fields: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Bytes>, Failure> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = target.parse().map_err(|_| Failure::Unreadable)?;
        *request.headers_mut() = fields;
        if let Some(authorization) = self.access.authorization(tenant)? {
            request.headers_mut().insert(AUTHORIZATION, authorization);
        }
        let answer = self.client.send(&self.destination, request, self.limits).await;
        let was_reachable = self.is_reachable.swap(answer.is_ok(), Ordering::Relaxed);
        self.metrics.reachable(answer.is_ok());
        match &answer {
            Ok(_) if !was_reachable => {
                tracing::info!(upstream = ?self.destination, "the upstream gateway answers again")
            }
            Err(error) if was_reachable => {
                tracing::warn!(upstream = ?self.destination, %error, "the upstream gateway does not answer; trying again");
            }
            _ => {}
        }
        answer.map_err(|_| Failure::Unreachable)
    }
}

impl fmt::Debug for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Parent").field(&self.destination).finish()
    }
}

fn path_of(name: &StreamName) -> String {
    format!("/v1/stream/{}", utf8_percent_encode(name.local(), RESERVED))
}

fn text_of(start: Start) -> String {
    match start {
        Start::Earliest => "-1".to_owned(),
        Start::Tail => "now".to_owned(),
        Start::At(offset) => offset.to_string(),
    }
}

/// The body of a request: JSON values in an array, so that a value that is an array itself is not flattened.
fn body_of(payload: &Payload) -> Bytes {
    if !payload.shape().is_json() {
        return payload.bytes().clone();
    }
    let mut array = BytesMut::with_capacity(payload.len() + 2);
    array.put_u8(b'[');
    array.put_slice(payload.bytes());
    array.put_u8(b']');
    array.freeze()
}

/// Collects header fields. Values that no field can have are left out, and the parent refuses the request.
#[derive(Default)]
struct FieldWriter(HeaderMap);

impl FieldWriter {
    fn put(&mut self, name: HeaderName, value: &str) {
        // Sent as bytes, since names of streams and producers may be any text.
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            self.0.insert(name, value);
        }
    }

    fn put_name(&mut self, name: &'static str, value: impl ToString) {
        self.put(HeaderName::from_static(name), &value.to_string());
    }

    fn put_some(&mut self, name: &'static str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.put_name(name, value);
        }
    }
}
