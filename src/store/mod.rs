//! Stores: implementations of the contract [`Store`](crate::stream::Store), in memory, on disk, in Redis or Valkey,
//! and at an upstream gateway.

#[cfg(test)]
mod counted;
mod disk;
mod entry;
mod log;
mod memory;
mod note;
mod redis;
mod sessions;
mod streams;
mod upstream;
mod view;

#[cfg(test)]
pub(crate) use counted::CountedMemory;
pub use disk::{Checked, ClockFile, Disk, DiskOptions, OpenError, Opened, check};
pub use memory::Memory;
pub use redis::{EngineError, EngineFinding, EnginePromise, NewsRoom, Redis, RedisOptions, Severity};
pub use upstream::{Upstream, UpstreamError, UpstreamOptions};
