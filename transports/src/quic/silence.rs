//! When a path is dead. Quinn repeats what is unanswered at growing intervals until its idle time-out
//! of many seconds; the machine above has a relay to fall back on and wants to know at once.

use std::time::Duration;

use quinn::{Connection, ConnectionStats};
use tokio::time::sleep;

/// Ends once the peer has left what it must answer unanswered for [`silence_max`].
pub(super) async fn silent(connection: &Connection) {
    let mut watch = Watch::default();
    loop {
        // Looks are counted, not time: after a pause of this process the answers are in its socket.
        sleep(LOOK_EVERY).await;
        if watch.look(Heard::of(&connection.stats()), silence_max(connection.rtt())) {
            return;
        }
    }
}

/// What counts on a connection at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    /// Datagrams that came.
    came: u64,
    /// Frames sent that want an answer at once: data, and what quinn repeats a lost packet by.
    asked: u64,
}

impl Heard {
    fn of(stats: &ConnectionStats) -> Self {
        let sent = &stats.frame_tx;
        // A probe for a larger MTU, a PING and where the peer knows it an IMMEDIATE_ACK, says by its
        // loss that the MTU is smaller, no more.
        let probes = stats.path.sent_plpmtud_probes;
        let asked = [sent.ping, sent.immediate_ack].map(|frames| frames.saturating_sub(probes));
        Self { came: stats.udp_rx.datagrams, asked: sent.stream + asked.iter().sum::<u64>() }
    }
}

#[derive(Debug, Default)]
struct Watch {
    last: Heard,
    /// Looks since the first question after the last answer.
    silent: u32,
}

impl Watch {
    /// True once it has been silent for that long.
    fn look(&mut self, heard: Heard, silence_max: Duration) -> bool {
        if heard.came != self.last.came {
            *self = Self { last: heard, silent: 0 };
        } else if heard.asked != self.last.asked {
            self.silent += 1;
        }
        LOOK_EVERY * self.silent >= silence_max
    }
}

/// Longest wait for an answer: a second, or the round trips that several repetitions of a lost packet
/// take on a longer path.
fn silence_max(rtt: Duration) -> Duration {
    SILENCE_MIN.max(rtt * SILENCE_ROUND_TRIPS)
}

/// Reading the counters takes a microsecond; so often that death is told within a tenth of its time.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Quinn has repeated a lost packet at least three times by then on paths of up to 50 ms.
const SILENCE_MIN: Duration = Duration::from_secs(1);

/// Repetitions after 1.5, 4.5 and 10.5 round trips at the least.
const SILENCE_ROUND_TRIPS: u32 = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_without_an_answer_is_death_after_a_second_and_an_idle_link_never_is() {
        let looks_until_dead = |heard: Heard, rtt_ms| {
            let mut watch = Watch::default();
            watch.look(Heard { came: 7, asked: 5 }, SILENCE_MIN);
            let silence = silence_max(Duration::from_millis(rtt_ms));
            (1..1_000).find(|_| watch.look(heard, silence))
        };
        assert_eq!(looks_until_dead(Heard { came: 7, asked: 6 }, 10), Some(10));
        assert_eq!(looks_until_dead(Heard { came: 7, asked: 6 }, 300), Some(36));
        assert_eq!(looks_until_dead(Heard { came: 7, asked: 5 }, 10), None);
    }

    #[test]
    fn a_lost_probe_for_a_larger_mtu_is_no_question() {
        let mut stats = ConnectionStats::default();
        stats.frame_tx.ping = 4;
        stats.frame_tx.immediate_ack = 3;
        stats.path.sent_plpmtud_probes = 3;
        assert_eq!(Heard::of(&stats).asked, 1, "the fourth ping is a keep-alive");
        stats.frame_tx.immediate_ack = 0;
        assert_eq!(Heard::of(&stats).asked, 1, "a peer without IMMEDIATE_ACK");
    }

    #[test]
    fn any_answer_begins_the_count_anew() {
        let mut watch = Watch::default();
        for came in 1..50 {
            for _ in 0..9 {
                assert!(!watch.look(Heard { came, asked: came + 1 }, SILENCE_MIN));
            }
        }
    }
}
