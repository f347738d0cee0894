//! The cookie that the gateway sets for pages of its own site, in exchange for a token.

use crate::authorization::Protected;
use crate::world::{delete, get, options, post};

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
