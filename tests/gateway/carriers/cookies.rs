//! The cookie that the gateway sets for pages of its own site, in exchange for a token.

use crate::authorization::Protected;
use crate::world::mqtt::{Hello, Mqtt, Packet};
use crate::world::{Raw, WebSocket, delete, get, handshake, options, post};

const COOKIE: &str = "/v1/cookie";
const ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Strict";

#[tokio::test]
async fn a_token_becomes_a_cookie_that_ends_with_it() {
    let world = Protected::start("").await;
    let token = world.token(&["--read", "news", "--append", "news", "--expires", "10m"]);
    let set = world.send(Some(&token), post(COOKIE)).await.expect(204);
    assert_eq!(set.header("cache-control"), "no-store");
    let parts: Vec<_> = set.header("set-cookie").splitn(3, "; ").collect();
    let life: u64 = parts[1].strip_prefix("Max-Age=").unwrap().parse().unwrap();
    assert!((500..=600).contains(&life), "{life}");
    assert_eq!((parts[0], parts[2]), (format!("__Host-pollgate={token}").as_str(), ATTRIBUTES));
    let own = format!("http://{}", world.gateway.address);
    world.gateway.send(get("/v1/stream/news").header("cookie", parts[0])).await.expect(200);
    let append = post("/v1/stream/news").json("2").header("cookie", parts[0]).header("origin", &own);
    world.gateway.send(append).await.expect(204);

    // Only a token in `Authorization` becomes a cookie.
    let with_cookie = post(COOKIE).header("cookie", parts[0]).header("origin", &own);
    for refused in [post(COOKIE), with_cookie, post(COOKIE).header("authorization", "Bearer a.b.c")] {
        let answer = world.gateway.send(refused).await.expect(401);
        assert!(!answer.headers.contains_key("set-cookie"));
    }
    let elsewhere = post(COOKIE).header("origin", "https://elsewhere.example");
    assert!(!world.send(Some(&token), elsewhere).await.expect(403).headers.contains_key("set-cookie"));
    assert_eq!(world.gateway.send(get(COOKIE)).await.expect(405).header("allow"), "POST, DELETE, OPTIONS");
    let preflight = options(COOKIE).header("origin", &own);
    assert_eq!(world.gateway.send(preflight).await.expect(204).header("allow"), "POST, DELETE, OPTIONS");
}

/// The cookie is also cleared if its token is no longer valid, which the browser cannot know.
#[tokio::test]
async fn the_cookie_is_cleared() {
    let world = Protected::start("").await;
    let token = world.token(&["--read", "news"]);
    let own = format!("http://{}", world.gateway.address);
    for cookie in [format!("__Host-pollgate={token}"), "__Host-pollgate=wrong".to_owned(), "a=b".to_owned()] {
        let clear = delete(COOKIE).header("cookie", cookie);
        let cleared = world.gateway.send(clear.clone().header("origin", &own)).await.expect(204);
        assert_eq!(cleared.header("set-cookie"), format!("__Host-pollgate=; Max-Age=0; {ATTRIBUTES}"));
        world.gateway.send(clear.header("origin", "https://elsewhere.example")).await.expect(403);
    }
}

#[tokio::test]
async fn a_token_that_no_browser_takes_as_a_cookie_is_refused() {
    let world = Protected::start("").await;
    let patterns: Vec<_> = (0..60).map(|number| format!("{number}/{}", "x".repeat(60))).collect();
    let rights: Vec<_> = patterns.iter().flat_map(|pattern| ["--read", pattern]).collect();
    let refused = world.send(Some(&world.token(&rights)), post(COOKIE)).await.expect(400);
    assert!(refused.text().contains("4000 bytes"), "{refused:?}");
    let any = Protected::start_with("", &["--origin", "*"], &[]).await;
    any.send(Some(&any.token(&["--read", "news"])), post(COOKIE)).await.expect(404);
}

/// Opens a WebSocket for MQTT with further fields, and sends a CONNECT. Returns the client with the code of its CONNACK, or the status
/// of the response that refuses the WebSocket.
async fn mqtt(world: &Protected, fields: &str, password: Option<&str>) -> Result<(Mqtt, u8), u16> {
    let head = handshake("/mqtt") + "sec-websocket-protocol: mqtt\r\n" + fields;
    let opened = WebSocket::open_with(Raw::open(world.gateway.address).await, head).await;
    let socket = opened.map_err(|answer| answer.status.as_u16())?;
    let mut client = Mqtt::open(socket.carrying().await, 5).await;
    let hello = Hello { password: password.map(str::to_owned), ..Hello::new("page") };
    client.send(&hello.bytes()).await;
    match client.receive().await {
        Some(Packet::Connack { code, .. }) => Ok((client, code)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn mqtt_over_the_websocket_of_a_page_has_the_rights_of_its_cookie_until_they_end() {
    let world = Protected::start("").await;
    let token = world.token(&["--read", "news", "--subject", "a", "--expires", "6s"]);
    let cookie = format!("cookie: __Host-pollgate={token}\r\n");
    let of_page = format!("{cookie}origin: http://localhost\r\n");
    let (mut client, code) = mqtt(&world, &of_page, None).await.unwrap();
    assert_eq!(code, 0);
    assert_eq!((client.subscribe("news", 0).await, client.subscribe("other", 0).await), (0, 0x87));
    // Another site cannot use it, and CONNECT may have a token of its own.
    assert_eq!(mqtt(&world, &cookie, None).await.err(), Some(403));
    let elsewhere = format!("{cookie}origin: https://elsewhere.example\r\n");
    assert_eq!(mqtt(&world, &elsewhere, None).await.err(), Some(403));
    assert_eq!(mqtt(&world, &of_page, Some("wrong")).await.unwrap().1, 0x86);
    let other = world.token(&["--read", "other", "--subject", "b"]);
    let (mut of_other, code) = mqtt(&world, &of_page, Some(&other)).await.unwrap();
    assert_eq!(
        (code, of_other.subscribe("other", 0).await, of_other.subscribe("news", 0).await),
        (0, 0, 0x87)
    );
    assert_eq!(mqtt(&world, "origin: http://localhost\r\n", None).await.unwrap().1, 0x87);

    assert_eq!(client.receive().await, Some(Packet::Disconnect(0xa0)), "it ends with its token");
    assert_eq!(mqtt(&world, &of_page, None).await.err(), Some(401));
}

#[tokio::test]
async fn mqtt_has_no_rights_of_a_cookie_where_pages_of_any_origin_are_allowed() {
    let world = Protected::start_with("", &["--origin", "*"], &[]).await;
    let cookie = format!("cookie: __Host-pollgate={}\r\n", world.token(&["--read", "news"]));
    for origin in ["", "origin: http://localhost\r\n", "origin: https://elsewhere.example\r\n"] {
        assert_eq!(mqtt(&world, &(cookie.clone() + origin), None).await.unwrap().1, 0x87, "{origin}");
    }
}
