//! Several certificates: a client gets the one for the name that it asks for.

use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use super::{folder, issue, try_session};
use crate::world::{Gateway, until};

/// Folders with an authority and a certificate each, and a gateway that has all of these certificates.
async fn gateway(names: &[&str]) -> (Vec<TempDir>, Gateway) {
    let folders: Vec<_> = names.iter().map(|_| folder()).collect();
    let mut arguments = Vec::new();
    for (folder, names) in folders.iter().zip(names) {
        issue(folder.path(), names);
        for (option, file) in [("--tls-certificate", "certificate.pem"), ("--tls-key", "key.pem")] {
            arguments.extend([option.to_owned(), folder.path().join(file).to_str().unwrap().to_owned()]);
        }
    }
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let gateway = Gateway::start(&arguments).await;
    (folders, gateway)
}

#[tokio::test]
async fn a_client_gets_the_certificate_for_its_name() {
    let (folders, gateway) =
        gateway(&["DNS:one.example,IP:127.0.0.1", "DNS:two.example,DNS:*.many.example"]).await;
    let [first, second] = &folders[..] else { panic!() };
    for address in [gateway.address, gateway.mqtt] {
        // No name is sent for an address, and the first certificate is served.
        for (folder, name) in [
            (first, "one.example"),
            (second, "two.example"),
            (second, "TWO.example"),
            (second, "any.many.example"),
            (first, "127.0.0.1"),
        ] {
            try_session(folder, address, name, None).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        for name in ["unknown.example", "a.any.many.example"] {
            let error = try_session(first, address, name, None).await.unwrap_err().to_string();
            assert!(error.contains("not valid for"), "the first one, for another name: {error}");
        }
    }
}

#[tokio::test]
async fn each_certificate_is_read_again_and_a_broken_one_stays() {
    let (folders, gateway) = gateway(&["DNS:one.example", "DNS:two.example"]).await;
    let [first, second] = &folders[..] else { panic!() };
    let mut open = try_session(second, gateway.address, "two.example", None).await.unwrap();
    std::fs::write(first.path().join("certificate.pem"), "broken").unwrap();
    issue(second.path(), "DNS:two.example");
    until("the new certificate is served", async || {
        try_session(second, gateway.address, "two.example", None).await.is_ok()
    })
    .await;
    try_session(first, gateway.address, "one.example", None).await.unwrap();
    let broken = first.path().join("certificate.pem").display().to_string();
    until("the log names the broken one", async || gateway.log().contains(&broken)).await;
    open.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
}
