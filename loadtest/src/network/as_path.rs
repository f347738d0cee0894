//! The part of a path that a middlebox's profile is for the formulas of the cost model.

use super::hop::Hop;
use super::profile::Profile;
use crate::model::network::Network;

impl Profile {
    /// Returns the timeouts and restrictions of this network. Fails with the reason if a hop does what no formula describes, such as
    /// losing responses.
    pub fn as_path(&self) -> Result<Network, String> {
        if self.until.is_some() {
            return Err(format!(
                "network {}: it changes with time, for which there is no formula",
                self.name
            ));
        }
        let hops = self.hops.iter().map(Hop::as_path).collect::<Result<Vec<_>, _>>();
        let hops =
            hops.map_err(|why| format!("network {}: {why}, for which there is no formula", self.name))?;
        Ok(Network { name: self.name.clone(), source: self.source.clone(), ..Network::path(&hops) })
    }
}

impl Hop {
    fn as_path(&self) -> Result<Network, &'static str> {
        let open = Network { name: "hop".to_owned(), source: String::new(), ..Network::direct() };
        let proxy = Network { raw_tcp: !self.is_proxy(), ..open };
        Ok(match self {
            Self::NatIdle(hop) => Network { idle: Some(hop.after.0), ..proxy },
            Self::Lifetime(hop) => Network { lifetime: Some(hop.after.0), ..proxy },
            Self::Slow(hop) => Network { round_trip: Some(hop.delay.0 * 2), ..proxy },
            Self::ProxyCut(hop) => Network {
                first_byte: hop.first_byte.map(|clock| clock.0),
                next_byte: hop.next_byte.map(|clock| clock.0),
                ..proxy
            },
            Self::ProxyBuffer(_) | Self::NoStreaming(_) => Network { streaming: false, ..proxy },
            Self::NoWebsocket(_) | Self::WebsocketCut(_) | Self::Http10(_) => {
                Network { websocket: false, ..proxy }
            }
            Self::PlainProxy {} => proxy,
            Self::AddressChange(_) => return Err("its clients change their address"),
            Self::Captive(_) => return Err("a captive portal answers every request"),
            Self::LossyAnswers(_) => return Err("it loses responses"),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::network::Profiles;

    fn path(name: &str) -> Result<Network, String> {
        Profiles::default().get(name).unwrap().as_path()
    }

    #[test]
    fn the_hops_of_a_middlebox_are_the_parts_of_its_path() {
        let cut = path("proxy-cut-30").unwrap();
        assert_eq!((cut.name.as_str(), cut.first_byte), ("proxy-cut-30", Some(Duration::from_secs(30))));
        assert!(!cut.raw_tcp && cut.websocket && cut.streaming);
        assert_eq!(path("nat-idle:90s").unwrap().idle, Some(Duration::from_secs(90)));
        let buffer = path("proxy-buffer").unwrap();
        assert!(!buffer.streaming && !buffer.websocket);
        assert_eq!(path("slow").unwrap().usual_round_trip(), Duration::from_millis(630));
        assert!(path("captive").is_err());
        assert!(path("lossy-answers").unwrap_err().contains("loses responses"));
    }
}
