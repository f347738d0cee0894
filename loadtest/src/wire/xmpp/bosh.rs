//! [`BoshSession`]: a stream in HTTP requests (XEP-0124 and XEP-0206), of which one at a time waits at the server.

use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use hyper::header::CONTENT_TYPE;
use tokio::time::timeout;

use super::{TEXTS_MAX, XmppService, XmppStream, XmppUser};
use crate::client::{Client, addressed};
use crate::target::Target;
use crate::wire::{Connection, Meter, Metered, WireError, accepted, open};

/// How long a request may wait at the server.
const WAIT: Duration = Duration::from_secs(60);

/// How much later than that it is abandoned.
const PATIENCE: Duration = Duration::from_secs(5);

/// A session whose requests follow each other over one connection.
pub struct BoshSession {
    target: Target,
    meter: Arc<Meter>,
    connection: Connection,
    path: &'static str,
    domain: &'static str,
    rid: u64,
    /// The name of the session, once it is open.
    sid: Option<String>,
}

impl BoshSession {
    /// A session of a reader that is not open yet.
    pub async fn new(client: &Client, service: &XmppService) -> Result<Self, WireError> {
        let (path, domain) = (service.bosh, XmppUser::Anonymous.domain(service));
        let (target, meter) = (client.target.clone(), client.meter.clone());
        let connection = client.connect().await?;
        Ok(Self { target, meter, connection, path, domain, rid: fastrand::u64(1..1 << 40), sid: None })
    }

    /// Sends the next request, and returns the body of the response.
    pub async fn send(&mut self, attributes: &str, payload: &str) -> Result<String, WireError> {
        self.rid += 1;
        let sid = self.sid.as_ref().map(|sid| format!(" sid='{sid}'")).unwrap_or_default();
        let body = format!(
            "<body xmlns='http://jabber.org/protocol/httpbind' rid='{}'{sid}{attributes}>{payload}</body>",
            self.rid
        );
        let request = hyper::Request::builder().method(Method::POST).uri(self.path);
        let request = request.header(CONTENT_TYPE, "text/xml; charset=utf-8").body(body.into());
        let request = addressed(request, &self.target)?;
        self.meter.request();
        if self.connection.is_closed() {
            let io = Metered::new(open(self.target.address).await?, self.meter.clone());
            self.connection = Connection::over(io).await?;
        }
        let answer = timeout(WAIT + PATIENCE, self.connection.exchange(request)).await;
        let answer = answer.unwrap_or(Err(WireError::Mute))?;
        accepted(&answer)?;
        let text = String::from_utf8_lossy(answer.body()).into_owned();
        let has_ended = text.contains("type='terminate'") || text.contains("type=\"terminate\"");
        if has_ended { Err(WireError::Xmpp(text)) } else { Ok(text) }
    }

    /// Sends requests until a response contains `wanted`, which is in the first one or in a later one.
    async fn until(&mut self, first: String, wanted: &str) -> Result<String, WireError> {
        let mut text = first;
        for _ in 0..TEXTS_MAX {
            if text.contains(wanted) {
                return Ok(text);
            }
            text = self.send("", "").await?;
        }
        Err(WireError::Xmpp(text))
    }
}

impl XmppStream for BoshSession {
    async fn open(&mut self) -> Result<(), WireError> {
        let domain = self.domain;
        let xbosh = "xmlns:xmpp='urn:xmpp:xbosh'";
        let attributes = match &self.sid {
            None => format!(
                " to='{domain}' ver='1.6' wait='{}' hold='1' content='text/xml; charset=utf-8' xml:lang='en' \
                 xmpp:version='1.0' {xbosh}",
                WAIT.as_secs()
            ),
            Some(_) => format!(" to='{domain}' xml:lang='en' xmpp:restart='true' {xbosh}"),
        };
        let opened = self.send(&attributes, "").await?;
        if self.sid.is_none() {
            let sid = opened.replace('"', "'");
            let sid = sid.split_once(" sid='").and_then(|(_, rest)| rest.split_once('\''));
            self.sid = sid.map(|(sid, _)| sid.to_owned());
        }
        self.until(opened, "features").await.map(drop)
    }

    async fn ask(&mut self, stanza: &str, wanted: &str) -> Result<String, WireError> {
        let first = self.send("", stanza).await?;
        self.until(first, wanted).await
    }
}
