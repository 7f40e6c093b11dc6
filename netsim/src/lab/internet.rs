//! All of it standing: sites around a wire, a coordinator, and a mesh of nodes, one a site.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};

use super::capture::Capture;
use super::daemon::{Coordinator, Host, hosts_file};
use super::enter::{self, HOME};
use super::namespace::Namespace;
use super::router::Nat;
use super::site::{self, COORDINATOR_V4, COORDINATOR_V6, Site};
use super::timeline::Timeline;
use super::wire::{Access, Port, Weather, Wire};
use crate::bench::process::Binaries;

/// Sites are numbered in one byte of their addresses.
const HOSTS_MAX: usize = 200;

/// Number of the coordinator's site; hosts begin at 1.
const COORDINATOR: u8 = 0;

/// Things done at once while the lab is built: as many as a small machine has cores.
const AT_ONCE: usize = 2;

/// The cables, before any program runs.
pub(super) struct Cables {
    pub(super) wire: Wire,
    pub(super) coordinator: Namespace,
    pub(super) sites: Vec<Site>,
}

impl Cables {
    /// Lays them: a site for the coordinator and one for each of these, with such lines.
    pub(super) fn lay(nats: &[Nat], access: Access, seed: u64) -> anyhow::Result<Self> {
        ensure!(nats.len() <= HOSTS_MAX, "a lab has at most {HOSTS_MAX} hosts, not {}", nats.len());
        let numbers = || (1_u8..).zip(nats.iter().copied());
        let mut names = vec!["wire".to_owned(), "coordinator".to_owned()];
        names.extend(numbers().flat_map(|(number, nat)| site::names(number, nat)));
        let mut made = Namespace::make(&names)?.into_iter();
        let (Some(wire), Some(coordinator)) = (made.next(), made.next()) else {
            unreachable!("two and more")
        };
        let mut next = || made.next().expect("a namespace was made for every name");
        let sites: Vec<Site> = numbers()
            .map(|(number, nat)| {
                let host = next();
                let routers = (0..nat.routers()).map(|_| next()).collect();
                Site { number, nat, host, routers }
            })
            .collect();
        build_coordinator(&coordinator, &wire)?;
        each(&sites.iter().collect::<Vec<_>>(), |site| site.build(&wire))?;
        let wire = start_wire(&wire, &sites, access, seed)?;
        Ok(Self { wire, coordinator, sites })
    }
}

fn build_coordinator(namespace: &Namespace, wire: &Namespace) -> anyhow::Result<()> {
    site::connect(namespace, wire, COORDINATOR)?;
    namespace.ip(&format!(
        "link set w1 arp off addrgenmode none\nlink set w1 up\n\
         addr add {COORDINATOR_V4}/32 dev w1\nroute add default dev w1\n\
         addr add {COORDINATOR_V6}/128 dev w1 nodad\nroute add ::/0 dev w1\n"
    ))
}

fn start_wire(wire: &Namespace, sites: &[Site], access: Access, seed: u64) -> anyhow::Result<Wire> {
    let numbers: Vec<u8> = [COORDINATOR].into_iter().chain(sites.iter().map(|site| site.number)).collect();
    let ports = wire.within(|| {
        numbers.iter().map(|number| Port::open(&site::wire_end(*number), site::mac(*number))).collect()
    })?;
    let mut routes: Vec<(IpAddr, usize)> = vec![(COORDINATOR_V4.into(), 0), (COORDINATOR_V6.into(), 0)];
    for (place, site) in sites.iter().enumerate() {
        routes.extend(site.addresses().into_iter().map(|address| (address, place + 1)));
    }
    let names = ["coordinator"].into_iter().chain(sites.iter().map(|site| site.host.name()));
    let capture = Capture::new(names.map(str::to_owned).collect());
    Wire::start(ports, &routes, Weather::new(vec![access; numbers.len()], seed), capture)
}

/// The cables with the real programs at their ends.
pub(crate) struct Internet {
    pub(crate) wire: Wire,
    /// Dropped before the coordinator, so that nodes can say goodbye.
    pub(crate) hosts: Vec<Host>,
    pub(crate) coordinator: Coordinator,
    pub(crate) timeline: Arc<Timeline>,
}

impl Internet {
    /// Builds it; all nodes are members of one mesh, up and connected afterwards.
    pub(crate) fn build(
        binaries: &Binaries,
        nats: &[Nat],
        access: Access,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let dir = Path::new(HOME).to_owned();
        let hosts = dir.join("hosts");
        std::fs::write(&hosts, hosts_file())?;
        enter::cover("/etc/hosts", &hosts)?;
        let Cables { wire, coordinator, sites } = Cables::lay(nats, access, seed)?;
        let mut coordinator = Coordinator::new(binaries, &dir.join("c"), coordinator)?;
        coordinator.start()?;
        let timeline = Timeline::new();
        let hosts: anyhow::Result<Vec<Host>> = sites
            .into_iter()
            .map(|site| Host::new(binaries, &dir, site, &coordinator, timeline.clone()))
            .collect();
        let mut internet = Self { wire, hosts: hosts?, coordinator, timeline };
        internet.gather()?;
        Ok(internet)
    }

    /// Makes the mesh and brings every node up.
    fn gather(&mut self) -> anyhow::Result<()> {
        let (owner, others) = self.hosts.split_first_mut().context("a lab has a host")?;
        owner.init(&self.coordinator)?;
        owner.up()?;
        let uses = others.len().max(1).to_string();
        let invite = owner.verb(&["invite", "--uses", &uses], None)?;
        each_mut(others, |host| {
            host.join(&invite).and_then(|()| host.up()).with_context(|| format!("host {}", host.handle))
        })
    }

    /// The same sites with another mesh: nothing that any program learned is left, and sockets are new.
    pub(crate) fn begin_again(&mut self) -> anyhow::Result<()> {
        each_mut(&mut self.hosts, Host::forget)?;
        self.coordinator.forget()?;
        self.coordinator.start()?;
        self.gather()
    }
}

/// Does it to all, [`AT_ONCE`] at a time; the first failure counts.
fn each<T: Sync>(items: &[T], act: impl Fn(&T) -> anyhow::Result<()> + Sync) -> anyhow::Result<()> {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            act(item)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })
}

fn each_mut<T: Send>(
    items: &mut [T],
    act: impl Fn(&mut T) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<()> {
    let items: Vec<std::sync::Mutex<&mut T>> = items.iter_mut().map(std::sync::Mutex::new).collect();
    each(&items, |item| act(&mut item.lock().expect("no panic")))
}

/// A line that makes every path between two sites a round trip of this length.
pub(crate) fn access_for(rtt: Duration) -> Access {
    // There and back, over the lines of both ends.
    Access { delay: rtt / 4, ..Access::default() }
}
