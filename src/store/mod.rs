//! Stores: implementations of the contract [`Store`](crate::stream::Store), in memory and on disk.

mod disk;
mod entry;
mod log;
mod memory;
mod sessions;
mod streams;
mod view;

pub use disk::{Checked, ClockFile, Disk, DiskOptions, OpenError, Opened, check};
pub use memory::Memory;
