//! [`Site`]: a network namespace for an engine, with a link for each of two gateways that can be cut without either end being told.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::history::{Failure, history};
use crate::world::command::{run, try_run};

/// Links and their addresses: 10.78.LINK.1 at the gateways' side, 10.78.LINK.2 at the engine's.
pub struct Site {
    pub namespace: String,
    links: [u32; 2],
}

/// Port of an engine at a site.
pub const PORT: u16 = 6379;

impl Site {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(rustix::process::geteuid().is_root(), "network namespaces need root");
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let site = Self {
            namespace: format!("pollgate-engine-{}-{number}", std::process::id()),
            links: [0, 1].map(|link| 2 * (number % 100) + link + 1),
        };
        run("ip", &["netns", "add", &site.namespace]);
        site.ip(&["link", "set", "lo", "up"]);
        for link in site.links {
            let (here, there) = (site.device(link), format!("gateway{link}"));
            run(
                "ip",
                &["link", "add", &here, "type", "veth", "peer", "name", &there, "netns", &site.namespace],
            );
            run("ip", &["addr", "add", &format!("10.78.{link}.1/24"), "dev", &here]);
            run("ip", &["link", "set", &here, "up"]);
            site.ip(&["addr", "add", &format!("10.78.{link}.2/24"), "dev", &there]);
            site.ip(&["link", "set", &there, "up"]);
        }
        site
    }

    /// Name of the link's device at the gateways' side, of at most 15 characters.
    fn device(&self, link: u32) -> String {
        format!("pg{}-{link}", std::process::id() % 1_000_000)
    }

    /// The URL of the engine for a gateway, 0 or 1, over its own link.
    pub fn url(&self, gateway: usize) -> String {
        format!("redis://10.78.{}.2:{PORT}", self.links[gateway])
    }

    /// Lets no packet of a gateway's link through, or lets all through again.
    pub fn set(&self, gateway: usize, state: &str) {
        self.ip(&["link", "set", &format!("gateway{}", self.links[gateway]), state]);
    }

    fn ip(&self, arguments: &[&str]) {
        run("ip", &[&["-n", &self.namespace], arguments].concat());
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for link in self.links {
            let _gone = try_run("ip", &["link", "del", &self.device(link)]);
        }
        let _gone = try_run("ip", &["netns", "del", &self.namespace]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_that_let_nothing_through_lose_nothing() {
    history(Failure::Partition).await;
}
