//! The commands of `pollgate`: what they print, and the codes they exit with.

mod serve;
mod store;

pub(crate) use serve::serve;
pub(crate) use store::run as store;
