//! Opens the store, in memory, on disk or in an engine, counts what a store on disk does, and keeps its clock.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::error::BindError;
use crate::budget::Budget;
use crate::clock::Clock;
use crate::config::{Settings, StorePlace};
use crate::metrics::{Metrics, StoreMetrics};
use crate::store::{
    ClockFile, Disk, DiskOptions, EngineError, Memory, NewsRoom, OpenError, Redis, RedisOptions, Upstream,
    UpstreamError, UpstreamOptions,
};
use crate::stream::{Observer, Store};

/// The cache of a store on disk, and that of an engine's news, take at most the memory budget divided by this.
const CACHE_DIVISOR: u64 = 8;

/// How soon a change of the time of day is written to the clock file, and how soon a failed write is retried.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);
const CLOCK_RETRY: Duration = Duration::from_secs(60);

/// A store that is open, or will be once its engine has answered.
pub(super) enum OpenStore {
    /// In memory or on disk.
    Local(Arc<dyn Store>),
    /// In an engine, which is asked for the first time when the gateway starts.
    Shared(Redis),
}

impl OpenStore {
    /// Opens the store. A store on disk reads its log first.
    pub(super) fn open(
        settings: &Settings,
        metrics: &Metrics,
        budget: &Arc<Budget>,
        clock: Clock,
        address: SocketAddr,
    ) -> Result<Self, BindError> {
        match &settings.store {
            StorePlace::Memory => Ok(Self::Local(Arc::new(Memory::within(budget.clone())))),
            StorePlace::Directory(directory) => {
                let opened = open_disk(directory, settings, metrics, budget, clock);
                opened
                    .map(Self::Local)
                    .map_err(|error| BindError::Store { directory: directory.clone(), error })
            }
            StorePlace::Engine(url) => {
                let gateway = settings.gateway_name.clone().unwrap_or_else(|| gateway_name(address));
                let options = RedisOptions {
                    url: url.secret().into(),
                    ca_file: settings.store_ca.clone(),
                    password_file: settings.store_password_file.clone(),
                    gateway,
                    follows_engine_clock: true,
                    news_room: NewsRoom {
                        bytes_max: settings.limits.engine_news_bytes_max.min(budget.max() / CACHE_DIVISOR),
                        stream_bytes_max: settings.limits.engine_news_stream_bytes_max,
                    },
                    metrics: metrics.engine().clone(),
                };
                Ok(Self::Shared(Redis::new(options, budget.clone(), Handle::current())?))
            }
        }
    }

    /// The store, after its engine has answered and promised to keep what it acknowledges.
    pub(super) async fn ready(self) -> Result<Arc<dyn Store>, EngineError> {
        match self {
            Self::Local(store) => Ok(store),
            Self::Shared(redis) => {
                for promise in redis.check().await? {
                    tracing::info!("{promise}");
                }
                Ok(Arc::new(redis))
            }
        }
    }
}

/// The store of an edge over the local store, if there is an upstream gateway; otherwise the local store.
pub(super) fn behind_upstream(
    upstream: Option<&UpstreamOptions>,
    local: Arc<dyn Store>,
    metrics: &Metrics,
    budget: &Arc<Budget>,
) -> Result<Arc<dyn Store>, UpstreamError> {
    let Some(options) = upstream else { return Ok(local) };
    let metrics = metrics.upstream().clone();
    Ok(Arc::new(Upstream::new(options, local, budget.clone(), metrics, Handle::current())?))
}

/// What the settings say of an upstream gateway.
pub(super) fn upstream_options(settings: &Settings) -> Option<UpstreamOptions> {
    let limits = &settings.limits;
    Some(UpstreamOptions {
        url: settings.upstream.clone()?,
        token_file: settings.upstream_token_file.clone(),
        token_directory: settings.upstream_token_directory.clone(),
        ca: settings.upstream_ca.clone(),
        streams_max: limits.upstream_streams_max,
        bytes_max: limits.upstream_bytes_max,
        stream_bytes_max: limits.upstream_stream_bytes_max,
        response_bytes_max: limits.read_bytes_max.max(limits.body_bytes_max),
    })
}

/// Tells gateways apart that share an engine, also on one machine.
fn gateway_name(address: SocketAddr) -> String {
    format!("{}:{}", rustix::system::uname().nodename().to_string_lossy(), address.port())
}

fn open_disk(
    directory: &Path,
    settings: &Settings,
    metrics: &Metrics,
    budget: &Arc<Budget>,
    clock: Clock,
) -> Result<Arc<dyn Store>, OpenError> {
    let observer = Arc::new(Counting(metrics.store().clone()));
    let options = DiskOptions::new(settings.sync);
    let cache_bytes = settings.limits.store_cache_bytes.min(budget.max() / CACHE_DIVISOR);
    let options = DiskOptions { cache_bytes, accept_damage: settings.accept_damage, ..options };
    let (disk, opened) = Disk::open_within(directory, options, observer, budget, clock.now())?;
    let (streams, records, took) = (opened.streams, opened.records, opened.took);
    tracing::info!(directory = %directory.display(), streams, records, ?took, "opened the store");
    if opened.may_lack_end {
        tracing::warn!(
            "the end of the log may be missing; messages there are lost, and their offsets get 410"
        );
    }
    Ok(Arc::new(disk))
}

/// Writes the clock file whenever it is outdated. Runs until the task is aborted.
pub(super) async fn keep_clock(mut file: ClockFile, clock: Clock) {
    loop {
        let mut pause = CLOCK_INTERVAL;
        if file.is_outdated(clock) {
            let write = move || {
                let outcome = file.write(clock);
                (file, outcome)
            };
            let Ok((returned, outcome)) = spawn_blocking(write).await else { return };
            file = returned;
            if let Err(error) = outcome {
                tracing::warn!(%error, "cannot write the clock file; after a restart the ages of messages may be wrong");
                pause = CLOCK_RETRY;
            }
        }
        sleep(pause).await;
    }
}

/// Records in the metrics what a store on disk does.
struct Counting(StoreMetrics);

impl Observer for Counting {
    fn opened(&self, took: Duration) {
        self.0.opened(took);
    }

    fn written(&self, changes: usize, bytes: usize) {
        self.0.group_changes.observe(changes as f64);
        self.0.written.inc_by(bytes as u64);
    }

    fn synced(&self, took: Duration) {
        self.0.sync_seconds.observe(took.as_secs_f64());
    }

    fn read(&self, hot: usize, cold: usize) {
        self.0.reads_from_memory.inc_by(hot as u64);
        self.0.reads_from_disk.inc_by(cold as u64);
    }

    fn sized(&self, bytes: u64, live: u64) {
        self.0.size.set(bytes);
        self.0.live.set(live);
    }

    fn reclaimed(&self, bytes: u64) {
        self.0.reclaimed.inc_by(bytes);
    }

    fn damaged(&self, bytes: u64) {
        self.0.damaged.set(bytes);
    }
}
