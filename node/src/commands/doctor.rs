//! `doctor`: what can be seen of the home from outside, and what the daemon says of itself.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::up::last_failure;
use super::{Caller, DONE, Ended};
use crate::api::shapes::{CheckLevel, DoctorCheck, DoctorShape};
use crate::clock::Clock;
use crate::coordinator_http::CoordinatorHttp;
use crate::failure::{Failure, Kind, SCHEMA_VERSION};
use crate::home::{HomeError, MeshInfo};
use crate::init::check_coordinator;
use crate::render::progress::Progress;
use crate::render::text::one_line;

pub(super) async fn doctor(caller: &Caller) -> Ended {
    let waiting = Progress::spinner(caller.out, "looking");
    let mut checks = vec![home(caller), lock(caller), socket(caller), disk(caller)];
    let client = caller.client();
    let asked = match &client {
        Ok(client) => client.get::<DoctorShape>("/v1/doctor", &[]).await,
        Err(failure) => Err(failure.clone()),
    };
    match asked {
        Ok(inside) => {
            checks.push(check("daemon", CheckLevel::Ok, "answers", ""));
            checks.extend(inside.checks);
        }
        Err(failure) => {
            checks.push(check("daemon", CheckLevel::Fail, failure.text, failure.next));
            checks.extend(last_start(caller));
            checks.extend(without_daemon(caller).await);
        }
    }
    drop(waiting);
    let level = checks.iter().map(|check| check.level).max().unwrap_or(CheckLevel::Ok);
    let shape = DoctorShape { schema_version: SCHEMA_VERSION, level, checks };
    caller.out.both(&shape, || shape.checks.iter().flat_map(lines).collect())?;
    if level == CheckLevel::Ok {
        caller.out.next("peerloom status");
    }
    Ok(if level == CheckLevel::Fail { Kind::Failed.exit_code() } else { DONE })
}

fn lines(check: &DoctorCheck) -> Vec<String> {
    let word = match check.level {
        CheckLevel::Ok => "ok  ",
        CheckLevel::Warn => "warn",
        CheckLevel::Fail => "FAIL",
    };
    let mut lines = vec![format!("{word}  {:<20}  {}", one_line(&check.name), one_line(&check.text))];
    if !check.next.is_empty() {
        lines.push(format!("      {:<20}  -> {}", "", one_line(&check.next)));
    }
    lines
}

fn home(caller: &Caller) -> DoctorCheck {
    let root = caller.home.root();
    let mode = match std::fs::metadata(root) {
        Ok(metadata) if metadata.is_dir() => metadata.permissions().mode() & 0o777,
        Ok(_) => {
            return check(
                "home",
                CheckLevel::Fail,
                format!("{} is no directory", root.display()),
                "set PEERLOOM_HOME",
            );
        }
        Err(error) => {
            let text = format!("{}: {error}", root.display());
            return check(
                "home",
                CheckLevel::Fail,
                text,
                "peerloom up --new NAME --name HANDLE, or set PEERLOOM_HOME",
            );
        }
    };
    if mode & 0o077 != 0 {
        let text = format!("{} is open to other users (mode {mode:o})", root.display());
        return check("home", CheckLevel::Fail, text, format!("chmod 700 {}", root.display()));
    }
    match caller.home.meshes() {
        Ok(meshes) if meshes.is_empty() => check(
            "home",
            CheckLevel::Warn,
            format!("{} holds no mesh", root.display()),
            "peerloom join URL --name HANDLE",
        ),
        Ok(meshes) => keys(root, &meshes),
        Err(error) => {
            let failure = Failure::from(error);
            check("home", CheckLevel::Fail, failure.text, failure.next)
        }
    }
}

fn keys(root: &Path, meshes: &[MeshInfo]) -> DoctorCheck {
    for mesh in meshes {
        if let Err(error) = crate::keystore::read_key(&mesh.member_key_file()) {
            let failure = Failure::failed("keystore", &error);
            return check(
                "home",
                CheckLevel::Fail,
                failure.text,
                "chmod 600 the file, or restore it from a backup",
            );
        }
    }
    let names: Vec<&str> = meshes.iter().map(|mesh| mesh.name.as_str()).collect();
    check("home", CheckLevel::Ok, format!("{}: {}", root.display(), names.join(", ")), "")
}

fn lock(caller: &Caller) -> DoctorCheck {
    if !caller.home.root().exists() {
        return check("lock", CheckLevel::Ok, "free", "");
    }
    match caller.home.lock() {
        Ok(_) => check("lock", CheckLevel::Ok, "free: no node runs", ""),
        Err(HomeError::Locked { pid, .. }) => {
            let holder = pid.map_or_else(|| "a process".to_owned(), |pid| format!("process {pid}"));
            check("lock", CheckLevel::Ok, format!("held by {holder}"), "")
        }
        Err(error) => {
            check("lock", CheckLevel::Fail, Failure::from(error).text, "check the permissions of the home")
        }
    }
}

fn socket(caller: &Caller) -> DoctorCheck {
    match caller.home.socket() {
        Err(error) => {
            let failure = Failure::from(error);
            check("socket", CheckLevel::Fail, failure.text, failure.next)
        }
        Ok(path) if path.exists() => check("socket", CheckLevel::Ok, path.display().to_string(), ""),
        Ok(path) => check(
            "socket",
            CheckLevel::Warn,
            format!("{} is not there", path.display()),
            "peerloom up --detach",
        ),
    }
}

fn disk(caller: &Caller) -> DoctorCheck {
    let mut path = caller.home.root();
    while let (false, Some(parent)) = (path.exists(), path.parent()) {
        path = parent;
    }
    match rustix::fs::statvfs(path) {
        Err(error) => check("disk", CheckLevel::Warn, format!("unknown: {error}"), ""),
        Ok(space) => disk_level(space.f_bavail.saturating_mul(space.f_frsize)),
    }
}

fn disk_level(free: u64) -> DoctorCheck {
    let text = format!("{} MiB free", free >> 20);
    match free {
        0..DISK_FAIL => {
            check("disk", CheckLevel::Fail, text, "free some space: nothing is recorded on a full disk")
        }
        DISK_FAIL..DISK_WARN => check("disk", CheckLevel::Warn, text, "free some space soon"),
        DISK_WARN.. => check("disk", CheckLevel::Ok, text, ""),
    }
}

/// Why the last detached start failed, if it did.
fn last_start(caller: &Caller) -> Option<DoctorCheck> {
    let failure = last_failure(&caller.home)?;
    Some(check("last start", CheckLevel::Fail, failure.text, failure.next))
}

/// Asks each mesh's coordinator from here.
async fn without_daemon(caller: &Caller) -> Vec<DoctorCheck> {
    let mut checks = Vec::new();
    for mesh in caller.home.meshes().unwrap_or_default() {
        let name = format!("coordinator {}", mesh.name);
        checks.push(match ask_coordinator(caller, &mesh).await {
            Ok(text) => check(name, CheckLevel::Ok, text, ""),
            Err(failure) => check(name, CheckLevel::Fail, failure.text, failure.next),
        });
    }
    checks
}

async fn ask_coordinator(caller: &Caller, mesh: &MeshInfo) -> Result<String, Failure> {
    let coordinator = CoordinatorHttp::new(&mesh.origin, caller.config()?.ca_file.as_deref())?;
    let info = coordinator.info().await?;
    check_coordinator(&info, &mesh.origin, Clock::start().now().wall)?;
    Ok(format!("{} answers, version {}", mesh.origin, info.version))
}

fn check(
    name: impl Into<String>,
    level: CheckLevel,
    text: impl Into<String>,
    next: impl Into<String>,
) -> DoctorCheck {
    DoctorCheck { name: name.into(), level, text: text.into(), next: next.into() }
}

/// A mesh's outbox and inbox may grow by this in a busy hour.
const DISK_WARN: u64 = 1 << 30;
/// Less than one largest outbox.
const DISK_FAIL: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_fails_says_what_to_do() {
        let failed = check("disk", CheckLevel::Fail, "3 MiB free", "free some space");
        assert_eq!(
            lines(&failed),
            ["FAIL  disk                  3 MiB free", "                            -> free some space"]
        );
    }

    #[test]
    fn disk_levels_are_told_by_what_is_free() {
        assert_eq!(disk_level(0).level, CheckLevel::Fail);
        assert_eq!(disk_level(DISK_FAIL).level, CheckLevel::Warn);
        assert_eq!(disk_level(DISK_WARN).level, CheckLevel::Ok);
    }
}
