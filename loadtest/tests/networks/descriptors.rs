//! The middlebox as a command leaks no descriptors.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::ends::{ANY, HANGS};

const CLIENTS: usize = 300;

/// 1. 300 clients at the same time get a response or wait for it. 2. They disconnect, and so does the server. 3. The process
/// has as many descriptors as before. 4. A signal ends it, and it prints its counts.
#[tokio::test]
async fn many_connections_leave_no_descriptor() {
    for (network, answered) in [
        ("nat-idle:100ms", false),
        ("address-change:200ms", false),
        ("proxy-cut", true),
        ("http10", true),
        ("heroku", true),
    ] {
        let listener = TcpListener::bind(ANY).await.unwrap();
        let upstream = listener.local_addr().unwrap().to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
        command.args(["middlebox", "--network", network, "--upstream", &upstream]);
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = said.next_line().await.unwrap().unwrap();
        let address = line.strip_prefix("listening ").unwrap().to_owned();
        let descriptors = format!("/proc/{}/fd", child.id().unwrap());
        let open = || std::fs::read_dir(&descriptors).unwrap().count();
        let before = open();
        let serving = tokio::spawn(serve(listener));
        let mut clients = JoinSet::new();
        for _client in 0..CLIENTS {
            clients.spawn(ask(address.clone(), answered));
        }
        clients.join_all().await;
        serving.abort();
        let closed = async {
            while open() > before {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(HANGS, closed).await.unwrap_or_else(|_| {
            panic!("{network}: {} descriptors after a minute, {before} before", open());
        });
        let id = rustix::process::Pid::from_raw(child.id().unwrap() as i32).unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        let last = said.next_line().await.unwrap().unwrap();
        assert!(last.starts_with(&format!("connections {CLIENTS}, requests ")), "{last}");
        assert!(child.wait().await.unwrap().success());
    }
}

/// Answers, and keeps the connection until its client disconnects or the server ends.
async fn serve(listener: TcpListener) {
    let mut clients = JoinSet::new();
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        clients.spawn(async move {
            let mut buffer = [0; 1024];
            while client.read(&mut buffer).await.is_ok_and(|count| count > 0) {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                client.write_all(answer).await.unwrap();
            }
        });
    }
}

/// Sends a request, and disconnects after the response, or after a second if the network may silence it.
async fn ask(address: String, answered: bool) {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n").await.unwrap();
    let mut first = [0; 1];
    let patience = if answered { HANGS } else { Duration::from_secs(1) };
    let read = timeout(patience, client.read_exact(&mut first)).await;
    assert!(!answered || read.expect("no answer in a minute").is_ok());
    sleep(Duration::from_millis(300)).await;
}
