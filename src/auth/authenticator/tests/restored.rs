//! Credentials that were verified before a restart, or by another gateway.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

#[test]
fn credentials_are_recalled_after_a_restart_until_they_expire_or_are_revoked() {
    let world = World::new();
    let settings = AuthSettings::read(&world.folder.path().join("auth.toml")).unwrap();
    let restarted = || Authenticator::new(&settings).unwrap();
    let record = world.verify(&world.own_token(HOUR)).unwrap().record().unwrap();
    let (late, second) = (now() + HOUR, Duration::from_secs(1));
    assert_eq!(restarted().recall(&record, late - second), Some(true));
    assert_eq!(restarted().recall(&record, late), Some(false));
    let revoking = restarted();
    let revocation = serde_json::from_value(json!({"sub": "me"})).unwrap();
    revoking.revoke(vec![revoking.checked_revocation(revocation, now()).unwrap()], now());
    assert_eq!(revoking.recall(&record, now()), Some(false));
    std::fs::remove_file(world.folder.path().join("own")).unwrap();
    generate_key(&world.folder.path().join("own")).unwrap();
    assert_eq!(restarted().recall(&record, now()), Some(false));
    assert_eq!(Authenticator::open().recall(&record, now()), Some(true));
}

/// The keys of such an issuer are fetched after the start.
#[test]
fn whether_credentials_count_is_unknown_until_the_keys_of_all_issuers_were_fetched() {
    let world = World::new();
    let record = world.verify(&signed(&claims())).unwrap().record().unwrap();
    let path = world.folder.path().join("auth.toml");
    let issuer =
        "[[issuer]]\nname = 'https://id.example'\naudience = 'gate'\njwks_url = 'https://id.example/keys'\n";
    std::fs::write(&path, issuer).unwrap();
    let restarted = Authenticator::new(&AuthSettings::read(&path).unwrap()).unwrap();
    assert_eq!(restarted.recall(&record, now()), None);
    assert_eq!(restarted.recall(&record, now() + HOUR), Some(false), "expired");
}

/// Of the gateway that a client was at before, whose issuer has another key since this one has fetched its keys.
#[tokio::test]
async fn a_key_that_only_another_gateway_knows_is_fetched_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let path = folder.path().join("auth.toml");
    let issuer = format!("[[issuer]]\nname = 'https://id.example'\naudience = 'gate'\njwks_url = '{url}'\n");
    std::fs::write(&path, issuer).unwrap();
    let restarted = Arc::new(Authenticator::new(&AuthSettings::read(&path).unwrap()).unwrap());
    let fetching = restarted.clone();
    tokio::spawn(async move { fetching.fetch_keys(|| {}).await });
    let answer_request = async || {
        let (mut stream, _) = in_time("a fetch", listener.accept()).await.unwrap();
        let _request = stream.read(&mut [0; 1024]).await;
        let body = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]});
        let body = body.to_string();
        let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(response.as_bytes()).await.unwrap();
    };
    let rights = World::new().verify(&signed(&claims())).unwrap();
    let stored = rights.to_bytes().unwrap();
    let restore = || restarted.restore(Some(&stored), now());
    assert_eq!(restore(), Ok(None), "no keys were fetched");
    answer_request().await;
    let record = rights.record().unwrap();
    in_time("the keys", async {
        while restarted.recall(&record, now()).is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(restore(), Ok(None), "its key may be new");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(31)).await;
    tokio::time::resume();
    answer_request().await;
    in_time("the keys without its key", async {
        while restore() == Ok(None) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(restore(), Err(Unauthorized::Invalid));
}
