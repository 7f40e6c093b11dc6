//! What the engine, the machine, the store and the home say, as failures with their next step.

use peerloom_proto::endpoint::Refusal;

use super::{Failure, Kind, chain};
use crate::config::ConfigError;
use crate::daemon::{SelectError, StartError};
use crate::home::HomeError;
use crate::mesh::{ChangeError, EngineError, ResolveError};
use crate::store::StoreError;

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::UnknownPeer(_) => {
                Self::new(Kind::NotFound, "unknown-peer", text).next("peerloom member list")
            }
            Refusal::Revoked(_) => Self::new(Kind::Denied, "revoked", text).next("peerloom member list"),
            Refusal::ToSelf => Self::new(Kind::Usage, "to-self", text).next("peerloom peers"),
            Refusal::Conflict(id) => {
                Self::new(Kind::Conflict, "conflict", format!("{text}; nothing was sent"))
                    .next(format!("peerloom message {id}, or send under another --id"))
            }
            Refusal::TooLarge { .. } => {
                Self::new(Kind::TooLarge, "too-large", text).next("split the content into several messages")
            }
            Refusal::OutboxFull { .. } => {
                Self::new(Kind::Busy, "outbox-full", text).next("peerloom outbox list")
            }
            Refusal::CoordinatorAway => Self::new(Kind::Unreachable, "coordinator-away", text)
                .next("peerloom status, peerloom doctor"),
            Refusal::NotAMember => Self::new(Kind::Denied, "not-a-member", text)
                .next("join again with another invite; the old key stays revoked"),
            Refusal::Denied { code, .. } if code == "comparing" => {
                Self::new(Kind::Busy, code, text).next("the same again later")
            }
            Refusal::Denied { code, .. } => Self::new(Kind::Denied, code, text).next("peerloom member list"),
            Refusal::NotFound(_) => {
                Self::new(Kind::NotFound, "not-found", text).next("peerloom outbox list --all")
            }
            Refusal::TimedOut => Self::new(Kind::TimedOut, "timed-out", text).next("peerloom status"),
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let text = chain(&error);
        match error {
            EngineError::DiskFull => {
                Self::new(Kind::DiskFull, "disk-full", text).next("free some space, then try again")
            }
            EngineError::Stopped => {
                Self::new(Kind::Unreachable, "stopping", text).next("peerloom up --detach, then try again")
            }
            EngineError::Store(_) => {
                Self::new(Kind::Failed, "store", text).next("peerloom doctor, peerloom logs")
            }
        }
    }
}

impl From<ChangeError> for Failure {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Engine(error) => error.into(),
            ChangeError::Store(error) => error.into(),
            ChangeError::Refused(refusal) => refusal.into(),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(Kind::Failed, "store", chain(&error)).next("peerloom doctor, peerloom logs")
    }
}

impl From<ResolveError> for Failure {
    fn from(error: ResolveError) -> Self {
        let text = error.to_string();
        match error {
            ResolveError::NotFound { similar, .. } if !similar.is_empty() => {
                Self::new(Kind::NotFound, "unknown-peer", format!("{text}; similar: {}", similar.join(", ")))
                    .next("peerloom peers")
            }
            ResolveError::NotFound { .. } => {
                Self::new(Kind::NotFound, "unknown-peer", text).next("peerloom peers shows handles and keys")
            }
            ResolveError::Ambiguous { candidates, .. } => {
                let listed: Vec<String> =
                    candidates.iter().map(|(handle, key)| format!("{handle} ({key})")).collect();
                Self::new(Kind::NotFound, "ambiguous", format!("{text}: {}", listed.join(", ")))
                    .next("use a handle or a longer beginning of the key")
            }
            ResolveError::Revoked { .. } => {
                Self::new(Kind::Denied, "revoked", text).next("peerloom member list")
            }
        }
    }
}

impl From<SelectError> for Failure {
    fn from(error: SelectError) -> Self {
        let text = error.to_string();
        match error {
            SelectError::None => Self::new(Kind::NoMesh, "no-mesh", text).next(
                "peerloom init NAME --coordinator ORIGIN --name HANDLE, or peerloom join URL --name HANDLE",
            ),
            SelectError::NotFound { have, .. } => {
                Self::new(Kind::NoMesh, "no-such-mesh", format!("{text}; here: {}", have.join(", ")))
                    .next("peerloom status")
            }
            SelectError::Ambiguous { selector, candidates } => {
                let listed: Vec<String> =
                    candidates.iter().map(|(name, id)| format!("{name} ({})", id.short())).collect();
                let what =
                    if selector.is_some() { text } else { "this node is in several meshes".to_owned() };
                Self::new(Kind::NotFound, "ambiguous-mesh", format!("{what}: {}", listed.join(", ")))
                    .next("pass --mesh NAME, or the beginning of its id")
            }
        }
    }
}

impl From<HomeError> for Failure {
    fn from(error: HomeError) -> Self {
        let text = chain(&error);
        match error {
            HomeError::Nowhere => Self::new(Kind::Usage, "no-home", text).next("set PEERLOOM_HOME to a directory"),
            HomeError::Locked { .. } => {
                Self::new(Kind::Conflict, "home-locked", text).next("peerloom status, or peerloom down")
            }
            HomeError::SocketPathTooLong { .. } => {
                Self::new(Kind::Usage, "socket-path", text).next("set PEERLOOM_HOME to a shorter directory")
            }
            HomeError::MeshExists { .. } => {
                Self::new(Kind::Conflict, "already-joined", text).next("peerloom status")
            }
            HomeError::StoreMissing { .. } => Self::new(Kind::Failed, "store-missing", text)
                .next("restore the file; or, to give up this membership for good, move its directory away and join anew"),
            HomeError::Damaged { .. } => {
                Self::new(Kind::Failed, "home-damaged", text).next("restore the file from a backup")
            }
            HomeError::Key(_) => Self::new(Kind::Failed, "keystore", text).next("peerloom doctor"),
            HomeError::Store { .. } | HomeError::Io { .. } => {
                Self::new(Kind::Failed, "home", text).next("peerloom doctor; check space and permissions")
            }
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let text = chain(&error);
        match error {
            StartError::Home(error) => error.into(),
            StartError::Key(_) => Self::new(Kind::Failed, "keystore", text).next("peerloom doctor"),
            StartError::Store { .. } => Self::new(Kind::Failed, "store", text)
                .next("the file was left as it is: keep a copy, then restore a backup or use the program version that wrote it"),
            StartError::Socket { .. } => {
                Self::new(Kind::Failed, "udp-socket", text).next("set udp_port to a free port, or to 0")
            }
            StartError::Thread(_) => Self::new(Kind::Failed, "thread", text).next("check the limit of processes (ulimit -u)"),
            StartError::Running(_) => Self::new(Kind::Conflict, "already-running", text).next("peerloom status"),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let text = chain(&error);
        match error {
            ConfigError::Home(error) => error.into(),
            ConfigError::Unreadable { .. }
            | ConfigError::File { .. }
            | ConfigError::Path { .. }
            | ConfigError::Value { .. } => Self::new(Kind::Usage, "config", text)
                .next("correct the setting, or remove it to use its default"),
        }
    }
}

#[cfg(test)]
mod tests {
    use peerloom_proto::{Handle, MessageId, PeerId};

    use super::*;

    #[test]
    fn an_id_used_for_other_content_exits_8_and_says_that_nothing_was_sent() {
        let failure = Failure::from(Refusal::Conflict(MessageId([1; 16])));
        assert_eq!(failure.kind.exit_code(), 8);
        assert_eq!(failure.kind.http_status(), 409);
        assert!(failure.text.ends_with("nothing was sent"), "{}", failure.text);
    }

    #[test]
    fn an_ambiguous_prefix_lists_the_candidates() {
        let handle = |name| Handle::parse(name).unwrap();
        let failure = Failure::from(ResolveError::Ambiguous {
            prefix: "aaaaaaaa".to_owned(),
            candidates: vec![(handle("one"), PeerId([0xaa; 32])), (handle("two"), PeerId([0xaa; 32]))],
        });
        assert_eq!(failure.kind.exit_code(), 4);
        assert!(failure.text.contains("one (aaaa") && failure.text.contains("two (aaaa"), "{}", failure.text);
    }

    #[test]
    fn a_home_without_a_mesh_exits_3_and_a_name_for_several_exits_4() {
        assert_eq!(Failure::from(SelectError::None).kind.exit_code(), 3);
        let several = SelectError::Ambiguous { selector: None, candidates: Vec::new() };
        assert_eq!(Failure::from(several).kind.exit_code(), 4);
    }

    #[test]
    fn a_full_disk_is_507_and_exit_1() {
        let failure = Failure::from(EngineError::DiskFull);
        assert_eq!((failure.kind.http_status(), failure.kind.exit_code()), (507, 1));
    }
}
