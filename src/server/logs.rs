//! The files of the access log and of the audit log: opened, opened again after a rotation, and closed together.

use std::io;
use std::path::{Path, PathBuf};

use tokio::time::sleep;

use crate::access_log::AccessLog;
use crate::access_log::audit::{AUDIT_INTERVAL, AuditLog};
use crate::clock::{Clock, rfc3339};
use crate::config::{AccessLogPlace, Settings};
use crate::metrics::Metrics;

/// Why a log cannot be written. The text is for the operator.
#[derive(Debug, thiserror::Error)]
#[error("cannot open {} (--{option}): {error}", .path.display())]
pub struct LogError {
    /// The option that names the file.
    option: &'static str,
    path: PathBuf,
    error: io::Error,
}

/// The logs of the server, apart from its own. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Logs {
    pub(super) access: Option<AccessLog>,
    pub(super) audit: Option<AuditLog>,
}

impl Logs {
    pub(super) fn open(settings: &Settings, metrics: &Metrics) -> Result<Self, LogError> {
        let limits = &settings.limits;
        let access = match &settings.access_log {
            AccessLogPlace::Off => None,
            AccessLogPlace::StandardOutput => Some(None),
            AccessLogPlace::File(path) => Some(Some(path.as_path())),
        };
        let access = access.map(|path| {
            let opened = AccessLog::open(path, limits.access_log_bytes_max, metrics.access_log_lost());
            let path = path.unwrap_or(Path::new("standard output")).to_owned();
            opened.map_err(|error| LogError { option: "access-log", path, error })
        });
        let audit = settings.audit_log.as_ref().map(|path| {
            let (refusals_max, events_max) = (limits.audit_refusals_max, limits.audit_events_max);
            let opened = AuditLog::open(path, refusals_max, events_max, metrics.audit_log_lost());
            opened.map_err(|error| LogError { option: "audit-log", path: path.clone(), error })
        });
        Ok(Self { access: access.transpose()?, audit: audit.transpose()? })
    }

    /// Opens the files again, since they were renamed.
    pub(super) fn reopen(&self) {
        self.access.as_ref().inspect(|log| log.reopen());
        self.audit.as_ref().inspect(|log| log.reopen());
    }

    /// Writes what is pending, and returns when it is written.
    pub(super) fn close(&self) {
        self.access.as_ref().inspect(|log| log.close());
        self.audit.as_ref().inspect(|log| log.close());
    }

    /// Writes regularly how many events the audit log does not list. Runs until the task is aborted.
    pub(super) async fn summarize(self, clock: Clock) {
        let Some(audit) = self.audit else { return };
        loop {
            sleep(AUDIT_INTERVAL).await;
            audit.summarize(|| rfc3339(clock.wall()));
        }
    }
}
