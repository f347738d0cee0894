//! What a stream is: names, offsets, content types, lifetimes and the rules of appending and closing.
//!
//! Pure values and decisions, with `std` and `bytes` alone: no IO, no runtime, no clock. The time comes in
//! as an argument, so that every rule can be tested at any moment of any day.

mod admission;
mod annotation;
mod content_type;
mod cursor;
mod filter;
mod lifetime;
mod lineage;
mod name;
mod offset;
mod payload;
mod producer;
mod progress;
mod session_change;
#[cfg(test)]
mod tests;

pub use admission::{Admission, Append, Refusal, Writers};
pub use annotation::{Annotation, Quality};
pub use content_type::{ContentType, Encoding, InvalidContentType};
pub use cursor::Cursor;
pub use filter::{ANY_LEVELS, Filter, InvalidFilter, ONE_LEVEL};
pub use lifetime::{Lifetime, Retention};
pub use lineage::{Lineage, OtherEpoch};
pub use name::{InvalidName, StreamName};
pub use offset::{Epoch, InvalidOffset, Offset, Position, Start};
pub use payload::{Payload, Shape};
pub use producer::{Producer, ProducerId, ProducerRefusal, Producers};
pub use progress::Progress;
pub use session_change::SessionChange;
