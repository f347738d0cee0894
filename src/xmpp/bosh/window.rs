//! [`RidWindow`]: the order of the requests of a session (XEP-0124, sections 9 and 14), and the last responses, which are repeated byte by
//! byte. Without IO and clock.
//!
//! At most one request waits for its response. It is the one that was taken last: `answered <= taken <= answered + 1`.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::body::ResponseBody;

/// Maximum size of the responses that are kept besides the last one.
const KEPT_BYTES_MAX: usize = 128 * 1024;

/// The requests of a session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RidWindow {
    /// The last request that was taken.
    taken: u64,
    /// The last request that was answered.
    answered: u64,
    /// The responses to the last requests up to `answered`, the oldest first; `None`: an empty one. They are copies, since the bytes that are
    /// sent take more memory. A client has at most `requests_max` requests under way, and one with which it pauses.
    responses: VecDeque<Option<Box<[u8]>>>,
    /// Requests that the client may have under way at the same time.
    requests_max: u64,
}

/// What a request id says about a request.
#[derive(Debug, PartialEq)]
pub(super) enum RidPlace {
    /// It is the next one.
    Next,
    /// Others that come before it have not arrived yet.
    Early,
    /// It was taken and has no response yet.
    Repeated,
    /// It had this response.
    Answered(Bytes),
    /// It is too far ahead, or its response is gone.
    Outside,
}

impl RidWindow {
    /// Begins with the first request, which counts as taken.
    pub(super) fn new(first: u64, requests_max: u64) -> Self {
        Self { taken: first, answered: first - 1, responses: VecDeque::new(), requests_max }
    }

    pub(super) fn place(&self, rid: u64) -> RidPlace {
        match rid {
            _ if rid == self.taken + 1 => RidPlace::Next,
            _ if rid > self.taken + self.requests_max => RidPlace::Outside,
            _ if rid > self.taken => RidPlace::Early,
            _ if rid > self.answered => RidPlace::Repeated,
            _ => match self.response(rid) {
                Some(response) => RidPlace::Answered(response),
                None => RidPlace::Outside,
            },
        }
    }

    fn response(&self, rid: u64) -> Option<Bytes> {
        let back = usize::try_from(self.answered.checked_sub(rid)?).ok()?;
        let kept = self.responses.iter().nth_back(back)?;
        Some(kept.as_deref().map_or_else(ResponseBody::empty, Bytes::copy_from_slice))
    }

    /// The last request that was taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// The last request that was answered.
    pub(super) fn answered(&self) -> u64 {
        self.answered
    }

    /// Whether the last request that was taken has no response yet.
    pub(super) fn owes_response(&self) -> bool {
        self.answered < self.taken
    }

    /// Takes the next request. The one before has its response.
    pub(super) fn take_next(&mut self) {
        self.taken += 1;
        self.acknowledge(self.taken.saturating_sub(self.requests_max + 1));
    }

    /// Keeps the response to the last request that was taken.
    pub(super) fn answer(&mut self, response: &Bytes) {
        self.answered = self.taken;
        let is_empty = *response == ResponseBody::empty();
        self.responses.reserve_exact(1);
        self.responses.push_back((!is_empty).then(|| Box::from(&**response)));
        while self.responses.len() > 1 && self.bytes() > KEPT_BYTES_MAX {
            self.responses.pop_front();
        }
    }

    /// Drops the responses to requests up to `rid`, which have arrived.
    pub(super) fn acknowledge(&mut self, rid: u64) {
        let kept = usize::try_from(self.answered.saturating_sub(rid)).unwrap_or(usize::MAX);
        while self.responses.len() > kept {
            self.responses.pop_front();
        }
    }

    /// Size of the responses that are kept.
    pub(super) fn bytes(&self) -> usize {
        self.responses.iter().flatten().map(|response| response.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A window of requests from 10 on, of which those up to `last` have their number as the response.
    fn answered(last: u64) -> RidWindow {
        let mut window = RidWindow::new(10, 2);
        window.answer(&Bytes::from("10"));
        for rid in 11..=last {
            assert_eq!(window.place(rid), RidPlace::Next);
            window.take_next();
            window.answer(&Bytes::from(rid.to_string()));
        }
        window
    }

    #[test]
    fn a_request_has_a_place_by_its_id() {
        let mut window = answered(15);
        window.take_next();
        let response = |rid: &'static str| RidPlace::Answered(Bytes::from(rid));
        for (rid, place) in [
            (1, RidPlace::Outside),
            (12, RidPlace::Outside),
            (13, RidPlace::Outside),
            (14, response("14")),
            (15, response("15")),
            (16, RidPlace::Repeated),
            (17, RidPlace::Next),
            (18, RidPlace::Early),
            (19, RidPlace::Outside),
            (u64::MAX, RidPlace::Outside),
        ] {
            assert_eq!(window.place(rid), place, "{rid}");
        }
    }

    #[test]
    fn what_the_client_has_is_not_kept() {
        let mut window = answered(15);
        assert_eq!([12, 13, 15].map(|rid| window.place(rid) == RidPlace::Outside), [true, false, false]);
        window.acknowledge(14);
        assert_eq!([14, 15].map(|rid| window.place(rid) == RidPlace::Outside), [true, false]);
        window.acknowledge(99);
        assert_eq!((window.place(15), window.bytes()), (RidPlace::Outside, 0));
        window.acknowledge(0);
        window.take_next();
        window.answer(&Bytes::from("16"));
        assert_eq!(window.place(16), RidPlace::Answered(Bytes::from("16")));
    }

    #[test]
    fn an_empty_response_is_repeated_without_being_kept() {
        let mut window = RidWindow::new(10, 2);
        window.answer(&ResponseBody::empty());
        assert_eq!((window.place(10), window.bytes()), (RidPlace::Answered(ResponseBody::empty()), 0));
    }

    #[test]
    fn the_last_response_is_kept_however_large_and_others_within_a_limit() {
        let mut window = answered(11);
        window.take_next();
        window.answer(&Bytes::from(vec![0; KEPT_BYTES_MAX + 1]));
        assert!(matches!(window.place(12), RidPlace::Answered(_)));
        assert_eq!(window.place(11), RidPlace::Outside);
    }
}
