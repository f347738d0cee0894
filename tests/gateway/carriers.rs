//! How clients send tokens to a gateway with `--auth`: tickets, cookies and WebSocket frames; and what a client learns about
//! streams that its token does not grant.

mod cookies;
mod frames;
mod mqtt;

use serde_json::{Value, json};
use tokio::time::timeout;

use mqtt::{auth_bytes, hello};

use crate::authorization::Protected;
use crate::world::mqtt::{Hello, Mqtt, Packet};
use crate::world::{Answer, PATIENCE, Raw, WebSocket, delete, get, handshake, options, post, put};

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

/// The first envelope of a read of many streams in any form.
async fn first_envelope(world: &Protected, token: &str, form: &str) -> Value {
    let query = "stream=inner&stream=news&stream=nope&from=earliest";
    let target = format!("/v1/streams?{query}&live={form}");
    let request = |target: &str| get(target).header("authorization", format!("Bearer {token}"));
    let text = match form {
        "" => world.send(Some(token), get(format!("/v1/streams?{query}"))).await.expect(200).text(),
        "post" => {
            let body = json!({"stream": ["inner", "news", "nope"], "from": "earliest"});
            world.send(Some(token), post("/v1/streams").json(body)).await.expect(200).text()
        }
        "long-poll" => world.send(Some(token), get(target)).await.expect(200).text(),
        "sse" => world.gateway.connect().await.events_of(request(&target)).await.next().await.unwrap().data,
        "ndjson" => {
            let (_, _, body) = world.gateway.connect().await.begin(request(&target)).await.unwrap();
            let (mut body, mut read) = (body, Vec::new());
            crate::world::next_line(&mut body, &mut read).await.unwrap()
        }
        _ => {
            let raw = Raw::open(world.gateway.address).await;
            let mut socket = WebSocket::open_with(raw, handshake(&target) + &bearer(token)).await.unwrap();
            socket.text().await.unwrap()
        }
    };
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn a_read_of_many_streams_serves_the_granted_ones_and_forbids_the_others() {
    let world = Protected::start("").await;
    let owner = world.token(&["--create", "#"]);
    world.send(Some(&owner), put("/v1/stream/inner").json("[1]")).await.expect(201);
    let token = world.token(&["--read", "news"]);
    for form in ["", "post", "long-poll", "sse", "ndjson", "websocket"] {
        let envelope = first_envelope(&world, &token, form).await;
        let forbidden = |stream| json!({"stream": stream, "data": [], "upToDate": true, "forbidden": true});
        let batches = envelope["batches"].as_array().unwrap();
        assert_eq!(batches.len(), 3, "{form}: {envelope}");
        assert_eq!((&batches[0]["stream"], &batches[0]["data"]), (&json!("news"), &json!([1])), "{form}");
        // The response does not reveal whether a stream exists.
        assert_eq!(batches[1..], [forbidden("inner"), forbidden("nope")], "{form}");
    }
}

/// A client whose token grants fewer streams for a while loses no messages.
#[tokio::test]
async fn a_resume_token_keeps_the_positions_of_forbidden_streams() {
    let world = Protected::start("").await;
    let (all, less) =
        (world.token(&["--read", "#", "--create", "#", "--append", "#"]), world.token(&["--read", "news"]));
    world.send(Some(&all), put("/v1/stream/inner").json("[1]")).await.expect(201);
    let read = async |token: &str, resume: &str| -> Value {
        let target = format!("/v1/streams?stream=inner&stream=news&resume={resume}");
        world.send(Some(token), get(target)).await.expect(200).json()
    };
    let resume = |envelope: &Value| envelope["resume"].as_str().unwrap().to_owned();
    let began = world.send(Some(&all), get("/v1/streams?stream=inner&stream=news")).await.expect(200).json();
    world.send(Some(&all), post("/v1/stream/inner").json("2")).await.expect(204);
    let with_less = read(&less, &resume(&began)).await;
    assert_eq!(with_less["batches"][0]["forbidden"], true, "{with_less}");
    let again = read(&all, &resume(&with_less)).await;
    assert_eq!(again["batches"][0]["data"], json!([2]), "{again}");
}

/// Appends to forbidden streams neither end a held poll nor reach it.
#[tokio::test]
async fn a_long_poll_waits_beside_forbidden_streams() {
    let world = Protected::start("").await;
    let (all, less) = (world.token(&["--append", "#", "--create", "#"]), world.token(&["--read", "news"]));
    world.send(Some(&all), put("/v1/stream/inner").json("[1]")).await.expect(201);
    let target = |resume: &str| format!("/v1/streams?stream=inner&stream=news{resume}");
    let began: Value = world.send(Some(&less), get(target(""))).await.expect(200).json();
    let resume = format!("&resume={}&live=long-poll&timeout=50", began["resume"].as_str().unwrap());
    let poll = world.send(Some(&less), get(target(&resume)));
    let publish = async {
        world.gateway.until_held(1).await;
        world.send(Some(&all), post("/v1/stream/inner").json("2")).await.expect(204);
        world.send(Some(&all), post("/v1/stream/news").json("3")).await.expect(204);
    };
    let (answer, ()) = timeout(PATIENCE, async { tokio::join!(poll, publish) }).await.unwrap();
    let envelope: Value = answer.expect(200).json();
    assert_eq!(envelope["batches"][0]["data"], json!([3]), "{envelope}");
    assert_eq!(envelope["batches"][1]["forbidden"], true, "{envelope}");
}

/// Exchanges a token for a ticket.
async fn ticket(world: &Protected, token: &str, streams: &[&str], form: &str) -> String {
    let request = post("/v1/ticket").json(json!({"stream": streams, "live": form}));
    let answer = world.send(Some(token), request).await.expect(200);
    assert_eq!(
        (answer.header("cache-control"), answer.header("referrer-policy")),
        ("no-store", "no-referrer")
    );
    let answer = answer.json();
    assert_eq!(answer["expires_in"], 30);
    answer["ticket"].as_str().unwrap().to_owned()
}

async fn socket(world: &Protected, target: &str, fields: &str) -> Result<WebSocket, Answer> {
    WebSocket::open_with(Raw::open(world.gateway.address).await, handshake(target) + fields).await
}

#[tokio::test]
async fn a_ticket_opens_the_form_and_the_streams_that_it_was_issued_for_and_nothing_else() {
    let world = Protected::start("").await;
    let token = world.token(&["--read", "news", "--append", "news", "--manage", "news", "--read", "other"]);
    let of_events = ticket(&world, &token, &["news"], "sse").await;
    let with = |target: &str, ticket: &str| format!("{target}&ticket={ticket}");
    let one = "/v1/stream/news?offset=-1&live=sse";
    for target in [one, "/v1/streams?stream=news&from=earliest&live=sse"] {
        let mut events = world.gateway.connect().await.events(with(target, &of_events)).await;
        assert_eq!(events.headers["referrer-policy"], "no-referrer");
        assert_eq!(events.headers["cache-control"], "private, no-cache, no-store, no-transform");
        assert_eq!(events.headers["vary"], "authorization, cookie");
        assert!(events.next().await.unwrap().data.contains('1'), "{target}");
    }
    let of_sockets = ticket(&world, &token, &["news"], "websocket").await;
    let by_socket = with("/v1/stream/news?offset=-1&live=websocket", &of_sockets);
    let mut opened = socket(&world, &by_socket, "").await.unwrap();
    assert_eq!(opened.json().await.unwrap()["data"], json!([1]));
    opened.send_text("[2]").await;
    assert!(opened.json().await.is_ok());

    let refused = [
        get(with("/v1/stream/other?offset=-1&live=sse", &of_events)),
        get(with("/v1/streams?stream=news&stream=other&live=sse", &of_events)),
        get(with("/v1/stream/news?offset=-1&live=ndjson", &of_events)),
        get(with("/v1/stream/news?offset=-1", &of_events)),
        get(with("/v1/stream/news?offset=-1&live=long-poll", &of_events)),
        get(with(one, &of_sockets)),
        get(with(one, &of_events[1..])),
        get(with(one, "")),
        post(with("/v1/stream/news?", &of_events)).json("3"),
        delete(with("/v1/stream/news?", &of_events)),
        post(with("/v1/streams?", &of_events)).json(json!({"stream": ["news"], "live": "sse"})),
        post(with("/v1/ticket?", &of_events)).json(json!({"stream": ["news"], "live": "sse"})),
    ];
    for request in refused {
        let shown = format!("{request:?}");
        let answer = world.gateway.send(request).await;
        assert_eq!(answer.status, 401, "{shown}: {answer:?}");
        assert!(!answer.text().contains(&of_events[1..]), "{shown}");
    }
    // The token wins over a ticket.
    world.send(Some(&token), get(with("/v1/stream/news?offset=-1", "x"))).await.expect(200);
}

#[tokio::test]
async fn a_ticket_gives_no_more_than_its_token_and_ends_with_it_and_with_its_key() {
    let world = Protected::start("").await;
    let token = world.token(&["--read", "other"]);
    let not_granted = ticket(&world, &token, &["news"], "sse").await;
    let target = |ticket: &str| format!("/v1/stream/news?offset=-1&live=sse&ticket={ticket}");
    world.gateway.send(get(target(&not_granted))).await.expect(403);
    let short = world.token(&["--read", "news", "--expires", "6s"]);
    let short = ticket(&world, &short, &["news"], "sse").await;
    let mut events = world.gateway.connect().await.events(target(&short)).await;
    timeout(PATIENCE, async { while events.next().await.is_some() {} })
        .await
        .expect("it ends with the token");
    world.gateway.send(get(target(&short))).await.expect(401);

    let token = world.token(&["--read", "news"]);
    let of_old_key = ticket(&world, &token, &["news"], "sse").await;
    std::fs::remove_file(world.key()).unwrap();
    crate::authorization::pollgate(&["keygen", world.key().to_str().unwrap()]);
    crate::world::until("the key is gone", async || {
        world.send(Some(&token), get("/v1/stream/news")).await.status == 401
    })
    .await;
    world.gateway.send(get(target(&of_old_key))).await.expect(401);
}

#[tokio::test]
async fn a_ticket_costs_a_token_and_there_is_a_bound() {
    let world = Protected::start_with("", &["--limit", "tickets_per_subject_max=2"], &[]).await;
    let body = json!({"stream": ["news"], "live": "sse"});
    world.send(None, post("/v1/ticket").json(&body)).await.expect(401);
    let token = world.token(&["--read", "news"]);
    for wrong in
        [json!({"stream": ["news"]}), json!({"stream": [], "live": "sse"}), json!({"live": "sse"}), json!(1)]
    {
        world.send(Some(&token), post("/v1/ticket").json(wrong)).await.expect(400);
    }
    world.send(Some(&token), post("/v1/ticket").text(body.to_string())).await.expect(415);
    world.send(Some(&token), get("/v1/ticket")).await.expect(405);
    world.gateway.send(options("/v1/ticket")).await.expect(204);
    for _ in 0..2 {
        ticket(&world, &token, &["news"], "sse").await;
    }
    let refused = world.send(Some(&token), post("/v1/ticket").json(&body)).await.expect(429);
    assert_eq!(refused.problem(), "too-many-tickets");
    assert!(!refused.header("retry-after").is_empty());
    let open = crate::world::Gateway::start(&[]).await;
    open.send(post("/v1/ticket").json(body)).await.expect(404);
}

#[tokio::test]
async fn a_cookie_reads_and_needs_the_origin_of_an_allowed_page_for_more() {
    let page = "https://app.example";
    let world = Protected::start_with("", &["--origin", page], &[]).await;
    let token = world.token(&["--read", "news", "--append", "news"]);
    let cookie = format!("theme=dark; __Host-pollgate={token}");
    let own = format!("http://{}", world.gateway.address);
    let read =
        world.gateway.send(get("/v1/stream/news?offset=-1").header("cookie", &cookie)).await.expect(200);
    assert_eq!(
        (read.header("cache-control"), read.header("vary")),
        ("private, no-store", "authorization, cookie")
    );
    assert_eq!(read.headers.get_all("vary").iter().nth(1).unwrap(), "origin");
    let append = || post("/v1/stream/news").json("2").header("cookie", &cookie);
    let refused = world.gateway.send(append()).await.expect(403);
    assert_eq!(refused.problem(), "origin");
    world.gateway.send(append().header("origin", "https://other.example")).await.expect(403);
    world.gateway.send(append().header("origin", &own)).await.expect(204);
    let of_page = world.gateway.send(append().header("origin", page)).await.expect(204);
    assert_eq!(of_page.header("access-control-allow-credentials"), "true");
    assert_eq!(of_page.header("access-control-allow-origin"), page);
    assert!(of_page.header("access-control-expose-headers").contains("stream-next-offset"));

    let target = "/v1/stream/news?offset=-1&live=websocket";
    let field = format!("cookie: {cookie}\r\n");
    assert_eq!(socket(&world, target, &field).await.err().unwrap().status, 403);
    let strange = format!("{field}origin: https://other.example\r\n");
    assert_eq!(socket(&world, target, &strange).await.err().unwrap().status, 403);
    let mut opened = socket(&world, target, &format!("{field}origin: {page}\r\n")).await.unwrap();
    assert_eq!(opened.json().await.unwrap()["data"], json!([1, 2, 2]));

    // The header takes precedence, and two cookies with this name are ignored.
    let header = get("/v1/stream/news").header("authorization", "Bearer wrong").header("cookie", &cookie);
    world.gateway.send(header).await.expect(401);
    let twice = get("/v1/stream/news").header("cookie", &cookie).header("cookie", &cookie);
    world.gateway.send(twice).await.expect(401);
    world.gateway.send(get("/v1/stream/news").header("cookie", "__Host-pollgate=wrong")).await.expect(401);
}

#[tokio::test]
async fn a_cookie_does_not_count_where_pages_of_any_origin_are_allowed() {
    let world = Protected::start_with("", &["--origin", "*"], &[]).await;
    let cookie = format!("__Host-pollgate={}", world.token(&["--read", "news"]));
    let answer = world.gateway.send(get("/v1/stream/news").header("cookie", cookie)).await.expect(401);
    assert_eq!(answer.header("www-authenticate"), "Bearer");
}

/// Each front is used with valid and invalid tokens and tickets, with all logs on. None of them may appear in any log, metric or error.
#[tokio::test]
async fn no_token_and_no_ticket_is_in_a_log_a_metric_or_an_error() {
    let world = Protected::start_with("", &[], &[("RUST_LOG", "trace")]).await;
    let token = world.token(&["--read", "news", "--append", "news"]);
    let signature = token.rsplit('.').next().unwrap().to_owned();
    let wrong = format!("{}.{}", token.rsplit_once('.').unwrap().0, "M".repeat(86));
    let (wrong_cookie, wrong_ticket) = ("eyJMARKERCOOKIE.e30.x", "MARKERTICKET");
    let events = ticket(&world, &token, &["news"], "sse").await;
    let sockets = ticket(&world, &token, &["news"], "websocket").await;
    let with_ticket =
        |form: &str, ticket: &str| format!("/v1/stream/news?offset=-1&live={form}&ticket={ticket}");
    let mut answers = Vec::new();
    for (token, expected) in [(&token, 200), (&wrong, 401)] {
        for request in [
            get("/v1/stream/news?offset=-1"),
            get("/v1/stream/news?offset=-1&live=long-poll"),
            get("/v1/streams?stream=news"),
            post("/v1/streams").json(json!({"stream": ["news"]})),
        ] {
            answers.push(world.send(Some(token), request.clone()).await.expect(expected).text());
            let cookie = format!("__Host-pollgate={token}");
            answers.push(world.gateway.send(request.header("cookie", cookie)).await.text());
        }
        answers.push(world.send(Some(token), post("/v1/stream/news").json("2")).await.text());
        answers.push(world.gateway.send(get(format!("/v1/stream/news?access_token={token}"))).await.text());
        answers.push(world.gateway.send(get(format!("/v1/stream/news?%61ccess_token={token}"))).await.text());
        let mut socket =
            WebSocket::open(world.gateway.address, "/v1/stream/news?offset=-1&live=websocket").await.unwrap();
        socket.send_text(json!({"auth": token}).to_string()).await;
        answers.push(socket.json().await.unwrap().to_string());
        for hello in [Hello { password: Some(token.clone()), ..Hello::new("a") }, hello("b", "jwt", token)] {
            let mut client = Mqtt::open(world.gateway.mqtt, 5).await;
            client.send(&hello.bytes()).await;
            client.send(&auth_bytes("jwt", token)).await;
            while client.receive().await.is_some_and(|packet| !matches!(packet, Packet::Auth(_))) {}
        }
    }
    let mut opened = world.gateway.connect().await.events(with_ticket("sse", &events)).await;
    assert!(opened.next().await.is_some());
    drop(opened);
    socket(&world, &with_ticket("websocket", &sockets), "").await.unwrap();
    for form in ["sse", "ndjson", "long-poll"] {
        answers.push(world.gateway.send(get(with_ticket(form, wrong_ticket))).await.expect(401).text());
    }
    let cookie = format!("__Host-pollgate={wrong_cookie}");
    answers
        .push(world.gateway.send(get("/v1/stream/news").header("cookie", cookie)).await.expect(401).text());
    let path = world.folder.path().join("access.log");
    let access_log = || std::fs::read_to_string(&path).unwrap();
    crate::world::until("all requests are logged", async || {
        access_log().contains("live=long-poll&ticket=hidden")
    })
    .await;
    let metrics = world.gateway.ask_admin("/metrics").await.text();
    let log = world.gateway.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "{log}");
    answers.extend([log, metrics, access_log()]);
    for secret in [signature.as_str(), &"M".repeat(86), "MARKERCOOKIE", wrong_ticket, &events, &sockets] {
        for text in &answers {
            let at = text.find(secret).unwrap_or_default();
            assert!(!text.contains(secret), "{secret}: {}", &text[at.saturating_sub(300)..at]);
        }
    }
}
