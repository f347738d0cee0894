//! An issuer of tokens that publishes its keys over HTTPS: a gateway whose stream holds them.

use super::*;
use crate::world::get;

fn pollgate(arguments: &[&str]) -> String {
    let made = Command::new(env!("CARGO_BIN_EXE_pollgate")).args(arguments).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

/// Sends a request on a session of its own, and returns the first line of the response.
async fn status(folder: &TempDir, gateway: &Gateway, request: &str) -> String {
    let mut session = session(folder, gateway.address, None).await;
    session.write_all(request.as_bytes()).await.unwrap();
    let mut line = vec![0; 12];
    timeout(PATIENCE, session.read_exact(&mut line)).await.unwrap().unwrap();
    String::from_utf8(line).unwrap()
}

/// Starts a gateway that fetches the keys of the issuer, whose certificate has to come from the authority in `root`.
async fn relying_on(issuer: &Gateway, folder: &TempDir, root: &TempDir) -> Gateway {
    let path = folder.path().join("auth.toml");
    let settings = format!(
        "[[issuer]]\nname = 'pollgate'\naudience = 'pollgate'\njwks_url = 'https://localhost:{}/v1/stream/keys'\n\
         ca_file = '{}'\n",
        issuer.address.port(),
        root.path().join("root.pem").display(),
    );
    std::fs::write(&path, settings).unwrap();
    Gateway::start(&["--auth", path.to_str().unwrap()]).await
}

#[tokio::test]
async fn keys_are_fetched_from_an_issuer_whose_certificate_is_trusted_and_from_no_other() {
    let (folder, stranger) = (folder(), super::folder());
    issue(stranger.path(), "DNS:localhost");
    let issuer = encrypted(&folder).await;
    let key = folder.path().join("signing.key");
    pollgate(&["keygen", key.to_str().unwrap()]);
    let keys = std::fs::read_to_string(&key).unwrap();
    let publish = format!(
        "PUT /v1/stream/keys HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{keys}",
        keys.len()
    );
    assert_eq!(status(&folder, &issuer, &publish).await, "HTTP/1.1 201");
    let token = pollgate(&["token", "--key-file", key.to_str().unwrap(), "--read", "news"]);
    let ask = async |gateway: &Gateway| {
        let request = get("/v1/stream/news").header("authorization", format!("Bearer {token}"));
        gateway.send(request).await.status.as_u16()
    };
    let trusting = relying_on(&issuer, &folder, &folder).await;
    until("the key is known", async || ask(&trusting).await == 404).await;
    let other = relying_on(&issuer, &folder, &stranger).await;
    until("the fetch has failed", async || other.metric("pollgate_key_fetches_failed_total").await >= 1.0)
        .await;
    // The keys stay unknown, and the next fetch may bring them.
    assert_eq!(ask(&other).await, 503);
}
