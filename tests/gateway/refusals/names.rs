//! Paths that are not valid stream names.

use super::Fixture;
use crate::world::{get, post, put};

const ALL: [fn(String) -> crate::world::Request; 3] = [get, put, post];

#[tokio::test]
async fn a_name_that_a_proxy_or_a_log_could_misread_is_refused_by_every_method() {
    let fixture = Fixture::start().await;
    let long = "x".repeat(600);
    let long_when_decoded = "%c3%a9".repeat(257);
    for name in [
        "",
        "..",
        ".",
        "a/..",
        "../text",
        "a/../text",
        "a/./text",
        "%2e%2e",
        "%2E%2e/text",
        "a/%2e%2e/text",
        ".%2e",
        "%2e",
        "a//b",
        "/",
        "/a",
        "a/",
        "a%2f%2fb",
        "a%2f",
        "a%2f..%2fb",
        "%00",
        "a%00b",
        "%0d%0a",
        "a%0d%0aX-Evil:%20yes",
        "a%0ab",
        "%7f",
        "%c2%85",
        "%1b[2J",
        &long,
        &long_when_decoded,
        "%ff",
        "%c3",
        "%c3%28",
        "%ed%a0%80",
        "%c0%ae%c0%ae",
        "%f4%90%80%80",
    ] {
        for method in ALL {
            fixture.refuses(method(format!("/v1/stream/{name}")), 400, "stream-name").await;
        }
    }
    fixture.is_untouched().await;
}

#[tokio::test]
async fn names_of_subscriptions_are_reserved_however_they_are_spelled() {
    let fixture = Fixture::start().await;
    for name in ["__ds/", "__ds/subscriptions", "__ds/a/b", "__ds", "%5f_ds/a", "__ds%2fa"] {
        for method in ALL {
            fixture.refuses(method(format!("/v1/stream/{name}")), 501, "reserved").await;
        }
    }
    fixture.is_untouched().await;
}

#[tokio::test]
async fn the_error_for_an_unknown_path_says_where_streams_are() {
    let fixture = Fixture::start().await;
    for path in [
        "/page",
        "/v1",
        "/v1/stream",
        "/v2/stream/text",
        "/V1/stream/text",
        "//v1/stream/text",
        "/v1/%73tream/text",
    ] {
        for method in ALL {
            let answer = fixture.refuses(method(path.to_owned()), 404, "no-such-path").await;
            assert!(answer.text().contains("/v1/stream/{name}"));
        }
    }
    fixture.is_untouched().await;
}

#[tokio::test]
async fn raw_control_characters_and_foreign_bytes_in_the_target_are_refused() {
    let fixture = Fixture::start().await;
    let names: [&[u8]; 7] = [b"a\0b", b"a\rb", b"a\nb", b"a\r\nb", b"a b", b"a\x7fb", b"a\x01b"];
    for name in names {
        for method in ["GET", "PUT"] {
            let request =
                [method.as_bytes(), b" /v1/stream/", name, b" HTTP/1.1\r\nhost: localhost\r\n\r\n"].concat();
            fixture.refuses_bytes(&[&request]).await;
        }
    }
    let foreign = b"PUT /v1/stream/\xff\xfe HTTP/1.1\r\nhost: localhost\r\n\r\n";
    fixture.refuses_bytes(&[foreign]).await;
    fixture.is_untouched().await;
}
