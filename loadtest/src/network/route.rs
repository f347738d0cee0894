//! [`Route`]: the path to a server through a network, with a middlebox for each of the server's listeners.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use super::middlebox::Middlebox;
use super::profile::Profile;
use crate::target::Target;

/// Middleboxes in front of a server. A drop ends them.
#[derive(Debug)]
pub struct Route {
    /// The server's addresses for clients behind the network.
    pub target: Target,
    _boxes: Vec<Middlebox>,
}

impl Route {
    /// Puts a network in front of a server.
    pub fn to(server: &Target, network: &Profile) -> io::Result<Self> {
        let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let http = Middlebox::start(network, any, server.address)?;
        let mut target = Target { address: http.address(), ..server.clone() };
        let mut boxes = vec![http];
        if let Some(mqtt) = server.mqtt {
            // A server with one listener for both protocols needs one middlebox.
            let other = mqtt != server.address;
            if other {
                boxes.push(Middlebox::start(network, any, mqtt)?);
            }
            target.mqtt = boxes.last().map(Middlebox::address);
        }
        Ok(Self { target, _boxes: boxes })
    }
}
