//! Serde representations of types of `stream`, which does not depend on serde, for the entries of stored
//! sessions.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::stream::{Epoch, Offset, Position, QoS, Start, StreamName};

#[derive(Serialize, Deserialize)]
#[serde(remote = "QoS")]
#[expect(clippy::enum_variant_names, reason = "the variants are those of `QoS`")]
pub(super) enum QosForm {
    AtMostOnce,
    AtLeastOnce,
    ExactlyOnce,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Epoch")]
struct EpochForm(u64);

#[derive(Serialize, Deserialize)]
#[serde(remote = "Position")]
struct PositionForm(u64);

#[derive(Serialize, Deserialize)]
#[serde(remote = "Offset")]
pub(super) struct OffsetForm {
    #[serde(with = "EpochForm")]
    epoch: Epoch,
    #[serde(with = "PositionForm")]
    position: Position,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Start")]
pub(super) enum StartForm {
    Earliest,
    Tail,
    At(#[serde(with = "OffsetForm")] Offset),
}

/// A stream name, stored as text.
pub(super) struct NameForm;

impl NameForm {
    pub(super) fn serialize<S: Serializer>(name: &StreamName, serializer: S) -> Result<S::Ok, S::Error> {
        name.as_str().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StreamName, D::Error> {
        let text = String::deserialize(deserializer)?;
        StreamName::stored(&text).map_err(de::Error::custom)
    }
}
