use std::os::unix::fs::PermissionsExt;

use super::*;

fn new_mesh(id: u8) -> NewMesh {
    NewMesh {
        id: MeshId([id; 32]),
        name: "acme".to_owned(),
        handle: Handle::parse("laptop").unwrap(),
        origin: Origin::parse("http://127.0.0.1:7700").unwrap(),
        member_seed: Zeroizing::new([1; 32]),
        owner_seed: Some(Zeroizing::new([2; 32])),
        entries: vec![Bytes::from_static(b"genesis")],
        prekey: BoxSecretKey::from_bytes([3; 32]),
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_home_is_held_by_one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path().join("home"));
    let lock = home.lock().unwrap();
    let refused = home.lock().unwrap_err();
    let HomeError::Locked { pid, .. } = refused else { panic!("{refused}") };
    assert_eq!(pid, Some(std::process::id()));
    drop(lock);
    home.lock().unwrap();
}

#[tokio::test]
async fn a_mesh_appears_whole_and_only_its_owner_can_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path().join("home"));
    let info = home.create_mesh(new_mesh(7)).await.unwrap();
    assert_eq!(home.meshes().unwrap(), std::slice::from_ref(&info));
    assert_eq!(mode(home.root()), 0o700);
    assert_eq!(mode(&info.dir), 0o700);
    for file in [info.member_key_file(), info.owner_key_file(), info.store_file(), info.dir.join("mesh.json")]
    {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    let key = keystore::read_key(&info.member_key_file()).unwrap();
    assert_eq!(*key.seed(), [1; 32]);
    let listed = fs::read_dir(home.root().join("meshes")).unwrap().count();
    assert_eq!(listed, 1, "nothing of the draft stays");
}

#[tokio::test]
async fn a_mesh_is_never_made_over_another() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path());
    home.create_mesh(new_mesh(7)).await.unwrap();
    let refused = home.create_mesh(new_mesh(7)).await.unwrap_err();
    assert!(matches!(refused, HomeError::MeshExists { .. }), "{refused}");
}

#[tokio::test]
async fn what_a_crash_left_of_a_draft_is_made_anew_and_never_listed() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path());
    home.create().unwrap();
    let draft = home.root().join("meshes").join(format!(".draft-{}", MeshId([7; 32])));
    fs::create_dir(&draft).unwrap();
    fs::write(draft.join("node.db"), b"half").unwrap();
    assert!(home.meshes().unwrap().is_empty());
    home.create_mesh(new_mesh(7)).await.unwrap();
    assert_eq!(home.meshes().unwrap().len(), 1);
}

#[tokio::test]
async fn a_mesh_without_its_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path());
    let info = home.create_mesh(new_mesh(7)).await.unwrap();
    fs::remove_file(info.store_file()).unwrap();
    let refused = home.meshes().unwrap_err();
    assert!(matches!(&refused, HomeError::StoreMissing { path } if *path == info.store_file()), "{refused}");
}

#[tokio::test]
async fn a_key_that_others_can_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path());
    let info = home.create_mesh(new_mesh(7)).await.unwrap();
    fs::set_permissions(info.member_key_file(), fs::Permissions::from_mode(0o644)).unwrap();
    let refused = keystore::read_key(&info.member_key_file()).unwrap_err();
    assert!(matches!(refused, KeystoreError::Exposed { mode: 0o644, .. }), "{refused}");
}

#[test]
fn a_home_too_deep_for_a_socket_says_so() {
    let refused = Home::at(format!("/{}", "d".repeat(95))).socket().unwrap_err();
    assert!(refused.to_string().contains("PEERLOOM_HOME"), "{refused}");
    Home::at("/short").socket().unwrap();
}

#[tokio::test]
async fn a_left_mesh_is_kept_aside_and_not_listed() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path());
    let info = home.create_mesh(new_mesh(7)).await.unwrap();
    let aside = home.retire_mesh(info.id).unwrap();
    assert!(aside.join("member.key").exists());
    assert!(home.meshes().unwrap().is_empty());
}
