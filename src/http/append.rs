//! POST: appends and closes (protocol, sections 5.2 and 5.3).

use bytes::Bytes;
use hyper::StatusCode;

use super::conn::{Answer, DECIMALS, decimal};
use super::error::Error;
use super::fields::{PRODUCER_EPOCH, PRODUCER_SEQ};
use super::request::Post;
use super::{Gateway, answer};
use crate::hub::Publication;
use crate::stream::StreamName;

impl Gateway {
    pub(super) async fn append<A: Answer>(
        &self,
        name: StreamName,
        post: Post,
        body: Bytes,
    ) -> Result<A, Error> {
        let Post { content_type, close, producer, sequence, create } = post;
        let has_messages = !body.is_empty();
        let producer_epoch = producer.as_ref().map(|producer| producer.epoch);
        let publication = Publication {
            body,
            content_type,
            close,
            producer,
            sequence,
            annotation: None,
            session: None,
            create,
        };
        let appended = self.hub.publish(&name, publication).await?;
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
