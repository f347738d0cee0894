//! Readers that are not the client: a browser's `EventSource`, and a client of the protocol alone.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Response, StatusCode};
use serde::Deserialize;
use tokio::time::{sleep, timeout};

use super::reader::Notes;
use crate::wire::{Connection, Events, Request, WireError};

/// Time after which a connection without a byte counts as dead: SSE sends a heartbeat every 15 s, and a poll is held for [`HOLD`].
const SILENCE: Duration = Duration::from_secs(20);

/// Hold time of polls.
const HOLD: Duration = Duration::from_secs(12);

/// Pause after a failure.
const PAUSE: Duration = Duration::from_millis(700);

/// Why a reader connects again.
enum Ended {
    Broken,
}

/// A control event.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Control {
    #[serde(default)]
    stream_closed: bool,
}

impl From<WireError> for Ended {
    fn from(_: WireError) -> Self {
        Self::Broken
    }
}

async fn in_time<T, E>(work: impl Future<Output = Result<T, E>>) -> Result<T, Ended> {
    timeout(SILENCE, work).await.map_err(|_| Ended::Broken)?.map_err(|_| Ended::Broken)
}

async fn connect(notes: &Notes) -> Result<Connection, Ended> {
    let socket = in_time(notes.link.clone().connect()).await?;
    Ok(Connection::over(socket).await?)
}

fn request(target: String, last_event_id: Option<&str>) -> Result<Request, Ended> {
    let mut request = hyper::Request::get(target).header("host", "localhost");
    if let Some(id) = last_event_id {
        request = request.header("last-event-id", id);
    }
    request.body(Full::default()).map_err(|_| Ended::Broken)
}

/// Reads as a page with an `EventSource` does: the same URL each time, and the id of the last event.
pub(super) async fn event_source(notes: Notes, stream: String) {
    let mut last_id = None;
    while let Err(Ended::Broken) = read_events(&notes, &stream, &mut last_id).await {
        sleep(PAUSE).await;
    }
    notes.closed(&stream);
}

async fn read_events(notes: &Notes, stream: &str, last_id: &mut Option<String>) -> Result<(), Ended> {
    let mut connection = connect(notes).await?;
    let target = format!("/v1/stream/{stream}?live=sse&offset=-1");
    let answer = in_time(connection.send(request(target, last_id.as_deref())?)).await?;
    match answer.status() {
        StatusCode::OK => {}
        StatusCode::NO_CONTENT => return Ok(()),
        _ => return Err(Ended::Broken),
    }
    let (mut body, mut events) = (answer.into_body(), Events::default());
    loop {
        let frame = timeout(SILENCE, body.frame()).await.map_err(|_| Ended::Broken)?;
        let frame = frame.ok_or(Ended::Broken)?.map_err(|_| Ended::Broken)?;
        events.read(frame.data_ref().map(Bytes::as_ref).unwrap_or_default());
        for event in events.by_ref() {
            if !event.id.is_empty() {
                *last_id = Some(event.id);
            }
            if event.name == "data" {
                notes.messages(stream, event.data.as_bytes());
            } else if serde_json::from_str::<Control>(&event.data).is_ok_and(|control| control.stream_closed)
            {
                return Ok(());
            }
        }
    }
}

/// Reads page by page, and polls at the tail.
pub(super) async fn poller(notes: Notes, stream: String) {
    let (mut offset, mut is_at_tail) = ("-1".to_owned(), false);
    loop {
        let Ok(mut connection) = connect(&notes).await else {
            sleep(PAUSE).await;
            continue;
        };
        loop {
            let live = if is_at_tail {
                format!("&live=long-poll&timeout={}", HOLD.as_secs())
            } else {
                String::new()
            };
            let target = format!("/v1/stream/{stream}?offset={offset}{live}");
            let Ok(request) = request(target, None) else { return };
            match in_time(connection.exchange(request)).await {
                Ok(answer) => match page(&notes, &stream, &answer) {
                    Some(Page { is_last: true, .. }) => return notes.closed(&stream),
                    Some(page) => (offset, is_at_tail) = (page.next, page.is_at_tail),
                    None => sleep(PAUSE).await,
                },
                Err(_) => break,
            }
        }
        sleep(PAUSE).await;
    }
}

/// What a response says besides its messages.
struct Page {
    next: String,
    is_at_tail: bool,
    is_last: bool,
}

/// Handles the messages of a response. `None` if it is none of the stream.
fn page(notes: &Notes, stream: &str, answer: &Response<Bytes>) -> Option<Page> {
    if !matches!(answer.status(), StatusCode::OK | StatusCode::NO_CONTENT) {
        return None;
    }
    let field = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let next = field("stream-next-offset")?.to_owned();
    notes.messages(stream, answer.body());
    let is_at_tail = field("stream-up-to-date").is_some();
    Some(Page { next, is_at_tail, is_last: is_at_tail && field("stream-closed").is_some() })
}
