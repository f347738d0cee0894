//! Runs a share in another process of this program, over lines on its standard input and output.
//!
//! The parent writes the [`Job`] and, after the child answers `ready`, the start. Later it may write `stop`; it closes the
//! input when it ends. The child's last line is its result. All lines except `ready` and `stop` are JSON.

use std::process::Stdio;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader, Lines, stdin, stdout};
use tokio::process::Command;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::{GeneratorError, Job, Lead, generate, stopped};
use crate::measured::Measured;

/// Line of the child after its clients are connected.
const READY: &str = "ready";

/// Line of the parent that ends the run early.
const STOP: &str = "stop";

/// Starts a child process that runs a share; same contract as [`generate`].
pub async fn generate_elsewhere(job: Job, lead: Lead) -> Result<Measured, GeneratorError> {
    let program = std::env::current_exe().map_err(broken)?;
    let mut child = Command::new(program)
        .arg("generate")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(broken)?;
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(GeneratorError::Stopped);
    };
    let mut output = BufReader::new(output).lines();
    let Lead { ready, start, mut stop } = lead;
    input.write_all(&line(&job)?).await.map_err(broken)?;
    let answer = next(&mut output).await?;
    if answer != READY {
        return result(&answer);
    }
    // If the receiver is gone, no start follows, and the next line returns.
    let _unheard = ready.send(());
    let start = start.await.map_err(|_| GeneratorError::Stopped)?;
    input.write_all(&line(&on_shared_clock(start))?).await.map_err(broken)?;
    let last = tokio::select! {
        last = next(&mut output) => last?,
        () = stopped(&mut stop) => {
            input.write_all(format!("{STOP}\n").as_bytes()).await.map_err(broken)?;
            next(&mut output).await?
        }
    };
    result(&last)
}

/// Runs in the child process: the other end of [`generate_elsewhere`].
pub async fn serve() -> Result<(), GeneratorError> {
    let mut input = BufReader::new(stdin()).lines();
    let job: Job = serde_json::from_str(&next(&mut input).await?).map_err(broken)?;
    let (ready, is_ready) = oneshot::channel();
    let (start, told) = oneshot::channel();
    let (stop, stopping) = watch::channel(false);
    let following = tokio::spawn(async move {
        if is_ready.await.is_ok() {
            write_to_parent(format!("{READY}\n").as_bytes()).await?;
            let nanos: Duration = serde_json::from_str(&next(&mut input).await?).map_err(broken)?;
            let _ended = start.send(from_shared_clock(nanos));
            // A `stop` line, or end of file because the parent ended; both stop the run.
            let _any = input.next_line().await;
        }
        stop.send_replace(true);
        Ok::<(), GeneratorError>(())
    });
    let result = generate(job, Lead { ready, start: told, stop: stopping }).await;
    following.abort();
    write_to_parent(&line(&result.map_err(|error| error.to_string()))?).await
}

async fn write_to_parent(bytes: &[u8]) -> Result<(), GeneratorError> {
    let mut output = stdout();
    output.write_all(bytes).await.map_err(broken)?;
    output.flush().await.map_err(broken)
}

async fn next(lines: &mut Lines<BufReader<impl AsyncRead + Unpin>>) -> Result<String, GeneratorError> {
    lines.next_line().await.map_err(broken)?.ok_or_else(|| broken("it ended without a result"))
}

fn result(line: &str) -> Result<Measured, GeneratorError> {
    let result: Result<Measured, String> = serde_json::from_str(line).map_err(broken)?;
    result.map_err(GeneratorError::Elsewhere)
}

fn line(value: &impl serde::Serialize) -> Result<Vec<u8>, GeneratorError> {
    let mut line = serde_json::to_vec(value).map_err(broken)?;
    line.push(b'\n');
    Ok(line)
}

fn broken(error: impl std::fmt::Display) -> GeneratorError {
    GeneratorError::Elsewhere(error.to_string())
}

/// Converts a time to the form that all processes of this machine can read: since the start of the kernel's monotonic clock.
fn on_shared_clock(time: Instant) -> Duration {
    shared_clock() + time.saturating_duration_since(Instant::now())
}

fn from_shared_clock(time: Duration) -> Instant {
    Instant::now() + time.saturating_sub(shared_clock())
}

fn shared_clock() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
}
