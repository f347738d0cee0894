//! `pollgate pub` and `sub` with MQTT URLs.

use std::path::Path;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

use crate::authorization::Protected;
use crate::client_commands::{Shell, ended, numbers};
use crate::world::{Gateway, PATIENCE, post, reserved_port, until};

/// The command with its words, for the MQTT listener of the gateway.
fn words(shell: &Shell, words: &str) -> String {
    format!("{words} --url mqtt://{}", shell.gateway.mqtt)
}

async fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    timeout(PATIENCE, lines.next_line()).await.expect("no line").unwrap().expect("a line")
}

/// Starts `sub`, and waits until it has subscribed.
async fn subscribed(shell: &Shell, command: &str) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut reader = shell.command(command).spawn().unwrap();
    let lines = BufReader::new(reader.stdout.take().unwrap()).lines();
    until("it has subscribed", async || shell.gateway.metric("pollgate_subscriptions").await == 1.0).await;
    (reader, lines)
}

#[tokio::test]
async fn messages_of_mqtt_and_http_are_printed_a_line_each() {
    let shell = Shell::start().await;
    let (reader, mut lines) = subscribed(&shell, &words(&shell, "sub rooms/+ --count 6")).await;
    shell.output(&words(&shell, "pub rooms/1 hello"), "").await;
    assert_eq!(next(&mut lines).await, "rooms/1\thello");
    shell.output(&words(&shell, "pub rooms/1 --whole"), "two\nlines").await;
    assert_eq!(next(&mut lines).await, "rooms/1\t\"two\\nlines\"");
    // The stream is created for JSON, where text is a string.
    shell.output(&words(&shell, "pub rooms/2 --content-type application/json"), "17\ntext\n").await;
    assert_eq!([next(&mut lines).await, next(&mut lines).await], ["rooms/2\t17", "rooms/2\ttext"]);
    let refused = shell.run(&words(&shell, "pub rooms/2 text"), "").await;
    assert!(
        refused.code == 1 && refused.complaint.contains("--content-type application/json"),
        "{refused:?}"
    );
    shell.output("pub rooms/3 web", "").await;
    assert_eq!(next(&mut lines).await, "rooms/3\tweb");
    let json = shell.command(&words(&shell, "sub rooms/2 --json --count 1")).spawn().unwrap();
    until("both have subscribed", async || shell.gateway.metric("pollgate_subscriptions").await == 2.0).await;
    shell.gateway.send(post("/v1/stream/rooms/2").json(r#"{"n": 1}"#)).await.expect(204);
    assert_eq!(next(&mut lines).await, r#"rooms/2	{"n": 1}"#);
    assert_eq!(ended(json).await.out, "{\"stream\":\"rooms/2\",\"data\":{\"n\": 1}}\n");
    let left = ended(reader).await;
    assert_eq!((left.code, &*left.complaint), (0, ""));
}

#[tokio::test]
async fn a_reader_begins_with_the_next_message_or_the_retained_one_and_says_so() {
    let shell = Shell::start().await;
    for from in ["earliest", "last:2", "31e1cc947a056239_000000000000000c"] {
        let refused = shell.run(&words(&shell, &format!("sub chat --from {from}")), "").await;
        assert!(refused.code == 1 && refused.complaint.contains("--from last:1"), "{refused:?}");
    }
    let mut mqtt =
        crate::world::mqtt::Mqtt::connect(shell.gateway.mqtt, &crate::world::mqtt::Hello::new("p")).await;
    mqtt.publish_with("chat", b"kept", 1, true, Vec::new()).await;
    mqtt.publish("chat", b"later", 1).await;
    assert_eq!(shell.output(&words(&shell, "sub chat --from last:1 --count 1"), "").await, "kept\n");
    let nobody = shell.run("sub chat --url mqtt://127.0.0.1:1 --timeout 100ms", "").await;
    assert!(nobody.code == 1 && nobody.complaint.contains("no gateway has answered"), "{nobody:?}");
    let secret = shell.run("pub chat x --url mqtt://ada:secret@127.0.0.1:1 --timeout 100ms", "").await;
    assert!(secret.code == 1 && !secret.complaint.contains("secret"), "{secret:?}");
}

/// The command fails at the third message. What is published while no reader runs waits in the session.
#[tokio::test]
async fn with_a_state_file_a_message_is_acknowledged_when_its_command_has_succeeded() {
    let shell = Shell::start().await;
    let job = "cat >>done; echo >>done; test -e failed || ! grep -q 3 done || { touch failed; exit 3; }";
    let run = async |count: &str| {
        let mut command =
            shell.command(&words(&shell, &format!("sub jobs --state read.json --count {count}")));
        command.args(["--exec", job]).spawn().unwrap()
    };
    let failing = run("5").await;
    until("it has subscribed", async || shell.gateway.metric("pollgate_subscriptions").await == 1.0).await;
    shell.output(&words(&shell, "pub jobs"), &numbers(1..=3)).await;
    let failed = ended(failing).await;
    assert!(failed.code == 1 && failed.complaint.contains("exit status: 3"), "{failed:?}");
    shell.output("pub jobs", &numbers(4..=5)).await;
    assert_eq!(ended(run("3").await).await.code, 0);
    let done = std::fs::read_to_string(Path::join(shell.folder.path(), "done")).unwrap();
    assert_eq!(done, "1\n2\n3\n3\n4\n5\n");
}

/// What was published by HTTP has QoS 2.
#[tokio::test]
async fn a_reader_gets_each_message_once_over_a_kill_of_the_gateway() {
    let (store, port) = (tempfile::tempdir().unwrap(), reserved_port().to_string());
    let mqtt = format!("127.0.0.1:{port}");
    let arguments = ["--store", store.path().to_str().unwrap(), "--mqtt", &mqtt];
    let mut shell = Shell::over(Gateway::start(&arguments).await);
    let url = format!("mqtt://{mqtt}");
    let (reader, mut lines) =
        subscribed(&shell, &format!("sub numbers --quiet --count 600 --url {url}")).await;
    shell.output("pub numbers", &numbers(1..=300)).await;
    let mut printed = next(&mut lines).await + "\n";
    shell.gateway.signal("KILL");
    shell.gateway.ended(PATIENCE).await;
    shell.gateway = Gateway::start(&arguments).await;
    shell.output("pub numbers", &numbers(301..=600)).await;
    while let Some(line) = timeout(PATIENCE, lines.next_line()).await.expect("no line").unwrap() {
        printed += &(line + "\n");
    }
    assert_eq!(printed, numbers(1..=600));
    assert_eq!(ended(reader).await.code, 0);
}

#[tokio::test]
async fn tls_tokens_and_web_sockets_lead_to_the_same_streams() {
    let certificate =
        |name: &str| format!("{}/tests/gateway/certificates/{name}", env!("CARGO_MANIFEST_DIR"));
    let (chain, key, ca) = (certificate("gateway.pem"), certificate("key.pem"), certificate("authority.pem"));
    let folder = tempfile::tempdir().unwrap();
    let (own_key, auth) = (folder.path().join("key"), folder.path().join("auth.toml"));
    crate::authorization::pollgate(&["keygen", own_key.to_str().unwrap()]);
    std::fs::write(&auth, "key_file = 'key'\n").unwrap();
    let files = ["--auth", auth.to_str().unwrap(), "--tls-certificate", &chain, "--tls-key", &key];
    let shell = Shell::over(Gateway::start(&files).await);
    let rights =
        ["token", "--key-file", own_key.to_str().unwrap(), "--read", "#", "--append", "#", "--create", "#"];
    std::fs::write(shell.folder.path().join("token"), crate::authorization::pollgate(&rights)).unwrap();
    let (mqtt, web) = (shell.gateway.mqtt, shell.gateway.address);
    for (index, url) in [format!("mqtts://{mqtt}"), format!("wss://{web}/mqtt")].iter().enumerate() {
        let options = format!("--ca {ca} --token-file token --url {url}");
        let mut reader = shell.command(&format!("sub chat --count 1 {options}")).spawn().unwrap();
        until("it has subscribed", async || shell.gateway.metric("pollgate_subscriptions").await == 1.0)
            .await;
        shell.output(&format!("pub chat {index} {options}"), "").await;
        let stdout = reader.stdout.take().unwrap();
        assert_eq!(next(&mut BufReader::new(stdout).lines()).await, index.to_string(), "{url}");
        assert_eq!(ended(reader).await.code, 0);
        let untrusted = shell.run(&format!("pub chat x --token-file token --url {url}"), "").await;
        assert!(untrusted.code == 1 && untrusted.complaint.contains("certificate"), "{untrusted:?}");
        let anonymous = shell.run(&format!("pub chat x --ca {ca} --url {url}"), "").await;
        assert!(anonymous.code == 1 && anonymous.complaint.contains("NotAuthorized"), "{anonymous:?}");
    }
}

#[tokio::test]
async fn a_token_of_the_url_counts_and_a_wrong_one_is_told() {
    let protected = Protected::start("").await;
    let token = protected.token(&["--append", "news"]);
    let shell = Shell::over(protected.gateway);
    let url = |token: &str| {
        format!(
            "pub news [2] --content-type application/json --url mqtt://any:{token}@{}",
            shell.gateway.mqtt
        )
    };
    shell.output(&url(&token), "").await;
    let refused = shell.run(&url("wrong"), "").await;
    assert!(refused.code == 1 && refused.complaint.contains("refuses the connection"), "{refused:?}");
}
