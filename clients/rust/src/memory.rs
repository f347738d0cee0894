//! What was learned about each network, for the user to keep between two runs of a program.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::attempt::Form;

/// Most networks that are remembered. The least recently used one is dropped first.
const NETWORKS_MAX: usize = 20;

/// What a client has learned, by network label. Its JSON is the same for clients in all languages:
/// `{"networks":[{"label":"home","form":"websocket","hold":25,"holdProven":20,"heartbeatLo":60,"heartbeatHi":120}]}`
/// in seconds, most recently used first, without what is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    networks: Vec<Known>,
}

/// The client's experience with one network: the form that worked, and how long a poll or a silence may last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Known {
    /// Label of the network.
    pub(crate) label: String,
    /// Best form that worked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) form: Option<Form>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hold: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hold_proven: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) heartbeat_lo: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) heartbeat_hi: Option<u64>,
}

impl Memory {
    /// Returns the record of a network, which is empty for a new one.
    pub(crate) fn of(&self, label: &str) -> Known {
        let known = self.networks.iter().find(|known| known.label == label);
        known.cloned().unwrap_or_else(|| Known { label: label.to_owned(), ..Known::default() })
    }

    /// Replaces the record of a network, and makes it the most recently used one.
    pub(crate) fn remember(&mut self, known: Known) {
        self.networks.retain(|other| other.label != known.label);
        self.networks.insert(0, known);
        self.networks.truncate(NETWORKS_MAX);
    }
}

/// Seconds, if there are any.
pub(crate) fn seconds(time: Duration) -> Option<u64> {
    Some(time.as_secs()).filter(|seconds| *seconds > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_not_used_for_longest_is_forgotten() {
        let mut memory = Memory::default();
        for n in 0..NETWORKS_MAX {
            memory.remember(Known { hold: Some(7), ..memory.of(&n.to_string()) });
        }
        memory.remember(memory.of("0"));
        memory.remember(memory.of("new"));
        assert_eq!(memory.of("0").hold, Some(7));
        assert_eq!(memory.of("1").hold, None, "it was the oldest");
        assert_eq!(memory.networks.len(), NETWORKS_MAX);
    }

    #[test]
    fn it_is_json_in_the_words_of_every_language() {
        let text = r#"{"networks":[{"label":"home","form":"websocket","hold":25,"holdProven":20,"heartbeatLo":60}]}"#;
        let memory: Memory = serde_json::from_str(text).unwrap();
        assert_eq!(memory.of("home").form, Some(Form::WebSocket));
        assert_eq!(serde_json::to_string(&memory).unwrap(), text);
    }
}
