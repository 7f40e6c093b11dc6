use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn the_key_is_made_once_readable_by_its_owner_only_and_stays_the_same() {
    let parent = tempfile::tempdir().unwrap();
    let dir = DataDir::open(&parent.path().join("data")).unwrap();
    assert_eq!(dir.identity(), Identity::None);

    let made = dir.key(ServesMeshes::None).unwrap().id();

    assert_eq!(dir.key(ServesMeshes::Some).unwrap().id(), made);
    assert_eq!(dir.identity(), Identity::Exists);
    assert_eq!((mode(dir.path()), mode(&dir.path().join("coordinator.key"))), (0o700, 0o600));
}

#[test]
fn a_lost_key_is_not_replaced_while_meshes_name_it() {
    let parent = tempfile::tempdir().unwrap();
    let dir = DataDir::open(parent.path()).unwrap();
    assert!(matches!(dir.key(ServesMeshes::Some), Err(DataDirError::KeyMissing { .. })));
    assert!(!dir.path().join("coordinator.key").exists());
}

#[test]
fn a_damaged_key_is_refused_and_left_as_it_is() {
    let parent = tempfile::tempdir().unwrap();
    let dir = DataDir::open(parent.path()).unwrap();
    let path = dir.path().join("coordinator.key");
    for damaged in [&b""[..], b"abc", b"\xff\xfe"] {
        fs::write(&path, damaged).unwrap();
        assert!(matches!(dir.key(ServesMeshes::None), Err(DataDirError::KeyDamaged { .. })));
        assert_eq!(fs::read(&path).unwrap(), damaged);
    }
}

#[test]
fn the_token_is_made_once_and_an_operators_own_is_kept() {
    let parent = tempfile::tempdir().unwrap();
    let dir = DataDir::open(parent.path()).unwrap();
    let made = dir.mesh_token().unwrap();
    assert_eq!((made.origin, made.text.len()), (TokenOrigin::Made, 64));
    assert_eq!(mode(&dir.path().join("mesh-token")), 0o600);
    fs::write(dir.path().join("mesh-token"), "my own\n").unwrap();
    let kept = dir.mesh_token().unwrap();
    assert_eq!((kept.origin, kept.text.as_str()), (TokenOrigin::Kept, "my own"));
}

#[test]
fn a_second_process_is_refused_and_an_open_directory_is_closed_to_others() {
    let parent = tempfile::tempdir().unwrap();
    fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let first = DataDir::open(parent.path()).unwrap();
    assert!(matches!(DataDir::open(parent.path()), Err(DataDirError::InUse { .. })));
    assert_eq!(mode(parent.path()), 0o700);
    drop(first);
    assert!(DataDir::open(parent.path()).is_ok());
}
