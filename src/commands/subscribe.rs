//! `pollgate sub` and `pollgate follow`: print messages, or run a command for each.

use std::collections::HashSet;
use std::error::Error;
use std::future::{Future, pending};
use std::io::{self, BufWriter, ErrorKind, IsTerminal, StdoutLock, Write};
use std::process::{ExitCode, Stdio};

use futures_util::FutureExt;
use pollgate_client::{Event, Form, Item, Offset, Settings, Subscription};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;

use super::gateway::builder;
use super::handled::Handled;
use super::lines::Lines;
use super::options::{Beginning, FormName, SubscribeCommand};

/// Reads from `beginning` on, unless an option says otherwise, until all streams are closed, the number of messages is reached, a signal arrives, or nobody reads the output any more.
pub(crate) async fn subscribe(
    command: SubscribeCommand,
    beginning: Beginning,
) -> Result<ExitCode, Box<dyn Error>> {
    let quiet = command.quiet;
    let settings = Settings {
        forms: command.form.iter().copied().map(form).collect(),
        times: command.json,
        ..Settings::default()
    };
    let client = builder(&command.gateway)?.settings(settings).on_event(move |event| {
        if !quiet && let Some(remark) = remark(event) {
            eprintln!("pollgate: {remark}");
        }
    });
    let handled = Handled::open(command.state.clone())?;
    let start = handled.start(command.from.unwrap_or(beginning));
    let subscription = client.build()?.subscribe(command.streams.iter().map(String::as_str), start);
    let lines = Lines {
        json: command.json,
        named: command.streams.len() > 1,
        to_terminal: io::stdout().is_terminal(),
    };
    let out = BufWriter::new(io::stdout().lock());
    until_signal_or_unread(Reading { command: &command, subscription, handled, lines, out }.run()).await
}

/// Runs a command that prints messages until it ends, a signal arrives, or nobody reads the output any more.
pub(super) async fn until_signal_or_unread(
    reading: impl Future<Output = Result<ExitCode, Box<dyn Error>>>,
) -> Result<ExitCode, Box<dyn Error>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        ended = reading => match ended {
            Err(error) if is_unread(&*error) => Ok(ExitCode::SUCCESS),
            ended => ended,
        },
        () = unread() => Ok(ExitCode::SUCCESS),
        _ = terminate.recv() => Ok(ExitCode::SUCCESS),
        _ = interrupt.recv() => Ok(ExitCode::SUCCESS),
    }
}

struct Reading<'a> {
    command: &'a SubscribeCommand,
    subscription: Subscription,
    handled: Handled,
    lines: Lines,
    out: BufWriter<StdoutLock<'static>>,
}

impl Reading<'_> {
    async fn run(mut self) -> Result<ExitCode, Box<dyn Error>> {
        let requested: HashSet<&str> = self.command.streams.iter().map(String::as_str).collect();
        let (mut messages, mut closed) = (0, HashSet::new());
        while let Some(item) = self.next().await? {
            match &item {
                Item::Refused(refusal) => return Err(refusal.clone().into()),
                Item::Untrusted(error) => return Err(error.clone().into()),
                Item::Closed { stream } => drop(closed.insert(stream.clone())),
                Item::Message(message) if self.handled.has_read(message) => continue,
                Item::Message(message) => {
                    messages += 1;
                    // The stream was deleted and created again.
                    closed.remove(&message.stream);
                }
                _ => {}
            }
            self.handle(&item).await?;
            let is_enough = self.command.count.is_some_and(|count| messages >= count);
            if is_enough || closed.len() == requested.len() {
                break;
            }
        }
        self.out.flush()?;
        Ok(ExitCode::SUCCESS)
    }

    /// Waits for the next item. What was printed before becomes visible before it waits.
    async fn next(&mut self) -> Result<Option<Item>, Box<dyn Error>> {
        let ready = self.subscription.next().now_or_never();
        if let Some(token) = self.subscription.resume_token() {
            self.handled.keep_token(token)?;
        }
        match ready {
            Some(item) => Ok(item),
            None => {
                self.out.flush()?;
                Ok(self.subscription.next().await)
            }
        }
    }

    async fn handle(&mut self, item: &Item) -> Result<(), Box<dyn Error>> {
        let Self { command, lines, out, handled, .. } = self;
        if !command.quiet
            && !lines.json
            && let Some(remark) = Lines::remark(item)
        {
            eprintln!("pollgate: {remark}");
        }
        match (&command.exec, item) {
            (Some(exec), Item::Message(message)) => {
                execute(exec, &message.stream, message.offset, message.data.bytes()).await?;
            }
            (Some(_), _) => {}
            (None, item) => lines.write(out, item)?,
        }
        if let Item::Message(message) = item
            && handled.is_kept()
        {
            out.flush()?;
            handled.keep_message(message)?;
        }
        Ok(())
    }
}

/// Runs a command of the shell with a message as its standard input. It need not read it.
pub(super) async fn execute(
    command: &str,
    stream: &str,
    offset: Option<Offset>,
    message: &[u8],
) -> Result<(), Box<dyn Error>> {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).env("POLLGATE_STREAM", stream).stdin(Stdio::piped()).kill_on_drop(true);
    if let Some(offset) = offset {
        shell.env("POLLGATE_OFFSET", offset.to_string());
    }
    let mut child = shell.spawn()?;
    if let Some(mut input) = child.stdin.take() {
        match input.write_all(message).await {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error.into()),
            _ => {}
        }
    }
    let status = child.wait().await?;
    if status.success() { Ok(()) } else { Err(format!("the command of --exec failed: {status}").into()) }
}

/// Waits until nobody can read standard output any more. Never completes if it is neither a pipe nor a socket.
async fn unread() {
    let waiting = spawn_blocking(|| {
        let output = io::stdout();
        // Errors and hang-ups are told without being asked for.
        let told = loop {
            match poll(&mut [PollFd::new(&output, PollFlags::empty())], None) {
                Err(Errno::INTR) => {}
                told => break told,
            }
        };
        told.is_ok()
    });
    if !waiting.await.unwrap_or(false) {
        pending().await
    }
}

fn form(name: FormName) -> Form {
    match name {
        FormName::WebSocket => Form::WebSocket,
        FormName::Sse => Form::Sse,
        FormName::Ndjson => Form::Ndjson,
        FormName::LongPoll => Form::LongPoll,
        FormName::ShortPoll => Form::ShortPoll,
    }
}

/// What is said of an event.
fn remark(event: &Event) -> Option<String> {
    match event {
        Event::Form { from: None, .. } => None,
        Event::Form { to, reason, .. } => Some(format!("reads by {to} now ({reason})")),
        Event::Restart { wait } => Some(format!("the gateway is unreachable; next attempt in {wait:.1?}")),
        Event::NotGateway => Some("something else answers in place of the gateway".to_owned()),
        Event::Untrusted(error) => Some(error.to_string()),
        _ => None,
    }
}

fn is_unread(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}
