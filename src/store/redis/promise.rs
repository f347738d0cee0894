//! What an engine promises by its settings, in one line for operators.

use std::collections::HashMap;
use std::fmt;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, cmd};

/// What an engine may hold back of the news for a gateway, at least, in bytes. With less, it ends the connection when a gateway is behind by
/// some hundred appends of 16 KiB.
pub(super) const NEWS_BUFFER_MIN: u64 = 8 << 20;

/// The settings of an engine that decide what an acknowledged append survives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnginePromise {
    server: String,
    /// `appendfsync` if the engine writes an append-only file.
    syncs: Option<String>,
    has_snapshots: bool,
    replicas: u32,
    /// Replicas that must be connected for a write.
    replicas_min: u32,
    memory_max: u64,
    eviction: Option<String>,
    /// What it holds back of the news for a gateway, in bytes, if that is less than [`NEWS_BUFFER_MIN`].
    short_buffer: Option<u64>,
}

/// What a server tells of itself, and its settings as far as it tells them.
#[derive(Debug, Default)]
pub(super) struct EngineFacts {
    info: HashMap<String, String>,
    settings: HashMap<String, String>,
}

impl EngineFacts {
    pub(super) async fn read(connection: &mut MultiplexedConnection) -> Result<Self, RedisError> {
        let mut facts = Self::default();
        for section in ["server", "persistence", "replication", "memory", "clients", "stats", "commandstats"]
        {
            let text: String = cmd("INFO").arg(section).query_async(connection).await?;
            let lines = text.lines().filter_map(|line| line.split_once(':'));
            facts.info.extend(lines.map(|(key, value)| (key.to_owned(), value.trim().to_owned())));
        }
        // A managed engine may not tell its settings.
        for name in
            ["maxmemory-policy", "appendfsync", "save", "min-replicas-to-write", "client-output-buffer-limit"]
        {
            let answer: Result<Vec<String>, _> =
                cmd("CONFIG").arg("GET").arg(name).query_async(connection).await;
            if let Ok([_, value]) = answer.as_deref() {
                facts.settings.insert(name.to_owned(), value.clone());
            }
        }
        Ok(facts)
    }

    /// A value of `INFO`; empty if there is none.
    pub(super) fn info(&self, key: &str) -> &str {
        self.info.get(key).map(String::as_str).unwrap_or_default()
    }

    pub(super) fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    /// What the server holds back of the news for a gateway before it ends the connection, in bytes, if that is less than
    /// [`NEWS_BUFFER_MIN`].
    pub(super) fn short_buffer(&self) -> Option<u64> {
        let mut limits =
            self.setting("client-output-buffer-limit")?.split(' ').skip_while(|word| *word != "pubsub");
        let (hard, soft) = (limits.nth(1)?.parse().ok()?, limits.next()?.parse().ok()?);
        [hard, soft].into_iter().filter(|limit| (1..NEWS_BUFFER_MIN).contains(limit)).min()
    }

    /// Name and version of the server.
    pub(super) fn server(&self) -> String {
        match self.info("valkey_version") {
            "" => format!("Redis {}", self.info("redis_version")),
            version => format!("Valkey {version}"),
        }
    }
}

impl EnginePromise {
    pub(super) async fn read(connection: &mut MultiplexedConnection) -> Result<Self, RedisError> {
        Ok(Self::of(&EngineFacts::read(connection).await?))
    }

    fn of(facts: &EngineFacts) -> Self {
        let number = |text: &str| text.parse().unwrap_or_default();
        Self {
            server: facts.server(),
            syncs: (facts.info("aof_enabled") == "1")
                .then(|| facts.setting("appendfsync").unwrap_or("unknown").to_owned()),
            has_snapshots: facts.setting("save").is_some_and(|save| !save.is_empty()),
            memory_max: facts.info("maxmemory").parse().unwrap_or_default(),
            replicas: number(facts.info("connected_slaves")),
            replicas_min: number(facts.setting("min-replicas-to-write").unwrap_or_default()),
            eviction: facts
                .setting("maxmemory-policy")
                .filter(|policy| *policy != "noeviction")
                .map(str::to_owned),
            short_buffer: facts.short_buffer(),
        }
    }

    /// Memory of the server, in bytes; 0: it has no bound.
    pub(super) fn memory_max(&self) -> u64 {
        self.memory_max
    }

    /// The policy by which the engine may delete streams; `None` if it deletes nothing.
    pub(super) fn eviction(&self) -> Option<&str> {
        self.eviction.as_deref()
    }
}

impl fmt::Display for EnginePromise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: acknowledged appends survive the gateways", self.server)?;
        match self.syncs.as_deref() {
            Some("always") => f.write_str(", a kill and a power cut of the engine")?,
            Some("everysec") => {
                f.write_str(", and a kill of the engine; a power cut loses up to two seconds")?
            }
            Some(_) => {
                f.write_str(", and a kill of the engine; a power cut loses what its system had not written")?
            }
            None if self.has_snapshots => {
                f.write_str("; a kill of the engine loses those since its last snapshot")?
            }
            None => f.write_str("; a restart of the engine loses everything (appendonly no, save \"\")")?,
        }
        match (self.replicas, self.replicas_min) {
            (0, 0) => f.write_str("; it has no replica"),
            (replicas, 0) => {
                write!(f, "; {replicas} replicas, and a failover loses what they had not received")
            }
            (replicas, min) => {
                write!(
                    f,
                    "; {replicas} replicas, of which {min} must be connected; a failover loses what they had not received"
                )
            }
        }?;
        f.write_str("; readers are told of a loss")?;
        match self.short_buffer {
            Some(bytes) => write!(
                f,
                "; connections for news end when they are {bytes} bytes behind: set client-output-buffer-limit pubsub 32mb 8mb 60"
            ),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promise(info: &str, settings: &[(&str, &str)]) -> EnginePromise {
        let info = info.lines().filter_map(|line| line.trim().split_once(':'));
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        let settings = settings.iter().copied().map(owned).collect();
        EnginePromise::of(&EngineFacts { info: info.map(owned).collect(), settings })
    }

    #[test]
    fn the_line_says_what_the_settings_promise() {
        let volatile = promise("redis_version:7.0.15\naof_enabled:0\nconnected_slaves:0", &[("save", "")]);
        assert_eq!(
            volatile.to_string(),
            "Redis 7.0.15: acknowledged appends survive the gateways; a restart of the engine loses everything \
             (appendonly no, save \"\"); it has no replica; readers are told of a loss"
        );
        let durable = promise(
            "redis_version:7.2.4\nvalkey_version:8.1.8\naof_enabled:1\nconnected_slaves:2",
            &[("appendfsync", "always"), ("min-replicas-to-write", "1")],
        );
        assert_eq!(
            durable.to_string(),
            "Valkey 8.1.8: acknowledged appends survive the gateways, a kill and a power cut of the engine; 2 replicas, \
             of which 1 must be connected; a failover loses what they had not received; readers are told of a loss"
        );
        assert_eq!((durable.eviction(), volatile.eviction()), (None, None));
        let evicting = promise("redis_version:7.0.15", &[("maxmemory-policy", "allkeys-lru")]);
        assert_eq!(evicting.eviction(), Some("allkeys-lru"));
        for (limits, short) in [
            ("normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60", None),
            ("normal 1 1 0 slave 1 1 60 pubsub 0 0 0", None),
            ("normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 1000 60", Some(1000)),
            ("normal 0 0 0 slave 268435456 67108864 60 pubsub 2000 0 0", Some(2000)),
        ] {
            let limited = promise("redis_version:7.0.15", &[("client-output-buffer-limit", limits)]);
            assert_eq!(limited.short_buffer, short);
            assert_eq!(limited.to_string().contains("set client-output-buffer-limit"), short.is_some());
        }
    }
}
