//! Simulations on all processors.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{io, thread};

use crate::simulate::SimulationError;

/// Does `work` for each of these, and returns the results in their order.
pub(super) fn for_each<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, SimulationError> + Sync,
) -> Result<Vec<R>, SimulationError> {
    let next = AtomicUsize::new(0);
    let of_thread = || {
        let mut done = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(place) else { return Ok(done) };
            done.push((place, work(item)?));
        }
    };
    let done = thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(of_thread)).collect();
        let panicked = |_| Err(SimulationError::from(io::Error::other("a simulation has panicked")));
        let ended = running.into_iter().map(|thread| thread.join().unwrap_or_else(panicked));
        ended.collect::<Result<Vec<_>, SimulationError>>()
    })?;
    let mut done: Vec<_> = done.into_iter().flatten().collect();
    done.sort_unstable_by_key(|(place, _)| *place);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}
