//! The tasks of a middlebox, which end with it.

use parking_lot::Mutex;
use tokio::task::JoinSet;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    /// Starts one, and forgets those that have ended.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Ends all of them.
    pub(super) fn end(&self) {
        self.0.lock().abort_all();
    }
}
