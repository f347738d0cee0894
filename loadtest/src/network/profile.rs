//! Profiles of hostile networks: the built-in ones and those in files.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use super::hop::{Clock, Hop};
use super::lifetime::Lifetime;
use super::nat_idle::{Ending as Forgetting, NatIdle};
use super::no_websocket::{NoWebsocket, Upgrade};
use super::proxy_buffer::ProxyBuffer;
use super::proxy_cut::{Ending, ProxyCut};
use super::slow::Slow;
use crate::model::network::{Network, Networks};
use crate::strategies::positive;

/// The network profiles by name. The default is the embedded `profiles.toml`; [`Profiles::read`] reads a replacement of the
/// same format.
#[derive(Debug, Clone, PartialEq)]
pub struct Profiles(Vec<Profile>);

/// A network between clients and a server.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Profile {
    /// Name on the command line.
    pub name: String,
    /// Source and certainty of its figures.
    pub source: String,
    /// Hops in order from the clients to the server.
    pub hops: Vec<Hop>,
    /// Time from the start of the middlebox after which the hops change nothing any more.
    #[serde(default)]
    pub until: Option<Clock>,
}

/// Why a network profile could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Error of the system.
        error: std::io::Error,
    },
    /// The file does not have the format of `profiles.toml`.
    #[error("not a file of hostile networks: {0}")]
    Shape(#[from] toml::de::Error),
    /// No profile has that name.
    #[error("no network {name:?}; there are {}", known.join(", "))]
    Unknown {
        /// The requested name.
        name: String,
        /// The known names.
        known: Vec<String>,
    },
    /// The time is invalid, or the network has no time to set.
    #[error("network {0}: {1}")]
    Time(String, String),
}

impl Profiles {
    /// Reads the profiles of a user's file.
    pub fn read(path: &Path) -> Result<Self, ProfileError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ProfileError::File { path: path.to_owned(), error })?;
        text.parse()
    }

    /// Returns all profiles.
    pub fn all(&self) -> &[Profile] {
        &self.0
    }

    /// Returns a profile by `NAME`, or by `NAME:TIME` with its first time set to `TIME` and its other times scaled in
    /// proportion. Names that are not found are looked up in the cost model's networks.
    pub fn get(&self, text: &str) -> Result<Profile, ProfileError> {
        let (name, time) = text.split_once(':').map_or((text, None), |(name, time)| (name, Some(time)));
        let own = self.0.iter().find(|profile| profile.name == name).cloned();
        let profile = match own {
            Some(profile) => profile,
            None => Networks::default().get(name).map(Profile::from).map_err(|_| ProfileError::Unknown {
                name: name.to_owned(),
                known: self.0.iter().map(|profile| profile.name.clone()).collect(),
            })?,
        };
        match time {
            None => Ok(profile),
            Some(time) => profile.with_time(time).map_err(|why| ProfileError::Time(name.to_owned(), why)),
        }
    }
}

impl Default for Profiles {
    fn default() -> Self {
        // A test asserts that the embedded table parses, so the fallback is never used.
        include_str!("profiles.toml").parse().unwrap_or(Self(Vec::new()))
    }
}

impl FromStr for Profiles {
    type Err = ProfileError;

    fn from_str(text: &str) -> Result<Self, ProfileError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            network: Vec<Profile>,
        }
        let Table { network } = toml::from_str(text)?;
        Ok(Self(network))
    }
}

impl FromStr for Profile {
    type Err = ProfileError;

    /// Parses `NAME[:TIME]` of a built-in profile, or `FILE#NAME[:TIME]` of a profile in a file.
    fn from_str(text: &str) -> Result<Self, ProfileError> {
        match text.split_once('#') {
            Some((file, name)) => Profiles::read(Path::new(file))?.get(name),
            None => Profiles::default().get(text),
        }
    }
}

impl Profile {
    /// A direct connection.
    pub fn none() -> Self {
        let source = "Nothing in between.".to_owned();
        Self { name: "none".to_owned(), source, hops: Vec::new(), until: None }
    }

    /// A path on which each byte takes this long one way.
    pub(crate) fn delaying(delay: Duration) -> Self {
        let hops = vec![Hop::Slow(Slow { bytes_per_second: f64::INFINITY, delay: Clock(delay) })];
        Self { name: "delay".to_owned(), hops, ..Self::none() }
    }

    /// Multiplies all times by `factor`; rates, sizes and shares stay.
    pub fn scaled(mut self, factor: f64) -> Self {
        for clock in self.clocks() {
            clock.0 = clock.0.mul_f64(factor);
        }
        self
    }

    /// Adds a proxy next to the server that counts the requests that reach it and changes nothing.
    pub fn counted(mut self) -> Self {
        self.hops.push(Hop::PlainProxy {});
        self
    }

    fn with_time(mut self, text: &str) -> Result<Self, String> {
        let time = positive(text)?;
        let first = self.clocks().first().map(|clock| clock.0).ok_or("it has no time to set")?;
        let name = format!("{}:{text}", self.name);
        Ok(Self { name, ..self.scaled(time.as_secs_f64() / first.as_secs_f64()) })
    }

    fn clocks(&mut self) -> Vec<&mut Clock> {
        self.hops.iter_mut().flat_map(Hop::clocks).chain(&mut self.until).collect()
    }
}

impl From<&Network> for Profile {
    /// Builds the hops for a network's timeouts and restrictions.
    fn from(network: &Network) -> Self {
        let clock = |time: Option<Duration>| time.map(Clock);
        let mut hops = Vec::new();
        if let Some(after) = clock(network.idle) {
            hops.push(Hop::NatIdle(NatIdle { after, ending: Forgetting::Silence }));
        }
        if let Some(after) = clock(network.lifetime) {
            hops.push(Hop::Lifetime(Lifetime { after }));
        }
        if !network.websocket {
            hops.push(Hop::NoWebsocket(NoWebsocket { upgrade: Upgrade::Stripped }));
        }
        let (first_byte, next_byte) = (clock(network.first_byte), clock(network.next_byte));
        if first_byte.or(next_byte).is_some() {
            hops.push(Hop::ProxyCut(ProxyCut { first_byte, next_byte, ending: Ending::GatewayTimeout }));
        }
        if !network.streaming {
            hops.push(Hop::ProxyBuffer(ProxyBuffer { bytes: None }));
        }
        Self { name: network.name.clone(), source: network.source.clone(), hops, until: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_time_sets_the_first_and_scales_the_others() {
        let profiles = Profiles::default();
        let cut = profiles.get("proxy-cut:3s").unwrap();
        let three = Some(Clock(Duration::from_secs(3)));
        let Some(Hop::ProxyCut(hop)) = cut.hops.first() else { panic!("{cut:?}") };
        assert_eq!((cut.name.as_str(), hop.first_byte, hop.next_byte), ("proxy-cut:3s", three, three));
        assert_eq!(
            profiles.get("captive:6s").unwrap(),
            Profile { name: "captive:6s".into(), ..profiles.get("captive").unwrap().scaled(0.1) }
        );
        for wrong in ["moon", "nat-idle:soon", "nat-idle:0s", "http10:3s"] {
            assert!(profiles.get(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_network_of_the_cost_model_becomes_hops_with_its_timeouts() {
        let heroku = Profiles::default().get("heroku").unwrap();
        let seconds = |seconds| Clock(Duration::from_secs(seconds));
        let hops = [
            Hop::NatIdle(NatIdle { after: seconds(55), ending: Forgetting::Silence }),
            Hop::ProxyCut(ProxyCut {
                first_byte: Some(seconds(30)),
                next_byte: Some(seconds(55)),
                ending: Ending::GatewayTimeout,
            }),
        ];
        assert_eq!(heroku.hops, hops);
        assert_eq!(Profiles::default().get("none").unwrap().hops, []);
    }

    #[test]
    fn a_users_file_replaces_the_table_or_its_error_is_reported() {
        let own: Profiles =
            "[[network]]\nname = 'lab'\nsource = ''\nhops = [{ http10 = {} }]\nuntil = 0.5".parse().unwrap();
        assert_eq!(own.get("lab").unwrap().until, Some(Clock(Duration::from_millis(500))));
        assert!(own.get("nat-idle").is_err());
        for wrong in
            ["hops = [{ moon = {} }]", "hops = [{ nat-idle = { after = 0 } }]", "", "hops = []\nx = 1"]
        {
            let text = format!("[[network]]\nname = 'lab'\nsource = ''\n{wrong}");
            assert!(text.parse::<Profiles>().is_err(), "{wrong:?}");
        }
        let file = std::env::temp_dir().join(format!("loadtest-profiles-{}.toml", std::process::id()));
        std::fs::write(&file, include_str!("profiles.toml")).unwrap();
        let named = format!("{}#captive:6s", file.display()).parse::<Profile>();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(named.unwrap(), "captive:6s".parse().unwrap());
        assert!("/does/not/exist.toml#lab".parse::<Profile>().is_err());
    }
}
