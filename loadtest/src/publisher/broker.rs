//! Publishes to an MQTT broker, NATS or an XMPP server over one session, since their clients may send without waiting for acknowledgements.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use super::{Due, Publisher};
use crate::streams::stream_name;
use crate::wire::{
    Mqtt, NatsOperation, NatsOperations, WireError, XmppService, XmppSocket, XmppStream, XmppUser, nats,
    open, pubsub_request,
};

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

    /// Publishes the messages that are due to subjects, and answers the server's pings until it is dropped.
    pub(super) async fn run_at_nats(
        &self,
        start: Instant,
        mut due: UnboundedReceiver<Due>,
    ) -> Result<(), WireError> {
        let plan = &self.recorder.workload.plan;
        let mut io = open(self.target.address).await?;
        io.write_all(nats::CONNECT.as_bytes()).await?;
        let (mut operations, mut bytes) = (NatsOperations::default(), Vec::new());
        loop {
            tokio::select! {
                Some(Due { intended, message }) = due.recv() => {
                    self.note_lateness((start + intended).elapsed());
                    let body = self.recorder.workload.body(message);
                    let publish = nats::publish(&stream_name(plan.run, message.stream), &body);
                    io.write_all(publish.as_bytes()).await?;
                }
                read = io.read_buf(&mut bytes) => {
                    if read? == 0 {
                        return Err(WireError::Closed);
                    }
                    operations.read(&bytes)?;
                    bytes.clear();
                    while let Some(operation) = operations.next()? {
                        if operation == NatsOperation::Ping {
                            io.write_all(nats::PONG.as_bytes()).await?;
                        }
                    }
                }
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
