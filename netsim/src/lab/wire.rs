//! The internet of the lab, in this process: what a host's or router's outer interface sends comes
//! out of the interface that has the destination, later, or not at all.
//!
//! Every site has a veth pair whose far end lies in a namespace where nothing but our packet
//! sockets lives. Routes are known, so there is neither ARP nor neighbour discovery to slow down a
//! first packet. tc netem is not in every kernel, and could not tell pairs of sites apart.
//!
//! 1. [`port`]    a packet socket on the far end of one site's veth
//! 2. [`packet`]  the few header fields that matter here
//! 3. [`weather`] delay, jitter, loss, reordering, rate and cuts: decides the fate of one packet
//! 4. [`Wire`]    the thread that takes packets in, keeps them and gives them out

mod packet;
mod port;
mod weather;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub(crate) use port::Port;
use weather::Fate;
pub(crate) use weather::{Access, Weather};

use super::capture::Capture;

/// Routers between any two sites. A packet whose TTL does not reach dies on its way, as a low-TTL
/// punch primer must.
const HOPS: u8 = 5;

/// Packets taken from one socket before the others have their turn.
const PACKETS_AT_ONCE: usize = 64;

/// Packets under way at once: 100 MB. More are dropped, as a full router would.
const PACKETS_MAX: usize = 65_536;

/// The largest frame: nobody segments later than the interface, see [`Port::open`].
const FRAME_BYTES_MAX: usize = 1_514;

/// How soon the thread notices that the lab is over.
const STOP_WITHIN: Duration = Duration::from_millis(100);

/// What the lab and the wire's thread share.
#[derive(Debug)]
pub(crate) struct Sky {
    pub(crate) weather: Weather,
    pub(crate) capture: Capture,
}

/// The running internet. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Wire {
    sky: Arc<Mutex<Sky>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    /// Connects these ports, each with the addresses that are reached through it.
    pub(crate) fn start(
        ports: Vec<Port>,
        routes: &[(IpAddr, usize)],
        weather: Weather,
        capture: Capture,
    ) -> anyhow::Result<Self> {
        let sky = Arc::new(Mutex::new(Sky { weather, capture }));
        let stop = Arc::new(AtomicBool::new(false));
        let routes = routes.iter().map(|(addr, port)| (packet::site_of(*addr), *port)).collect();
        let mut carrier = Carrier {
            ports,
            routes,
            sky: sky.clone(),
            under_way: BinaryHeap::new(),
            sequence: 0,
            buffer: vec![0; FRAME_BYTES_MAX],
        };
        let stopped = stop.clone();
        let run = move || {
            // A thread that waits most of its time is late when the machine is busy; without the
            // privilege it stays so.
            rustix::process::setpriority_process(None, -15).unwrap_or_default();
            while !stopped.load(Ordering::Relaxed) {
                carrier.turn();
            }
        };
        let thread = std::thread::Builder::new().name("wire".to_owned()).spawn(run);
        Ok(Self { sky, stop, thread: Some(thread.context("failed to start the wire")?) })
    }

    /// What may be changed while it runs.
    pub(crate) fn sky(&self) -> MutexGuard<'_, Sky> {
        self.sky.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && let Err(panic) = thread.join()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// The state of the wire's thread.
struct Carrier {
    ports: Vec<Port>,
    routes: BTreeMap<IpAddr, usize>,
    sky: Arc<Mutex<Sky>>,
    under_way: BinaryHeap<Reverse<Parcel>>,
    sequence: u64,
    buffer: Vec<u8>,
}

/// A frame that is due at a port. Ordered by time, then by arrival.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Parcel {
    due: Instant,
    sequence: u64,
    to: usize,
    frame: Vec<u8>,
}

impl Carrier {
    /// Gives out what is due, waits for more, takes it in.
    fn turn(&mut self) {
        let now = Instant::now();
        while let Some(Reverse(parcel)) = self.under_way.peek() {
            if parcel.due > now {
                break;
            }
            if let Some(Reverse(parcel)) = self.under_way.pop() {
                self.ports[parcel.to].put(&parcel.frame);
            }
        }
        for from in self.wait() {
            self.take(from);
        }
    }

    /// The ports that have something, once one has or the next parcel is due.
    fn wait(&self) -> Vec<usize> {
        let next = self.under_way.peek().map(|Reverse(parcel)| parcel.due);
        let wait = next.map_or(STOP_WITHIN, |due| due.saturating_duration_since(Instant::now()));
        let timeout = Timespec::try_from(wait.min(STOP_WITHIN)).unwrap_or_default();
        let mut asked: Vec<PollFd<'_>> =
            self.ports.iter().map(|port| PollFd::new(port, PollFlags::IN)).collect();
        // An interrupted wait is one that found nothing.
        if poll(&mut asked, Some(&timeout)).is_err() {
            return Vec::new();
        }
        let ready = asked.iter().enumerate().filter(|(_, asked)| !asked.revents().is_empty());
        ready.map(|(number, _)| number).collect()
    }

    fn take(&mut self, from: usize) {
        let sky = self.sky.clone();
        let mut sky = sky.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..PACKETS_AT_ONCE {
            let Some(bytes) = self.ports[from].get(&mut self.buffer) else { return };
            let now = Instant::now();
            let mut frame = self.buffer[..bytes].to_vec();
            let fate = self.judge(&mut sky, from, &mut frame, now);
            sky.capture.record(from, &self.buffer[..bytes], fate.comment());
            if let Fate::Arrives { to, due } = fate {
                self.sequence += 1;
                frame[..6].copy_from_slice(&self.ports[to].site_mac());
                self.under_way.push(Reverse(Parcel { due, sequence: self.sequence, to, frame }));
            }
        }
    }

    fn judge(&self, sky: &mut Sky, from: usize, frame: &mut [u8], now: Instant) -> Fate {
        let Some(destination) = packet::destination(frame) else { return Fate::NotIp };
        let Some(&to) = self.routes.get(&packet::site_of(destination)) else { return Fate::NoRoute };
        if !packet::travel(frame, HOPS) {
            return Fate::TtlExceeded;
        }
        if self.under_way.len() >= PACKETS_MAX {
            return Fate::QueueFull;
        }
        sky.weather.fate(from, to, frame.len(), now)
    }
}
