//! The engine as the rest of the node holds it.

use std::sync::Arc;

use peerloom_proto::PeerId;
use peerloom_proto::endpoint::{Event, Request};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tracing::warn;

use super::work::{Answers, Work};
use crate::mesh::EngineError;
use crate::store::LocalWrite;
use crate::views::{Look, MeshView};

/// The engine as others hold it.
#[derive(Clone, Debug)]
pub(crate) struct EngineHandle {
    pub(super) works: mpsc::Sender<Work>,
    pub(super) events: broadcast::Sender<Arc<Event>>,
    pub(super) view: watch::Receiver<Arc<MeshView>>,
}

impl EngineHandle {
    /// Asks everything in one batch and waits for all answers.
    pub(crate) async fn requests(&self, requests: Vec<Request>, local: Vec<LocalWrite>) -> Answers {
        let (answer, answers) = oneshot::channel();
        let work = Work::Requests { requests, local, answer };
        self.works.send(work).await.map_err(|_| EngineError::Stopped)?;
        answers.await.map_err(|_| EngineError::Stopped)?
    }

    pub(crate) fn events(&self) -> broadcast::Receiver<Arc<Event>> {
        self.events.subscribe()
    }

    pub(crate) fn view(&self) -> Arc<MeshView> {
        self.view.borrow().clone()
    }

    pub(crate) async fn view_when(
        &self,
        mut wanted: impl FnMut(&MeshView) -> bool + Send,
    ) -> Option<Arc<MeshView>> {
        let mut view = self.view.clone();
        let found = view.wait_for(|view| wanted(view)).await.ok()?;
        Some(Arc::clone(&found))
    }

    /// Looks up this node's place in the network, and the way to a peer if one is named.
    pub(crate) async fn look(&self, peer: Option<PeerId>) -> Result<Look, EngineError> {
        let (answer, look) = oneshot::channel();
        self.works.send(Work::Look { peer, answer }).await.map_err(|_| EngineError::Stopped)?;
        look.await.map_err(|_| EngineError::Stopped)?
    }

    /// Waits until everything taken in before is on disk and every socket is closed.
    pub(crate) async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.works.send(Work::Stop(done)).await.is_ok() && stopped.await.is_err() {
            warn!("The engine ended before it was stopped.");
        }
    }
}
