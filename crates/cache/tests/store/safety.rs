//! Pitfall 25: links, and folders that others can write to.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use shapeyard_cache::{Ask, OpenError, Served, SharedRoots, StoreOptions};

use crate::common::{Scene, key, produce, skip};

fn mode(path: &std::path::Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn pitfall_25_everything_is_its_owners_only() {
    let (scene, key) = (Scene::new(), key("model"));
    let store = scene.store();
    store
        .get_or_produce(&key, &Ask::new(), |path| {
            let made = produce(&key, path);
            fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
            made
        })
        .unwrap();
    let fail = |_: &std::path::Path| Err(shapeyard_cache::Failure::permanent("no"));
    store.get_or_produce(&crate::common::key("other"), &Ask::new(), fail).unwrap_err();
    assert_eq!(mode(&scene.root()), 0o700);
    for path in scene.tree() {
        assert_eq!(mode(&path), if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
    }
}

#[test]
fn pitfall_25_a_root_that_others_can_write_to_is_refused_or_warned_about() {
    let scene = Scene::new();
    fs::create_dir(scene.root()).unwrap();
    for open in [0o777, 0o770, 0o702] {
        fs::set_permissions(scene.root(), fs::Permissions::from_mode(open)).unwrap();
        let error = scene.options().open().unwrap_err();
        assert!(matches!(error, OpenError::Shared { .. }), "{error}");
        assert!(error.to_string().contains("chmod go-w"), "{error}");
        let base = StoreOptions::new().base(scene.root()).open().unwrap_err();
        assert!(matches!(base, OpenError::Shared { .. }), "{base}");
        let heard = std::sync::Arc::new(std::sync::Mutex::new(0));
        let count = std::sync::Arc::clone(&heard);
        let options = scene.options().shared_roots(SharedRoots::Warn);
        options.on_warning(move |_| *count.lock().unwrap() += 1).open().unwrap();
        assert_eq!(*heard.lock().unwrap(), 1);
    }
    fs::set_permissions(scene.root(), fs::Permissions::from_mode(0o755)).unwrap();
    scene.options().open().unwrap();
}

#[test]
fn a_root_that_somebody_else_made_meanwhile_is_not_trusted() {
    let (scene, planter, key) = (Scene::new(), Scene::new(), key("model"));
    let store = scene.options().private_places([scene.folder().to_owned()]).open().unwrap();
    planter
        .store()
        .get_or_produce(&key, &Ask::new(), |path| {
            fs::write(path, "malicious")?;
            Ok(shapeyard_cache::Produced::default())
        })
        .unwrap();
    fs::rename(planter.root(), scene.root()).unwrap();
    fs::set_permissions(scene.root(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(store.get(&key).is_none());
    let made = store.get_or_produce(&key, &Ask::new(), |path| produce(&key, path)).unwrap();
    assert_eq!(made.served, Served::ProducedPrivately);
    assert!(format!("{:?}", made.warnings).contains("its mode is 777"), "{:?}", made.warnings);
}

#[test]
fn a_root_of_another_user_is_refused() {
    let scene = Scene::new();
    fs::create_dir(scene.root()).unwrap();
    if std::os::unix::fs::chown(scene.root(), Some(65534), Some(65534)).is_err() {
        return skip("a_root_of_another_user_is_refused", "files cannot be given away here");
    }
    let error = scene.options().open().unwrap_err();
    assert!(error.to_string().contains("belongs to user 65534"), "{error}");
}

#[test]
fn a_file_is_no_root() {
    let scene = Scene::new();
    fs::write(scene.root(), "").unwrap();
    assert!(matches!(scene.options().open().unwrap_err(), OpenError::NotAFolder { .. }));
}

#[test]
fn pitfall_25_links_below_the_root_are_not_followed() {
    let key = key("model");
    for linked in ["v1", "v1/entries", "v1/locks", "shard"] {
        let (scene, elsewhere) = (Scene::new(), tempfile::tempdir().unwrap());
        let store = scene.options().private_places([scene.folder().to_owned()]).open().unwrap();
        // What lies elsewhere is a whole cache with this very entry.
        let other = StoreOptions::new().root(elsewhere.path()).reserve_bytes(1).open().unwrap();
        other.get_or_produce(&key, &Ask::new(), |path| produce(&key, path)).unwrap();
        let before = crate::common::tree(elsewhere.path());
        let shard = format!("v1/entries/{}", &key.digest().to_string()[..2]);
        let linked = if linked == "shard" { &shard } else { linked };
        let link = scene.root().join(linked);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(elsewhere.path().join(linked), &link).unwrap();
        assert!(store.get(&key).is_none(), "{linked}");
        let made = store.get_or_produce(&key, &Ask::new(), |path| produce(&key, path)).unwrap();
        if linked != "v1/locks" {
            assert_eq!(made.served, Served::ProducedPrivately, "{linked}");
        }
        assert_eq!(crate::common::tree(elsewhere.path()), before, "{linked}");
    }
}

#[test]
fn the_root_itself_may_be_a_link() {
    let (scene, key) = (Scene::new(), key("model"));
    let place = scene.folder().join("a larger disk");
    fs::create_dir(&place).unwrap();
    symlink(&place, scene.root()).unwrap();
    let store = scene.store();
    store.get_or_produce(&key, &Ask::new(), |path| produce(&key, path)).unwrap();
    assert_eq!(store.root().unwrap(), place.canonicalize().unwrap());
    assert!(place.join("v1/entries").is_dir());
}

#[test]
fn names_of_unfinished_work_cannot_be_guessed() {
    let (scene, mut names) = (Scene::new(), Vec::new());
    let store = scene.store();
    for n in 0..20 {
        let key = key(&n.to_string());
        let outcome = store.get_or_produce(&key, &Ask::new(), |path| {
            let folder = path.parent().unwrap();
            assert_eq!(mode(folder), 0o700);
            names.push(folder.file_name().unwrap().to_str().unwrap().to_owned());
            produce(&key, path)
        });
        outcome.unwrap();
    }
    assert!(names.iter().all(|name| name.len() == ".tmp-".len() + 12), "{names:?}");
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 20);
}
