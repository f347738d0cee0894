//! A proxy that loses responses which the server has already written, and repeats requests on its own.
//!
//! The number of a request, counted over the whole hop, and the seed decide which ones.

use std::num::NonZeroU64;

use http_body_util::BodyExt;
use hyper::body::Body as _;
use hyper::header::UPGRADE;
use hyper::{Request, Response};
use serde::Deserialize;

use super::server::{Answered, Body, NoAnswer, Server, whole};
use super::stage::Stage;

/// Loses responses and repeats requests.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LossyAnswers {
    /// Percentage of responses that are lost: the client's connection is closed instead.
    pub percent: u8,
    /// Every `twice_every`-th request reaches the server twice, both copies at the same time; the client gets one of the two
    /// responses.
    #[serde(default)]
    pub twice_every: Option<NonZeroU64>,
    /// Seed that decides which responses are lost.
    #[serde(default)]
    pub seed: u64,
}

impl LossyAnswers {
    /// Forwards a request once or twice, and returns or loses the response.
    pub(super) async fn answer(
        &self,
        request: Request<Body>,
        number: u64,
        server: Server,
        stage: &Stage,
    ) -> Answered {
        let (head, body) = request.into_parts();
        // An error here means that the client is gone.
        let body = body.collect().await.map_err(|_| NoAnswer::Cut)?.to_bytes();
        let request = |body| Request::from_parts(head.clone(), whole(body));
        if self.is_doubled(number) && !head.headers.contains_key(UPGRADE) {
            stage.counts.fault();
            let (copy, again) = (request(body.clone()), server.clone());
            stage.tasks.spawn(async move {
                // The response to the copy is discarded.
                if let Ok(answer) = again.send(copy).await {
                    body_written(answer).await;
                }
            });
        }
        let answer = server.send(request(body)).await?;
        if self.is_lost(number) {
            stage.counts.fault();
            body_written(answer).await;
            return Err(NoAnswer::Cut);
        }
        Ok(answer)
    }

    fn is_doubled(&self, number: u64) -> bool {
        self.twice_every.is_some_and(|every| number.is_multiple_of(every.get()))
    }

    fn is_lost(&self, number: u64) -> bool {
        let mut random = fastrand::Rng::with_seed(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number);
        random.u8(0..100) < self.percent
    }
}

/// Waits until a response is fully written if its length is known; a live response is not awaited.
async fn body_written(answer: Response<Body>) {
    if answer.body().size_hint().exact().is_some() {
        // A response that breaks off counts as lost too.
        drop(answer.into_body().collect().await);
    }
}
