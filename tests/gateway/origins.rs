//! Which requests the gateway accepts, by their host and by the web origin of the page that sent them, and what pages may read.

use crate::world::{Answer, Connection, Gateway, Raw, Request, delete, get, head, options, post, put};

const STREAM: &str = "/v1/stream/s";

/// A gateway with a stream of one message.
async fn gateway(arguments: &[&str]) -> Gateway {
    let gateway = Gateway::start(arguments).await;
    gateway.send(put(STREAM).json("[1]")).await.expect(201);
    gateway
}

/// The response to a request with these lines after the request line.
async fn ask(connection: &mut Raw, target: &str, lines: &str) -> Answer {
    connection.send(format!("GET {target} HTTP/1.1\r\n{lines}\r\n")).await.unwrap();
    connection.whole_answer().await.unwrap()
}

fn from(origin: &str, request: Request) -> Request {
    request.header("origin", origin)
}

/// The CORS fields: which origin may read, and whether caches distinguish origins (`Vary`).
fn cors(answer: &Answer) -> [&str; 4] {
    ["access-control-allow-origin", "access-control-expose-headers", "vary", "cross-origin-resource-policy"]
        .map(|name| answer.header(name))
}

#[tokio::test]
async fn a_listener_on_loopback_answers_for_loopback_names_and_those_it_is_given() {
    let (strict, named) =
        (gateway(&[]).await, gateway(&["--host", "Gate.Example", "--host", "192.0.2.1"]).await);
    for (host, by_strict, by_named) in [
        ("localhost", 200, 200),
        ("LocalHost:1", 200, 200),
        ("a.localhost", 200, 200),
        ("127.1.2.3:4437", 200, 200),
        ("[::1]:4437", 200, 200),
        ("gate.example:4437", 421, 200),
        ("GATE.EXAMPLE.", 421, 200),
        ("192.0.2.1:80", 421, 200),
        ("192.0.2.2:80", 421, 421),
        ("a.gate.example", 421, 421),
        ("rebind.test", 421, 421),
        ("localhost.rebind.test", 421, 421),
        ("", 400, 400),
        ("a b", 400, 400),
        ("localhost/", 400, 400),
        ("user@localhost", 400, 400),
        ("localhost:http", 400, 400),
        ("localhost\r\nHost: localhost", 400, 400),
    ] {
        for (gateway, status) in [(&strict, by_strict), (&named, by_named)] {
            for (address, target) in
                [(gateway.address, STREAM), (gateway.address, "/"), (gateway.admin, "/live")]
            {
                let mut connection = Raw::open(address).await;
                let answer = ask(&mut connection, target, &format!("Host: {host}\r\n")).await.expect(status);
                if status == 421 {
                    assert_eq!(answer.problem(), "misdirected");
                    let name = host.split(':').next().unwrap();
                    assert!(answer.text().contains(&format!("--host {name}")), "{}", answer.text());
                }
                // The request itself was processed as usual.
                ask(&mut connection, target, "Host: localhost\r\n").await.expect(200);
            }
        }
    }
    let mut connection = strict.connect_raw().await;
    assert_eq!(ask(&mut connection, STREAM, "X: y\r\n").await.expect(400).problem(), "malformed");
}

#[tokio::test]
async fn the_authority_of_the_target_wins_over_the_host() {
    let gateway = gateway(&["--host", "gate.example"]).await;
    for (target, host, status) in [
        ("http://gate.example/v1/stream/s", "Host: rebind.test\r\n", 200),
        ("http://rebind.test/v1/stream/s", "Host: localhost\r\n", 421),
        ("http://localhost/v1/stream/s", "", 400),
        ("http://localhost/v1/stream/s", "Host: a/b\r\n", 400),
        ("http://user@localhost/v1/stream/s", "Host: localhost\r\n", 400),
        ("http://gate.example/v1/stream/s", "Host: localhost\r\nOrigin: http://gate.example\r\n", 200),
        ("http://gate.example/v1/stream/s", "Host: localhost\r\nOrigin: http://localhost\r\n", 403),
    ] {
        let mut connection = gateway.connect_raw().await;
        ask(&mut connection, target, host).await.expect(status);
    }
    let mut connection = gateway.connect_raw().await;
    let create =
        "PUT http://gate.example/v1/stream/new HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    connection.send(create).await.unwrap();
    let created = connection.whole_answer().await.unwrap().expect(201);
    assert_eq!(created.header("location"), "http://gate.example/v1/stream/new");
    // An HTTP/1.0 client need not send a host; if it does, the host is checked.
    for (host, status) in [("", 200), ("Host: localhost\r\n", 200), ("Host: rebind.test\r\n", 421)] {
        let mut connection = gateway.connect_raw().await;
        connection.send(format!("GET {STREAM} HTTP/1.0\r\n{host}\r\n")).await.unwrap();
        connection.whole_answer().await.unwrap().expect(status);
    }
}

#[tokio::test]
async fn another_listener_answers_for_any_name_unless_it_is_given_some() {
    let open = ["--listen", "0.0.0.0:0", "--admin", "0.0.0.0:0", "--open"];
    let (any, named) = (
        Gateway::start(&open).await,
        Gateway::start(&[&open[..], &["--host", "gate.example"]].concat()).await,
    );
    for (host, by_any, by_named) in [
        ("gate.example", 404, 404),
        ("other.example", 404, 421),
        ("192.0.2.1", 404, 421),
        ("localhost", 404, 404),
    ] {
        for (gateway, status) in [(&any, by_any), (&named, by_named)] {
            for port in [gateway.address.port(), gateway.admin.port()] {
                let mut connection = Raw::open(([127, 0, 0, 1], port).into()).await;
                ask(&mut connection, "/nothing", &format!("Host: {host}\r\n")).await.expect(status);
            }
        }
    }
}

#[tokio::test]
async fn a_page_of_another_origin_may_do_nothing_and_is_told_which_flag_allows_it() {
    let gateway = gateway(&[]).await;
    let json = |request: Request| request.json("2");
    let mut connection = gateway.connect().await;
    for origin in ["https://evil.example", "null", "http://localhost", "http://127.0.0.1:1", "nonsense"] {
        for request in [
            get(STREAM),
            get(format!("{STREAM}?offset=now&live=long-poll")),
            get(format!("{STREAM}?offset=-1&live=sse")),
            get(format!("{STREAM}?offset=-1&live=ndjson")),
            get(format!("{STREAM}?offset=-1&live=websocket")),
            get("/v1/streams?stream=s"),
            get("/mqtt"),
            get("/"),
            get("/pollgate.js"),
            get("/nothing"),
            options(STREAM).header("access-control-request-method", "PUT"),
            json(post(STREAM)),
            json(post("/v1/stream/new?create=1")),
            json(put("/v1/stream/new")),
            delete(STREAM),
            head(STREAM),
        ] {
            let answer = connection.send(from(origin, request.clone())).await.expect(403);
            assert_eq!(cors(&answer), ["", "", "", "same-origin"], "{request:?}");
            assert_eq!(answer.header("cache-control"), "no-store");
            assert_eq!(answer.header("access-control-allow-methods"), "");
            if !answer.body.is_empty() {
                assert_eq!(answer.problem(), "origin");
                let setting = if origin.contains("://") { origin } else { "'*'" };
                assert!(answer.text().contains(&format!("--origin {setting} ")), "{}", answer.text());
            }
        }
    }
    assert_eq!(gateway.send(get(STREAM)).await.expect(200).text(), "[1]");
    let warned = gateway.log().matches("--origin https://evil.example").count();
    assert_eq!(warned, 1, "refusals are logged, but not each");
    // No page may read the admin listener.
    let mut admin = Connection::open(gateway.admin).await;
    assert_eq!(
        admin.send(from("https://evil.example", get("/metrics"))).await.expect(403).problem(),
        "origin"
    );
}

/// Resources that pages load without CORS, such as images and scripts, have no `Origin`; browsers send `Sec-Fetch-Site`.
#[tokio::test]
async fn a_page_of_another_site_loads_nothing_without_cors_but_may_have_links() {
    let (own, any) = (gateway(&["--origin", "https://app.example"]).await, gateway(&["--origin", "*"]).await);
    for (site, mode, destination, status) in [
        ("cross-site", "no-cors", "image", 403),
        ("same-site", "no-cors", "script", 403),
        ("cross-site", "navigate", "iframe", 403),
        ("cross-site", "navigate", "document", 200),
        ("same-origin", "no-cors", "script", 200),
        ("none", "navigate", "document", 200),
    ] {
        let request = get(STREAM)
            .header("sec-fetch-site", site)
            .header("sec-fetch-mode", mode)
            .header("sec-fetch-dest", destination);
        own.send(request.clone()).await.expect(status);
        any.send(request).await.expect(200);
    }
}

#[tokio::test]
async fn pages_of_an_allowed_origin_have_full_access_and_caches_distinguish_them() {
    let gateway =
        gateway(&["--origin", "https://APP.example:443", "--origin", "http://localhost:3000"]).await;
    let preflight = options(STREAM)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type, producer-id, traceparent")
        .header("access-control-request-private-network", "true");
    let answer = gateway.send(from("https://app.example", preflight.clone())).await.expect(204);
    assert_eq!(cors(&answer), ["https://app.example", "*", "origin", "same-origin"]);
    assert_eq!(answer.header("access-control-max-age"), "86400");
    assert_eq!(answer.header("access-control-allow-private-network"), "true");
    for name in ["client-id", "prefer", "producer-id", "stream-max-age", "authorization", "*", "traceparent"]
    {
        let allowed = answer.header("access-control-allow-headers");
        assert!(allowed.split(", ").any(|allowed| allowed == name), "{name}");
    }
    gateway.send(from("http://localhost:3001", preflight)).await.expect(403);
    for request in [get(STREAM), get("/v1/stream/none"), post(STREAM).json("2"), get("/pollgate.js")] {
        for origin in ["https://app.example", "http://localhost:3000"] {
            let answer = gateway.send(from(origin, request.clone())).await;
            assert_eq!(cors(&answer), [origin, "*", "origin", "same-origin"], "{request:?}");
        }
        // Requests without an origin, or with the gateway's own.
        let own = format!("http://{}", gateway.address);
        for request in [request.clone(), from(&own, request)] {
            let answer = gateway.send(request).await;
            assert_eq!(cors(&answer), ["", "", "origin", "same-origin"]);
        }
    }
    let any = Gateway::start(&["--origin", "*"]).await;
    for request in [get("/v1/stream/none"), from("null", get("/v1/stream/none"))] {
        let answer = any.send(request).await.expect(404);
        assert_eq!(cors(&answer), ["*", "*", "", "cross-origin"]);
    }
}

/// Polls that are answered together share response bytes only with polls of the same origin.
#[tokio::test]
async fn polls_of_pages_of_different_origins_are_answered_together_each_with_its_own_fields() {
    let origins = ["", "https://a.example", "https://b.example"];
    let gateway = gateway(&["--origin", origins[1], "--origin", origins[2]]).await;
    let mut held = Vec::new();
    for number in 0..9 {
        let origin = origins[number % origins.len()];
        let poll = get(format!("{STREAM}?offset=now&live=long-poll"));
        let poll = if origin.is_empty() { poll } else { from(origin, poll) };
        let mut connection = gateway.connect().await;
        held.push((origin, tokio::spawn(async move { connection.send(poll).await })));
    }
    gateway.until_held(9).await;
    gateway.send(post(STREAM).json("2")).await.expect(204);
    for (origin, held) in held {
        let answer = held.await.unwrap().expect(200);
        let exposed = if origin.is_empty() { "" } else { "*" };
        assert_eq!(cors(&answer), [origin, exposed, "origin", "same-origin"]);
        for (name, _) in &answer.headers {
            assert_eq!(answer.headers.get_all(name).iter().count(), 1, "{name} once");
        }
    }
}

/// If a browser opens a stream as a document, the document does not run with the rights of the gateway's own pages.
#[tokio::test]
async fn messages_are_sandboxed_and_downloaded_unless_they_are_plain() {
    let gateway = Gateway::start(&[]).await;
    for (number, (content_type, disposition)) in [
        ("text/html", "attachment"),
        ("image/svg+xml", "attachment"),
        ("application/xhtml+xml; charset=utf-8", "attachment"),
        ("application/octet-stream", "attachment"),
        ("text/plain-but-not-quite", "attachment"),
        ("text/plain; charset=utf-8", ""),
        ("Application/JSON", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let stream = format!("/v1/stream/{number}");
        let create = put(&stream).header("content-type", content_type).body("\"<script>\"");
        gateway.send(create).await.expect(201);
        for query in ["", "?offset=now", "?offset=-1&live=long-poll"] {
            let answer = gateway.send(get(format!("{stream}{query}"))).await.expect(200);
            let fields = ["content-disposition", "content-security-policy", "x-content-type-options"];
            assert_eq!(
                fields.map(|name| answer.header(name)),
                [disposition, "sandbox", "nosniff"],
                "{content_type} {query}"
            );
        }
    }
}

/// Behind a proxy that terminates TLS, an origin without a port means port 443.
#[tokio::test]
async fn a_proxy_says_by_which_scheme_a_page_of_the_gateway_was_loaded() {
    let gateway = gateway(&["--host", "gate.example"]).await;
    let mut connection = gateway.connect_raw().await;
    for (origin, forwarded, status) in [
        ("https://gate.example", "", 200),
        ("https://gate.example", "X-Forwarded-Proto: https\r\n", 200),
        ("https://gate.example", "X-Forwarded-Proto: https, http\r\n", 200),
        ("https://gate.example", "X-Forwarded-Proto: wss\r\n", 200),
        ("https://gate.example", "X-Forwarded-Proto: http\r\n", 403),
        ("http://gate.example", "X-Forwarded-Proto: https\r\n", 403),
    ] {
        let fields = format!("Host: gate.example\r\nOrigin: {origin}\r\n{forwarded}");
        ask(&mut connection, STREAM, &fields).await.expect(status);
    }
}
