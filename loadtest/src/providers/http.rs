//! The fakes of Firebase Cloud Messaging with Google's token service, and of a Web Push service.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::phones::Phones;

/// Accepts the gateway's connections.
pub(super) async fn serve(listener: TcpListener, phones: Phones) {
    let mut connections = JoinSet::new();
    while let Ok((connection, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(attend(connection, phones.clone()));
    }
}

async fn attend(connection: TcpStream, phones: Phones) {
    let service = service_fn(|request| answer(request, phones.clone()));
    let _ended = Builder::new().serve_connection(TokioIo::new(connection), service).await;
}

async fn answer(request: Request<Incoming>, phones: Phones) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let path = head.uri.path();
    Ok(match path.strip_prefix("/push/") {
        Some(phone) if head.method == Method::POST => {
            phones.wake(phone, &body);
            let mut created = Response::new(Full::default());
            *created.status_mut() = StatusCode::CREATED;
            created.headers_mut().insert(LOCATION, HeaderValue::from_static("/message"));
            created
        }
        None if path == "/token" => {
            document(&json!({"access_token": "fake", "expires_in": 3600, "token_type": "Bearer"}))
        }
        None if path.ends_with("/messages:send") => {
            let message: Value = serde_json::from_slice(&body).unwrap_or_default();
            phones.wake(message.pointer("/message/token").and_then(Value::as_str).unwrap_or_default(), &body);
            document(&json!({"name": "projects/loadtest/messages/1"}))
        }
        _ => {
            let mut missing = Response::new(Full::default());
            *missing.status_mut() = StatusCode::NOT_FOUND;
            missing
        }
    })
}

fn document(content: &Value) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from(content.to_string()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
