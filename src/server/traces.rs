//! Sends traces to a collector by OTLP over HTTP (opentelemetry.io/docs/specs/otlp), with the client of all other requests of the
//! gateway. The variables `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_BSP_*` apply.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hyper::{Request, Response};
use opentelemetry_http::HttpError;
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use crate::http_client::{
    AddressPolicy, Destination, ExchangeLimits, HttpClient, InvalidUrl, Trust, check_origin_url,
};
use crate::hub::Hub;
use crate::traces::Traces;

/// The path of traces behind the URL of a collector.
const PATH: &str = "/v1/traces";

/// The longest response of a collector.
const RESPONSE_BYTES_MAX: usize = 64 * 1024;

/// The longest time for a request to a collector.
const RESPONSE_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a drain waits for a collector.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);

/// Why traces cannot be sent. The texts are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The URL is malformed.
    #[error(
        "--otlp must be an https:// URL, or an http:// URL of this machine or of a host that --outbound-allow names, without a password"
    )]
    Url(#[from] InvalidUrl),
    /// A variable of OpenTelemetry has a value that cannot be used.
    #[error("--otlp: {0}")]
    Exporter(#[from] ExporterBuildError),
}

/// The collector as the exporter's HTTP client. The exporter runs in a thread of its own, and the client on the runtime.
struct CollectorClient {
    client: HttpClient,
    to: Destination,
    runtime: Handle,
}

impl fmt::Debug for CollectorClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CollectorClient").field("to", &self.to).finish_non_exhaustive()
    }
}

#[async_trait]
impl opentelemetry_http::HttpClient for CollectorClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (client, to) = (self.client.clone(), self.to.clone());
        let limits = ExchangeLimits { time: RESPONSE_TIME_MAX, body_bytes_max: RESPONSE_BYTES_MAX };
        let sent = self.runtime.spawn(async move { client.send(&to, request, limits).await });
        Ok(sent.await??)
    }
}

/// Sends what was recorded, until `deadline` or for [`STOP_TIME_MAX`].
pub(super) async fn stop(hub: &Hub, deadline: Instant) {
    let Some(traces) = hub.traces().cloned() else { return };
    let limit = deadline.saturating_duration_since(Instant::now()).min(STOP_TIME_MAX);
    let deadline = Instant::now() + limit;
    let stopped = spawn_blocking(move || traces.shut_down(limit));
    if let Ok(Ok(Err(error))) = timeout_at(deadline, stopped).await {
        tracing::warn!(%error, "the last traces may be lost");
    }
}

/// Begins to record traces for the collector at `url`.
pub(super) fn start(
    url: &str,
    ratio: f64,
    client: HttpClient,
    trust: &Trust,
    policy: &AddressPolicy,
) -> Result<Arc<Traces>, TraceError> {
    // The request has the path of the exporter's endpoint.
    let url = url.trim_end_matches('/');
    let (scheme, rest) = url.split_once("://").ok_or(InvalidUrl)?;
    let to = format!("{scheme}://{}", rest.split('/').next().unwrap_or_default());
    let to = match Destination::of_operator(&to, trust) {
        Ok(to) => to,
        Err(invalid) => {
            check_origin_url(&to, policy).map_err(|_| invalid)?;
            Destination::of_origin(&to, trust)?
        }
    };
    let runtime = Handle::current();
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(CollectorClient { client, to, runtime })
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{url}{PATH}"))
        .build()?;
    Ok(Traces::new(exporter, ratio))
}
