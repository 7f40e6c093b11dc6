//! What the coordinator tells Prometheus. The host counts its own things here; the hub's counters
//! are published after each step and rendered when somebody asks. No label ever carries a key, a
//! handle or an address.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::counters::Counters;

/// The content type of [`Metrics::render`]'s text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Prefix of every name.
const PREFIX: &str = "peerloom_coordinator";

/// An HTTP route as it is declared, and the status of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RouteLabel {
    /// The pattern, never the path that was asked for.
    pub(crate) route: String,
    pub(crate) status: u16,
}

/// Every metric. Cloning shares them.
#[derive(Clone)]
pub struct Metrics {
    /// TCP connections open, of any kind.
    pub(crate) connections: Gauge,
    /// TCP connections accepted.
    pub(crate) connections_accepted: Counter,
    /// TCP connections closed at once because the cap was reached.
    pub(crate) connections_over_cap: Counter,
    /// TLS handshakes that failed.
    pub(crate) tls_failures: Counter,
    /// HTTP answers by route and status.
    pub(crate) http: Family<RouteLabel, Counter>,
    /// STUN binding requests answered.
    pub(crate) stun_answered: Counter,
    /// Datagrams on the STUN port that were no binding request.
    pub(crate) stun_ignored: Counter,
    commit_writes: Histogram,
    commit_duration: Histogram,
    accepted_latency: Histogram,
    hub: Hub,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            connections: Gauge::default(),
            connections_accepted: Counter::default(),
            connections_over_cap: Counter::default(),
            tls_failures: Counter::default(),
            http: Family::default(),
            stun_answered: Counter::default(),
            stun_ignored: Counter::default(),
            // 1 to 4,096 writes.
            commit_writes: Histogram::new((0..13).map(|power| f64::from(1_u32 << power))),
            commit_duration: Histogram::new(durations()),
            accepted_latency: Histogram::new(durations()),
            hub: Hub::default(),
        }
    }
}

/// From a fast disk's fsync, 250 µs, to about 4 s, doubling.
fn durations() -> impl Iterator<Item = f64> {
    (0..15).map(|power| 0.000_25 * f64::from(1_u32 << power))
}

impl Metrics {
    /// A batch reached the disk, or failed, after this long.
    pub fn commit(&self, writes: usize, took: Duration) {
        self.commit_writes.observe(writes as f64);
        self.commit_duration.observe(took.as_secs_f64());
    }

    /// An acknowledgement left this long after its envelope came. The oldest of a batch is enough.
    pub fn accepted(&self, took: Duration) {
        self.accepted_latency.observe(took.as_secs_f64());
    }

    /// What the hub has counted so far.
    pub fn publish(&self, counters: Counters) {
        *self.hub.0.lock().unwrap_or_else(PoisonError::into_inner) = counters;
    }

    /// The registry that [`render`](Self::render) reads; one is made per process.
    pub(crate) fn registry(&self) -> Registry {
        let mut to = Registry::with_prefix(PREFIX);
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        to.register("build", "What is running", version);
        to.register("connections", "Open TCP connections", self.connections.clone());
        to.register("connections_accepted", "TCP connections accepted", self.connections_accepted.clone());
        to.register(
            "connections_over_cap",
            "TCP connections closed at the cap",
            self.connections_over_cap.clone(),
        );
        to.register("tls_failures", "TLS handshakes that failed", self.tls_failures.clone());
        to.register("http_answers", "HTTP answers by route and status", self.http.clone());
        to.register("stun_answered", "STUN binding requests answered", self.stun_answered.clone());
        to.register("stun_ignored", "Datagrams that were no STUN binding request", self.stun_ignored.clone());
        to.register("commit_writes", "Writes per commit", self.commit_writes.clone());
        let seconds = [
            ("commit_duration", "Duration of a commit, fsync included", &self.commit_duration),
            ("accepted_latency", "Arrival of an envelope to its acknowledgement", &self.accepted_latency),
        ];
        for (name, help, histogram) in seconds {
            to.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        }
        to.register_collector(Box::new(self.hub.clone()));
        to
    }

    /// The registry as text, for `/metrics`.
    pub(crate) fn render(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).expect("writing to a string cannot fail");
        text
    }
}

/// The hub's counters as of its last step.
#[derive(Clone, Debug, Default)]
struct Hub(Arc<Mutex<Counters>>);

/// One labelled series of the hub.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: &'static str,
}

impl Collector for Hub {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Counters {
            sockets,
            members_online,
            mail_queued,
            mail_queued_bytes,
            hellos_welcomed,
            hellos_refused,
            puts_accepted,
            puts_refused_rate,
            puts_refused_full,
            puts_refused_store,
            puts_refused_other,
            delivered_live,
            delivered_queued,
            receipts,
            receipted,
            expired,
            leases_lapsed,
            batches,
            writes,
            batches_failed,
            log_appended,
            log_conflicts,
            log_regained,
            marks_lost,
            logs_broken,
            frames_malformed,
            invites_found,
            invites_missed,
            throttled,
        } = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        gauge(&mut to, "sockets", "Open links, greeted or not", sockets)?;
        gauge(&mut to, "members_online", "Members with an open link", members_online)?;
        gauge(&mut to, "mailbox_messages", "Items queued for all recipients", mail_queued)?;
        gauge(&mut to, "mailbox_bytes", "Bytes queued for all recipients", mail_queued_bytes)?;
        let hellos = [("welcomed", hellos_welcomed), ("refused", hellos_refused)];
        family(&mut to, "hellos", "Hellos by outcome", &hellos)?;
        let puts = [
            ("accepted", puts_accepted),
            ("rate", puts_refused_rate),
            ("recipient-full", puts_refused_full),
            ("store", puts_refused_store),
            ("refused", puts_refused_other),
        ];
        family(&mut to, "puts", "Envelopes by what their sender was told; repeats count again", &puts)?;
        let delivered = [("live", delivered_live), ("queue", delivered_queued)];
        family(&mut to, "delivered", "Envelopes handed to a link, by way", &delivered)?;
        counter(&mut to, "receipts", "Receipts taken from recipients", receipts)?;
        counter(&mut to, "receipted", "Envelopes that a receipt ended", receipted)?;
        counter(&mut to, "expired", "Envelopes that ended unread", expired)?;
        counter(&mut to, "leases_lapsed", "Claims offered again after their lease", leases_lapsed)?;
        counter(&mut to, "batches", "Batches made durable", batches)?;
        counter(&mut to, "writes", "Writes in them", writes)?;
        counter(&mut to, "batches_failed", "Batches that failed, wholly or in part", batches_failed)?;
        let appends = [("sequenced", log_appended), ("conflict", log_conflicts), ("regained", log_regained)];
        family(&mut to, "log_appends", "Mesh log appends by outcome", &appends)?;
        counter(
            &mut to,
            "marks_lost",
            "Hellos that know a later state: the data is an old copy",
            marks_lost,
        )?;
        gauge(&mut to, "logs_broken", "Meshes whose kept log does not replay", logs_broken)?;
        let lookups = [("found", invites_found), ("missed", invites_missed)];
        family(&mut to, "invite_lookups", "Invite lookups by outcome", &lookups)?;
        let rejects = [("malformed", frames_malformed), ("throttled", throttled)];
        family(&mut to, "rejects", "What was dropped unread, by reason", &rejects)
    }
}

fn gauge(to: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    ConstGauge::new(value).encode(to.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

fn counter(to: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    ConstCounter::new(value).encode(to.encode_descriptor(name, help, None, MetricType::Counter)?)
}

fn family(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: &[(&'static str, u64)],
) -> fmt::Result {
    let mut metric = to.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (code, value) in series {
        ConstCounter::new(*value).encode(metric.encode_family(&CodeLabel { code })?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_stands_in_the_text_under_its_documented_name() {
        let metrics = Metrics::default();
        let registry = metrics.registry();
        metrics.publish(Counters {
            puts_accepted: 3,
            mail_queued_bytes: 77,
            puts_refused_rate: 1,
            ..Counters::default()
        });
        metrics.connections.set(5);
        metrics.commit(256, Duration::from_millis(3));
        metrics.http.get_or_create(&RouteLabel { route: "/health".to_owned(), status: 200 }).inc();

        let text = Metrics::render(&registry);

        for line in [
            "peerloom_coordinator_puts_total{code=\"accepted\"} 3",
            "peerloom_coordinator_puts_total{code=\"rate\"} 1",
            "peerloom_coordinator_mailbox_bytes 77",
            "peerloom_coordinator_connections 5",
            "peerloom_coordinator_http_answers_total{route=\"/health\",status=\"200\"} 1",
            "peerloom_coordinator_commit_duration_seconds_count 1",
            "peerloom_coordinator_commit_duration_seconds_bucket{le=\"0.002\"} 0",
            "peerloom_coordinator_commit_duration_seconds_bucket{le=\"0.004\"} 1",
            "peerloom_coordinator_commit_writes_sum 256.0",
        ] {
            assert!(text.lines().any(|found| found == line), "no line {line:?} in\n{text}");
        }
    }
}
