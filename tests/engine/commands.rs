//! `pollgate engine check` and `pollgate engine stats`.

use std::process::{Command, Output};

use crate::deployment::{Cluster, Watched};
use crate::server::Engine;
use crate::world::{post, program, put};

async fn run(command: &str, url: &str) -> (bool, String) {
    let (command, url) = (command.to_owned(), url.to_owned());
    let run = move || Command::new(program()).args(["engine", &command, &url]).output().unwrap();
    let Output { status, stdout, stderr } = tokio::task::spawn_blocking(run).await.unwrap();
    (status.success(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

#[tokio::test]
async fn a_check_says_what_the_settings_promise_and_what_to_do() {
    let engine = Engine::durable().await;
    let (is_usable, said) = run("check", &engine.url()).await;
    assert!(is_usable, "{said}");
    for line in
        ["functions are allowed", "(noeviction)", "appendfsync always", "set maxmemory", "it has no replica"]
    {
        assert!(said.contains(line), "{line}: {said}");
    }
    engine.command("CONFIG SET maxmemory-policy allkeys-lru");
    let (is_usable, said) = run("check", &engine.url()).await;
    assert!(
        !is_usable && said.contains("error") && said.contains("set maxmemory-policy noeviction"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_of_a_cluster_finds_slots_without_a_node_and_one_of_sentinels_their_quorum() {
    let cluster = Cluster::start(2, 0).await;
    let (is_usable, said) = run("check", &cluster.url()).await;
    assert!(is_usable && said.contains("the cluster's 2 primaries have all hash slots"), "{said}");
    let _done: String = cluster.nodes[0].ask("CLUSTER DELSLOTS 7");
    let _done: String = cluster.nodes[1].ask("CLUSTER DELSLOTS 7");
    let (is_usable, said) = run("check", &cluster.url()).await;
    assert!(!is_usable && said.contains("1 hash slots have no primary"), "{said}");

    let watched = Watched::start(&[]).await;
    let (_, said) = run("check", &watched.url()).await;
    assert!(said.contains("sentinels: OK") && said.contains("set min-replicas-to-write 1"), "{said}");
}

#[tokio::test]
async fn statistics_have_the_calls_and_the_sizes_of_the_partitions() {
    let engine = Engine::volatile().await;
    let gateway = engine.gateway("one").await;
    for name in ["a", "b"] {
        gateway.send(put(format!("/v1/stream/{name}")).text("")).await.expect(201);
        gateway.send(post(format!("/v1/stream/{name}")).text("12345")).await.expect(204);
    }
    let (is_usable, said) = run("stats", &engine.url()).await;
    assert!(is_usable && said.contains("fcall: calls="), "{said}");
    let total: Vec<&str> = said.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(total, ["all", "2", "2", "10"], "{said}");
}
