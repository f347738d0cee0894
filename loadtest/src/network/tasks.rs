//! [`Tasks`]: the tasks of a middlebox, which end with it.

use parking_lot::Mutex;
use tokio::task::JoinSet;

/// A set of tasks without results.
#[derive(Debug, Default)]
pub(super) struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    /// Spawns a task, and removes those that have ended.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Aborts all tasks.
    pub(super) fn end(&self) {
        self.0.lock().abort_all();
    }
}
