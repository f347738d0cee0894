//! Publishes to an MQTT broker or an XMPP server over one session, since their clients may send without waiting for acknowledgements.

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use super::{Due, Publisher};
use crate::streams::stream_name;
use crate::wire::{Mqtt, WireError, XmppService, XmppSocket, XmppStream, XmppUser, open, pubsub_request};

impl Publisher {
    /// Publishes the messages that are due, and reads acknowledgements until it is dropped.
    pub(super) async fn run_at_broker(
        &self,
        start: Instant,
        mut due: UnboundedReceiver<Due>,
    ) -> Result<(), WireError> {
        let plan = &self.recorder.workload.plan;
        let name = format!("publisher-{:016x}-{}", plan.run, std::process::id());
        let mut session = Mqtt::open(open(self.target.address).await?, &name, None).await?;
        loop {
            tokio::select! {
                Some(Due { intended, message }) = due.recv() => {
                    self.note_lateness((start + intended).elapsed());
                    let body = self.recorder.workload.body(message);
                    session.publish(&stream_name(plan.run, message.stream), &body).await?;
                }
                skipped = session.next() => drop(skipped?),
            }
        }
    }

    /// Publishes the messages that are due to nodes, and reads acknowledgements until it is dropped.
    pub(super) async fn run_at_xmpp_server(
        &self,
        service: &XmppService,
        start: Instant,
        mut due: UnboundedReceiver<Due>,
    ) -> Result<(), WireError> {
        let plan = &self.recorder.workload.plan;
        let io = open(self.target.address).await?;
        let mut session = XmppSocket::over(io, &self.target, service, XmppUser::Publisher).await?;
        session.log_in(XmppUser::Publisher).await?;
        loop {
            tokio::select! {
                Some(Due { intended, message }) = due.recv() => {
                    self.note_lateness((start + intended).elapsed());
                    let (node, body) = (stream_name(plan.run, message.stream), self.recorder.workload.body(message));
                    let item = format!("<item><json xmlns='urn:xmpp:json:0'>{body}</json></item>");
                    let publish = format!("<publish node='{node}'>{item}</publish>");
                    session.send(pubsub_request(service, "publish", &publish)).await?;
                }
                answer = session.next() => match answer? {
                    Some(text) if text.contains("type='error'") || text.contains("type=\"error\"") => {
                        return Err(WireError::Xmpp(text));
                    }
                    Some(_) => {}
                    None => return Err(WireError::Closed),
                }
            }
        }
    }
}
