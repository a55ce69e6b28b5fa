//! A cache that cannot be written: the request is answered, and nothing half done stays.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use shapeyard_cache::{Ask, Place, Served, Warning};

use crate::child::Task;
use crate::common::{Scene, content, key, never, produce, skip, tree, unfinished};

/// Runs a task in a mount namespace in which `mount` was run first. `false` where that is not allowed.
fn run_with_mount(test: &str, task: &Task, mount: &str) -> bool {
    let may_mount = |command: &mut Command| {
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let namespaces: [&[&str]; 2] = [&["unshare", "-m"], &["unshare", "-Urm"]];
    for namespace in namespaces {
        let mut probe = Command::new(namespace[0]);
        probe.args(&namespace[1..]).args(["sh", "-c", &format!("{mount} && true")]);
        if may_mount(&mut probe) {
            let script = format!("{mount} && exec \"$@\"");
            let wrapper = [namespace, &["sh", "-c", &script, "sh"]].concat();
            let status = task.command(&wrapper).status().unwrap();
            assert!(status.success(), "{:?}", task.lines());
            return true;
        }
    }
    skip(test, "file systems cannot be mounted here");
    false
}

#[test]
fn pitfall_14_on_a_full_disk_the_request_is_answered_from_elsewhere() {
    // The producer is told that the disk is full, or is not told, or the store stays off it.
    for (lies, n_bytes, reserve_bytes) in
        [(false, 2 << 20, 1), (true, 2 << 20, 1), (false, 100_000, 64 << 20)]
    {
        let scene = Scene::new();
        fs::create_dir(scene.root()).unwrap();
        let mut task = Task::new(&scene.root(), &scene.folder().join("log"));
        (task.lies, task.n_bytes) = (lies, n_bytes);
        (task.reserve_bytes, task.private) = (reserve_bytes, Some(scene.folder().to_owned()));
        let mount = format!("mount -t tmpfs -o size=1m,mode=700 tmpfs {}", scene.root().display());
        let test = "pitfall_14_on_a_full_disk_the_request_is_answered_from_elsewhere";
        if !run_with_mount(test, &task, &mount) {
            return;
        }
        assert_eq!(task.count("private"), 1, "{:?}", task.lines());
        assert_eq!(task.count("warned"), 1, "{:?}", task.lines());
        assert_eq!(task.count("failed"), 0, "{:?}", task.lines());
        assert_eq!(task.count("left"), 0, "{:?}", task.lines());
    }
}

#[test]
fn pitfall_14_a_limit_on_file_length_is_a_typed_error_and_leaves_nothing() {
    for lies in [false, true] {
        let scene = Scene::new();
        let mut task = Task::new(&scene.root(), &scene.folder().join("log"));
        (task.lies, task.n_bytes) = (lies, 3 << 20);
        // The signal that comes with the limit is ignored, so that writing fails instead.
        let script = "trap '' XFSZ; ulimit -f 2048; exec \"$@\"";
        let status = task.command(&["sh", "-c", script, "sh"]).status().unwrap();
        assert!(status.success(), "{:?}", task.lines());
        let lines = task.lines().join("\n");
        assert!(lines.contains("failed Storage("), "{lines}");
        assert!(lines.contains("FileTooLarge"), "{lines}");
        let payloads = tree(&scene.root());
        assert!(!payloads.iter().any(|path| path.ends_with("payload")), "{payloads:?}");
        assert_eq!(unfinished(&scene.root()), Vec::<std::path::PathBuf>::new());
    }
}

#[test]
fn pitfall_21_a_read_only_cache_is_read_and_what_it_lacks_is_made_privately() {
    let scene = Scene::new();
    let (there, lacking) = (key("there"), key("lacking"));
    let store = scene.store();
    let mut task = Task::new(&scene.root(), &scene.folder().join("log"));
    store
        .get_or_produce(&there, &Ask::new(), |path| {
            fs::write(path, content(&there, task.n_bytes))?;
            Ok(shapeyard_cache::Produced::default())
        })
        .unwrap();
    let before = tree(&scene.root());
    let root = scene.root().display().to_string();
    let mount = format!("mount --bind {root} {root} && mount -o remount,bind,ro {root}");
    let test = "pitfall_21_a_read_only_cache_is_read_and_what_it_lacks_is_made_privately";
    for (name, served) in [("there", "loaded"), ("lacking", "private")] {
        task.key = name.to_owned();
        if !run_with_mount(test, &task, &mount) {
            return;
        }
        assert_eq!(task.count(served), 1, "{:?}", task.lines());
    }
    assert_eq!(task.count("warned"), 1, "{:?}", task.lines());
    assert_eq!(tree(&scene.root()), before);
    assert!(store.get(&lacking).is_none());
}

/// Root may write everywhere, so the child becomes somebody else.
#[test]
fn without_permission_the_request_is_answered() {
    let test = "without_permission_the_request_is_answered";
    let scene = Scene::new();
    let is_root = fs::metadata("/proc/self").is_ok_and(|metadata| {
        use std::os::unix::fs::MetadataExt as _;
        metadata.uid() == 0
    });
    let wrapper: &[&str] = if is_root {
        &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    } else {
        &[]
    };
    let shared = tempfile::tempdir().unwrap();
    fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o777)).unwrap();
    // Somebody else has to be able to run this program.
    let program = shared.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut task = Task::new(&scene.root(), &shared.path().join("log"));
    task.private = Some(shared.path().to_owned());
    fs::create_dir(scene.root()).unwrap();
    fs::set_permissions(scene.root(), fs::Permissions::from_mode(0o000)).unwrap();
    let original = task.command(wrapper);
    let mut command =
        Command::new(wrapper.first().map_or(program.as_os_str(), |first| first.as_ref()));
    let rest = original.get_args().map(|argument| {
        if argument == std::env::current_exe().unwrap() { program.as_os_str() } else { argument }
    });
    command.args(rest).stdout(Stdio::null());
    for (name, value) in original.get_envs() {
        command.env(name, value.unwrap());
    }
    let Ok(status) = command.status() else {
        return skip(test, "no program changes the user here");
    };
    fs::set_permissions(scene.root(), fs::Permissions::from_mode(0o700)).unwrap();
    if !status.success() && task.lines().is_empty() {
        return skip(test, "another user cannot run the test program");
    }
    assert!(status.success());
    assert_eq!(task.count("private"), 1, "{:?}", task.lines());
    assert!(tree(&scene.root()).is_empty());
}

#[test]
fn a_vanished_folder_is_made_again_or_done_without() {
    let (scene, key) = (Scene::new(), key("model"));
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&warnings);
    let options = scene.options().on_warning(move |warning| {
        heard.lock().unwrap().push(warning.clone());
    });
    let store = options.private_places([scene.folder().to_owned()]).open().unwrap();
    let make = || store.get_or_produce(&key, &Ask::new(), |path| produce(&key, path)).unwrap();
    assert_eq!(make().served, Served::Produced);
    fs::remove_dir_all(scene.root()).unwrap();
    assert_eq!(make().served, Served::Produced, "between two calls");

    fs::remove_dir_all(scene.root()).unwrap();
    let mut n_runs = 0;
    let vanished = store.get_or_produce(&key, &Ask::new(), |path| {
        n_runs += 1;
        if n_runs == 1 {
            fs::remove_dir_all(scene.root()).unwrap();
            fs::write(scene.root(), "a file in its place").unwrap();
        }
        produce(&key, path)
    });
    let vanished = vanished.unwrap();
    assert_eq!(
        (vanished.served, n_runs),
        (Served::ProducedPrivately, 2),
        "in the middle of a call"
    );
    assert_eq!(fs::read(vanished.entry.path()).unwrap(), vanished.entry.read().unwrap());
    assert_eq!(make().served, Served::HitPrivate, "not made again");
    let other = crate::common::key("other");
    let made = store.get_or_produce(&other, &Ask::new(), |path| produce(&other, path)).unwrap();
    assert_eq!((made.served, made.entry.place()), (Served::ProducedPrivately, Place::Private));
    let warnings = warnings.lock().unwrap();
    let degraded = |warning: &&Warning| matches!(warning, Warning::Degraded { .. });
    assert_eq!(warnings.iter().filter(degraded).count(), 1, "{warnings:?}");
    assert!(made.warnings.is_empty(), "one warning is enough");
}

#[test]
fn what_was_made_already_is_not_made_again_when_it_cannot_be_published() {
    let (scene, key) = (Scene::new(), key("model"));
    let store = scene.options().private_places([scene.folder().to_owned()]).open().unwrap();
    let mut n_runs = 0;
    let entry = scene.entry(&key);
    let outcome = store.get_or_produce(&key, &Ask::new(), |path| {
        n_runs += 1;
        // What stands in the entry's place cannot be set aside.
        fs::create_dir_all(entry.join("payload")).unwrap();
        fs::write(scene.root().join("v1/quarantine"), "no folder").unwrap();
        produce(&key, path)
    });
    assert_eq!((outcome.unwrap().served, n_runs), (Served::ProducedPrivately, 1));
    assert_eq!(store.get_or_produce(&key, &Ask::new(), never).unwrap().served, Served::HitPrivate);
}
