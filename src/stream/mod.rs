//! What a stream is: its values, its rules, and the contract of the stores that keep it.
//!
//! Pure values and decisions, with `std`, `bytes` and a parser of JSON alone: no IO, no runtime, no clock. The time comes in
//! as an argument, so that every rule can be tested at any moment of any day.
//!
//! Read `store` first: the trait [`Store`] names every operation. The values of each operation are in `creation`,
//! `append`, `read`, `message` and `change`; the rules are in `admission` and `producer`; the rest are the parts that
//! these are made of: names, offsets, content types and payloads.

mod admission;
mod append;
mod cache_cursor;
mod change;
mod content_type;
mod creation;
mod epoch_history;
mod filter;
mod filter_map;
mod message;
mod name;
mod offset;
mod payload;
mod producer;
mod quota;
mod read;
mod store;
#[cfg(test)]
mod tests;

pub use admission::{Admission, Writers};
pub use append::{
    Append, AppendError, AppendRefusal, AppendType, Appended, CreateIfMissing, InvalidMessages, json_depth,
    split,
};
pub use cache_cursor::CacheCursor;
pub use change::{ChangeError, Failure, Missing, SessionChange, StoredSession};
pub use content_type::{ContentType, Encoding, InvalidContentType};
pub use creation::{Create, CreateError, Created, Description, FORK_DEPTH_MAX, Fork, Lifetime, Retention};
pub use epoch_history::{EpochHistory, OtherEpoch};
pub use filter::{ANY_LEVELS, Filter, InvalidFilter, ONE_LEVEL};
pub use filter_map::FilterMap;
pub use message::{Annotation, Message, MessageLimit, Messages, QoS};
pub use name::{InvalidName, StreamName};
pub use offset::{Epoch, InvalidOffset, Offset, Position, Progress, Start};
pub use payload::{Payload, Shape};
pub use producer::{PRODUCER_ID_BYTES_MAX, PRODUCERS_MAX, Producer, ProducerId, ProducerRefusal, Producers};
pub use quota::{Principal, Shortage};
pub use read::{Batch, Gap, GapReason, ReadError, ReadLimit, StreamPage};
pub use store::{Observer, PAGE_STREAMS_MAX, Store, SyncPolicy, Work};
