//! Frames as an outsider reads them: what sort each is, and which envelopes it carries or names.

use bytes::Bytes;
use peerloom_proto::limits::FRAME_BYTES_MAX;
use peerloom_proto::wire::{OnLink, ToCoordinator, ToNode};
use peerloom_proto::{MessageId, Receipt, ReceiptStatus, UnverifiedEnvelope};

use crate::network::Purpose;

/// One frame, read without any key.
#[derive(Clone, Debug)]
pub(crate) enum Frame {
    ToCoordinator(ToCoordinator),
    ToNode(ToNode),
    OnLink(OnLink),
    /// Not a frame of the protocol.
    Unreadable,
}

impl Frame {
    /// What travels towards this end of a stream.
    pub(crate) fn read(purpose: &Purpose, end: usize, bytes: &Bytes) -> Self {
        let read = match (purpose, end) {
            (Purpose::Uplink, 0) => ToNode::decode(bytes).map(Self::ToNode),
            (Purpose::Uplink, _) => ToCoordinator::decode(bytes, FRAME_BYTES_MAX).map(Self::ToCoordinator),
            (Purpose::Direct { .. }, _) => OnLink::decode(bytes).map(Self::OnLink),
        };
        read.unwrap_or(Self::Unreadable)
    }

    /// Its sort in the words of PROTOCOL.md.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::ToCoordinator(frame) => word_to_coordinator(frame),
            Self::ToNode(frame) => word_to_node(frame),
            Self::OnLink(frame) => match frame {
                OnLink::Bind { .. } => "bind",
                OnLink::Envelope { .. } => "envelope",
                OnLink::Receipt { .. } => "receipt",
                OnLink::Ping { .. } => "ping",
                OnLink::Pong { .. } => "pong",
            },
            Self::Unreadable => "unreadable",
        }
    }

    /// The envelope that it carries.
    pub(crate) fn envelope(&self) -> Option<UnverifiedEnvelope> {
        let wire = if let Self::ToCoordinator(ToCoordinator::Put { envelope })
        | Self::ToNode(ToNode::Deliver { envelope, .. })
        | Self::OnLink(OnLink::Envelope { envelope }) = self
        {
            envelope
        } else {
            return None;
        };
        UnverifiedEnvelope::parse(wire.clone()).ok()
    }

    /// The receipt that it carries.
    pub(crate) fn receipt(&self) -> Option<Receipt> {
        let signed = if let Self::ToCoordinator(ToCoordinator::Receipt { receipt, .. })
        | Self::ToNode(ToNode::Receipt { receipt, .. })
        | Self::OnLink(OnLink::Receipt { receipt }) = self
        {
            receipt
        } else {
            return None;
        };
        Receipt::parse(&signed.stmt).ok()
    }

    /// The messages that it carries or receipts, with what a receipt says of each.
    pub(crate) fn messages(&self) -> Vec<(MessageId, Option<ReceiptStatus>)> {
        let carried = self.envelope().map(|envelope| (envelope.header().id, None));
        let rows = self.receipt().map(|receipt| receipt.rows).unwrap_or_default();
        carried.into_iter().chain(rows.into_iter().map(|row| (row.id, Some(row.status)))).collect()
    }
}

fn word_to_coordinator(frame: &ToCoordinator) -> &'static str {
    match frame {
        ToCoordinator::Hello { .. } => "hello",
        ToCoordinator::Put { .. } => "put",
        ToCoordinator::Claim { .. } => "claim",
        ToCoordinator::Receipt { .. } => "receipt",
        ToCoordinator::Settle { .. } => "settle",
        ToCoordinator::LogGet { .. } => "log-get",
        ToCoordinator::LogAppend { .. } => "log-append",
        ToCoordinator::PrekeyPut { .. } => "prekey-put",
        ToCoordinator::PrekeyGet { .. } => "prekey-get",
        ToCoordinator::InvitePut { .. } => "invite-put",
        ToCoordinator::InviteDelete { .. } => "invite-delete",
        ToCoordinator::LogReturn { .. } => "log-return",
        ToCoordinator::Goodbye => "goodbye",
        ToCoordinator::Ping { .. } => "ping",
        ToCoordinator::Pong { .. } => "pong",
    }
}

fn word_to_node(frame: &ToNode) -> &'static str {
    match frame {
        ToNode::Challenge { .. } => "challenge",
        ToNode::Welcome { .. } => "welcome",
        ToNode::Accepted { .. } => "accepted",
        ToNode::Refused { .. } => "refused",
        ToNode::Deliver { .. } => "deliver",
        ToNode::Receipt { .. } => "receipt",
        ToNode::Expired { .. } => "expired",
        ToNode::Entries { .. } => "entries",
        ToNode::Appended { .. } => "appended",
        ToNode::Conflict { .. } => "conflict",
        ToNode::Failed { .. } => "failed",
        ToNode::Done { .. } => "done",
        ToNode::Prekeys { .. } => "prekeys",
        ToNode::Presence { .. } => "presence",
        ToNode::GoingAway { .. } => "going-away",
        ToNode::Error { .. } => "error",
        ToNode::LogWanted { .. } => "log-wanted",
        ToNode::Ping { .. } => "ping",
        ToNode::Pong { .. } => "pong",
    }
}
