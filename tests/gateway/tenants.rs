//! Two tenants of one gateway use the same names and are isolated from each other in every front and form.

use std::time::Duration;

use crate::authorization::Protected;
use crate::world::mqtt::{Hello, Mqtt, Packet};
use crate::world::{Gateway, Raw, WebSocket, delete, get, handshake, head, post, put, until};

const ALL: [&str; 8] = ["--read", "#", "--append", "#", "--create", "#", "--manage", "#"];

const NEWS: &str = "/v1/stream/news/today";

/// A gateway with clients of the tenants `acme` and `beta` and of the default tenant, each with all rights in its own tenant.
pub(crate) struct World {
    pub(crate) protected: Protected,
    pub(crate) clients: [(&'static str, String); 3],
    /// The gateway behind the one that clients use, if that is an edge.
    pub(crate) parent: Option<Gateway>,
}

impl World {
    /// One gateway, and one that clients reach through an edge.
    async fn both() -> [Self; 2] {
        [Self::start().await, Self::at_edge(&["acme", "beta", "default"]).await]
    }

    /// Clients use an edge, which has tokens for these tenants at its parent.
    pub(crate) async fn at_edge(tenants: &[&str]) -> Self {
        let mut world = Self::start().await;
        let folder = world.protected.folder.path();
        std::fs::create_dir(world.tokens()).unwrap();
        for (name, token) in world.clients.iter().filter(|(name, _)| tenants.contains(name)) {
            std::fs::write(world.tokens().join(name), token).unwrap();
        }
        let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
        let (auth, tokens) = (path(&folder.join("auth.toml")), path(&world.tokens()));
        let upstream = format!("http://{}", world.protected.gateway.address);
        let options = ["--auth", &auth, "--upstream", &upstream, "--upstream-token-directory", &tokens];
        let edge = Gateway::start(&options).await;
        world.parent = Some(std::mem::replace(&mut world.protected.gateway, edge));
        world
    }

    /// The folder with the tokens of an edge.
    pub(crate) fn tokens(&self) -> std::path::PathBuf {
        self.protected.folder.path().join("tokens")
    }

    pub(crate) async fn start() -> Self {
        let protected = Protected::start("public = ['open/#']\n").await;
        let token = |tenant: &[&str]| protected.token(&[tenant, &ALL].concat());
        let clients = [
            ("acme", token(&["--tenant", "acme"])),
            ("beta", token(&["--tenant", "beta"])),
            ("default", token(&[])),
        ];
        Self { protected, clients, parent: None }
    }

    pub(crate) async fn mqtt(&self, version: u8, hello: Hello, token: &str) -> Mqtt {
        let hello = Hello { version, password: Some(token.to_owned()), ..hello };
        let mut client = Mqtt::open(self.protected.gateway.mqtt, version).await;
        client.send(&hello.bytes()).await;
        let Some(Packet::Connack { code: 0, .. }) = client.receive().await else { panic!("refused") };
        client
    }
}

/// All responses that contain stream names, as one client gets them.
#[tokio::test]
async fn each_tenant_reads_its_own_messages_under_the_same_name_in_each_form() {
    for world in World::both().await {
        for (name, token) in &world.clients {
            let created =
                world.protected.send(Some(token), put(NEWS).json(format!("[\"{name}\"]"))).await.expect(201);
            assert!(created.header("location").ends_with(NEWS), "{created:?}");
        }
        for (name, token) in &world.clients {
            let send = async |request| world.protected.send(Some(token), request).await;
            let bearer = format!("Bearer {token}");
            let own = format!("[\"{name}\"]");
            assert_eq!(send(get(NEWS)).await.expect(200).text(), own);
            assert_eq!(send(get(format!("{NEWS}?offset=-1&live=long-poll"))).await.expect(200).text(), own);
            send(head(NEWS)).await.expect(200);
            let many = send(get("/v1/streams?stream=news/today&from=earliest")).await.expect(200);
            let batch = &many.json()["batches"][0];
            assert_eq!((&batch["stream"], &batch["data"][0]), (&"news/today".into(), &(*name).into()));
            let resume = many.json()["resume"].as_str().unwrap().to_owned();
            for (other, token) in &world.clients {
                // An offset of another tenant's stream belongs to a different log.
                let resumed = get(format!("/v1/streams?stream=news/today&resume={resume}"));
                let resumed = world.protected.send(Some(token), resumed).await.expect(200).json();
                let is_gap = resumed["batches"][0]["gap"] == "reason=epoch";
                assert_eq!(is_gap, other != name, "{other}: {resumed}");
            }
            let connection = world.protected.gateway.connect().await;
            let request = get(format!("{NEWS}?offset=-1&live=sse")).header("authorization", &bearer);
            assert_eq!(connection.events_of(request).await.data().await, own);
            let head = handshake(&format!("{NEWS}?offset=-1&live=websocket"))
                + &format!("authorization: {bearer}\r\n");
            let raw = Raw::open(world.protected.gateway.address).await;
            let mut socket = WebSocket::open_with(raw, head).await.unwrap();
            assert_eq!(socket.json().await.unwrap()["data"][0], **name);
            let raw = Raw::open(world.protected.gateway.address).await;
            let head = handshake(&format!("{NEWS}?offset=-1&live=websocket"));
            let mut socket = WebSocket::open_with(raw, head).await.unwrap();
            socket.send_text(format!("{{\"auth\":\"{token}\"}}")).await;
            assert!(socket.json().await.unwrap()["authorized"].is_object());
            assert_eq!(socket.json().await.unwrap()["data"][0], **name);
            let ticket = post("/v1/ticket").json(r#"{"stream":["news/today"],"live":"sse"}"#);
            let ticket = send(ticket).await.expect(200).json()["ticket"].as_str().unwrap().to_owned();
            let connection = world.protected.gateway.connect().await;
            let events = connection.events(format!("{NEWS}?offset=-1&live=sse&ticket={ticket}")).await;
            assert_eq!({ events }.data().await, own);
            // A fork takes its source from the same tenant.
            let fork = put("/v1/stream/fork").header("content-type", "application/json");
            send(fork.header("stream-forked-from", NEWS)).await.expect(201);
            assert_eq!(send(get("/v1/stream/fork")).await.expect(200).text(), own);
        }
        // A deletion by one tenant does not affect the others.
        let [(_, acme), (_, beta), (_, default)] = &world.clients;
        world.protected.send(Some(acme), delete("/v1/stream/fork")).await.expect(204);
        world.protected.send(Some(acme), delete(NEWS)).await.expect(204);
        world.protected.send(Some(acme), get(NEWS)).await.expect(404);
        world.protected.send(Some(acme), post(NEWS).json("2")).await.expect(404);
        for token in [beta, default] {
            world.protected.send(Some(token), get(NEWS)).await.expect(200);
        }
    }
}

/// Neither with the internal name of the stream, nor with a filter that would match it.
#[tokio::test]
async fn nobody_can_name_the_stream_of_another_tenant() {
    for world in World::both().await {
        let [(_, acme), (_, beta), (_, default)] = &world.clients;
        world.protected.send(Some(acme), put("/v1/stream/secret").json("[1]")).await.expect(201);
        for token in [beta, default] {
            for request in [
                get("/v1/stream/secret"),
                get("/v1/stream/secret?offset=-1&live=long-poll&timeout=0"),
                get("/v1/stream/secret?offset=-1&live=sse"),
                head("/v1/stream/secret"),
                post("/v1/stream/secret").json("2"),
                delete("/v1/stream/secret"),
                put("/v1/stream/x").json("").header("stream-forked-from", "/v1/stream/secret"),
            ] {
                let answer = world.protected.send(Some(token), request.clone()).await;
                assert_eq!(answer.status, 404, "{request:?}");
            }
        }
        for token in [acme, beta, default] {
            for name in [
                "$tenant/acme/secret",
                "%24tenant/acme/secret",
                "$tenant/acme",
                "$tenant",
                "$auth/revocations",
            ] {
                let path = format!("/v1/stream/{name}");
                let name = name.replace("%24", "$");
                let fork = put("/v1/stream/x").json("").header("stream-forked-from", &path);
                let ticket = format!("{{\"stream\":[\"{name}\"],\"live\":\"sse\"}}");
                for request in [
                    get(&path),
                    head(&path),
                    get(format!("{path}?offset=-1&live=long-poll&timeout=0")),
                    get(format!("{path}?offset=-1&live=sse")),
                    get(format!("{path}?offset=-1&live=ndjson")),
                    get(format!("/v1/streams?stream={name}")),
                    post("/v1/streams").json(format!("{{\"stream\":[\"{name}\"]}}")),
                    post(&path).json("2"),
                    post(format!("{path}?create=1")).json("2"),
                    put(&path).json(""),
                    delete(&path),
                    fork,
                    post("/v1/ticket").json(ticket),
                ] {
                    let answer = world.protected.send(Some(token), request.clone()).await;
                    assert!((400..500).contains(&answer.status.as_u16()), "{request:?}: {answer:?}");
                    assert!(!answer.text().contains("1]"), "{request:?}: {answer:?}");
                }
            }
            for version in [4, 5] {
                let refused = if version == 4 { 0x80 } else { 0x87 };
                let mut client = world.mqtt(version, Hello::new("typed"), token).await;
                for filter in [
                    "$tenant/#",
                    "$tenant/acme/#",
                    "$tenant/acme/secret",
                    "$tenant/+/secret",
                    "$tenant/+/#",
                    "$share/g/$tenant/acme/#",
                    "$share/g/$tenant/+/secret",
                    "$auth/#",
                ] {
                    assert_eq!(client.subscribe(filter, 1).await, refused, "{filter}");
                }
                if version == 5 {
                    assert_eq!(client.publish("$tenant/acme/secret", "2", 1).await, 0x87);
                }
            }
        }
        assert_eq!(world.protected.send(Some(acme), get("/v1/stream/secret")).await.text(), "[1]");
    }
}

/// Subscriptions, retained messages, shared groups, wills and sessions, in the names of one client id.
#[tokio::test]
async fn mqtt_clients_of_two_tenants_with_the_same_names_have_nothing_in_common() {
    for version in [4, 5] {
        let world = World::start().await;
        let [(_, acme), (_, beta), (_, default)] = &world.clients;
        world.protected.send(Some(acme), put("/v1/stream/all/will").text("")).await.expect(201);
        let will = Some(("all/will".to_owned(), "will of acme".to_owned(), Vec::new()));
        let mut dying = world.mqtt(version, Hello { will, ..Hello::new("dying") }, acme).await;
        let mut clients = Vec::new();
        for token in [acme, beta, default] {
            let mut client = world.mqtt(version, Hello::lasting("same"), token).await;
            assert_eq!(client.subscribe("#", 1).await, 1);
            let mut member = world.mqtt(version, Hello::new("member"), token).await;
            assert_eq!(member.subscribe("$share/group/all/+", 1).await, 1);
            clients.push((client, member));
        }
        for (name, token) in &world.clients {
            let mut publisher = world.mqtt(version, Hello::new("publisher"), token).await;
            assert_eq!(publisher.publish_with("all/one", name.as_bytes(), 1, true, Vec::new()).await, 0);
        }
        dying.ping().await;
        drop(dying);
        for ((name, token), (client, member)) in world.clients.iter().zip(&mut clients) {
            for reader in [&mut *client, &mut *member] {
                let message = reader.message().await;
                assert_eq!((&*message.topic, &*message.payload), ("all/one", name.as_bytes()));
            }
            if *name == "acme" {
                let message = client.message().await;
                assert_eq!((&*message.topic, &*message.payload), ("all/will", &b"will of acme"[..]));
            }
            let mut late = world.mqtt(version, Hello::new("late"), token).await;
            assert_eq!(late.subscribe("all/one", 1).await, 1);
            let retained = late.message().await;
            assert_eq!((&*retained.payload, retained.retain), (name.as_bytes(), true));
            // Each client still has its own session, and nothing else arrives.
            client.ping().await;
            let nothing = client.receive_within(Duration::from_millis(20)).await;
            assert_eq!(nothing, None, "{name}");
        }
    }
}

/// A shared cache must not serve the public stream of a name to the client of a tenant, nor the other way round.
#[tokio::test]
async fn a_tenants_stream_of_a_public_name_is_private() {
    for world in World::both().await {
        let [(_, acme), (_, beta), (_, default)] = &world.clients;
        let path = "/v1/stream/open/board";
        for (name, token) in [("default", default), ("acme", acme)] {
            world.protected.send(Some(token), put(path).json(format!("[\"{name}\"]"))).await.expect(201);
        }
        for offset in ["", "?offset=-1", "?offset=-1&live=long-poll"] {
            let target = format!("{path}{offset}");
            let public = world.protected.send(None, get(&target)).await.expect(200);
            assert_eq!((&*public.text(), public.header("vary")), ("[\"default\"]", "authorization, cookie"));
            assert!(!public.header("cache-control").contains("private"), "{public:?}");
            let own = world.protected.send(Some(acme), get(&target)).await.expect(200);
            assert_eq!((&*own.text(), own.header("cache-control")), ("[\"acme\"]", "private, no-store"));
            // Public streams belong to the default tenant, and grant nothing in others.
            let reader = world.protected.token(&["--tenant", "acme", "--read", "other"]);
            world.protected.send(Some(&reader), get(&target)).await.expect(403);
            world.protected.send(Some(beta), get(&target)).await.expect(404);
        }
    }
}

#[tokio::test]
async fn the_tenant_comes_from_the_signed_token_alone() {
    let world = World::start().await;
    let [(_, acme), ..] = &world.clients;
    // No other header field, parameter, user name or claim changes the tenant.
    world.protected.send(Some(acme), put(NEWS).json("[1]")).await.expect(201);
    let (_, beta) = &world.clients[1];
    for request in [get(NEWS).header("tenant", "acme"), get(format!("{NEWS}?tenant=acme"))] {
        world.protected.send(Some(beta), request).await.expect(404);
    }
    let key = world.protected.key();
    let variable = ["--tenant", "acme", "--read", "{tenant}/x", "--create", "{tenant}/+"];
    let token = world.protected.token(&variable);
    world.protected.send(Some(&token), put("/v1/stream/acme/x").json("[]")).await.expect(201);
    world.protected.send(Some(&token), put("/v1/stream/beta/x").json("[]")).await.expect(403);
    for name in ["a/b", "+", "#", "$x", "", "default", &"x".repeat(65)] {
        let arguments = ["token", "--key-file", key.to_str().unwrap(), "--read", "#", "--tenant", name];
        let output =
            std::process::Command::new(env!("CARGO_BIN_EXE_pollgate")).args(arguments).output().unwrap();
        assert!(!output.status.success(), "{name}");
    }
}

/// One tenant reaches each of its limits, while another tenant with the same quota is not affected.
#[tokio::test]
async fn a_tenant_that_has_used_up_its_quota_is_told_and_others_go_on() {
    let quotas = "[[tenant]]\nstreams_max = 2\nopen_max = 1\nappends_per_second_max = 5\n\
                  [[tenant]]\nname = 'small'\nbytes_max = 5000\n";
    let world = Protected::start(quotas).await;
    let token = |tenant: &str, subject: &str| {
        world.token(&[&["--tenant", tenant, "--subject", subject], &ALL[..]].concat())
    };
    let (one, other) = (token("acme", "one"), token("acme", "other"));
    let (beta, small) = (token("beta", "one"), token("small", "one"));

    for path in ["/v1/stream/a", "/v1/stream/b"] {
        world.send(Some(&one), put(path).json("")).await.expect(201);
    }
    let refused = world.send(Some(&other), put("/v1/stream/c").json("")).await.expect(507);
    assert_eq!(refused.problem(), "tenant-streams-max");
    world.send(Some(&beta), put("/v1/stream/c").json("")).await.expect(201);

    let mut open = world.gateway.connect().await;
    let sse = get("/v1/stream/a?offset=now&live=sse");
    let (.., reading) =
        open.begin(sse.clone().header("authorization", format!("Bearer {one}"))).await.unwrap();
    for form in ["sse", "ndjson", "long-poll"] {
        let refused =
            world.send(Some(&other), get(format!("/v1/stream/b?offset=now&live={form}"))).await.expect(429);
        assert_eq!(refused.problem(), "tenant-open-max", "{form}");
        assert!(!refused.header("retry-after").is_empty());
    }
    for (version, code) in [(4, 3), (5, 0x97)] {
        let hello = Hello { version, password: Some(other.clone()), ..Hello::new("full") };
        let mut client = Mqtt::open(world.gateway.mqtt, version).await;
        client.send(&hello.bytes()).await;
        assert!(matches!(client.receive().await, Some(Packet::Connack { code: found, .. }) if found == code));
    }
    let poll = get("/v1/stream/c?offset=now&live=long-poll&timeout=0");
    world.send(Some(&beta), poll).await.expect(204);
    drop((open, reading));
    let poll = || get("/v1/stream/b?offset=now&live=long-poll&timeout=0");
    until("the place is free", async || world.send(Some(&other), poll()).await.status == 204).await;

    let append = async |token: &str| world.send(Some(token), post("/v1/stream/a?create=1").json("1")).await;
    let mut refused = None;
    for _ in 0..100 {
        let answer = append(&one).await;
        refused = refused.or_else(|| (answer.status == 429).then_some(answer));
    }
    let refused = refused.expect("a refusal");
    assert_eq!((refused.problem(), refused.header("retry-after")), ("too-fast".to_owned(), "1"));
    append(&beta).await.expect(204);

    let large = format!("\"{}\"", "x".repeat(3000));
    world.send(Some(&small), post("/v1/stream/a?create=1").json(&large)).await.expect(204);
    let refused = world.send(Some(&small), post("/v1/stream/a").json(&large)).await.expect(507);
    assert_eq!(refused.problem(), "tenant-full");
    world.send(Some(&small), delete("/v1/stream/a")).await.expect(204);
    // The memory is free once the last request that used the stream has ended.
    let again = || post("/v1/stream/a?create=1").json(&large);
    until("the memory is free", async || world.send(Some(&small), again()).await.status == 204).await;
}

#[tokio::test]
async fn streams_of_tenants_and_what_they_use_of_their_quotas_survive_a_restart() {
    let store = tempfile::tempdir().unwrap();
    let store = ["--store", store.path().to_str().unwrap()];
    let world = Protected::start_with("[[tenant]]\nstreams_max = 1\n", &store, &[]).await;
    let acme = world.token(&[&["--tenant", "acme"], &ALL[..]].concat());
    let default = world.token(&ALL);
    world.send(Some(&acme), put(NEWS).json("[\"acme\"]")).await.expect(201);
    world.send(Some(&default), put(NEWS).json("[\"default\"]")).await.expect(201);
    let Protected { gateway, folder } = world;
    gateway.kill().await;
    let auth = folder.path().join("auth.toml");
    let gateway = Gateway::start(&[&["--auth", auth.to_str().unwrap()], &store[..]].concat()).await;
    let world = Protected { gateway, folder };
    assert_eq!(world.send(Some(&acme), get(NEWS)).await.expect(200).text(), "[\"acme\"]");
    assert_eq!(world.send(Some(&default), get(NEWS)).await.expect(200).text(), "[\"default\"]");
    let second = |token| world.send(Some(token), put("/v1/stream/second").json(""));
    assert_eq!(second(&acme).await.expect(507).problem(), "tenant-streams-max");
    second(&default).await.expect(201);
}

#[tokio::test]
async fn metrics_tell_the_tenants_of_the_settings_apart_and_no_others() {
    let world = Protected::start("[[tenant]]\nname = 'acme'\nstreams_max = 1\n").await;
    let token = |tenant| world.token(&[&["--tenant", tenant], &ALL[..]].concat());
    let clients = [token("acme"), token("beta"), token("gamma"), world.token(&ALL)];
    let mut polls = Vec::new();
    for token in &clients {
        world.send(Some(token), put(NEWS).json("[1]")).await.expect(201);
        assert_eq!(world.send(Some(token), get(NEWS)).await.expect(200).text(), "[1]");
        let target = format!("{NEWS}?offset=now&live=long-poll&timeout=50");
        let poll = get(target).header("authorization", format!("Bearer {token}"));
        let mut connection = world.gateway.connect().await;
        polls.push(tokio::spawn(async move { connection.send(poll).await }));
        world.gateway.until_held(polls.len()).await;
    }
    // Refused because of the tenant's quota, and because of missing rights.
    world.send(Some(&clients[0]), put("/v1/stream/more").json("")).await.expect(507);
    let reader = world.token(&["--tenant", "beta", "--read", "other"]);
    world.send(Some(&reader), get(NEWS)).await.expect(403);
    let mut client = Mqtt::open(world.gateway.mqtt, 5).await;
    client.send(&Hello { version: 5, password: Some(reader), ..Hello::new("reader") }.bytes()).await;
    let Some(Packet::Connack { code: 0, .. }) = client.receive().await else { panic!("refused") };
    assert_eq!(client.subscribe("news/#", 1).await, 0x87);
    let metric = async |name: &str, tenant: &str, kind: &str| {
        world.gateway.metric(&format!("pollgate_tenant_{name}{{tenant=\"{tenant}\"{kind}}}")).await
    };
    let mut found = Vec::new();
    for tenant in ["acme", "+", "default"] {
        let [read, written] = [",kind=\"out\"", ",kind=\"in\""];
        found.push([
            metric("messages_total", tenant, written).await,
            metric("messages_total", tenant, read).await,
            metric("message_bytes_total", tenant, read).await,
            metric("streams", tenant, "").await,
            metric("open", tenant, "").await,
            metric("refused_total", tenant, "").await,
        ]);
    }
    // The default tenant also has the stream of the test's world, and that of revocations.
    assert_eq!(found[0], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
    assert_eq!(found[1], [2.0, 2.0, 2.0, 2.0, 3.0, 2.0]);
    assert_eq!(found[2], [2.0, 1.0, 1.0, 3.0, 1.0, 0.0]);
    let text = world.gateway.ask_admin("/metrics").await.text();
    assert!(!text.contains("beta") && !text.contains("gamma"), "{text}");
    polls.iter().for_each(tokio::task::JoinHandle::abort);
}
