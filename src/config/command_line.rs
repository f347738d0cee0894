//! The options of `serve`, which are merged with the other layers of settings.

use std::path::PathBuf;

use clap::Args;
use config::{Config, File};

use super::variables::Variables;
use super::{Settings, SettingsError};

/// The options of `serve`. Each is also a variable, `POLLGATE_HOLD_MAX=55s`, and a key of the file, `hold_max = "55s"`; limits are
/// `POLLGATE_LIMITS__HEADERS_MAX=64`, and keys of the table `[limits]`.
#[derive(Debug, Clone, Default, Args)]
pub struct ServeArgs {
    /// Address for publishers and readers; port 0 picks a free port [default: 127.0.0.1:4437]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Address of the admin listener: the dashboard, /metrics, /live, /ready, /clients, /streams, /revocations, /export, /drain [default: 127.0.0.1:4438]
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// File with a secret of at least 32 bytes that requests to the admin listener must send as `Authorization: Bearer SECRET`,
    /// except for /live and /ready; with it and TLS, the admin listener may have any address [default: none]
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<String>,
    /// Address for MQTT clients, or `off` [default: 127.0.0.1:1883]
    #[arg(long, value_name = "ADDRESS")]
    mqtt: Option<String>,
    /// What happens to a refused message whose MQTT client cannot be told the reason (MQTT 3.1.1, or QoS 0): `drop` acknowledges
    /// and logs it, `close` ends the connection [default: drop]
    #[arg(long, value_name = "WHAT")]
    mqtt_refused: Option<String>,
    /// Topic filter that MQTT clients may not subscribe to, for example `#`; others that match the same topics are not affected
    /// (repeatable) [default: none]
    #[arg(long, value_name = "FILTER")]
    mqtt_refuse_filter: Vec<String>,
    /// Host and port where an XMPP server accepts the gateway as its component (XEP-0114), for example `127.0.0.1:5347`
    /// (docs/xmpp.md) [default: no XMPP]
    #[arg(long, value_name = "HOST:PORT")]
    xmpp_component: Option<String>,
    /// Domain of the component, which the XMPP server has configured, for example `streams.example.org` [default: none]
    #[arg(long, value_name = "NAME")]
    xmpp_component_name: Option<String>,
    /// File with the secret that the XMPP server has for the component [default: none]
    #[arg(long, value_name = "FILE")]
    xmpp_component_secret_file: Option<String>,
    /// Domain of XMPP clients that connect to the gateway itself, over WebSocket at `/v1/xmpp` or BOSH at `/v1/bosh`, for example
    /// `example.org` (docs/xmpp.md) [default: no such clients]
    #[arg(long, value_name = "NAME")]
    xmpp_domain: Option<String>,
    /// Where messages are stored: a directory, `memory` (lost when the process ends), or the URL of a Redis or Valkey that several
    /// gateways share, such as `redis://[USER:PASSWORD@]HOST:PORT`; `rediss://` for TLS, `redis+sentinel://` and `redis+cluster://`
    /// for several servers (docs/scaling.md) [default: pollgate-data]
    #[arg(long, value_name = "PLACE")]
    store: Option<String>,
    /// Certificate authorities (PEM) of a Redis or Valkey with TLS [default: those of the system]
    #[arg(long, value_name = "FILE")]
    store_ca: Option<String>,
    /// File with the password of the Redis or Valkey, which replaces that of the URL [default: none]
    #[arg(long, value_name = "FILE")]
    store_password_file: Option<String>,
    /// Name of this gateway among those that share a store. If it stays the same over a restart, the gateway goes on at once with the
    /// sessions that it had, otherwise after ten seconds [default: the name of the machine and the port of --listen]
    #[arg(long, value_name = "NAME")]
    gateway_name: Option<String>,
    /// URL of another gateway, `https://HOST[:PORT]` or `http://` on this machine. This one becomes its edge: it serves the streams of
    /// that gateway and forwards appends to it; --store keeps its sessions (docs/scaling.md) [default: none]
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// File with the token for the upstream gateway; it is read again when it changes [default: none]
    #[arg(long, value_name = "FILE")]
    upstream_token_file: Option<String>,
    /// Folder with the tokens for the upstream gateway by tenant, each in a file with the name of the tenant (`default` for clients
    /// without one); they are read again when they change. The streams of other tenants are not served [default: none]
    #[arg(long, value_name = "DIRECTORY")]
    upstream_token_directory: Option<String>,
    /// PEM file with authorities that are trusted for the upstream gateway, besides those of the operating system [default: none]
    #[arg(long, value_name = "FILE")]
    upstream_ca: Option<String>,
    /// When appends are synced to disk: `always` (before they are acknowledged, so that they survive a power cut),
    /// `interval:100ms` (at most this much later, which is what a power cut loses), or `never` (left to the system; a power cut
    /// loses some seconds). Acknowledged appends always survive a kill of the process [default: always]
    #[arg(long, value_name = "WHEN")]
    sync: Option<String>,
    /// Start although the store has damaged records, and serve the rest; otherwise the start fails and lists what is lost. A
    /// last write that was cut off is not damage [default: off]
    #[arg(long)]
    accept_damage: bool,
    /// Memory budget of the gateway, for example `256M`; from 85 % of it on, new streams and appends are refused [default: half
    /// of the machine's memory or of the control group's limit]
    #[arg(long, value_name = "SIZE")]
    memory_max: Option<String>,
    /// Default hold time of a long poll without a `timeout`; jittered by 10 % [default: 25s]
    #[arg(long, value_name = "DURATION")]
    hold: Option<String>,
    /// Longest hold time that a long poll may request [default: 55s]
    #[arg(long, value_name = "DURATION")]
    hold_max: Option<String>,
    /// Time from SIGTERM or SIGINT to the hard stop [default: 30s]
    #[arg(long, value_name = "DURATION")]
    drain: Option<String>,
    /// Check the tokens of clients: a file with keys (`pollgate keygen` makes one), or with settings for issuers
    /// (docs/security.md) [default: everybody may do everything]
    #[arg(long, value_name = "FILE")]
    auth: Option<String>,
    /// Serve TLS with this certificate chain (PEM), which is read again when it changes; an admin listener on a loopback address
    /// stays without TLS. Of several chains, the first one for the server name that a client requests (SNI) is used, otherwise
    /// the first of all (repeatable) [default: no TLS]
    #[arg(long, value_name = "FILE")]
    tls_certificate: Vec<String>,
    /// Private key of the certificate (PEM); of several, in the order of the certificates (repeatable) [default: no TLS]
    #[arg(long, value_name = "FILE")]
    tls_key: Vec<String>,
    /// Certificate authorities of client certificates (PEM), read again when the file changes; the file of --auth says what a
    /// certificate grants [default: clients are not asked for certificates]
    #[arg(long, value_name = "FILE")]
    tls_client_ca: Option<String>,
    /// Revocation lists of these authorities (PEM), read again when the file changes [default: no certificate is revoked]
    #[arg(long, value_name = "FILE")]
    tls_client_crl: Option<String>,
    /// Refuse connections without a client certificate [default: off]
    #[arg(long)]
    tls_client_required: bool,
    /// Address or network of proxies in front of the gateway, for example `10.0.0.0/8`, which speak TLS to clients; with it, --auth
    /// needs no certificate (repeatable) [default: none]
    #[arg(long, value_name = "NETWORK")]
    behind_proxy: Vec<String>,
    /// Expect the PROXY protocol, version 2, at the beginning of each HTTP and MQTT connection, and refuse connections that do
    /// not come from --behind-proxy [default: off]
    #[arg(long)]
    proxy_protocol: bool,
    /// Allow listening on addresses that other machines can reach without authorization or without encryption [default: off]
    #[arg(long)]
    open: bool,
    /// Host name that requests may be for besides loopback names, for example `gate.example` (repeatable) [default: none on a
    /// loopback address, any name on other addresses]
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// Origin whose pages may use the gateway besides its own pages, for example `https://app.example`, or `*` for any
    /// (repeatable) [default: none]
    #[arg(long, value_name = "ORIGIN")]
    origin: Vec<String>,
    /// Public URL of the gateway, for example `https://gate.example`; it is part of the URLs that workers of subscriptions get
    /// [default: the listening address]
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Non-public host, address or network to which clients may let the gateway send requests, for example `hooks.internal` or
    /// `10.0.0.0/8` (repeatable) [default: none; without --auth, and if only programs on this machine can use the gateway, this
    /// machine]
    #[arg(long, value_name = "HOST")]
    outbound_allow: Vec<String>,
    /// Certificate authorities (PEM) that are trusted besides those of the system, in requests that the gateway sends for clients
    /// [default: none]
    #[arg(long, value_name = "FILE")]
    outbound_ca: Option<String>,
    /// File with a key that signs requests to webhooks (`pollgate keygen` makes one); of several, the first one signs, and all
    /// are published (repeatable) [default: a key in the directory of the store, which is made at the first start]
    #[arg(long, value_name = "FILE")]
    webhook_key: Vec<String>,
    /// Let clients create streams that the gateway fills by polling a URL (docs/origins.md); with --auth, clients need the
    /// rights to create and to manage the stream instead of this option [default: off]
    #[arg(long)]
    poll_origins: bool,
    /// Trace messages from publish to delivery, and send the traces to the OpenTelemetry collector at this URL by OTLP over HTTP, for
    /// example `http://127.0.0.1:4318`; the standard variables such as OTEL_EXPORTER_OTLP_HEADERS apply (docs/operating.md) [default: off]
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    /// Part of the publishes without `traceparent` that is traced, between 0 and 1; with it, the flag of the publisher counts
    /// [default: 1]
    #[arg(long, value_name = "RATIO")]
    otlp_ratio: Option<String>,
    /// Log format: `text` or `json`; the variable RUST_LOG sets the level (info) [default: text]
    #[arg(long, value_name = "FORMAT")]
    log: Option<String>,
    /// Access log, one line of JSON for each HTTP request: a file, `-` (standard output), or `off` [default: off]
    #[arg(long, value_name = "FILE")]
    access_log: Option<String>,
    /// File for the audit log, as lines of JSON: created and deleted streams, takeovers, refusals, revocations, and calls of
    /// operators [default: none]
    #[arg(long, value_name = "FILE")]
    audit_log: Option<String>,
    /// Override a limit, for example `body_bytes_max=65536` (repeatable; `--help` and `pollgate limits` list all)
    #[arg(long, value_name = "NAME=VALUE")]
    limit: Vec<String>,
    /// TOML file with these options as keys [default: none]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The names of the options of `serve`, without dashes at the beginning.
pub(super) fn option_names() -> Vec<String> {
    let command = ServeArgs::augment_args(clap::Command::new("serve"));
    let names = command.get_arguments().filter_map(|option| option.get_long().map(str::to_owned));
    names.collect()
}

impl ServeArgs {
    /// Merges the options with the other layers, the variables of this process among them, and checks the result.
    pub fn settings(self) -> Result<Settings, SettingsError> {
        self.over(Variables::of(std::env::vars_os(), &option_names())?)
    }

    /// Merges the defaults, the file, the variables and the command line, and checks the result.
    pub(super) fn over(self, variables: Variables) -> Result<Settings, SettingsError> {
        let mut layers = Config::builder();
        if let Some(file) = self.config.or(variables.config.map(PathBuf::from)) {
            layers = layers.add_source(File::from(file).format(config::FileFormat::Toml));
        }
        layers = layers.add_source(variables.layer);
        let keys = [
            ("listen", self.listen),
            ("admin", self.admin),
            ("admin_token_file", self.admin_token_file),
            ("mqtt", self.mqtt),
            ("mqtt_refused", self.mqtt_refused),
            ("xmpp_component", self.xmpp_component),
            ("xmpp_component_name", self.xmpp_component_name),
            ("xmpp_component_secret_file", self.xmpp_component_secret_file),
            ("xmpp_domain", self.xmpp_domain),
            ("store", self.store),
            ("store_ca", self.store_ca),
            ("store_password_file", self.store_password_file),
            ("gateway_name", self.gateway_name),
            ("upstream", self.upstream),
            ("upstream_token_file", self.upstream_token_file),
            ("upstream_token_directory", self.upstream_token_directory),
            ("upstream_ca", self.upstream_ca),
            ("sync", self.sync),
            ("memory_max", self.memory_max),
            ("hold", self.hold),
            ("hold_max", self.hold_max),
            ("drain", self.drain),
            ("public_url", self.public_url),
            ("outbound_ca", self.outbound_ca),
            ("otlp", self.otlp),
            ("otlp_ratio", self.otlp_ratio),
            ("log", self.log),
            ("auth", self.auth),
            ("tls_client_ca", self.tls_client_ca),
            ("tls_client_crl", self.tls_client_crl),
            ("tls_client_required", self.tls_client_required.then(|| "true".to_owned())),
            ("access_log", self.access_log),
            ("audit_log", self.audit_log),
            ("open", self.open.then(|| "true".to_owned())),
            ("poll_origins", self.poll_origins.then(|| "true".to_owned())),
            ("proxy_protocol", self.proxy_protocol.then(|| "true".to_owned())),
            ("accept_damage", self.accept_damage.then(|| "true".to_owned())),
        ];
        for (key, value) in keys {
            layers = layers.set_override_option(key, value)?;
        }
        let lists = [
            ("host", self.host),
            ("origin", self.origin),
            ("mqtt_refuse_filter", self.mqtt_refuse_filter),
            ("behind_proxy", self.behind_proxy),
            ("outbound_allow", self.outbound_allow),
            ("webhook_key", self.webhook_key),
            ("tls_certificate", self.tls_certificate),
            ("tls_key", self.tls_key),
        ];
        for (key, list) in lists {
            if !list.is_empty() {
                layers = layers.set_override(key, list)?;
            }
        }
        for limit in variables.limits.into_iter().chain(self.limit) {
            let (name, value) = limit.split_once('=').ok_or_else(|| SettingsError::Limit(limit.clone()))?;
            layers = layers.set_override(format!("limits.{name}"), value)?;
        }
        let settings: Settings = layers.build()?.try_deserialize()?;
        settings.check()?;
        Ok(settings)
    }
}
