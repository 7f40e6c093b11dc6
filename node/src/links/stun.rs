//! Where the STUN servers are: the coordinator says it, its name leads there.

use std::net::SocketAddr;
use std::path::PathBuf;

use peerloom_proto::Origin;
use tokio::net::lookup_host;
use tracing::debug;

use crate::coordinator_http::{CoordinatorError, CoordinatorHttp};

/// Asks for a mesh's STUN servers.
#[derive(Clone, Debug)]
pub(crate) struct StunFinder {
    origin: Origin,
    ca_file: Option<PathBuf>,
}

impl StunFinder {
    pub(crate) fn new(origin: Origin, ca_file: Option<PathBuf>) -> Self {
        Self { origin, ca_file }
    }

    /// The servers as the coordinator announces them: its ports in their order, each at an IPv4 and an
    /// IPv6 address of its host where there are both, then those elsewhere.
    pub(super) async fn find(&self) -> Result<Vec<SocketAddr>, CoordinatorError> {
        let info = CoordinatorHttp::new(&self.origin, self.ca_file.as_deref())?.info().await?;
        let hosts = self.hosts().await;
        Ok(arrange(&info.stun_ports, &hosts, &info.stun_addresses))
    }

    async fn hosts(&self) -> Vec<SocketAddr> {
        let name = self.origin.host().trim_matches(['[', ']']);
        match lookup_host((name, self.origin.port())).await {
            Ok(found) => found.collect(),
            Err(error) => {
                debug!(%error, "The coordinator's name leads nowhere.");
                Vec::new()
            }
        }
    }
}

fn arrange(ports: &[u16], hosts: &[SocketAddr], elsewhere: &[SocketAddr]) -> Vec<SocketAddr> {
    let families = [hosts.iter().find(|addr| addr.is_ipv4()), hosts.iter().find(|addr| addr.is_ipv6())];
    let mut servers = Vec::new();
    for port in ports {
        let at_port = |host: &SocketAddr| SocketAddr::new(host.ip().to_canonical(), *port);
        servers.extend(families.into_iter().flatten().map(at_port));
    }
    servers.extend(elsewhere);
    servers.retain(|addr| addr.port() != 0);
    servers.truncate(SERVERS_MAX);
    servers
}

/// Two ports in two families and a few more. Whatever a coordinator says beyond is not asked.
const SERVERS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_come_port_by_port_in_both_families_then_those_elsewhere_and_no_more_than_eight() {
        let addrs =
            |texts: &[&str]| -> Vec<SocketAddr> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        let hosts = addrs(&["[2001:db8::1]:443", "192.0.2.1:443", "192.0.2.9:443"]);
        let servers = arrange(&[3478, 3479, 0], &hosts, &addrs(&["198.51.100.1:3478"]));
        let expected = addrs(&[
            "192.0.2.1:3478",
            "[2001:db8::1]:3478",
            "192.0.2.1:3479",
            "[2001:db8::1]:3479",
            "198.51.100.1:3478",
        ]);
        assert_eq!(servers, expected);
        assert_eq!(arrange(&[1; 100], &hosts, &[]).len(), SERVERS_MAX);
    }
}
