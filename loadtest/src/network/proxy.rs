//! An HTTP/1.1 proxy, which forwards request by request.

use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::upgrade::{self, OnUpgrade};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::hop::Hop;
use super::relay::relay;
use super::server::{Answered, Body, NoAnswer, page};
use super::stage::Stage;

/// Both ends of an upgraded connection, client first.
type Upgrade = (OnUpgrade, OnUpgrade);

/// Serves a client until either side ends the connection. A client that closes its sending half counts as gone.
pub(super) async fn serve(near: TcpStream, stage: Arc<Stage>) {
    let upgrade: Mutex<Option<Upgrade>> = Mutex::default();
    let service = service_fn(async |request| exchange(request, &stage, &upgrade).await);
    let mut builder = Builder::new();
    builder.preserve_header_case(true).auto_date_header(false);
    builder.keep_alive(!matches!(stage.hop, Some(Hop::Http10(_))));
    // The error is the client's, or the effect of a hop.
    let _ended = builder.serve_connection(TokioIo::new(near), service).with_upgrades().await;
    let upgraded = upgrade.into_inner();
    if let Some((near, far)) = upgraded
        && let (Ok(near), Ok(far)) = tokio::join!(near, far)
    {
        carry(&stage, TokioIo::new(near), TokioIo::new(far)).await;
    }
}

/// Forwards one request and returns its response.
async fn exchange(
    mut request: Request<Incoming>,
    stage: &Arc<Stage>,
    upgrade: &Mutex<Option<Upgrade>>,
) -> Result<Response<Body>, NoAnswer> {
    let number = stage.counts.request();
    let near = upgrade::on(&mut request);
    let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
    let mut answer = match answer(request, number, stage).await {
        Err(NoAnswer::Server(_)) => page(StatusCode::BAD_GATEWAY, "Bad Gateway"),
        answered => answered?,
    };
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        *upgrade.lock() = Some((near, upgrade::on(&mut answer)));
    }
    Ok(answer)
}

async fn answer(request: Request<Body>, number: u64, stage: &Arc<Stage>) -> Answered {
    let (server, fault) = (stage.server(), || stage.counts.fault());
    match stage.hop() {
        Some(Hop::ProxyCut(hop)) => hop.answer(request, server, stage).await,
        Some(Hop::ProxyBuffer(hop)) => hop.answer(request, server).await,
        Some(Hop::NoWebsocket(hop)) => hop.answer(request, server, fault).await,
        Some(Hop::NoStreaming(hop)) => hop.answer(request, server, fault).await,
        Some(Hop::Http10(hop)) => hop.answer(request, server).await,
        Some(Hop::Captive(hop)) => hop.answer(fault),
        Some(Hop::LossyAnswers(hop)) => hop.answer(request, number, server, stage).await,
        _ => Ok(server.send(request).await?),
    }
}

/// Relays an upgraded connection.
async fn carry(
    stage: &Stage,
    mut near: impl AsyncRead + AsyncWrite + Unpin,
    mut far: impl AsyncRead + AsyncWrite + Unpin,
) {
    let fault = || stage.counts.fault();
    match stage.hop() {
        Some(Hop::ProxyCut(hop)) => hop.carry(near, far, fault).await,
        Some(Hop::WebsocketCut(hop)) => hop.carry(near, far, fault).await,
        // If one end is gone, the other is closed too.
        _ => drop(relay(&mut near, &mut far, |_, _| ()).await),
    }
}
