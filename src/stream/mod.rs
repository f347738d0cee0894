//! The model of a stream: its values, its rules, and [`Store`], the contract of the stores.
//!
//! Everything here is pure and uses only `std`, `bytes` and a JSON parser: no IO, no runtime, no clock. The time is an
//! argument, so that tests can check every rule at any time.
//!
//! Start with the trait [`Store`] in `store`, which has every operation. The requests, results and errors of the operations are
//! in `creation`, `append`, `read`, `message` and `change`; the rules are in `admission` and `producer`; the other modules
//! contain the parts: names, offsets, content types, payloads and filters.

mod admission;
mod append;
mod cache_cursor;
mod change;
mod content_type;
mod creation;
mod epoch_history;
mod filter;
mod filter_map;
mod filter_tree;
mod message;
mod name;
mod offset;
mod payload;
mod producer;
mod quota;
mod read;
mod store;
mod tenant;
#[cfg(test)]
mod tests;

pub use admission::{Admission, Writers};
pub use append::{
    Append, AppendError, AppendRefusal, AppendType, Appended, CreateIfMissing, InvalidMessages, TraceContext,
    json_depth, split,
};
pub use cache_cursor::CacheCursor;
pub use change::{
    ChangeError, ClaimFrom, Failure, Missing, ORIGIN_SESSIONS, OWN_SESSIONS, SessionChange, SessionClaim,
    SessionNames, SessionPage, StoredSession,
};
pub use content_type::{ContentType, Encoding, InvalidContentType};
pub use creation::{
    Branch, Create, CreateError, Created, Description, FORK_DEPTH_MAX, Fork, Lifetime, Retention, Snapshot,
    WriterStates,
};
pub use epoch_history::{EpochHistory, OtherEpoch};
pub use filter::{ANY_LEVELS, Filter, InvalidFilter, ONE_LEVEL};
pub use filter_map::FilterMap;
pub use filter_tree::FilterTree;
pub use message::{Annotation, Message, MessageLimit, Messages, QoS};
pub use name::{InvalidName, LEVELS_MAX, StreamName};
pub use offset::{Epoch, InvalidOffset, Offset, Position, Progress, Start, hex};
pub use payload::{Payload, Shape};
pub use producer::{PRODUCER_ID_BYTES_MAX, PRODUCERS_MAX, Producer, ProducerId, ProducerRefusal, Producers};
pub use quota::{Principal, Shortage};
pub use read::{Batch, Gap, GapReason, ReadError, ReadLimit, StreamPage};
pub use store::{
    NewsListener, Observer, PAGE_SESSIONS_MAX, PAGE_STREAMS_MAX, SessionClaims, Store, SyncPolicy, Work,
};
pub use tenant::{InvalidTenant, TENANTS, Tenant, is_literal_level, split_tenant};
