//! `pollgate pub`, `sub`, `follow`, `ls`, `stat` and `rm` in shells and pipes.

use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::world::{Gateway, PATIENCE, post, put, send_signal};

/// A folder of a user, and a gateway.
pub(crate) struct Shell {
    pub(crate) gateway: Gateway,
    pub(crate) folder: TempDir,
}

/// What a command left.
#[derive(Debug, PartialEq)]
pub(crate) struct Left {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) complaint: String,
}

impl Shell {
    pub(crate) async fn start() -> Self {
        Self::over(Gateway::start(&["--store", "memory"]).await)
    }

    pub(crate) fn over(gateway: Gateway) -> Self {
        Self { gateway, folder: TempDir::new().unwrap() }
    }

    /// The command with its words, which spaces separate, in the folder and for the gateway.
    pub(crate) fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pollgate"));
        command.args(words.split(' ')).current_dir(&self.folder).kill_on_drop(true);
        command.env("POLLGATE_URL", format!("http://{}", self.gateway.address));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, words: &str, input: &str) -> Left {
        let mut child = self.command(words).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        ended(child).await
    }

    /// Runs a command that has to succeed, and returns its output.
    pub(crate) async fn output(&self, words: &str, input: &str) -> String {
        let left = self.run(words, input).await;
        assert_eq!((left.code, &*left.complaint), (0, ""), "{words}: {left:?}");
        left.out
    }
}

pub(crate) async fn ended(child: Child) -> Left {
    let output = timeout(PATIENCE, child.wait_with_output()).await.expect("it hangs").unwrap();
    let [out, complaint] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    Left { code: output.status.code().unwrap(), out, complaint }
}

pub(crate) fn numbers(range: std::ops::RangeInclusive<u32>) -> String {
    range.map(|number| format!("{number}\n")).collect()
}

#[tokio::test]
async fn what_is_published_is_printed_a_line_each() {
    let shell = Shell::start().await;
    shell.output("pub chat hello", "").await;
    shell.output(r#"pub chat {"n":1}"#, "").await;
    shell.output("pub chat --string 17", "").await;
    shell.output("pub chat --whole", "two\nlines").await;
    assert_eq!(
        shell.output("sub chat --from earliest --count 4", "").await,
        "hello\n{\"n\":1}\n17\n\"two\\nlines\"\n"
    );
    let refused = shell.run(r#"pub chat {"n":1"#, "").await;
    assert!(refused.code == 1 && refused.complaint.contains("--string"), "{refused:?}");
    shell.output("pub log --content-type text/plain --whole", "a line\n").await;
    assert_eq!(shell.output("sub log --from earliest --count 1", "").await, "a line\n");
}

#[tokio::test]
async fn lines_of_standard_input_are_messages_in_their_order() {
    let shell = Shell::start().await;
    shell.output("pub numbers", &numbers(1..=10_000)).await;
    assert_eq!(shell.output("sub numbers --from earliest --count 10000", "").await, numbers(1..=10_000));
    assert_eq!(shell.output("follow numbers --count 10", "").await, numbers(9_991..=10_000));
    let lines = shell.output("sub numbers --from last:2 --count 2 --json", "").await;
    let [before, last]: [serde_json::Value; 2] =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>().try_into().unwrap();
    assert_eq!(
        (&before["stream"], &before["data"], &last["data"]),
        (&"numbers".into(), &9999.into(), &10_000.into())
    );
    let from = format!("sub numbers --count 1 --from {}", before["offset"].as_str().unwrap());
    assert_eq!(shell.output(&from, "").await, "10000\n");
}

/// The command ends between two messages of one response, and the next one goes on with the message after.
#[tokio::test]
async fn a_state_file_goes_on_behind_the_last_message_that_was_printed() {
    let shell = Shell::start().await;
    shell.output("pub numbers", &numbers(1..=300)).await;
    let mut printed = String::new();
    for count in [1, 100, 50, 149] {
        let words = format!("sub numbers --from earliest --state read.json --count {count}");
        printed += &shell.output(&words, "").await;
    }
    assert_eq!(printed, numbers(1..=300));
}

#[tokio::test]
async fn a_command_runs_for_each_message_and_its_failure_repeats_the_message() {
    let shell = Shell::start().await;
    shell.output("pub jobs", &numbers(1..=5)).await;
    // It fails once, at the third message.
    let job = "cat >>done; echo >>done; test -e failed || ! grep -q 3 done || { touch failed; exit 3; }";
    let run = async || {
        let mut command = shell.command("sub jobs --from earliest --state read.json --count");
        let left = if Path::exists(&shell.folder.path().join("failed")) { "3" } else { "5" };
        ended(command.args([left, "--exec", job]).spawn().unwrap()).await
    };
    let failed = run().await;
    assert!(failed.code == 1 && failed.complaint.contains("exit status: 3"), "{failed:?}");
    assert_eq!(run().await.code, 0);
    let done = std::fs::read_to_string(shell.folder.path().join("done")).unwrap();
    assert_eq!(done, "1\n2\n3\n3\n4\n5\n");
}

#[tokio::test]
async fn a_subscription_waits_for_streams_and_ends_when_all_are_closed() {
    let shell = Shell::start().await;
    let mut reader = shell.command("sub one other --quiet --from earliest").spawn().unwrap();
    let mut lines = BufReader::new(reader.stdout.take().unwrap()).lines();
    for (stream, message) in [("one", "a"), ("other", "b"), ("one", "c")] {
        shell.output(&format!("pub {stream} {message}"), "").await;
        let line = timeout(PATIENCE, lines.next_line()).await.expect("no line").unwrap();
        assert_eq!(line, Some(format!("{stream}\t{message}")));
    }
    let close = async |stream: &str| {
        let close = post(format!("/v1/stream/{stream}")).header("stream-closed", "true").json("");
        shell.gateway.send(close).await.expect(204);
    };
    // A stream that is deleted and created again is open again.
    close("one").await;
    shell.output("rm one", "").await;
    shell.output("pub one d", "").await;
    assert_eq!(
        timeout(PATIENCE, lines.next_line()).await.expect("no line").unwrap().as_deref(),
        Some("one\td")
    );
    close("one").await;
    shell.output("pub other e", "").await;
    assert_eq!(
        timeout(PATIENCE, lines.next_line()).await.expect("no line").unwrap().as_deref(),
        Some("other\te")
    );
    close("other").await;
    assert_eq!(ended(reader).await, Left { code: 0, out: String::new(), complaint: String::new() });
    // A name that is given twice is one stream.
    assert_eq!(shell.output("sub other other --quiet --from last:1", "").await, "other\te\n");
}

#[tokio::test]
async fn a_subscription_ends_with_its_reader_or_by_a_signal() {
    let shell = Shell::start().await;
    shell.output("pub chat hello", "").await;
    let start = async || {
        let mut reader = shell.command("sub chat --from earliest").spawn().unwrap();
        let mut lines = BufReader::new(reader.stdout.take().unwrap()).lines();
        assert_eq!(
            timeout(PATIENCE, lines.next_line()).await.expect("no line").unwrap().as_deref(),
            Some("hello")
        );
        (reader, lines)
    };
    // Nothing is printed any more: the command notices by itself that its pipe is closed.
    let (reader, lines) = start().await;
    drop(lines);
    assert_eq!(ended(reader).await.code, 0);
    let (reader, _lines) = start().await;
    send_signal(reader.id().unwrap(), Signal::TERM);
    assert_eq!(ended(reader).await.code, 0);
}

#[tokio::test]
async fn streams_are_listed_described_and_deleted() {
    let shell = Shell::start().await;
    for stream in ["rooms/1/a", "rooms/2/a", "rooms/2/b", "other"] {
        shell.output(&format!("pub {stream} 1"), "").await;
    }
    assert_eq!(shell.output("ls", "").await, "other\nrooms/1/a\nrooms/2/a\nrooms/2/b\n");
    assert_eq!(shell.output("ls rooms/+/a", "").await, "rooms/1/a\nrooms/2/a\n");
    assert!(shell.output("ls --long other", "").await.starts_with("other\tapplication/json\t1 messages"));
    let described = shell.output("stat other", "").await;
    assert!(
        described.contains("content type     application/json\nkept             1 messages\n"),
        "{described}"
    );
    let (gone, missing) = (shell.run("rm other nope", "").await, "pollgate: nope does not exist\n");
    assert_eq!((gone.code, &*gone.complaint), (1, missing));
    assert_eq!(shell.output("rm --force nope", "").await, "");
    let missing = shell.run("stat other", "").await;
    assert_eq!((missing.code, &*missing.complaint), (1, "pollgate: other does not exist\n"));
}

/// A listing is pages of 256 streams.
#[tokio::test]
async fn all_pages_of_a_listing_are_printed() {
    let shell = Shell::start().await;
    let names: Vec<String> = (0..600).map(|number| format!("many/{number:04}")).collect();
    for name in &names {
        shell.gateway.send(put(format!("/v1/stream/{name}"))).await.expect(201);
    }
    assert_eq!(shell.output("ls many/+", "").await, names.join("\n") + "\n");
}

#[tokio::test]
async fn without_a_gateway_commands_say_so_after_their_time() {
    let shell = Shell::start().await;
    for words in ["pub chat hello", "ls", "stat chat", "rm chat"] {
        let left = shell.run(&format!("{words} --url http://127.0.0.1:1 --timeout 100ms"), "").await;
        assert!(left.code == 1 && left.complaint.contains("no gateway has answered"), "{words}: {left:?}");
    }
}

#[tokio::test]
async fn completions_and_manual_pages_name_all_commands() {
    let shell = Shell::start().await;
    let script = shell.output("completions bash", "").await;
    shell.output("man pages", "").await;
    for command in ["pub", "sub", "follow", "ls", "stat", "rm", "bench", "serve"] {
        assert!(script.contains(&format!("pollgate__subcmd__{command}")), "{command}");
        let page = shell.folder.path().join("pages").join(format!("pollgate-{command}.1"));
        assert!(std::fs::read_to_string(page).unwrap().contains(".SH"), "{command}");
    }
}
