//! The layers of settings, and what they refuse.

use clap::Parser;

use super::command_line::option_names;
use super::variables::Variables;
use super::*;
use crate::limits::Limit;

#[derive(Parser)]
struct Given {
    #[command(flatten)]
    args: ServeArgs,
}

fn settings(variables: &[(&str, &str)], arguments: &[&str]) -> Result<Settings, String> {
    let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
    let variables = Variables::of(variables, &option_names()).map_err(SettingsError::from);
    let given =
        Given::try_parse_from(["pollgate"].iter().chain(arguments)).map_err(|error| error.to_string())?;
    variables.and_then(|variables| given.args.over(variables)).map_err(|error| error.to_string())
}

/// A value other than the default for each option, as a variable has it.
fn other_value(option: &str) -> &'static str {
    match option {
        "listen" | "admin" | "mqtt" => "127.0.0.1:1",
        "store" => "memory",
        "upstream" => "https://gate.example",
        "upstream-token-file" => "file",
        "upstream-token-directory" => "tokens",
        "upstream-ca" => "ca.pem",
        "gateway-name" => "east-1",
        "sync" => "never",
        "accept-damage" | "open" | "poll-origins" | "proxy-protocol" | "tls-client-required" => "true",
        "behind-proxy" => "10.0.0.0/8,192.0.2.1",
        "mqtt-refused" => "close",
        "mqtt-refuse-filter" => "a/#,b/+",
        "memory-max" => "256M",
        "hold" | "drain" => "7s",
        "hold-max" => "54s",
        "host" => "gate.example,other.example",
        "origin" => "https://app.example,https://other.example",
        "log" => "json",
        "otlp" => "http://127.0.0.1:4318",
        "otlp-ratio" => "0.25",
        "xmpp-component" => "localhost:5347",
        "xmpp-domain" => "example.org",
        "xmpp-component-name" => "streams.example.org",
        "xmpp-component-secret-file" | "store-password-file" => "secret",
        "access-log" => "access.log",
        "auth" => "auth.toml",
        "admin-token-file" | "audit-log" => "file",
        "tls-client-ca" | "tls-client-crl" | "store-ca" => "ca.pem",
        "tls-certificate" | "tls-key" => "one.pem,other.pem",
        "public-url" => "https://gate.example",
        "outbound-allow" => "hooks.internal,10.0.0.0/8",
        "outbound-ca" => "ca.pem",
        "webhook-key" => "new.json,old.json",
        "limit" => "headers_max=9,head_timeout=3s",
        other => panic!("the option {other} has no value here"),
    }
}

#[test]
fn each_option_has_a_variable_that_sets_the_same() {
    let text = |settings: Settings| format!("{settings:?}");
    for option in option_names().into_iter().filter(|option| option != "config") {
        let value = other_value(&option);
        let name = format!("POLLGATE_{}", option.replace('-', "_").to_uppercase());
        let by_variable = settings(&[(&name, value)], &[]).map(text);
        let flag = format!("--{option}");
        let arguments: Vec<&str> = match value {
            "true" => vec![&flag],
            _ => value.split(',').flat_map(|value| [flag.as_str(), value]).collect(),
        };
        assert_eq!(by_variable, settings(&[], &arguments).map(text), "{name}");
        assert_ne!(by_variable, settings(&[], &[]).map(text), "{name} changes nothing");
    }
}

#[test]
fn a_variable_names_the_file_unless_the_command_line_does() {
    let file = |name: &str, hold: &str| {
        let file = std::env::temp_dir().join(format!("pollgate-{name}-{}.toml", std::process::id()));
        std::fs::write(&file, format!("hold = \"{hold}\"\n")).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let (one, other) = (file("variable", "10s"), file("option", "20s"));
    let by_variable = settings(&[("POLLGATE_CONFIG", &one)], &[]);
    let by_both = settings(&[("POLLGATE_CONFIG", &one)], &["--config", &other]);
    [one, other].iter().for_each(|file| std::fs::remove_file(file).unwrap());
    assert_eq!(
        [by_variable, by_both].map(|given| given.unwrap().hold),
        [Span::seconds(10), Span::seconds(20)]
    );
}

#[test]
fn later_layers_win() {
    let file = std::env::temp_dir().join(format!("pollgate-config-{}.toml", std::process::id()));
    std::fs::write(&file, "hold = \"10s\"\nhold_max = \"20s\"\ndrain = \"5s\"\n[limits]\nheaders_max = 7\n")
        .unwrap();
    let path = file.to_str().unwrap();
    let variables =
        [("POLLGATE_HOLD_MAX", "30s"), ("POLLGATE_LIMITS__HEAD_TIMEOUT", "3s"), ("POLLGATE_DRAIN", "6s")];
    let settings = settings(&variables, &["--config", path, "--drain", "7s", "--limit", "headers_max=9"]);
    std::fs::remove_file(&file).unwrap();
    let settings = settings.unwrap();
    let seconds = [settings.hold, settings.hold_max, settings.drain].map(|span| span.get().as_secs());
    assert_eq!(seconds, [10, 30, 7]);
    assert_eq!((settings.limits.headers_max, settings.limits.head_timeout), (9, Span::seconds(3)));
}

#[test]
fn unknown_keys_are_errors_in_each_layer() {
    for (variables, arguments) in [
        (&[("POLLGATE_HODL", "1s")][..], &[][..]),
        (&[("POLLGATE_LIMITS__NOSUCH", "1")], &[]),
        (&[], &["--limit", "nosuch=1"]),
        (&[], &["--limit", "headers_max"]),
        (&[], &["--hodl", "1s"]),
        (&[], &["--log", "xml"]),
        (&[], &["--store", ""]),
        (&[], &["--sync", "sometimes"]),
        (&[], &["--memory-max", "some"]),
        (&[], &["--sync", "interval:soon"]),
    ] {
        assert!(settings(variables, arguments).is_err(), "{variables:?} {arguments:?}");
    }
}

#[test]
fn each_listed_default_is_a_value_that_the_limit_takes() {
    for Limit { name, default, .. } in Limits::list() {
        let Some(default) = default else { continue };
        let given = settings(&[], &["--limit", &format!("{name}={default}")]).map(|given| given.limits);
        assert_eq!(format!("{given:?}"), format!("{:?}", Ok::<_, String>(Limits::default())), "{name}");
    }
}

#[test]
fn a_store_is_a_directory_unless_it_is_memory() {
    let default = settings(&[], &[]).unwrap();
    assert_eq!(default.store, StorePlace::Directory("pollgate-data".into()));
    assert_eq!(default.sync, SyncPolicy::Always);
    assert_eq!(settings(&[], &["--store", "memory"]).unwrap().store, StorePlace::Memory);
    let settings = settings(&[("POLLGATE_SYNC", "interval:100ms")], &["--store", "./memory"]).unwrap();
    assert_eq!(settings.store, StorePlace::Directory("./memory".into()));
    assert_eq!(settings.sync, SyncPolicy::Interval(std::time::Duration::from_millis(100)));
}

#[test]
fn more_connections_than_descriptors_are_refused() {
    let with = |connections_max, mqtt| Settings {
        limits: Limits { connections_max, ..Limits::default() },
        mqtt,
        ..Settings::default()
    };
    let on = Settings::default().mqtt;
    for (connections, mqtt, descriptors, fits) in [
        (0, on, Some(10), true),
        (1000, on, Some(2064), true),
        (1000, on, Some(2063), false),
        (1000, MqttAddress::Off, Some(1064), true),
        (1000, MqttAddress::Off, Some(1063), false),
        (1 << 40, on, None, true),
    ] {
        let checked = with(connections, mqtt).check_descriptors(descriptors);
        assert_eq!(checked.is_ok(), fits, "{connections} {mqtt:?} {descriptors:?}: {checked:?}");
    }
    let beyond = settings(&[], &["--limit", "connections_max=1000000000000"]).unwrap_err();
    assert!(beyond.contains("ulimit -n"), "{beyond}");
}

#[test]
fn the_memory_budget_is_a_size_in_each_layer() {
    let bytes = |variables: &[(&str, &str)], arguments: &[&str]| {
        settings(variables, arguments).unwrap().memory_max.map(|size| size.bytes() >> 20)
    };
    assert_eq!(bytes(&[], &[]), None);
    assert_eq!(bytes(&[], &["--memory-max", "256M"]), Some(256));
    assert_eq!(bytes(&[("POLLGATE_MEMORY_MAX", "67108864")], &[]), Some(64));
    assert_eq!(bytes(&[("POLLGATE_MEMORY_MAX", "1G")], &["--memory-max", "2G"]), Some(2048));
}

#[test]
fn each_certificate_has_its_key() {
    let file = std::env::temp_dir().join(format!("pollgate-tls-{}.toml", std::process::id()));
    let of_file = |text: &str| {
        std::fs::write(&file, text).unwrap();
        settings(&[], &["--config", file.to_str().unwrap()])
            .map(|given| (given.tls_certificate, given.tls_key))
    };
    let one = of_file("tls_certificate = \"a.pem\"\ntls_key = \"a.key\"\n");
    let two = of_file("tls_certificate = [\"a.pem\", \"b.pem\"]\ntls_key = [\"a.key\", \"b.key\"]\n");
    let odd = of_file("tls_certificate = [\"a.pem\", \"b.pem\"]\ntls_key = \"a.key\"\n");
    std::fs::remove_file(&file).unwrap();
    assert_eq!(one.unwrap(), (vec!["a.pem".into()], vec!["a.key".into()]));
    assert_eq!(two.unwrap().1, ["a.key", "b.key"].map(std::path::PathBuf::from));
    assert!(odd.unwrap_err().contains("2 certificates and 1 keys"));
}

#[test]
fn an_open_address_has_to_be_meant() {
    assert!(settings(&[], &["--listen", "0.0.0.0:0"]).unwrap_err().contains("--open"));
    assert!(settings(&[], &["--listen", "0.0.0.0:0", "--open"]).is_ok());
    assert!(settings(&[], &["--listen", "[::1]:0"]).is_ok());
    let admin = |more: &[&str]| settings(&[], &[&["--admin", "0.0.0.0:0"], more].concat());
    let (token, tls) = (["--admin-token-file", "f"], ["--tls-certificate", "c", "--tls-key", "k"]);
    assert!(
        admin(&[]).unwrap_err().contains("--admin-token-file")
            && admin(&tls).is_err()
            && admin(&token).is_err()
    );
    assert!(admin(&[&token[..], &tls].concat()).is_ok() && admin(&["--open"]).is_ok());
    assert!(settings(&[], &["--mqtt", "0.0.0.0:0"]).unwrap_err().contains("mqtt"));
    assert!(settings(&[], &["--mqtt", "1883"]).unwrap_err().contains("off"));
    assert_eq!(settings(&[], &["--mqtt", "off"]).unwrap().mqtt, MqttAddress::Off);
    assert!(settings(&[], &["--hold", "60s"]).unwrap_err().contains("hold_max"));
}
