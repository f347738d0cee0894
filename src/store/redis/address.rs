//! [`EngineAddress`]: the URL of an engine, which is one server, a primary that Sentinel watches, or a cluster.
//!
//! | URL | |
//! |---|---|
//! | `redis://[USER:PASSWORD@]HOST:PORT[/DATABASE]`, `redis+unix://PATH` | one server |
//! | `redis+sentinel://[USER:PASSWORD@]HOST:PORT,HOST:PORT/SERVICE` | the primary of a service, which these sentinels know |
//! | `redis+cluster://[USER:PASSWORD@]HOST:PORT,HOST:PORT` | a cluster, some of whose nodes have these addresses |
//!
//! `rediss` in place of `redis` is TLS, to sentinels too; `valkey` and `valkeys` mean the same.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use redis::{
    Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, RedisError,
    TlsCertificates,
};

/// The engine cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The URL is malformed or asks for something that is not supported.
    #[error("the URL of the engine is invalid: {0}")]
    Url(RedisError),
    /// The URL lacks something, or contradicts another setting.
    #[error("the URL of the engine is invalid: {0}")]
    Form(&'static str),
    /// A file with certificate authorities or a password cannot be read.
    #[error("cannot read {}: {error}", .file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why it cannot be read.
        error: io::Error,
    },
    /// The engine cannot be reached, or refuses the functions.
    #[error("the engine cannot be used: {0}")]
    Unusable(RedisError),
    /// The engine may delete keys on its own.
    #[error(
        "the engine may delete streams when its memory is full (maxmemory-policy {0}); set it to noeviction"
    )]
    Evicts(String),
}

/// Host and port of a server, or the path of its socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct NodeAddress {
    host: String,
    /// `None`: the host is a path.
    port: Option<u16>,
}

/// How the server of a key is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Topology {
    /// There is one server.
    Single,
    /// The sentinels know the primary of this service.
    Sentinel { service: String },
    /// Each node of the cluster has some of the hash slots.
    Cluster,
}

/// Where the engine is, and how to connect to its servers.
#[derive(Clone)]
pub(super) struct EngineAddress {
    pub(super) topology: Topology,
    /// The servers of the URL: the one server, sentinels, or nodes of the cluster. There is at least one.
    pub(super) seeds: Vec<NodeAddress>,
    credentials: RedisConnectionInfo,
    tls: Option<TlsCertificates>,
}

impl fmt::Debug for EngineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The credentials contain a password.
        f.debug_struct("EngineAddress")
            .field("topology", &self.topology)
            .field("seeds", &self.seeds)
            .finish_non_exhaustive()
    }
}

impl NodeAddress {
    /// Parses `HOST:PORT`, as the engine writes it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some(Self::new(host, port.parse().ok()?))
    }

    pub(super) fn new(host: &str, port: u16) -> Self {
        Self { host: host.to_owned(), port: Some(port) }
    }

    /// Host; the engine may leave it out when it speaks of itself.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The same port of another host.
    pub(super) fn at(&self, host: &str) -> Self {
        Self { host: host.to_owned(), port: self.port }
    }

    fn of(addr: &ConnectionAddr) -> Self {
        match addr {
            ConnectionAddr::Unix(path) => Self { host: path.display().to_string(), port: None },
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Self::new(host, *port)
            }
            // The enumeration may grow; no other kind of address can come from the URLs that are accepted.
            _ => Self { host: String::new(), port: None },
        }
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) if self.host.contains(':') => write!(f, "[{}]:{port}", self.host),
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

impl EngineAddress {
    /// Parses a URL, and reads the files with the certificate authorities and the password.
    pub(super) fn read(
        url: &str,
        ca_file: Option<&Path>,
        password_file: Option<&Path>,
    ) -> Result<Self, EngineError> {
        let invalid = |why: &'static str| EngineError::Form(why);
        let (scheme, rest) = url.split_once("://").ok_or(invalid("it has no scheme"))?;
        let (scheme, topology) = match scheme.split_once('+') {
            Some((scheme, "sentinel")) => (scheme, Topology::Sentinel { service: String::new() }),
            Some((scheme, "cluster")) => (scheme, Topology::Cluster),
            _ => (scheme, Topology::Single),
        };
        let (seeds, path) = if topology == Topology::Single {
            (vec![url.to_owned()], "")
        } else {
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            let (user, hosts) =
                authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
            let at = if user.is_empty() { "" } else { "@" };
            (hosts.split(',').map(|host| format!("{scheme}://{user}{at}{host}")).collect(), path)
        };
        let topology = match topology {
            Topology::Sentinel { .. } if path.is_empty() => {
                return Err(invalid(
                    "the name of the service is missing behind the addresses of the sentinels",
                ));
            }
            Topology::Sentinel { .. } => Topology::Sentinel { service: path.to_owned() },
            Topology::Cluster if !path.is_empty() => return Err(invalid("a cluster has no databases")),
            other => other,
        };
        let infos: Result<Vec<ConnectionInfo>, _> =
            seeds.iter().map(|seed| seed.as_str().into_connection_info()).collect();
        let infos = infos.map_err(EngineError::Url)?;
        let first = infos.first().ok_or(invalid("it has no address"))?;
        if infos.iter().any(|info| matches!(info.addr(), ConnectionAddr::TcpTls { insecure: true, .. })) {
            return Err(invalid("#insecure is not supported; name the authorities of the certificates"));
        }
        let has_tls = matches!(first.addr(), ConnectionAddr::TcpTls { .. });
        let mut credentials = first.redis_settings().clone();
        if let Some(file) = password_file {
            let password = read(file)?;
            let password = password.trim_ascii_end();
            let password = std::str::from_utf8(password).map_err(|_| invalid("its password is not UTF-8"))?;
            credentials = credentials.set_password(password);
        }
        let tls = match (has_tls, ca_file) {
            (false, Some(_)) => {
                return Err(invalid("certificate authorities are given, but it asks for no TLS (rediss)"));
            }
            (false, None) => None,
            (true, file) => {
                Some(TlsCertificates { client_tls: None, root_cert: file.map(read).transpose()? })
            }
        };
        let address = Self {
            topology,
            seeds: infos.iter().map(|info| NodeAddress::of(info.addr())).collect(),
            credentials,
            tls,
        };
        // A file without certificates is found now, not at the first connection.
        for seed in &address.seeds {
            address.client(seed, true, redis::ProtocolVersion::RESP2).map_err(EngineError::Url)?;
        }
        Ok(address)
    }

    /// A client of one server, with the credentials of the URL or without.
    pub(super) fn client(
        &self,
        node: &NodeAddress,
        with_credentials: bool,
        protocol: redis::ProtocolVersion,
    ) -> Result<Client, RedisError> {
        let host = node.host.clone();
        let addr = match (node.port, &self.tls) {
            (None, _) => ConnectionAddr::Unix(PathBuf::from(host)),
            (Some(port), None) => ConnectionAddr::Tcp(host, port),
            (Some(port), Some(_)) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
        };
        let credentials =
            if with_credentials { self.credentials.clone() } else { RedisConnectionInfo::default() };
        let info = addr.into_connection_info()?.set_redis_settings(credentials.set_protocol(protocol));
        match &self.tls {
            Some(tls) => Client::build_with_tls(info, tls.clone()),
            None => Client::open(info),
        }
    }
}

fn read(file: &Path) -> Result<Vec<u8>, EngineError> {
    fs::read(file).map_err(|error| EngineError::File { file: file.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<EngineAddress, EngineError> {
        EngineAddress::read(url, None, None)
    }

    fn parsed(url: &str) -> (Topology, Vec<String>) {
        let address = parse(url).unwrap();
        (address.topology, address.seeds.iter().map(NodeAddress::to_string).collect())
    }

    #[test]
    fn a_url_is_of_one_server_of_sentinels_or_of_a_cluster() {
        assert_eq!(parsed("redis://a:1"), (Topology::Single, vec!["a:1".to_owned()]));
        assert_eq!(parsed("valkey://[::1]:1/3"), (Topology::Single, vec!["[::1]:1".to_owned()]));
        assert_eq!(parsed("redis+unix:///run/redis"), (Topology::Single, vec!["/run/redis".to_owned()]));
        let two = vec!["a:1".to_owned(), "b:6379".to_owned()];
        let service = "main".to_owned();
        assert_eq!(parsed("rediss+sentinel://u:p@a:1,b/main"), (Topology::Sentinel { service }, two.clone()));
        assert_eq!(parsed("redis+cluster://:p@a:1,b"), (Topology::Cluster, two));
    }

    #[test]
    fn what_a_url_lacks_is_said() {
        for (url, why) in [
            ("redis+sentinel://a:1,b:2", "the name of the service is missing"),
            ("redis+cluster://a:1/2", "a cluster has no databases"),
            ("redis+cluster://", "invalid"),
            ("redis://a:1/x", "invalid"),
            ("rediss://a:1#insecure", "invalid"),
        ] {
            let said = parse(url).and_then(|address| {
                address
                    .client(&address.seeds[0], true, redis::ProtocolVersion::RESP2)
                    .map_err(EngineError::Url)
            });
            let said = said.map(drop).unwrap_err().to_string();
            assert!(said.contains(why), "{url}: {said}");
        }
    }

    #[test]
    fn the_password_is_from_the_url_or_a_file_and_is_not_shown() {
        let file = std::env::temp_dir().join(format!("pollgate-engine-password-{}", std::process::id()));
        fs::write(&file, "from-file\n").unwrap();
        let by_url = parse("redis://user:from-url@a:1").unwrap();
        let by_file = EngineAddress::read("redis://user@a:1", None, Some(&file)).unwrap();
        fs::remove_file(&file).unwrap();
        assert_eq!(by_url.credentials.password(), Some("from-url"));
        assert_eq!(
            (by_file.credentials.username(), by_file.credentials.password()),
            (Some("user"), Some("from-file"))
        );
        assert!(!format!("{by_url:?}{by_file:?}").contains("from-"));
    }

    #[test]
    fn authorities_without_tls_and_files_that_do_not_exist_are_refused() {
        let ca = Some(Path::new("/nonexistent/ca.pem"));
        let said = EngineAddress::read("redis://a:1", ca, None).unwrap_err().to_string();
        assert!(said.contains("rediss"), "{said}");
        let said = EngineAddress::read("rediss://a:1", ca, None).unwrap_err().to_string();
        assert!(said.contains("/nonexistent/ca.pem"), "{said}");
    }
}
