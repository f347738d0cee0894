//! The allocator of the command, and its settings.

use tikv_jemalloc_ctl::{Access, AsName, Error, background_thread};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long freed pages are kept for the next allocation, in milliseconds.
const KEPT_MILLIS: isize = 1000;

/// Makes the allocator return what a crowd of clients has freed to the system within a second or two, by a background thread.
/// Without this it does so when memory is next allocated, if at all: so it is on macOS, where jemalloc has no such thread. The settings apply to
/// the threads that start afterwards too.
///
/// # Errors
///
/// The allocator knows no such setting.
pub(crate) fn return_freed_memory() -> Result<(), Error> {
    // Pages that are "muzzy" are freed and still counted as resident.
    for (kind, millis) in [("dirty", KEPT_MILLIS), ("muzzy", 0)] {
        // The default of arenas to come, and the arena of this thread.
        for arenas in ["arenas", "arena.0"] {
            let setting = format!("{arenas}.{kind}_decay_ms\0");
            setting.as_bytes().name().write(millis)?;
        }
    }
    if cfg!(target_vendor = "apple") { Ok(()) } else { background_thread::write(true) }
}
