//! A proxy that loses answers when the server has written them, and repeats requests on its own.
//!
//! Which ones follows from the number of the request, counted over the whole hop, and the seed.

use std::num::NonZeroU64;

use http_body_util::BodyExt;
use hyper::body::Body as _;
use hyper::header::UPGRADE;
use hyper::{Request, Response};
use serde::Deserialize;

use super::server::{Answered, Body, NoAnswer, Server, whole};
use super::stage::Stage;

/// See the module.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LossyAnswers {
    /// Of a hundred answers so many are lost: the client's connection is closed instead.
    pub percent: u8,
    /// The request after each so many reaches the server twice, both at once; the client gets the answer of one.
    #[serde(default)]
    pub twice_every: Option<NonZeroU64>,
    /// Of what is lost.
    #[serde(default)]
    pub seed: u64,
}

impl LossyAnswers {
    /// Asks once or twice, and answers or not.
    pub(super) async fn answer(
        &self,
        request: Request<Body>,
        number: u64,
        server: Server,
        stage: &Stage,
    ) -> Answered {
        let (head, body) = request.into_parts();
        // A client that breaks off in its body is gone.
        let body = body.collect().await.map_err(|_| NoAnswer::Cut)?.to_bytes();
        let request = |body| Request::from_parts(head.clone(), whole(body));
        if self.is_doubled(number) && !head.headers.contains_key(UPGRADE) {
            stage.counts.fault();
            let copy = request(body.clone());
            stage.tasks.spawn(async move {
                // Whatever it is answered, nobody is there to hear it.
                if let Ok(answer) = server.ask(copy).await {
                    written(answer).await;
                }
            });
        }
        let answer = server.ask(request(body)).await?;
        if self.is_lost(number) {
            stage.counts.fault();
            written(answer).await;
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

/// Waits until an answer is written as a whole, if it has an end; of a live one the head has to do.
async fn written(answer: Response<Body>) {
    if answer.body().size_hint().exact().is_some() {
        // An answer that breaks off is lost just as well.
        drop(answer.into_body().collect().await);
    }
}
