//! Publishes to an MQTT broker over one session, since an MQTT client may send without waiting for acknowledgements.

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use super::{Due, Publisher};
use crate::streams::stream_name;
use crate::wire::{Mqtt, WireError, open};

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
}
