//! `pollgate ls`, `stat` and `rm`: what streams there are, what they are like, and deleting them.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use futures_util::{StreamExt, TryStreamExt, stream};
use pollgate_client::{RequestError, StreamInfo};

use super::gateway::{answered, client};
use super::options::{ListCommand, RemoveCommand, StatCommand};

/// Most requests of `ls --long` at the same time.
const REQUESTS_MAX: usize = 8;

/// Prints the names of streams, one a line.
pub(crate) async fn list(command: ListCommand) -> Result<ExitCode, Box<dyn Error>> {
    let client = client(&command.gateway)?;
    let prefix = command.pattern.as_ref().map_or("", |pattern| pattern.prefix());
    let matches = |name: &str| command.pattern.as_ref().is_none_or(|pattern| pattern.matches(name));
    let mut after = None;
    loop {
        let page = answered(&command.gateway, client.names(prefix, after.as_deref())).await?;
        let names = page.streams.into_iter().map(|stream| stream.name).filter(|name| matches(name));
        let written = if command.long {
            let describe = |name: String| {
                let client = &client;
                async move { Ok::<_, RequestError>((client.stream_info(&name).await?, name)) }
            };
            let described = stream::iter(names).map(describe).buffered(REQUESTS_MAX).try_collect::<Vec<_>>();
            // A stream may have been deleted meanwhile.
            let described = answered(&command.gateway, described).await?;
            let lines = described.iter().filter_map(|(info, name)| Some(summary(name, info.as_ref()?)));
            write_lines(lines)
        } else {
            write_lines(names)
        };
        match (written, page.next) {
            (Err(error), _) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
            (Ok(()), Some(next)) => after = Some(next),
            (written, _) => return Ok(written.map(|()| ExitCode::SUCCESS)?),
        }
    }
}

fn write_lines(lines: impl Iterator<Item = String>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    lines.into_iter().try_for_each(|line| writeln!(out, "{line}"))?;
    out.flush()
}

/// A line of `ls --long`.
fn summary(name: &str, info: &StreamInfo) -> String {
    let retention = retention(info).map_or(String::new(), |retention| format!("\tkeeps {retention}"));
    let closed = if info.is_closed { "\tclosed" } else { "" };
    format!("{name}\t{}\t{}{closed}{retention}", info.content_type, kept(info))
}

fn kept(info: &StreamInfo) -> String {
    format!("{} {}", info.kept(), if info.is_json() { "messages" } else { "bytes" })
}

/// The retention of a stream. `None` if it has none.
fn retention(info: &StreamInfo) -> Option<String> {
    let bounds = [
        info.messages_max.map(|count| format!("{count} messages")),
        info.bytes_max.map(|count| format!("{count} bytes")),
        info.age_max_seconds.map(|seconds| format!("{seconds} s")),
    ];
    let bounds: Vec<String> = bounds.into_iter().flatten().collect();
    (!bounds.is_empty()).then(|| bounds.join(", "))
}

/// Describes streams, a field a line. The exit code is 1 if one of them does not exist.
pub(crate) async fn stat(command: StatCommand) -> Result<ExitCode, Box<dyn Error>> {
    let client = client(&command.gateway)?;
    let mut code = ExitCode::SUCCESS;
    for name in &command.streams {
        let Some(info) = answered(&command.gateway, client.stream_info(name)).await? else {
            eprintln!("pollgate: {name} does not exist");
            code = ExitCode::FAILURE;
            continue;
        };
        let ends = match (info.ttl_seconds, &info.expires_at) {
            (Some(seconds), _) => Some(format!("after {seconds} s without a request")),
            (None, expires_at) => expires_at.clone(),
        };
        let fields = [
            ("stream", Some(name.clone())),
            ("content type", Some(info.content_type.clone())),
            ("kept", Some(kept(&info))),
            ("keeps at most", retention(&info)),
            ("earliest offset", Some(info.earliest.to_string())),
            ("tail", Some(info.tail.to_string())),
            ("closed", info.is_closed.then(|| "yes".to_owned())),
            ("deleted", ends),
        ];
        let mut out = io::stdout().lock();
        for (field, value) in fields.into_iter().filter_map(|(field, value)| Some((field, value?))) {
            writeln!(out, "{field:16} {value}")?;
        }
    }
    Ok(code)
}

/// Deletes streams. The exit code is 1 if one of them did not exist.
pub(crate) async fn remove(command: RemoveCommand) -> Result<ExitCode, Box<dyn Error>> {
    let client = client(&command.gateway)?;
    let mut code = ExitCode::SUCCESS;
    for name in &command.streams {
        let existed = answered(&command.gateway, client.delete_stream(name)).await?;
        if !existed && !command.force {
            eprintln!("pollgate: {name} does not exist");
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}
