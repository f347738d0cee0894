//! The function library: its name, how an engine gets it, and the same functions as scripts for an engine that allows no functions.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value, cmd};

/// The functions that the engine runs.
const FUNCTIONS: &str = include_str!("library.lua");

/// Stands in [`FUNCTIONS`] for the name of the library, with which the names of the functions begin.
const PLACEHOLDER: &str = "LIBRARY";

/// Room for the arguments of a call, which those of one small append fit into.
const ARGUMENTS: usize = 40;
const ARGUMENT_BYTES: usize = 512;

/// Begins the lines of [`FUNCTIONS`] that name a function.
const REGISTRATION: &str = "redis.register_function";

/// Stands in such a line if the function may run while the memory of the engine is full.
const FULL_FLAG: &str = "allow-oom";

/// The name of the library. It differs for each content, so that gateways of two versions may use one engine.
static LIBRARY: LazyLock<String> = LazyLock::new(|| {
    let digest = ring::digest::digest(&ring::digest::SHA256, FUNCTIONS.as_bytes());
    format!("pollgate_{:.12}", hexadecimal(digest.as_ref()))
});

/// One function as a script.
struct Script {
    text: String,
    /// SHA-1 of the text, by which the engine knows it.
    digest: String,
}

/// Each function as a script of its own.
static SCRIPTS: LazyLock<HashMap<&'static str, Script>> = LazyLock::new(|| {
    let is_body = |line: &&str| !line.starts_with("#!") && !line.starts_with(REGISTRATION);
    let bodies = FUNCTIONS.lines().filter(is_body).collect::<Vec<_>>().join("\n");
    let script = |line: &'static str| {
        let name = line.strip_prefix(REGISTRATION)?.split_once(PLACEHOLDER)?.1.strip_prefix('_')?;
        let name = name.split('\'').next()?;
        let flags = if line.contains(FULL_FLAG) { format!(" flags={FULL_FLAG}") } else { String::new() };
        let text = format!("#!lua{flags}\n{bodies}\nreturn {name}(KEYS, ARGV)");
        let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        Some((name, Script { digest: hexadecimal(digest.as_ref()), text }))
    };
    FUNCTIONS.lines().filter_map(script).collect()
});

/// How an engine runs the functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// As functions (`FCALL`), which outlive a restart of the engine and reach its replicas.
    Functions,
    /// As scripts (`EVALSHA`), because the engine or its access list does not allow functions.
    Scripts,
}

/// One call of a function on the keys of one partition, or of several where the engine has them all.
pub(super) struct EngineCall {
    pub(super) function: &'static str,
    /// What the keys of the first partition begin with.
    pub(super) partition: String,
    /// The call as `FCALL`.
    cmd: Cmd,
}

impl EngineCall {
    /// Calls `function` on the keys that begin with `partition`.
    ///
    /// While a cluster moves a slot to another node, each node has only some of its keys, and a function would take the others for
    /// missing. The key that a call names never exists, so the node that has the slot answers ASK until the slot has moved.
    pub(super) fn of(function: &'static str, partition: &str) -> Self {
        Self::over(function, partition, [])
    }

    /// Calls `function` on the keys that begin with `partition` or any of `further`.
    pub(super) fn over<'a>(
        function: &'static str,
        partition: &'a str,
        further: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let keys: Vec<&str> = [partition].into_iter().chain(further).collect();
        let mut cmd = Cmd::with_capacity(ARGUMENTS, ARGUMENT_BYTES);
        cmd.arg("FCALL").arg(format!("{}_{function}", *LIBRARY)).arg(keys.len()).arg(keys);
        Self { function, partition: partition.to_owned(), cmd }
    }

    /// Adds an argument.
    pub(super) fn with(mut self, argument: impl AsRef<[u8]>) -> Self {
        self.cmd.arg(argument.as_ref());
        self
    }

    /// Adds a number as an argument.
    pub(super) fn number(mut self, number: impl Into<u64>) -> Self {
        self.cmd.arg(number.into());
        self
    }

    /// The command that makes the call.
    pub(super) fn command(&self, dialect: Dialect) -> Cow<'_, Cmd> {
        if dialect == Dialect::Functions {
            return Cow::Borrowed(&self.cmd);
        }
        let mut command = cmd("EVALSHA");
        command.arg(SCRIPTS.get(self.function).map_or("", |script| &script.digest));
        for argument in self.cmd.args_iter().skip(2) {
            if let redis::Arg::Simple(argument) = argument {
                command.arg(argument);
            }
        }
        Cow::Owned(command)
    }
}

/// Makes the functions known to an engine, and returns how it runs them.
pub(super) async fn load(connection: &mut MultiplexedConnection) -> Result<Dialect, RedisError> {
    let mut load = cmd("FUNCTION");
    load.arg("LOAD").arg(FUNCTIONS.replace(PLACEHOLDER, &LIBRARY));
    match load.query_async::<String>(connection).await {
        Ok(_) => may_call(connection).await,
        // Another gateway has loaded it. A full engine says only that it is full.
        Err(error) if error.code() == Some("OOM") || error.to_string().contains("already exists") => {
            may_call(connection).await
        }
        Err(error) if is_denied(&error) => load_scripts(connection).await,
        Err(error) => Err(error),
    }
}

/// Finds out whether functions may be called, which the access list may forbid though it allows the library.
async fn may_call(connection: &mut MultiplexedConnection) -> Result<Dialect, RedisError> {
    let no_call = cmd("FCALL").arg(format!("{}_none", *LIBRARY)).arg(0).to_owned();
    match no_call.query_async::<Value>(connection).await {
        Err(error) if is_denied(&error) => load_scripts(connection).await,
        _ => Ok(Dialect::Functions),
    }
}

async fn load_scripts(connection: &mut MultiplexedConnection) -> Result<Dialect, RedisError> {
    for script in SCRIPTS.values() {
        cmd("SCRIPT").arg("LOAD").arg(&script.text).query_async::<Value>(connection).await?;
    }
    Ok(Dialect::Scripts)
}

/// Whether the engine does not know a command, or does not allow it.
fn is_denied(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(ServerErrorKind::NoPerm))
        || error.detail().is_some_and(|detail| detail.starts_with("unknown command"))
}

/// Whether the engine has lost the functions, for example because it was restarted without a file.
pub(super) fn are_missing(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(ServerErrorKind::NoScript))
        || error.detail().is_some_and(|detail| detail.contains("Function not found"))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
