//! [`Reader`]: reads many streams in any form, envelope by envelope.

use hyper::body::Incoming;

use super::ask::{Ask, Envelope};
use crate::world::{Close, Connection, Event, Events, Form, Gateway, WebSocket, next_line};

/// A reader whose request was accepted. A drop closes its socket.
pub(crate) struct Reader {
    ask: Ask,
    way: Way,
    /// Resume token from which another reader would continue.
    pub(crate) resume: String,
}

enum Way {
    Poll(Connection),
    Sse(Events),
    Ndjson { _connection: Connection, body: Incoming, read: Vec<u8> },
    WebSocket(WebSocket),
}

impl Reader {
    pub(crate) async fn open(gateway: &Gateway, form: Form, ask: Ask) -> Self {
        let name = form.name();
        let live = (form != Form::ShortPoll && form != Form::WebSocket).then_some(name);
        let ask = Ask { live, timeout: (form == Form::LongPoll).then_some(20), ..ask };
        let way = match form {
            Form::ShortPoll | Form::LongPoll => Way::Poll(gateway.connect().await),
            Form::Sse => Way::Sse(gateway.connect().await.events_of(ask.request()).await),
            Form::Ndjson => {
                let mut connection = gateway.connect().await;
                let (status, headers, body) = connection.begin(ask.request()).await.unwrap();
                assert_eq!(
                    (status.as_u16(), &headers["content-type"] == "application/x-ndjson"),
                    (200, true)
                );
                Way::Ndjson { _connection: connection, body, read: Vec::new() }
            }
            Form::WebSocket => {
                let target = "/v1/streams?live=websocket";
                let mut socket = WebSocket::open(gateway.address, target).await.unwrap();
                socket.send_text(ask.json()).await;
                Way::WebSocket(socket)
            }
        };
        let resume = ask.resume.clone().unwrap_or_default();
        Self { ask, way, resume }
    }

    /// Returns the next envelope; `None` when the form has ended properly.
    pub(crate) async fn next(&mut self) -> Option<Envelope> {
        let envelope = match &mut self.way {
            Way::Poll(connection) => {
                let resume = Some(self.resume.clone()).filter(|resume| !resume.is_empty());
                let ask = Ask { resume, ..self.ask.clone() };
                ask.poll(connection).await
            }
            Way::Sse(events) => {
                let Event { name, data } = events.next().await?;
                assert_eq!(name, "message");
                Envelope::parse(&data)
            }
            Way::Ndjson { body, read, .. } => Envelope::parse(&next_line(body, read).await?),
            Way::WebSocket(socket) => match socket.text().await {
                Ok(text) => Envelope::parse(&text),
                Err(Close(1000 | 1001, _)) => return None,
                Err(close) => panic!("{close:?}"),
            },
        };
        let was_full = self.resume.clone();
        self.resume = envelope.resume_after(&self.resume);
        assert!(
            !self.resume.is_empty(),
            "an envelope without a resume token: {envelope:?} after {was_full:?}"
        );
        Some(envelope)
    }

    /// Returns the next envelope with news.
    pub(crate) async fn news(&mut self) -> Envelope {
        loop {
            let envelope = self.next().await.expect("the form goes on");
            if !envelope.batches.is_empty() {
                return envelope;
            }
        }
    }

    /// Returns the underlying socket, to misuse it.
    pub(crate) fn socket(&mut self) -> &mut WebSocket {
        match &mut self.way {
            Way::WebSocket(socket) => socket,
            _ => panic!("not a WebSocket"),
        }
    }
}
