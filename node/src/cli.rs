//! The command line: verbs, flags and their help. What a verb does is in [`commands`](crate::commands);
//! nothing here reads the environment beyond what clap shows in `--help`.

mod mail;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

pub(crate) use self::mail::{
    InboxArgs, MessageArgs, OutboxAction, OutboxArgs, OutboxListArgs, RequeueArgs, SendArgs,
};
use crate::api::shapes::RevokeReason;

/// Daemons and agents on different machines talk to each other: directly when the network lets them,
/// through a blind coordinator when it does not, or when the other side is away.
#[derive(Debug, Parser)]
#[command(name = "peerloom", version, max_term_width = 110, after_help = AFTER, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Flags of every verb.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Flags of every verb.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Global {
    /// One JSON object, or JSON lines, on standard output; errors too
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Which mesh, by name or by the beginning of its id; needed only when there are several
    #[arg(long, global = true, value_name = "NAME|ID")]
    pub(crate) mesh: Option<String>,
}

const AFTER: &str = "\
First five minutes:
  peerloom demo                                  all of it on this machine, in half a minute
  peerloom up --new acme --name laptop --detach  a mesh with its coordinator on this machine
  peerloom invite                                let somebody in
  peerloom send build \"hello\"                    say something

Exit codes: 0 done, 1 failed, 2 usage, 3 no mesh or not joined, 4 not found or ambiguous, 5 denied,
6 unreachable, 7 timed out (queued, not lost), 8 conflict.
PEERLOOM_HOME moves a node's whole state, so that several nodes live on one machine.";

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a mesh: keys are made here, and this node is its owner
    #[command(after_help = "\
Examples:
  peerloom init acme --coordinator https://mesh.example --name laptop
  peerloom init acme --coordinator http://127.0.0.1:7700 --name laptop
  peerloom init acme --coordinator https://mesh.example --name laptop --token-file mesh-token")]
    Init(InitArgs),
    /// Let somebody in; also: invite list, invite cancel
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "\
Examples:
  peerloom invite                         one use, 24 h
  peerloom invite --uses 5 --expires 2h
  peerloom invite --handle build          only under this handle
  peerloom invite list
  peerloom invite cancel 7Q2M9KXA"
    )]
    Invite(InviteArgs),
    /// Join a mesh by an invite; the code is asked for, or read from standard input
    #[command(after_help = "\
Examples:
  peerloom join https://mesh.example/i/7Q2M9KXA --name build
  printf '%s' \"$CODE\" | peerloom join https://mesh.example/i/7Q2M9KXA --name build
The code never belongs on the command line: other users of the machine could read it there.")]
    Join(JoinArgs),
    /// Leave a mesh: this node's key is revoked for ever, its files are kept aside
    #[command(after_help = "Example:\n  peerloom leave --mesh acme")]
    Leave,
    /// Run the node, in the foreground or with --detach
    #[command(after_help = "\
Examples:
  peerloom up --detach
  peerloom up --new acme --name laptop --detach      the shortest way: mesh, coordinator and node
  peerloom up --new acme --name laptop --coordinator https://mesh.example --detach
  PEERLOOM_TRANSPORTS=webrtc peerloom up --detach    direct links over WebRTC alone, without QUIC
Settings stand in config.toml in the home, or in the environment.")]
    Up(UpArgs),
    /// Stop the node; its mail waits at the coordinator
    #[command(after_help = "\
Examples:
  peerloom down
  peerloom down --all        also the coordinator that `up --new` started")]
    Down(DownArgs),
    /// Show the node's log file
    #[command(after_help = "Examples:\n  peerloom logs\n  peerloom logs -f\n  peerloom logs --lines 500")]
    Logs(LogsArgs),
    /// The node, its mesh, its coordinator and its outbox
    #[command(after_help = "Examples:\n  peerloom status\n  peerloom status --json")]
    Status,
    /// The other members: who is there, by which path, and why not a better one
    #[command(after_help = "Examples:\n  peerloom peers\n  peerloom peers --json")]
    Peers,
    /// Round trips to a peer over the relay and directly
    #[command(after_help = "\
Examples:
  peerloom ping build
  peerloom ping build --timeout 10s --json
  peerloom ping build --until direct            30 s, and exit 7 if it is not direct by then")]
    Ping(PingArgs),
    /// This node's place in the network: addresses, NAT, what STUN servers see, UDP blocked or not
    #[command(after_help = "Examples:\n  peerloom netcheck\n  peerloom netcheck --json")]
    Netcheck,
    /// Why messages to a peer go the way they go, and no better one
    #[command(after_help = "Examples:\n  peerloom why build\n  peerloom why build --json")]
    Why(WayArgs),
    /// How the way to a peer came about: every address tried, and what happened when
    #[command(after_help = "Examples:\n  peerloom trace build\n  peerloom trace build --json")]
    Trace(WayArgs),
    /// Send a message; it is sealed for the recipient alone and never lost once accepted
    #[command(after_help = "\
Examples:
  peerloom send build \"hello from behind a NAT\"
  git diff | peerloom send build -
  peerloom send --to build --to laptop \"release at five\"
  peerloom send build \"once\" --id 00112233445566778899aabbccddeeff    the same again sends nothing
  peerloom send --batch < messages.jsonl       {\"to\":[\"build\"],\"text\":\"one\"} per line
Exit 0 when the message is stored at the peer, or accepted for a peer that is away; 7 when the peer is
there but did not store it in time (queued, not lost).")]
    Send(SendArgs),
    /// Read messages; without --follow nothing is changed
    #[command(after_help = "\
Examples:
  peerloom inbox                          the whole history
  peerloom inbox --limit 10               the newest ten
  peerloom inbox --follow                 what is unread, then what comes; moves the cursor `cli`
  peerloom inbox --follow --cursor bot --json
  peerloom inbox --cursor bot             what the cursor `bot` has not passed; does not move it")]
    Inbox(InboxArgs),
    /// A message's delivery, recipient by recipient
    #[command(after_help = "Example:\n  peerloom message 00112233445566778899aabbccddeeff")]
    Message(MessageArgs),
    /// Messages on their way, and those that failed; also: outbox list, requeue, abort
    #[command(after_help = "\
Examples:
  peerloom outbox
  peerloom outbox list --failed
  peerloom outbox requeue --all                                 under fresh ids
  peerloom outbox requeue 00112233445566778899aabbccddeeff
  peerloom outbox abort 00112233445566778899aabbccddeeff        only before any transmission")]
    Outbox(OutboxArgs),
    /// Members as the mesh log has them
    #[command(after_help = "Examples:\n  peerloom member list\n  peerloom member list --json")]
    Member(MemberArgs),
    /// Remove a member for ever: refused everywhere, its queue dropped
    #[command(after_help = "Example:\n  peerloom revoke build --reason lost")]
    Revoke(RevokeArgs),
    /// Check this node's home, daemon, clock, coordinator, store and disk
    #[command(after_help = "Examples:\n  peerloom doctor\n  peerloom doctor --json")]
    Doctor,
    /// Print a completion script for a shell
    #[command(after_help = "\
Examples:
  peerloom completions bash > ~/.local/share/bash-completion/completions/peerloom
  peerloom completions zsh > \"${fpath[1]}/_peerloom\"")]
    Completions(CompletionsArgs),
    /// All of it on this machine: a coordinator, two nodes, messages over every path
    #[command(after_help = "\
Examples:
  peerloom demo
  peerloom demo --keep      leave the files of both nodes for a look
Exits non-zero if any step fails.")]
    Demo(DemoArgs),
}

/// Arguments of `init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Name of the mesh, for people
    #[arg(value_name = "NAME")]
    pub(crate) mesh_name: String,
    /// The coordinator's origin, https://host[:port], or http:// on this machine
    #[arg(long, value_name = "ORIGIN", env = "PEERLOOM_COORDINATOR")]
    pub(crate) coordinator: Option<String>,
    /// This node's handle: a-z, 0-9 and '-', at most 32
    #[arg(long, value_name = "HANDLE")]
    pub(crate) name: Option<String>,
    /// File with the coordinator's token for new meshes; else PEERLOOM_MESH_TOKEN
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

/// Arguments of `invite`.
#[derive(Debug, Args)]
pub(crate) struct InviteArgs {
    /// Something else than making one.
    #[command(subcommand)]
    pub(crate) action: Option<InviteAction>,
    /// How to make one.
    #[command(flatten)]
    pub(crate) create: InviteCreate,
}

/// What to do with invites.
#[derive(Debug, Subcommand)]
pub(crate) enum InviteAction {
    /// Make an invite, as `invite` alone does
    #[command(after_help = "Example:\n  peerloom invite create --uses 5")]
    Create(InviteCreate),
    /// Invites of this node that have not ended
    #[command(after_help = "Example:\n  peerloom invite list --json")]
    List,
    /// Withdraw an invite
    #[command(after_help = "Example:\n  peerloom invite cancel 7Q2M9KXA")]
    Cancel {
        /// The invite's id, as `invite list` shows it, or its URL
        #[arg(value_name = "ID")]
        id: String,
    },
}

/// How to make an invite.
#[derive(Debug, Default, Args)]
pub(crate) struct InviteCreate {
    /// Admissions it serves, at most 100
    #[arg(long, value_name = "N")]
    pub(crate) uses: Option<u64>,
    /// How long it is valid: 90s, 30m, 24h or 7d
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    pub(crate) expires: Option<Duration>,
    /// The only handle it may be used for
    #[arg(long, value_name = "HANDLE")]
    pub(crate) handle: Option<String>,
}

/// Arguments of `join`.
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// The invite's address
    #[arg(value_name = "URL")]
    pub(crate) url: String,
    /// This node's handle: a-z, 0-9 and '-', at most 32
    #[arg(long, value_name = "HANDLE")]
    pub(crate) name: Option<String>,
}

/// Arguments of `up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Make a mesh of this name first
    #[arg(long, value_name = "NAME")]
    pub(crate) new: Option<String>,
    /// With --new: this node's handle
    #[arg(long, value_name = "HANDLE", requires = "new")]
    pub(crate) name: Option<String>,
    /// With --new: the coordinator; without it one is started on this machine
    #[arg(long, value_name = "ORIGIN", requires = "new")]
    pub(crate) coordinator: Option<String>,
    /// With --new: file with the coordinator's token for new meshes
    #[arg(long, value_name = "FILE", requires = "new")]
    pub(crate) token_file: Option<PathBuf>,
    /// Return once the node answers, and leave it running
    #[arg(long)]
    pub(crate) detach: bool,
    /// Lead a session of its own: what --detach starts itself with.
    #[arg(long, hide = true, conflicts_with_all = ["detach", "new"])]
    pub(crate) session_leader: bool,
}

/// Arguments of `down`.
#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    /// Also stop the coordinator that `up --new` started; other nodes may be using it
    #[arg(long)]
    pub(crate) all: bool,
}

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Keep printing what comes
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Lines from the end to begin with
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    pub(crate) lines: usize,
}

/// Arguments of `ping`.
#[derive(Debug, Args)]
pub(crate) struct PingArgs {
    /// Handle, or at least eight digits of the key
    #[arg(value_name = "PEER")]
    pub(crate) peer: String,
    /// Longest wait for a direct path, at most 60s [default: 3s, 30s with --until]
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    pub(crate) timeout: Option<Duration>,
    /// Fail, with exit code 7, unless this is reached in time
    #[arg(long, value_enum, value_name = "PATH")]
    pub(crate) until: Option<Until>,
}

/// What `ping` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Until {
    /// A measured direct path.
    Direct,
}

/// Arguments of `why` and `trace`.
#[derive(Debug, Args)]
pub(crate) struct WayArgs {
    /// Handle, or at least eight digits of the key
    #[arg(value_name = "PEER")]
    pub(crate) peer: String,
}

/// Arguments of `member`.
#[derive(Debug, Args)]
pub(crate) struct MemberArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) action: MemberAction,
}

/// What to do with members.
#[derive(Debug, Subcommand)]
pub(crate) enum MemberAction {
    /// Everyone the log ever admitted
    #[command(after_help = "Example:\n  peerloom member list --json")]
    List,
}

/// Arguments of `revoke`.
#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// Handle, or at least eight digits of the key
    #[arg(value_name = "MEMBER")]
    pub(crate) member: String,
    /// Why, for people who read the log later
    #[arg(long, value_enum, default_value_t)]
    pub(crate) reason: RevokeReason,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Leave the homes of both nodes and the coordinator's data
    #[arg(long)]
    pub(crate) keep: bool,
}

/// Reads `500ms`, `10s`, `5m`, `2h`, `7d`; a bare number means seconds.
fn parse_span(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number
        .parse()
        .map_err(|_| format!("expected a time such as 500ms, 10s, 5m, 2h or 7d, found {text:?}"))?;
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        other => return Err(format!("unknown unit {other:?}: use ms, s, m, h or d")),
    };
    number.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(|| format!("{text} is too long"))
}

#[cfg(test)]
mod tests;
