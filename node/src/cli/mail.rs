//! Arguments of the verbs about messages.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::parse_span;
use crate::api::shapes::Wait;

/// Arguments of `send`.
#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// Recipient and text; the text alone with --to; `-` reads the text from standard input
    #[arg(value_name = "PEER TEXT", num_args = 0..=2)]
    pub(crate) peer_and_text: Vec<String>,
    /// A recipient; may be repeated
    #[arg(long, value_name = "PEER")]
    pub(crate) to: Vec<String>,
    /// Read messages as JSON lines from standard input: {"to":[…],"text":…,"id":…,"priority":…,"reply_to":…}
    #[arg(long, conflicts_with_all = ["peer_and_text", "to", "id", "reply_to", "priority", "content_type", "life"])]
    pub(crate) batch: bool,
    /// 32 hex digits: sending the same again under the same id sends nothing
    #[arg(long, value_name = "HEX32")]
    pub(crate) id: Option<String>,
    /// How far to wait; with --batch the default is `none`
    #[arg(long, value_enum)]
    pub(crate) wait: Option<Wait>,
    /// Longest wait
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_span)]
    pub(crate) timeout: Duration,
    /// low, next or now
    #[arg(long, value_name = "PRIORITY", value_parser = ["low", "next", "now"])]
    pub(crate) priority: Option<String>,
    /// The message that this one answers
    #[arg(long, value_name = "ID")]
    pub(crate) reply_to: Option<String>,
    /// Media type of the content
    #[arg(long, value_name = "TYPE")]
    pub(crate) content_type: Option<String>,
    /// How long it is worth delivering, at most 7d
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    pub(crate) life: Option<Duration>,
}

/// Arguments of `inbox`.
#[derive(Debug, Args)]
pub(crate) struct InboxArgs {
    /// Print what is unread, then what comes, and move the cursor past it
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// A reader's place in the inbox; `cli` with --follow unless given
    #[arg(long, value_name = "NAME")]
    pub(crate) cursor: Option<String>,
    /// At most this many: the newest ones; with --follow or --cursor the oldest unread, then stop
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Only messages of one peer
    #[arg(long, value_name = "PEER")]
    pub(crate) from: Option<String>,
}

/// Arguments of `message`.
#[derive(Debug, Args)]
pub(crate) struct MessageArgs {
    /// 32 hex digits, as `send` printed them
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

/// Arguments of `outbox`.
#[derive(Debug, Args)]
pub(crate) struct OutboxArgs {
    /// What to do; `list` unless given.
    #[command(subcommand)]
    pub(crate) action: Option<OutboxAction>,
}

/// What to do with the outbox.
#[derive(Debug, Subcommand)]
pub(crate) enum OutboxAction {
    /// Rows, newest first: on their way and failed ones unless told otherwise
    #[command(
        after_help = "Examples:\n  peerloom outbox list --failed\n  peerloom outbox list --all --limit 1000"
    )]
    List(OutboxListArgs),
    /// Send failed rows again, each under a fresh id; the old id is retired for ever
    #[command(after_help = "Example:\n  peerloom outbox requeue --all")]
    Requeue(RequeueArgs),
    /// Give up a message that was never transmitted
    #[command(after_help = "Example:\n  peerloom outbox abort 00112233445566778899aabbccddeeff")]
    Abort(MessageArgs),
}

/// Arguments of `outbox list`.
#[derive(Debug, Default, Args)]
pub(crate) struct OutboxListArgs {
    /// Only dead, expired and rejected rows
    #[arg(long, conflicts_with_all = ["all", "delivered"])]
    pub(crate) failed: bool,
    /// Only stored and surfaced rows
    #[arg(long, conflicts_with = "all")]
    pub(crate) delivered: bool,
    /// Every row that is still kept
    #[arg(long)]
    pub(crate) all: bool,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: u32,
}

/// Arguments of `outbox requeue`.
#[derive(Debug, Args)]
#[group(required = true)]
pub(crate) struct RequeueArgs {
    /// Messages to send again
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// Every failed row
    #[arg(long, conflicts_with = "ids")]
    pub(crate) all: bool,
}
