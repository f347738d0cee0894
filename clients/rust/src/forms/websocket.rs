//! WebSocket: one envelope per text frame (RFC 6455).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::StatusCode;
use hyper::header::SEC_WEBSOCKET_ACCEPT;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha1_smol::Sha1;
use tokio_websockets::{ClientBuilder, CloseCode, Limits, Message, WebSocketStream};

use super::answer::Answer;
use super::renewal::{Renewal, is_acceptance};
use crate::attempt::{Attempt, End, Ended};
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::envelope::{ENVELOPE_BYTES_MAX, Envelope, Received};
use crate::refusal::Refusal;
use crate::request::Selection;

/// What a server appends to the key for `Sec-WebSocket-Accept` (RFC 6455, section 1.3).
const PROOF: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Close codes that ask to retry later (IANA: service restart, try again later).
const RESTART: [u16; 2] = [1012, 1013];

/// The close code of the gateway for a token that is missing, refused or expired.
const UNAUTHORIZED: u16 = 4401;

/// An open socket.
pub(crate) struct WebSocket {
    frames: WebSocketStream<TokioIo<Upgraded>>,
    renewal: Renewal,
}

/// A frame that refuses the request after the handshake.
#[derive(Deserialize)]
struct Refused<'a> {
    #[serde(borrow)]
    error: &'a RawValue,
}

/// Makes the handshake, and sends the parameters that did not fit into it in the first frame.
pub(super) async fn open(
    mut connection: Connection,
    selection: &Selection,
    attempt: &Attempt,
    endpoint: &Endpoint,
) -> Result<WebSocket, Ended> {
    let key = STANDARD.encode(fastrand::u128(..).to_le_bytes());
    let renewal = Renewal::of(&endpoint.credentials);
    let (request, first) = selection.handshake(attempt, &key, endpoint);
    let request = request.map_err(|_| End::Unreachable)?;
    let answer = connection.send(request).await.map_err(|_| End::Cut)?;
    match answer.status() {
        StatusCode::SWITCHING_PROTOCOLS => {}
        StatusCode::UPGRADE_REQUIRED => return Err(End::NotUpgraded.into()),
        status => {
            let (head, body) = answer.into_parts();
            return Err(Answer::new(connection, body).refused(status, &head.headers).await);
        }
    }
    let proof = STANDARD.encode(Sha1::from(format!("{key}{PROOF}")).digest().bytes());
    if answer.headers().get(SEC_WEBSOCKET_ACCEPT).is_none_or(|accept| accept != proof.as_str()) {
        return Err(End::NotUpgraded.into());
    }
    let upgraded = connection.during(hyper::upgrade::on(answer)).await.map_err(|_| End::Cut)?;
    let limits = Limits::default().max_payload_len(Some(ENVELOPE_BYTES_MAX));
    let mut socket = ClientBuilder::new().limits(limits).take_over(TokioIo::new(upgraded));
    if let Some(first) = first {
        socket.send(Message::text(tokio_websockets::Payload::from(first))).await.map_err(|_| End::Cut)?;
    }
    Ok(WebSocket { frames: socket, renewal })
}

impl WebSocket {
    pub(super) async fn next(&mut self) -> Result<Received, Ended> {
        let message = loop {
            tokio::select! {
                message = self.frames.next() => break message.ok_or(End::Cut)?.map_err(|_| End::Cut)?,
                (frame, version) = self.renewal.next() => {
                    self.frames.feed(Message::text(frame)).await.map_err(|_| End::Cut)?;
                    self.renewal.is_sent(version);
                    self.frames.flush().await.map_err(|_| End::Cut)?;
                }
            }
        };
        if let Some((code, _)) = message.as_close() {
            return Err(end_of(code));
        }
        // Sends the pong that the library has queued for a ping.
        self.frames.flush().await.map_err(|_| End::Cut)?;
        if !message.is_text() {
            return Ok(Received::Bytes);
        }
        let text: Bytes = message.into_payload().into();
        if is_acceptance(&text) {
            return Ok(Received::Bytes);
        }
        match serde_json::from_slice::<Refused<'_>>(&text) {
            Ok(refused) => Err(refusal(refused.error)),
            Err(_) => Ok(Received::Envelope(Envelope::parse(&text)?)),
        }
    }
}

fn end_of(code: CloseCode) -> Ended {
    match code {
        CloseCode::NORMAL_CLOSURE | CloseCode::GOING_AWAY => End::Clean.into(),
        code if RESTART.contains(&u16::from(code)) => End::Restart(None).into(),
        code if u16::from(code) == UNAUTHORIZED => Ended::ForGood(Refusal::of_credentials(401)),
        _ => End::Cut.into(),
    }
}

fn refusal(problem: &RawValue) -> Ended {
    match Refusal::parse(problem.get().as_bytes()) {
        Some(refusal) if refusal.is_for_good() => Ended::ForGood(refusal),
        Some(refusal) if matches!(refusal.status, 429 | 503) => End::Restart(None).into(),
        Some(refusal) => End::Refused(refusal.status).into(),
        None => End::NotGateway.into(),
    }
}
