//! TLS to the engine, and credentials.

use serde_json::json;
use tempfile::TempDir;

use crate::outages::refusal_of;
use crate::server::{Engine, start_gateway};
use crate::world::command::run;
use crate::world::{get, post, put, reserved_port};

/// A server that speaks TLS, with a certificate of an authority of its own, and requires a password. Returns its URL with user and
/// password, and the file of the authority, which is removed with the directory.
async fn encrypted() -> (Engine, String, String, TempDir) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (ca, ca_key, key, request, certificate, extensions) = (
        path("ca.pem"),
        path("ca.key"),
        path("key"),
        path("request"),
        path("certificate"),
        path("extensions"),
    );
    let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let authority = ["req", "-x509", "-days", "2", "-subj", "/CN=authority", "-keyout", &ca_key, "-out", &ca];
    run("openssl", &[&authority[..], &new_key].concat());
    let ask = ["req", "-new", "-subj", "/CN=engine", "-keyout", &key, "-out", &request];
    run("openssl", &[&ask[..], &new_key].concat());
    std::fs::write(&extensions, "subjectAltName=IP:127.0.0.1").unwrap();
    let sign =
        ["x509", "-req", "-days", "2", "-CAcreateserial", "-in", &request, "-CA", &ca, "-CAkey", &ca_key];
    run("openssl", &[&sign[..], &["-extfile", &extensions, "-out", &certificate]].concat());
    let port = reserved_port().to_string();
    let engine = Engine::redis(&[
        "--bind",
        "127.0.0.1",
        "--tls-port",
        &port,
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "no",
        "--save",
        "",
        "--user",
        "gate",
        "on",
        ">secret",
        "allkeys",
        "allchannels",
        "allcommands",
    ])
    .await;
    (engine, format!("rediss://gate:secret@127.0.0.1:{port}"), ca, directory)
}

#[tokio::test]
async fn an_engine_with_tls_is_used_with_its_authority_and_password() {
    let (_engine, url, ca, _directory) = encrypted().await;
    let gateway = start_gateway(&url, "one", &["--store-ca", &ca]).await;
    gateway.send(put("/v1/stream/s").json("")).await.expect(201);
    gateway.send(post("/v1/stream/s").json("1")).await.expect(204);
    assert_eq!(gateway.send(get("/v1/stream/s")).await.expect(200).json(), json!([1]));
    assert!(!gateway.log().contains("secret"), "{}", gateway.log());

    // The password may be in a file.
    let file = format!("{ca}.password");
    std::fs::write(&file, "secret\n").unwrap();
    let without = url.replace(":secret@", "@");
    let other = start_gateway(&without, "other", &["--store-ca", &ca, "--store-password-file", &file]).await;
    assert_eq!(other.send(get("/v1/stream/s")).await.expect(200).json(), json!([1]));
}

#[tokio::test]
async fn an_engine_whose_authority_is_unknown_or_whose_password_differs_is_refused() {
    let (_engine, url, ca, _directory) = encrypted().await;
    let said = refusal_of(&url, &[]).await;
    assert!(said.contains("certificate"), "{said}");
    let said = refusal_of(&url.replace(":secret@", ":wrong@"), &["--store-ca", &ca]).await;
    assert!(said.contains("authentication failed") || said.contains("WRONGPASS"), "{said}");
    assert!(!said.contains("wrong@") && !said.contains("secret"), "{said}");
}
