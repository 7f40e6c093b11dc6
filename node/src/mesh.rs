//! The handle on one running mesh: what the local API calls.
//!
//! Whatever changes state goes through the engine as a [`Request`] and is answered after its
//! commit; whatever only reads goes to the store over its own connections.

use std::sync::Arc;

use peerloom_proto::endpoint::{Event, Refusal, Reply, Request};
use peerloom_proto::{Handle, InviteId, MeshId, MessageId, Origin, PeerId};
use tokio::sync::broadcast;

use crate::engine::EngineHandle;
use crate::home::MeshInfo;
use crate::store::{LocalWrite, Reader, StoreError};
use crate::views::{
    InboxMessage, InboxQuery, InviteRecord, Look, MeshView, NewInvite, OutboxItem, OutboxQuery,
    RecipientStatus, RequeueSelector, Requeued,
};

/// Why the engine gave no reply.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// The disk is full. Nothing of the batch was done; free some space and try again.
    #[error("the disk is full: nothing was recorded or sent")]
    DiskFull,
    /// The mesh is shutting down.
    #[error("the mesh is stopping")]
    Stopped,
    /// The store failed; the batch was not done.
    #[error("the store failed")]
    Store(#[source] Arc<StoreError>),
}

/// Why a change that takes several steps was not done.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The engine gave no reply.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The store gave no rows.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The machine said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Why a name means nobody to write to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No member has that handle or key.
    #[error("no member is called {name:?}, and no member's key begins so")]
    NotFound {
        /// What was asked for.
        name: String,
        /// Handles that begin alike, at most eight.
        similar: Vec<String>,
    },
    /// Several keys begin so.
    #[error("{prefix:?} begins the keys of several members")]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// Handle and key of each.
        candidates: Vec<(Handle, PeerId)>,
    },
    /// The member was removed from the mesh.
    #[error("{handle} was revoked")]
    Revoked {
        /// Its handle.
        handle: Handle,
    },
}

/// A running mesh. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Mesh {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    info: MeshInfo,
    member: PeerId,
    engine: EngineHandle,
    reader: Reader,
}

impl Mesh {
    pub(crate) fn new(info: MeshInfo, member: PeerId, engine: EngineHandle, reader: Reader) -> Self {
        Self { shared: Arc::new(Shared { info, member, engine, reader }) }
    }

    /// The mesh's real name: the hash of its genesis.
    pub fn id(&self) -> MeshId {
        self.shared.info.id
    }

    /// The name people gave the mesh.
    pub fn name(&self) -> &str {
        &self.shared.info.name
    }

    /// This node's handle in the mesh.
    pub fn handle(&self) -> &Handle {
        &self.shared.info.handle
    }

    /// This node's member key.
    pub fn member(&self) -> PeerId {
        self.shared.member
    }

    /// Where the coordinator is.
    pub fn origin(&self) -> &Origin {
        &self.shared.info.origin
    }

    /// What stands in the mesh's directory.
    pub fn info(&self) -> &MeshInfo {
        &self.shared.info
    }

    /// Asks the machine, and waits for its answer; whatever it records is on disk by then.
    /// Dropping the future does not withdraw the request.
    pub async fn request(&self, request: Request) -> Result<Reply, EngineError> {
        let mut replies = self.shared.engine.requests(vec![request], Vec::new()).await?;
        replies.pop().ok_or(EngineError::Stopped)?
    }

    /// Asks many things at once: one batch of the engine, one commit. Answers stand in the order asked.
    pub async fn request_many(&self, requests: Vec<Request>) -> Vec<Result<Reply, EngineError>> {
        let count = requests.len();
        match self.shared.engine.requests(requests, Vec::new()).await {
            Ok(replies) => replies,
            Err(error) => vec![Err(error); count],
        }
    }

    /// What happens from here on. A subscriber that falls behind is told how much it missed and
    /// should read the store again.
    pub fn events(&self) -> broadcast::Receiver<Arc<Event>> {
        self.shared.engine.events()
    }

    /// The mesh as it stood after the last batch that changed it.
    pub fn view(&self) -> Arc<MeshView> {
        self.shared.engine.view()
    }

    /// Looks up this node's place in the network, and the way to a peer if one is named.
    pub async fn look(&self, peer: Option<PeerId>) -> Result<Look, EngineError> {
        self.shared.engine.look(peer).await
    }

    /// Waits until `wanted` holds of the view; none if the mesh stops first.
    pub async fn view_when(&self, wanted: impl FnMut(&MeshView) -> bool + Send) -> Option<Arc<MeshView>> {
        self.shared.engine.view_when(wanted).await
    }

    /// Finds a live member by handle, or by at least eight hex digits that begin its key.
    pub fn resolve(&self, name: &str) -> Result<PeerId, ResolveError> {
        let view = self.view();
        let id = view.roster.resolve(name).map_err(|error| unresolved(&view, error))?.id;
        match view.members.iter().find(|member| member.key == id && member.revoked) {
            Some(member) => Err(ResolveError::Revoked { handle: member.handle.clone() }),
            None => Ok(id),
        }
    }

    /// Reads messages; changes nothing.
    pub async fn inbox(&self, query: InboxQuery) -> Result<Vec<InboxMessage>, StoreError> {
        self.shared.reader.inbox(&query).await
    }

    /// The position a named cursor passed last; 0 for one that never moved.
    pub async fn cursor(&self, name: &str) -> Result<u64, StoreError> {
        self.shared.reader.cursor(name).await
    }

    /// Moves a named cursor forward, at most to the newest message, and marks what it passed as
    /// surfaced: the senders hear of it once that is on disk. Gives where the cursor stands.
    pub async fn move_cursor(&self, name: &str, position: u64) -> Result<u64, ChangeError> {
        let reader = &self.shared.reader;
        let newest = reader.newest_position().await?;
        let position = position.min(newest).max(reader.cursor(name).await?);
        let rows = reader.unsurfaced(position).await?;
        let cursor = LocalWrite::Cursor { name: name.to_owned(), position };
        let requests = if rows.is_empty() { Vec::new() } else { vec![Request::Surface(rows)] };
        for reply in self.shared.engine.requests(requests, vec![cursor]).await? {
            if let Reply::Refused(refusal) = reply? {
                return Err(refusal.into());
            }
        }
        Ok(position)
    }

    /// Reads rows of the outbox; changes nothing.
    pub async fn outbox(&self, query: OutboxQuery) -> Result<Vec<OutboxItem>, StoreError> {
        self.shared.reader.outbox(&query).await
    }

    /// What became of a send; empty for an id never used here.
    pub async fn message(&self, id: MessageId) -> Result<Vec<RecipientStatus>, StoreError> {
        self.shared.reader.message(id).await
    }

    /// Sends failed rows again under fresh ids and retires the old ones for ever.
    pub async fn requeue(&self, selector: RequeueSelector) -> Result<Vec<Requeued>, ChangeError> {
        let rows = self.shared.reader.failed(&selector).await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let asked: Vec<_> = rows.iter().map(|row| (row.id, row.to)).collect();
        match self.request(Request::Requeue(rows)).await? {
            Reply::Requeued(ids) => {
                let pairs = asked.into_iter().zip(ids);
                Ok(pairs.map(|((old, to), id)| Requeued { old, id, to }).collect())
            }
            Reply::Refused(refusal) => Err(refusal.into()),
            other @ (Reply::Sent { .. } | Reply::Done | Reply::Pong(_) | Reply::Appended(_)) => {
                unreachable!("a requeue was answered by {other:?}")
            }
        }
    }

    /// Stops trying to deliver a send; only what was never transmitted can be stopped.
    pub async fn abort(&self, id: MessageId) -> Result<(), ChangeError> {
        done(self.request(Request::Abort(id)).await?)
    }

    /// Deposits an invite at the coordinator and remembers it (never its code).
    pub async fn invite_put(&self, invite: NewInvite) -> Result<(), ChangeError> {
        let NewInvite { id, lookup, url, blob, exp, uses } = invite;
        done(self.request(Request::PutInvite { lookup, blob, exp, uses }).await?)?;
        let write = LocalWrite::Invite { id, lookup, url, exp, uses };
        self.shared.engine.requests(Vec::new(), vec![write]).await?;
        Ok(())
    }

    /// The invites this node made and did not cancel, newest first.
    pub async fn invites(&self) -> Result<Vec<InviteRecord>, StoreError> {
        let mut records = self.shared.reader.invites().await?;
        let view = self.view();
        for record in &mut records {
            let came = view.members.iter().filter(|member| member.invite == Some(record.id));
            record.used = u64::try_from(came.count()).unwrap_or(u64::MAX);
        }
        Ok(records)
    }

    /// Withdraws an invite at the coordinator and forgets it. False if this node never made it.
    pub async fn invite_cancel(&self, id: InviteId) -> Result<bool, ChangeError> {
        let records = self.shared.reader.invites().await?;
        let Some(record) = records.into_iter().find(|record| record.id == id) else {
            return Ok(false);
        };
        done(self.request(Request::DeleteInvite(record.lookup)).await?)?;
        self.shared.engine.requests(Vec::new(), vec![LocalWrite::InviteGone(id)]).await?;
        Ok(true)
    }

    pub(crate) async fn stop(&self) {
        self.shared.engine.stop().await;
    }
}

fn done(reply: Reply) -> Result<(), ChangeError> {
    match reply {
        Reply::Refused(refusal) => Err(refusal.into()),
        Reply::Done | Reply::Sent { .. } | Reply::Requeued(_) | Reply::Pong(_) | Reply::Appended(_) => Ok(()),
    }
}

fn unresolved(view: &MeshView, error: peerloom_proto::ResolveError) -> ResolveError {
    match error {
        peerloom_proto::ResolveError::NotFound(name) | peerloom_proto::ResolveError::TooShort(name) => {
            ResolveError::NotFound { similar: similar(view, &name), name }
        }
        peerloom_proto::ResolveError::Ambiguous { prefix, candidates } => {
            let candidates = candidates.into_iter().map(|found| (found.handle, found.id)).collect();
            ResolveError::Ambiguous { prefix, candidates }
        }
    }
}

/// Handles of live members that share the first two characters with what was typed.
fn similar(view: &MeshView, name: &str) -> Vec<String> {
    let begin: String = name.chars().take(2).collect();
    let live = view.members.iter().filter(|member| !member.revoked);
    let alike = live.map(|member| member.handle.as_str()).filter(|handle| handle.starts_with(&begin));
    alike.take(SIMILAR_MAX).map(str::to_owned).collect()
}

/// Suggestions in an error fit on a line.
const SIMILAR_MAX: usize = 8;
