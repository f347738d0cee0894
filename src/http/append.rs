//! POST: appends and closes (protocol, sections 5.2 and 5.3).

use hyper::StatusCode;

use super::error::Error;
use super::fields::{PRODUCER_EPOCH, PRODUCER_SEQ};
use super::upload::Upload;
use super::written::{Answer, DECIMALS, decimal};
use super::{Gateway, answer};
use crate::stream::{Append, StreamName};

impl Gateway {
    pub(super) async fn append<A: Answer>(
        &self,
        name: StreamName,
        append: Append,
        body: Upload,
    ) -> Result<A, Error> {
        let body = body.collect(&self.limits).await?;
        let append = append.with_body(body, self.limits.json_depth_max)?;
        let has_messages = !append.payload.is_empty();
        let producer_epoch = append.producer.as_ref().map(|producer| producer.epoch);
        let appended = self.hub.publish(&name, append).await?;
        let is_news = producer_epoch.is_some() && has_messages && !appended.duplicate;
        let status = if is_news { StatusCode::OK } else { StatusCode::NO_CONTENT };
        let mut answer: A = answer::tail(status, appended.tail, appended.closed);
        if let (Some(epoch), Some(highest)) = (producer_epoch, appended.highest) {
            answer.put(PRODUCER_EPOCH, decimal(epoch, &mut [0; DECIMALS]));
            answer.put(PRODUCER_SEQ, decimal(highest, &mut [0; DECIMALS]));
        }
        Ok(answer)
    }
}
