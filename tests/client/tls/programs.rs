//! Other programs' TLS against a gateway that speaks it: OpenSSL, curl and Node.

use std::process::Stdio;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, Command};
use tokio::time::timeout;

use super::{encrypted, folder};
use crate::world::PATIENCE;

const SUITES: [&str; 3] =
    ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"];

/// Reads until `end` has come.
async fn read_until(mut from: impl AsyncRead + Unpin, end: &str) {
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(end) {
        let more = timeout(PATIENCE, from.read_buf(&mut read)).await;
        let more = more.unwrap_or_else(|_| panic!("no {end:?} in {}", String::from_utf8_lossy(&read)));
        assert!(more.unwrap() > 0, "no {end:?} in {}", String::from_utf8_lossy(&read));
    }
}

/// Runs a program and returns what it has printed.
async fn printed(command: &mut Command) -> Vec<u8> {
    let output = timeout(PATIENCE, command.kill_on_drop(true).output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[tokio::test]
async fn openssl_changes_keys_of_both_sides_while_a_poll_is_held() {
    let folder = folder();
    let gateway = encrypted(&folder).await;
    for suite in SUITES {
        let mut openssl = Command::new("openssl")
            .args(["s_client", "-connect", &gateway.address.to_string(), "-ciphersuites", suite])
            .args(["-CAfile", folder.path().join("root.pem").to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("openssl");
        let mut input = openssl.stdin.take().unwrap();
        let (mut output, mut errors) = (openssl.stdout.take().unwrap(), openssl.stderr.take().unwrap());
        let write =
            async |input: &mut ChildStdin, text: &str| input.write_all(text.as_bytes()).await.unwrap();
        let stream =
            format!("/v1/stream/{suite} HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\n");
        write(&mut input, &format!("PUT {stream}content-length: 0\r\n\r\n")).await;
        read_until(&mut output, "201 Created").await;
        // K asks for new keys of the gateway, k announces new ones of the client.
        for command in ["K", "k", "K", "K"] {
            let poll = stream.replace(" HTTP", "?offset=now&live=long-poll&timeout=55 HTTP");
            write(&mut input, &format!("GET {poll}\r\n")).await;
            gateway.until_held(1).await;
            write(&mut input, &format!("{command}\n")).await;
            read_until(&mut errors, "KEYUPDATE").await;
            let url = format!("https://{}/v1/stream/{suite}", gateway.address);
            let root = folder.path().join("root.pem");
            let mut curl = Command::new("curl");
            curl.args(["-sf", "-H", "content-type: text/plain", "-d", "hello", &url, "--cacert"]).arg(root);
            printed(&mut curl).await;
            read_until(&mut output, "hello").await;
        }
        write(&mut input, "Q\n").await;
        assert!(timeout(PATIENCE, openssl.wait()).await.unwrap().unwrap().success());
    }
}

#[tokio::test]
async fn curl_uploads_and_downloads_with_each_version_and_suite() {
    let folder = folder();
    let gateway = encrypted(&folder).await;
    let body: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
    let file = folder.path().join("body");
    std::fs::write(&file, &body).unwrap();
    let versions = SUITES.map(|suite| vec!["--tlsv1.3", "--tls13-ciphers", suite]);
    let versions = versions.into_iter().chain([
        vec!["--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384"],
        vec!["--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256"],
        vec!["--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-CHACHA20-POLY1305"],
    ]);
    for (number, version) in versions.enumerate() {
        for http in ["--http1.1", "--http2"] {
            let url = format!("https://{}/v1/stream/{number}{http}", gateway.address);
            let curl = || {
                let mut curl = Command::new("curl");
                curl.args(["-sf", http, &url]).args(&version);
                curl.arg("--cacert").arg(folder.path().join("root.pem"));
                curl
            };
            let upload = format!("@{}", file.display());
            printed(curl().args(["-X", "PUT", "-H", "content-type: image/png", "--data-binary", &upload]))
                .await;
            assert!(printed(&mut curl()).await == body, "{version:?} {http}");
        }
    }
}

#[tokio::test]
async fn node_uses_one_connection_for_several_requests() {
    let folder = folder();
    let gateway = encrypted(&folder).await;
    let script = "
const https = require('https');
const agent = new https.Agent({ keepAlive: true, maxSockets: 1 });
const [url, ca] = [process.argv[1], require('fs').readFileSync(process.argv[2])];
const ask = (method, body) => new Promise((done, fail) => {
  const options = { method, agent, ca, headers: { 'content-type': 'text/plain' } };
  const request = https.request(url, options, (answer) => {
    let text = '';
    answer.on('data', (more) => { text += more; });
    answer.on('end', () => done(`${answer.statusCode} ${request.reusedSocket} ${text.length}`));
  });
  request.on('error', fail);
  request.end(body);
});
(async () => {
  for (const [method, body] of [['PUT', ''], ['POST', 'x'.repeat(100000)], ['GET', undefined]])
    console.log(await ask(method, body));
  agent.destroy();
})();
";
    let mut node = Command::new("node");
    let url = format!("https://localhost:{}/v1/stream/node", gateway.address.port());
    node.args(["-e", script, &url]).arg(folder.path().join("root.pem"));
    let lines = String::from_utf8(printed(&mut node).await).unwrap();
    assert_eq!(lines, "201 false 0\n204 true 0\n200 true 100000\n");
}
