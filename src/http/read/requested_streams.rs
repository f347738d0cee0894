//! The streams of a request for many streams, with their positions. The query, a JSON body and the first frame of a WebSocket
//! have the same parameters.

use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::resume_token::{NameHash, ResumeToken};
use crate::http::api::error::Error;
use crate::http::api::fields::{LAST_EVENT_ID, Malformed, whole_number};
use crate::http::api::target::{Parameter, Parameters, stream_name};
use crate::hub::RequestedStream;
use crate::limits::Limits;
use crate::stream::{InvalidMessages, Offset, Progress, StreamName, json_depth};

/// A request for many streams as JSON.
#[derive(Debug, Deserialize)]
pub(in crate::http) struct JsonRead<'a> {
    #[serde(borrow)]
    stream: Option<&'a RawValue>,
    resume: Option<String>,
    from: Option<String>,
    live: Option<String>,
    timeout: Option<u64>,
    heartbeat: Option<u64>,
    client: Option<String>,
    times: Option<u64>,
}

impl<'a> JsonRead<'a> {
    pub(in crate::http) fn parse(body: &'a Bytes, limits: &Limits) -> Result<Self, Error> {
        if json_depth(body) > limits.json_depth_max {
            return Err(Error::Json(InvalidMessages::TooDeep(limits.json_depth_max)));
        }
        serde_json::from_slice(body).map_err(not_json)
    }

    pub(in crate::http) fn streams(
        &self,
        last_event_id: Option<&str>,
        limits: &Limits,
    ) -> Result<Vec<RequestedStream>, Error> {
        let names = self.names(limits)?;
        requested_streams(names.iter().map(String::as_str), self, last_event_id, limits)
    }

    /// Parses the names. Keeps at most one more than the limit, so that a longer list takes no more memory.
    fn names(&self, limits: &Limits) -> Result<Vec<String>, Error> {
        let Some(list) = self.stream else { return Ok(Vec::new()) };
        let mut list = serde_json::Deserializer::from_str(list.get());
        list.deserialize_seq(BoundedList(limits.streams_per_request_max.saturating_add(1))).map_err(not_json)
    }
}

impl Parameters for JsonRead<'_> {
    fn get(&self, parameter: Parameter) -> Option<&str> {
        match parameter {
            Parameter::Resume => self.resume.as_deref(),
            Parameter::From => self.from.as_deref(),
            Parameter::Live => self.live.as_deref(),
            Parameter::Client => self.client.as_deref(),
            Parameter::Times => self.times.map(|times| match times {
                0 => "0",
                1 => "1",
                _ => "",
            }),
            _ => None,
        }
    }

    fn seconds(&self, parameter: Parameter) -> Result<Option<u64>, Malformed> {
        Ok(match parameter {
            Parameter::Timeout => self.timeout,
            Parameter::Heartbeat => self.heartbeat,
            _ => None,
        })
    }
}

/// Returns the streams of these names, each with its position in the resume token, in the order in which they take turns.
/// `last_event_id` takes precedence over the parameter `resume`.
pub(in crate::http) fn requested_streams<'n>(
    names: impl Iterator<Item = &'n str>,
    parameters: &impl Parameters,
    last_event_id: Option<&str>,
    limits: &Limits,
) -> Result<Vec<RequestedStream>, Error> {
    let token = match last_event_id {
        Some(id) => ResumeToken::parse(id)
            .map_err(|_| Error::field(&LAST_EVENT_ID, "must be the id of an event over many streams"))?,
        None => parameters.get(Parameter::Resume).map(ResumeToken::parse).transpose()?.unwrap_or_default(),
    };
    let (begin, history) = begin(parameters.get(Parameter::From))?;
    let times = match parameters.get(Parameter::Times) {
        None | Some("0") => false,
        Some("1") => true,
        Some(_) => return Err(Error::parameter("times", "must be 0 or 1")),
    };
    let mut named: HashMap<NameHash, StreamName> = HashMap::new();
    let mut streams = Vec::new();
    for name in names {
        let stream = stream_name(name)?;
        let hash = NameHash::of(&stream);
        if let Some(other) = named.insert(hash, stream.clone()) {
            return Err(if other == stream { Error::SameStream } else { Error::SameHash });
        }
        if named.len() > limits.streams_per_request_max {
            return Err(Error::TooManyStreams { max: limits.streams_per_request_max });
        }
        let (turn, progress) =
            token.get(hash).map_or((usize::MAX, begin), |(turn, progress)| (turn, Some(progress)));
        streams.push((turn, RequestedStream { stream, progress, history, times, withheld: false }));
    }
    if streams.is_empty() {
        return Err(Error::parameter("stream", "is required, once for each stream"));
    }
    if matches!(begin, Some(Progress::At(_))) && streams.len() > 1 {
        return Err(Error::parameter("from", "can be an offset in a request for one stream only"));
    }
    streams.sort_by_key(|(turn, _)| *turn);
    Ok(streams.into_iter().map(|(_, stream)| stream).collect())
}

/// Parses `from`: the progress and the history with which a stream begins that the resume token does not contain.
fn begin(from: Option<&str>) -> Result<(Option<Progress>, u64), Error> {
    let history = |from: &str| from.strip_prefix("last:").and_then(whole_number);
    match from {
        None => Ok((None, 0)),
        Some("earliest") => Ok((Some(Progress::Earliest), 0)),
        Some(from) => {
            if let Some(history) = history(from) {
                return Ok((None, history));
            }
            match from.parse() {
                Ok(Offset::ZERO) => Ok((Some(Progress::Earliest), 0)),
                Ok(offset) => Ok((Some(Progress::At(offset)), 0)),
                Err(_) => Err(Error::parameter(
                    "from",
                    "must be earliest, last:N for the last N messages, an offset of the only stream, or absent to begin now",
                )),
            }
        }
    }
}

fn not_json(error: serde_json::Error) -> Error {
    Error::Json(InvalidMessages::NotJson(error.to_string()))
}

/// Deserializes a list of texts, and keeps at most this many of them.
struct BoundedList(usize);

impl<'de> Visitor<'de> for BoundedList {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of stream names")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<String>, A::Error> {
        let mut names = Vec::new();
        while names.len() < self.0
            && let Some(name) = list.next_element()?
        {
            names.push(name);
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(names)
    }
}
