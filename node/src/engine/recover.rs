//! After a commit that failed.

use std::sync::Arc;
use std::time::Duration;

use peerloom_proto::endpoint::Endpoint;
use tokio::time::timeout;
use tracing::{debug, error};

use super::work::Work;
use super::{Beside, Engine, waiting};
use crate::mesh::EngineError;
use crate::store::{StoreError, Writer};

impl Engine {
    /// Nothing of the batch happened. The machine has to forget it too, so it is rebuilt from the
    /// store; what it was about to transmit was not, and what it had transmitted is in the outbox.
    pub(super) fn recover(&mut self, failure: StoreError, beside: Beside) {
        let is_full = matches!(failure, StoreError::Full);
        let reason = if is_full { EngineError::DiskFull } else { EngineError::Store(Arc::new(failure)) };
        self.failures = self.failures.saturating_add(1);
        if self.failures == 1 {
            error!(error = %reason, "A batch was not recorded; nothing of it was sent or acknowledged.");
        }
        for answer in beside.unasked {
            waiting::answer(answer, Err(reason.clone()));
        }
        self.waiting.fail_all(&reason);
        self.uplink.close();
        self.links.reset();
        self.follow_ups.clear();
        loop {
            self.refuse_for(reopen_pause(self.failures), &reason);
            match self.reopen() {
                Ok(()) => return,
                Err(error) => {
                    debug!(%error, "The store cannot be opened yet.");
                    self.failures = self.failures.saturating_add(1);
                }
            }
            if self.stop.is_some() || (self.queue.is_closed() && self.queue.is_empty()) {
                return;
            }
        }
    }

    /// Answers whoever asks with the failure, for a while: a full disk is not tried at the speed of
    /// the network.
    fn refuse_for(&mut self, pause: Duration, reason: &EngineError) {
        let Self { runtime, queue, stop, .. } = self;
        let refusing = async {
            while let Some(work) = queue.recv().await {
                match work {
                    Work::Requests { answer, .. } => waiting::answer(answer, Err(reason.clone())),
                    Work::Stop(done) => {
                        *stop = Some(done);
                        return;
                    }
                    Work::Look { answer, .. } => {
                        if answer.send(Err(reason.clone())).is_err() {
                            debug!("Whoever looked is gone.");
                        }
                    }
                    // Whatever sockets still say is meant for the machine that is gone.
                    Work::Input { .. } | Work::Frames { .. } => {}
                }
            }
        };
        if runtime.block_on(async { timeout(pause, refusing).await }).is_err() {
            debug!("Trying the store again.");
        }
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        if let Some(writer) = self.writer.take()
            && let Err(error) = self.runtime.block_on(writer.close())
        {
            debug!(%error, "The failed connection did not close in order.");
        }
        let (writer, loaded) = self.runtime.block_on(Writer::reopen(&self.path))?;
        let failed = loaded.failed;
        let rebuilt = self.identity.rebuild(loaded)?;
        self.endpoint = Endpoint::new(rebuilt.settings, self.clock.now());
        self.writer = Some(writer);
        self.publisher.restart(rebuilt.times, failed);
        self.links.announce();
        Ok(())
    }
}

/// Doubles from 50 ms to 1 s, so that space that was made is soon used.
fn reopen_pause(failures: u32) -> Duration {
    Duration::from_millis(50 << failures.saturating_sub(1).min(5)).min(Duration::from_secs(1))
}
