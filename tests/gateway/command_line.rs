//! The command line: help, settings, the startup message, and errors.

use std::process::{Command, Output};

use crate::world::{Gateway, get};

fn pollgate(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pollgate"));
    command.args(arguments).envs(variables.iter().copied()).output().unwrap()
}

#[test]
fn help_names_each_key_with_its_default() {
    for arguments in [&["--help"][..], &["serve", "--help"]] {
        let help = String::from_utf8(pollgate(arguments, &[]).stdout).unwrap();
        for (key, default) in [
            ("--listen", "127.0.0.1:4437"),
            ("--admin", "127.0.0.1:4438"),
            ("--mqtt", "127.0.0.1:1883"),
            ("--store", "pollgate-data"),
            ("--sync", "always"),
            ("--hold ", "25s"),
            ("--hold-max", "55s"),
            ("--drain", "30s"),
            ("--log", "text"),
            ("--open", "off"),
        ] {
            let behind = help.split(key).nth(1).unwrap_or_else(|| panic!("{key} is missing:\n{help}"));
            let entry = behind.split("--").next().unwrap();
            assert!(entry.contains(&format!("[default: {default}]")), "{key}: {entry}");
        }
    }
}

#[test]
fn limits_lists_all_limits_with_default_unit_and_meaning() {
    // This command starts no server, so settings that the gateway would refuse do not matter.
    let output = pollgate(&["limits"], &[("POLLGATE_HODL", "1s")]);
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    for (entry, meaning) in [
        ("connections_max=0 (connections)", "descriptors"),
        ("body_bytes_max=1048576 (bytes)", "Size of an append."),
        ("idle_timeout=1m15s (duration)", "keep-alive"),
        ("connections_per_second_max=2000 (connections per second)", "503"),
        ("retention_age_max (duration; the default depends on the store)", "a store in memory"),
        ("drain_spread=5s (duration)", "held polls"),
    ] {
        let heading = format!("\n\n{entry}\n");
        let (_, behind) = text.split_once(&heading).unwrap_or_else(|| panic!("{entry}:\n{text}"));
        let paragraph = behind.split("\n\n").next().unwrap();
        assert!(paragraph.starts_with("    ") && paragraph.contains(meaning), "{entry}: {paragraph}");
    }
    let help = String::from_utf8(pollgate(&["serve", "--help"], &[]).stdout).unwrap();
    for limit in pollgate::limits::Limits::list() {
        let default = limit.default.as_deref().unwrap_or("(depends on the store)");
        assert!(
            help.contains(&format!("\n  {}={default} ({})", limit.name, limit.unit)),
            "{limit:?}: {help}"
        );
    }
    assert!(help.contains("`pollgate limits` says what each is for"), "{help}");
}

#[test]
fn invalid_arguments_end_with_one_line_of_explanation() {
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = busy.local_addr().unwrap().to_string();
    let ports = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--mqtt", "off"];
    for (arguments, variables, words) in [
        (&["--listen", "0.0.0.0:0"][..], &[][..], "--open"),
        (&["--listen", &taken], &[], "another program has this address"),
        (&["--listen", &taken], &[], "--listen ADDRESS"),
        (&["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--mqtt", &taken], &[], "--mqtt off"),
        (&["--listen", "192.0.2.1:0", "--open"], &[], "no network interface of this machine"),
        (&[&ports[..], &["--store", "/dev/null/store"]].concat(), &[], "open the store in /dev/null/store"),
        (
            &[&ports[..], &["--store", "memory", "--access-log", "/nonexistent/log"]].concat(),
            &[],
            "/nonexistent/log",
        ),
        (&["--mqtt", "on"], &[], "neither an address nor off"),
        (&["--limit", "nosuch=1"], &[], "nosuch"),
        (&["--hold", "soon"], &[], "soon"),
        (&["--config", "/nonexistent.toml"], &[], "nonexistent.toml"),
        (&[], &[("POLLGATE_HODL", "1s")], "POLLGATE_HODL"),
        (&[], &[("POLLGATE_PORT", "4437")], "POLLGATE_PORT"),
        (&[], &[("RUST_LOG", "verbose")], "RUST_LOG"),
        (&["--hold", "90s"], &[], "hold_max"),
        (&["--host", "gate.example:80"], &[], "without a port"),
        (&["--host", "https://gate.example"], &[], "--host takes"),
        (&["--host", "*"], &[], "--host takes"),
        (&["--origin", "app.example"], &[], "write https://app.example "),
        (&["--origin", "localhost:3000"], &[], "http://localhost:3000"),
        (&["--origin", "https://app.example/"], &[], "--origin takes"),
        (&[], &[("POLLGATE_ORIGIN", "*,null")], "--origin takes"),
    ] {
        let output = pollgate(arguments, variables);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
        assert!(error.contains(words) && error.lines().count() == 1, "{arguments:?}: {error}");
    }
}

#[tokio::test]
async fn variables_of_a_kubernetes_service_named_pollgate_do_not_stop_the_start() {
    let injected = [
        ("POLLGATE_SERVICE_HOST", "10.96.0.12"),
        ("POLLGATE_SERVICE_PORT", "4437"),
        ("POLLGATE_PORT", "tcp://10.96.0.12:4437"),
        ("POLLGATE_PORT_4437_TCP", "tcp://10.96.0.12:4437"),
        ("POLLGATE_PORT_4437_TCP_ADDR", "10.96.0.12"),
        ("POLLGATE_MQTT_SERVICE_HOST", "10.96.0.13"),
        ("POLLGATE_MQTT_PORT", "tcp://10.96.0.13:1883"),
    ];
    Gateway::start_with(&[], &injected).await.send(get("/v1/stream/s")).await.expect(404);
}

#[tokio::test]
async fn a_log_that_is_no_terminal_has_no_color_codes() {
    let gateway = Gateway::start_with(&[], &[("RUST_LOG", "debug")]).await;
    gateway.send(get("/v1/stream/s")).await.expect(404);
    crate::world::until("the request is logged", async || gateway.log().contains("answered")).await;
    assert!(!gateway.log().contains('\x1b'), "{}", gateway.log());
}

#[tokio::test]
async fn a_gateway_without_clients_ends_at_once() {
    // Without this, held polls end spread over `drain_spread`, and the test would take that long.
    let mut gateway = Gateway::start(&["--drain", "1h", "--limit", "drain_spread=1h"]).await;
    gateway.signal("TERM");
    assert!(gateway.ended(crate::world::PATIENCE).await.success());
}

#[tokio::test]
async fn variables_set_what_the_command_line_does_not() {
    let gateway = Gateway::start_with(&[], &[("POLLGATE_LIMITS__TARGET_BYTES_MAX", "64")]).await;
    gateway.send(get(format!("/v1/stream/{}", "x".repeat(20)))).await.expect(404);
    gateway.send(get(format!("/v1/stream/{}", "x".repeat(80)))).await.expect(414);
}
