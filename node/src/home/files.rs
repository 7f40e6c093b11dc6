//! Directories and files that only their owner can read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::HomeError;

/// Removes what an earlier attempt left before its rename: nothing in it was ever used.
pub(super) fn remove_draft(draft: &Path) -> Result<(), HomeError> {
    match fs::remove_dir_all(draft) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(HomeError::Io { action: "remove", path: draft.to_owned(), source }),
    }
}

pub(super) fn make_dir(path: &Path) -> Result<(), HomeError> {
    let failed = |source| HomeError::Io { action: "make", path: path.to_owned(), source };
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(DIR_MODE).create(path).map_err(failed)?;
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(DIR_MODE)).map_err(failed)?;
    }
    Ok(())
}

/// Writes a 0600 file and waits until it is on disk.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), HomeError> {
    let failed = |source| HomeError::Io { action: "write", path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(FILE_MODE);
    let mut file = options.open(path).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.sync_all().map_err(failed)
}

pub(super) fn sync_dir(path: &Path) -> Result<(), HomeError> {
    let synced = File::open(path).and_then(|dir| dir.sync_all());
    synced.map_err(|source| HomeError::Io { action: "sync", path: path.to_owned(), source })
}

pub(super) const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;
