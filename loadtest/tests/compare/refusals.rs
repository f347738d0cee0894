//! Commands that cannot work end with one clear line and exit code 2.

use tokio::net::TcpListener;

use crate::world::{Ended, Loadtest, alone};

async fn refused(arguments: &[&str]) -> Ended {
    let ended = Loadtest::new(
        &[arguments, &["--clients", "1", "--seconds", "1", "--repeat", "1", "--day-phones", "0"]].concat(),
    )
    .run()
    .await;
    assert_eq!(ended.code, Some(2), "{}", ended.said);
    assert_eq!(ended.said.lines().filter(|line| line.starts_with("loadtest: ")).count(), 1, "{}", ended.said);
    ended
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_impossible_command_ends_with_one_line_of_explanation() {
    let _turn = alone().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    let ended = refused(&["--listen", &taken, "--strategy", "sse"]).await;
    assert!(ended.said.contains("pollgate does not start") && ended.said.contains(&taken), "{}", ended.said);

    let ended = refused(&["--gateway", "/no/such/program"]).await;
    assert!(ended.said.contains("/no/such/program"), "{}", ended.said);

    let ended = refused(&["--gateway", "/bin/true", "--strategy", "sse"]).await;
    assert!(ended.said.contains("true does not start"), "{}", ended.said);

    let ended = refused(&["--rival", "durable-streams=/bin/false", "--strategy", "sse"]).await;
    assert!(ended.said.contains("false does not start"), "{}", ended.said);

    let ended = refused(&["--rival", "durable-streams=/no/such/program"]).await;
    assert!(ended.said.contains("durable-streams is not installed"), "{}", ended.said);

    drop(listener);
    let ended = refused(&["--target", &format!("http://{taken}"), "--strategy", "sse"]).await;
    assert!(ended.said.contains(&taken), "{}", ended.said);

    let ended = refused(&["--target", "gopher://here"]).await;
    assert!(ended.said.contains("http://HOST:PORT"), "{}", ended.said);
}

/// A server that answers every request with 404 is not a gateway.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_no_gateway_is_refused() {
    let _turn = alone().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _head = stream.read(&mut [0; 4096]).await;
            let _sent = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
        }
    });
    let ended = refused(&["--target", &target, "--strategy", "sse"]).await;
    server.abort();
    assert!(ended.said.contains("no gateway") && ended.said.contains("404"), "{}", ended.said);
}
