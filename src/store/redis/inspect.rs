//! What operators ask of an engine: whether its settings fit (`pollgate engine check`), and what it stores (`pollgate engine stats`).

use std::fmt;

use redis::{Pipeline, RedisError, Value, cmd, pipe};

use super::address::{EngineError, NodeAddress, Topology};
use super::argument::{PARTITIONS, partition};
use super::engine::Engine;
use super::functions::Dialect;
use super::nodes::Connected;
use super::promise::EngineFacts;
use super::reply::{items, text};

/// Streams whose sizes one pipeline asks for.
const SIZES_AT_ONCE: usize = 256;

/// Commands of an engine that the statistics list.
const COUNTED_COMMANDS: [&str; 4] = ["fcall", "evalsha", "spublish", "xadd"];

/// Oldest supported version, which has functions and sharded pub/sub.
const VERSION_MIN: u32 = 7;

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It is as it should be.
    Ok,
    /// It works, but promises less than it could.
    Warning,
    /// The gateway cannot use the engine like this.
    Error,
}

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineFinding {
    /// How serious it is.
    pub severity: Severity,
    /// The server that it is about, what was found, and what to do.
    pub text: String,
}

impl fmt::Display for EngineFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Ok => "ok",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{severity:8}{}", self.text)
    }
}

/// Checks all servers of an engine.
pub(super) async fn check(engine: &Engine) -> Result<Vec<EngineFinding>, EngineError> {
    let nodes = engine.nodes.all().await.map_err(EngineError::Unusable)?;
    let mut findings = Vec::new();
    let mut add = |severity, text: String| findings.push(EngineFinding { severity, text });
    match engine.nodes.uncovered() {
        Some(0) => add(Severity::Ok, format!("the cluster's {} primaries have all hash slots", nodes.len())),
        Some(slots) => add(
            Severity::Error,
            format!(
                "{slots} hash slots have no primary; streams there are refused: run `redis-cli --cluster fix`"
            ),
        ),
        None => {}
    }
    if let Topology::Sentinel { service } = engine.nodes.topology() {
        let quorum = cmd("SENTINEL").arg("CKQUORUM").arg(service).to_owned();
        match engine.nodes.ask_guide(&quorum).await {
            Ok(answer) => add(Severity::Ok, format!("sentinels: {}", text(answer).unwrap_or_default())),
            Err(error) => add(
                Severity::Warning,
                format!("sentinels: {error}; no replica is promoted until enough sentinels are reachable"),
            ),
        }
    }
    for node in nodes {
        let mut connected = engine.nodes.connected(&node).await.map_err(EngineError::Unusable)?;
        let facts = EngineFacts::read(&mut connected.connection).await.map_err(EngineError::Unusable)?;
        check_node(&node, &facts, connected.dialect, &mut add);
    }
    Ok(findings)
}

fn check_node(
    node: &NodeAddress,
    facts: &EngineFacts,
    dialect: Dialect,
    add: &mut impl FnMut(Severity, String),
) {
    let mut say = |severity, what: &str| add(severity, format!("{node}: {what}"));
    let major = facts.info("redis_version").split('.').next().and_then(|major| major.parse().ok());
    let version =
        if major.is_some_and(|major: u32| major >= VERSION_MIN) { Severity::Ok } else { Severity::Error };
    say(version, &format!("{} (7.0 or later is needed)", facts.server()));
    match dialect {
        Dialect::Functions => say(Severity::Ok, "functions are allowed"),
        Dialect::Scripts => say(
            Severity::Warning,
            "functions are not allowed, so scripts are used, which a restart forgets: allow FUNCTION LOAD and FCALL",
        ),
    }
    match facts.setting("maxmemory-policy") {
        None => say(
            Severity::Warning,
            "CONFIG GET is not allowed, so its settings are unknown: see that maxmemory-policy is noeviction",
        ),
        Some("noeviction") => say(Severity::Ok, "it deletes nothing when its memory is full (noeviction)"),
        Some(policy) => say(
            Severity::Error,
            &format!(
                "it deletes streams when its memory is full ({policy}): set maxmemory-policy noeviction"
            ),
        ),
    }
    if let Some(bytes) = facts.short_buffer() {
        say(
            Severity::Warning,
            &format!(
                "it ends connections for news that are {bytes} bytes behind: set client-output-buffer-limit pubsub 32mb 8mb 60"
            ),
        );
    }
    match facts.info("maxmemory") {
        "0" | "" => say(
            Severity::Warning,
            "its memory has no bound, so the system may kill it: set maxmemory; when it is full, appends get 507",
        ),
        _ => say(
            Severity::Ok,
            &format!(
                "it uses {} of {} memory",
                facts.info("used_memory_human"),
                facts.info("maxmemory_human")
            ),
        ),
    }
    match (facts.info("aof_enabled"), facts.setting("appendfsync")) {
        ("1", Some("always")) => {
            say(Severity::Ok, "acknowledged appends survive its power cut (appendfsync always)")
        }
        ("1", _) => say(
            Severity::Warning,
            "a power cut loses up to two seconds: set appendfsync always if that is too much",
        ),
        _ => say(Severity::Warning, "its kill loses appends: set appendonly yes"),
    }
    match (facts.info("connected_slaves"), facts.setting("min-replicas-to-write")) {
        ("0" | "", _) => say(Severity::Warning, "it has no replica that could take over"),
        (replicas, Some("0") | None) => say(
            Severity::Warning,
            &format!(
                "{replicas} replicas; a primary that is cut off from them goes on to acknowledge appends, which are lost: set \
                 min-replicas-to-write 1 and min-replicas-max-lag 10"
            ),
        ),
        (replicas, Some(min)) => {
            say(Severity::Ok, &format!("{replicas} replicas, of which {min} must be connected"))
        }
    }
}

/// What each partition has.
#[derive(Default)]
struct PartitionSize {
    streams: usize,
    messages: u64,
    bytes: u64,
}

/// Describes the servers of an engine and the partitions with streams, as lines.
pub(super) async fn stats(engine: &Engine) -> Result<Vec<String>, EngineError> {
    let mut lines = Vec::new();
    for node in engine.nodes.all().await.map_err(EngineError::Unusable)? {
        let mut connected = engine.nodes.connected(&node).await.map_err(EngineError::Unusable)?;
        let facts = EngineFacts::read(&mut connected.connection).await.map_err(EngineError::Unusable)?;
        lines.push(format!(
            "{node}: {}, memory {}, {} clients, {} commands a second",
            facts.server(),
            facts.info("used_memory_human"),
            facts.info("connected_clients"),
            facts.info("instantaneous_ops_per_sec")
        ));
        for command in COUNTED_COMMANDS {
            let counts = facts.info(&format!("cmdstat_{command}"));
            if !counts.is_empty() {
                lines.push(format!("  {command}: {}", counts.replace(',', ", ")));
            }
        }
    }
    lines.push(format!("{:>9} {:>9} {:>11} {:>15}  node", "partition", "streams", "messages", "bytes"));
    let mut total = PartitionSize::default();
    for number in 0..PARTITIONS {
        let node = engine.nodes.node_of(&partition(number)).await.map_err(EngineError::Unusable)?;
        let mut connected = engine.nodes.connected(&node).await.map_err(EngineError::Unusable)?;
        let size = size_of(&mut connected, number).await.map_err(EngineError::Unusable)?;
        total.streams += size.streams;
        total.messages += size.messages;
        total.bytes += size.bytes;
        if size.streams > 0 {
            lines.push(line(&number.to_string(), &size, &node.to_string()));
        }
    }
    lines.push(line("all", &total, ""));
    Ok(lines)
}

fn line(partition: &str, size: &PartitionSize, node: &str) -> String {
    let PartitionSize { streams, messages, bytes } = size;
    format!("{partition:>9} {streams:>9} {messages:>11} {bytes:>15}  {node}").trim_end().to_owned()
}

/// Adds up the sizes that the metadata of all streams of a partition have.
async fn size_of(connected: &mut Connected, number: u64) -> Result<PartitionSize, RedisError> {
    let partition = partition(number);
    let (mut size, mut from) = (PartitionSize::default(), "-".to_owned());
    loop {
        let mut page = cmd("ZRANGEBYLEX");
        page.arg(format!("{partition}names")).arg(&from).arg("+").arg("LIMIT").arg(0).arg(SIZES_AT_ONCE);
        let names: Vec<String> = page.query_async(&mut connected.connection).await?;
        let Some(last) = names.last() else { return Ok(size) };
        let mut pipeline: Pipeline = pipe();
        for name in &names {
            pipeline.cmd("HMGET").arg(format!("{partition}meta:{name}")).arg("messages").arg("bytes");
        }
        let answers = connected.connection.send_packed_commands(&pipeline, 0, names.len()).await?;
        for answer in answers {
            let mut numbers = items(answer).unwrap_or_default().into_iter();
            let mut number = || numbers.next().and_then(|value: Value| text(value)?.parse::<u64>().ok());
            size.streams += 1;
            size.messages += number().unwrap_or_default();
            size.bytes += number().unwrap_or_default();
        }
        if names.len() < SIZES_AT_ONCE {
            return Ok(size);
        }
        from = format!("({last}");
    }
}
