//! `shapeyard cache`, on stores that the tests fill themselves.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use shapeyard_cache::{Ask, Failure, Key, KeyBuilder, Produced, Store, StoreOptions};
use shapeyard_core::backend::{Backend as _, Environment, Machine, Optimisation, Recipe};
use shapeyard_core::model::Digest;
use shapeyard_core::plan::Bucket;
use shapeyard_core::{BackendId, Model};
use shapeyard_cpu::{CpuOptions, OnnxRuntime};

use common::{Folder, Ran, model, run, shapeyard};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn builder(batch: usize) -> KeyBuilder {
    Key::builder(Digest::of(b"model"), BackendId::new("migraphx"), "1")
        .bucket([("batch", batch), ("sequence", 32)].into_iter().collect())
        .compiler("MIGraphX 2.14")
        .precision("fp16")
}

fn key(batch: usize) -> Key {
    builder(batch).build()
}

/// A cache in a folder of its own.
struct Scene {
    folder: Folder,
}

impl Scene {
    fn new() -> Self {
        Self { folder: Folder::new() }
    }

    fn with(batches: &[usize]) -> Self {
        let scene = Self::new();
        batches.iter().for_each(|batch| scene.make(&key(*batch)));
        scene
    }

    fn root(&self) -> PathBuf {
        self.folder.path("cache")
    }

    fn store(&self) -> Store {
        StoreOptions::new().root(self.root()).reserve_bytes(1).open().unwrap()
    }

    fn make(&self, key: &Key) {
        let produce = |path: &Path| {
            fs::write(path, [7; 10_000])?;
            let notes = [("log".to_owned(), "first line\nsecond \u{1b}[2Jline".to_owned())];
            Ok(Produced { n_bytes: None, notes: notes.into_iter().collect() })
        };
        self.store().get_or_produce(key, &Ask::new(), produce).unwrap();
    }

    fn fail(&self, key: &Key, text: &str) {
        let fail = |_: &Path| Err(Failure::permanent(text));
        self.store().get_or_produce(key, &Ask::new(), fail).unwrap_err();
    }

    /// Where the entry of a key lies.
    fn entry(&self, key: &Key) -> PathBuf {
        entry(&self.root(), key)
    }

    /// As if it had last been used so long ago.
    fn age(&self, key: &Key, age: Duration) {
        let manifest = fs::File::open(self.entry(key).join("manifest.json")).unwrap();
        manifest.set_modified(SystemTime::now() - age).unwrap();
    }

    fn damage(&self, key: &Key) {
        fs::write(self.entry(key).join("payload"), [8; 10_000]).unwrap();
    }

    /// Runs a command of `shapeyard cache` on it.
    fn cache(&self, args: &[&str]) -> Ran {
        run(shapeyard().arg("cache").args(args).arg("--cache").arg(self.root()))
    }

    fn json(&self, args: &[&str]) -> Value {
        self.cache(&[args, &["--format", "json"]].concat()).done().json()
    }
}

fn entry(root: &Path, key: &Key) -> PathBuf {
    let digest = key.digest().to_string();
    root.join("v1/entries").join(&digest[..2]).join(digest)
}

fn digest(key: &Key) -> String {
    key.digest().to_string()
}

fn short(key: &Key) -> String {
    digest(key)[..12].to_owned()
}

/// The values of a field of all members of an array.
fn values<'a>(array: &'a Value, field: &str) -> Vec<&'a str> {
    array.as_array().unwrap().iter().map(|member| member[field].as_str().unwrap()).collect()
}

#[test]
fn help_has_examples() {
    for command in ["ls", "show", "explain", "verify", "prune", "export", "import"] {
        let ran = run(shapeyard().args(["cache", command, "--help"])).done();
        let start = format!("Examples:\n  shapeyard cache {command}");
        assert!(ran.stdout.contains(&start), "{command}: {}", ran.stdout);
        insta::assert_snapshot!(format!("help_{command}"), ran.stdout);
    }
    assert_eq!(run(shapeyard().arg("cache")).code, 2);
}

#[test]
fn ls_shows_the_most_recently_used_first() {
    let scene = Scene::with(&[1, 2, 4]);
    for (batch, days) in [(1, 5), (2, 1), (4, 3)] {
        scene.age(&key(batch), days * DAY);
    }
    let text = scene.cache(&["ls"]).done().stdout;
    let lines: Vec<&str> = text.lines().collect();
    let heading: Vec<&str> = lines[0].split("  ").filter(|cell| !cell.is_empty()).collect();
    let heading: Vec<&str> = heading.into_iter().map(str::trim).collect();
    let wanted = ["KEY", "MODEL", "BUCKET", "BACKEND", "COMPILER", "PRECISION", "SIZE", "AGE"];
    assert_eq!(heading, [&wanted[..], &["LAST USED", "LAYER"]].concat(), "{text}");
    for (line, batch) in lines[1..].iter().zip([2, 4, 1]) {
        assert!(line.starts_with(&short(&key(batch))), "{text}");
        assert!(line.contains(&format!("batch={batch},sequence=32")), "{text}");
        assert!(line.contains("migraphx") && line.contains("MIGraphX 2.14  fp16"), "{text}");
    }
    assert!(lines[1].contains("24 h ago") && lines[2].contains("3 days ago"), "{text}");
    assert!(text.contains("\n3 entries, "), "{text}");

    let json = scene.json(&["ls"]);
    assert_eq!((&json["schema"], &json["command"]), (&json!(1), &json!("cache ls")));
    let wanted: Vec<String> = [2, 4, 1].map(|batch| digest(&key(batch))).into();
    assert_eq!(values(&json["entries"], "name"), wanted);
    let first = &json["entries"][0];
    assert_eq!(first["manifest"]["key"]["bucket"], json!({"batch": 2, "sequence": 32}));
    assert_eq!((&first["layer"], &first["damage"]), (&json!("writable"), &Value::Null));
}

#[test]
fn ls_tells_of_damage_failures_and_what_was_set_aside() {
    let scene = Scene::with(&[1, 2, 4]);
    fs::write(scene.entry(&key(1)).join("manifest.json"), "{}").unwrap();
    scene.fail(&key(8), "unsupported operator\nat node \u{1b}[2J7");
    scene.damage(&key(2));
    assert_eq!(scene.store().verify(true).unwrap().damaged.len(), 2);
    fs::write(scene.entry(&key(4)).join("manifest.json"), "{}").unwrap();

    let text = scene.cache(&["ls"]).done().stdout;
    assert!(text.contains("DAMAGE\n"), "{text}");
    assert!(text.contains("its manifest cannot be believed"), "{text}");
    let failure =
        format!("1 remembered failure:\n  {}  batch=8,sequence=32: unsupp", short(&key(8)));
    assert!(text.contains(&failure) && text.contains("(for another 23 h)"), "{text}");
    assert!(text.contains("2 damaged entries were set aside:\n"), "{text}");
    assert!(
        text.contains(&format!("  {}: its payload has the checksum", short(&key(2)))),
        "{text}"
    );

    let json = scene.json(&["ls"]);
    assert_eq!(json["entries"][0]["damage"]["damage"], "manifest");
    assert_eq!(json["failures"][0]["text"], "unsupported operator\nat node \u{1b}[2J7");
    assert_eq!(json["quarantined"].as_array().unwrap().len(), 2);
}

#[test]
fn ls_sums_up_many_failures() {
    let scene = Scene::new();
    (0..12).for_each(|batch| scene.fail(&key(batch), "too large"));
    let text = scene.cache(&["ls"]).done().stdout;
    assert!(text.contains("12 remembered failures:"), "{text}");
    assert_eq!(text.matches("too large").count(), 10, "{text}");
    assert!(text.ends_with("  and 2 more; --format json gives all\n"), "{text}");
    assert_eq!(scene.json(&["ls"])["failures"].as_array().unwrap().len(), 12);
}

#[test]
fn a_cache_that_is_not_there_is_empty() {
    let scene = Scene::new();
    let text = scene.cache(&["ls"]).done().stdout;
    assert!(text.starts_with("no entries in `") && text.contains("/cache`"), "{text}");
    assert_eq!(scene.json(&["ls"])["entries"], json!([]));
    scene.cache(&["verify"]).refused(2, &["there is no cache at", "correct --cache"]);
    assert_eq!(scene.json(&["prune", "--max-size", "0B"])["n_kept"], 0);
    scene.cache(&["show", "3f"]).refused(2, &["no key in", "`3f`", "cache ls"]);
    scene.cache(&["export", "x"]).refused(2, &["nothing to export"]);
    assert!(!scene.root().exists(), "looking makes nothing");
}

#[test]
fn the_folder_is_found_by_option_variable_and_custom() {
    let scene = Scene::with(&[1]);
    let n_entries = |name: &str, value: PathBuf| {
        let mut command = shapeyard();
        command.env_remove("SHAPEYARD_CACHE").env("HOME", scene.folder.path("home"));
        command.env(name, value);
        let json = run(command.args(["cache", "ls", "--format", "json"])).done().json();
        json["entries"].as_array().unwrap().len()
    };
    assert_eq!(n_entries("SHAPEYARD_CACHE", scene.root()), 1);
    assert_eq!(n_entries("SHAPEYARD_CACHE", PathBuf::new()), 0);
    fs::create_dir(scene.folder.path("xdg")).unwrap();
    fs::rename(scene.root(), scene.folder.path("xdg/shapeyard")).unwrap();
    assert_eq!(n_entries("XDG_CACHE_HOME", scene.folder.path("xdg")), 1);
    fs::rename(scene.folder.path("xdg"), scene.folder.path(".cache")).unwrap();
    assert_eq!(n_entries("HOME", scene.folder.path(".")), 1);
}

#[test]
fn a_folder_that_cannot_be_trusted_or_is_none_is_refused() {
    let scene = Scene::with(&[1]);
    let missing = scene.folder.path("missing");
    let ran = scene.cache(&["ls", "--base", missing.to_str().unwrap()]);
    ran.refused(2, &["a base cannot be used", "missing"]);
    fs::set_permissions(scene.root(), fs::Permissions::from_mode(0o777)).unwrap();
    scene.cache(&["ls"]).refused(2, &["written by others", "chmod go-w"]);
    let file = scene.folder.write("file", "");
    run(shapeyard().args(["cache", "ls", "--cache"]).arg(file)).refused(2, &["no folder"]);
}

#[test]
fn show_prints_the_whole_key() {
    let scene = Scene::with(&[1]);
    let key = key(1);
    let text = scene.cache(&["show", &digest(&key)[..9]]).done().stdout;
    assert!(text.starts_with(&format!("key         {}\n", digest(&key))), "{text}");
    let line =
        |start: &str| text.lines().find(|line| line.trim_start().starts_with(start)).unwrap();
    for (field, value) in [
        ("model", Digest::of(b"model").to_string().as_str()),
        ("bucket.batch", "1"),
        ("bucket.sequence", "32"),
        ("inputs", "empty"),
        ("precision", "fp16"),
        ("compiler", "MIGraphX 2.14"),
        ("driver", "not set"),
        ("environment", "not set"),
    ] {
        assert!(line(&format!("{field} ")).ends_with(&format!("  {value}")), "{field} in {text}");
    }
    assert!(line("payload").contains("10.0 kB, BLAKE3 "), "{text}");
    assert!(line("made").contains(&format!("by process {}", std::process::id())), "{text}");
    assert!(text.contains("note        log\n  first line\n  second \\u{1b}[2Jline\n"), "{text}");

    let json = scene.json(&["show", &digest(&key).to_uppercase()]);
    assert_eq!(json["name"], json!(digest(&key)));
    assert_eq!(json["fields"][0], json!({"name": "version", "value": "2"}));
    assert_eq!(json["entries"][0]["manifest"]["payload"]["n_bytes"], 10_000);
    assert_eq!(json["failure"], Value::Null);
}

#[test]
fn show_of_a_failure_says_why_and_for_how_long() {
    let scene = Scene::new();
    scene.fail(&key(8), "unsupported operator\nat node 7");
    let text = scene.cache(&["show", &short(&key(8))]).done().stdout;
    assert!(text.contains("reason\n  unsupported operator\n  at node 7\n"), "{text}");
    assert!(text.contains("remembered  for another 23 h"), "{text}");
    assert!(text.contains("bucket.batch") && text.contains("MIGraphX 2.14"), "{text}");
    let json = scene.json(&["show", &short(&key(8))]);
    assert_eq!(json["failure"]["text"], "unsupported operator\nat node 7");
    assert_eq!(json["entries"], json!([]));
    let folder = scene.folder.path("bundle");
    let refused = scene.cache(&["export", folder.to_str().unwrap(), &short(&key(8))]);
    refused.refused(2, &["could not be made", "nothing to export"]);
}

#[test]
fn a_key_that_is_unknown_or_ambiguous_is_refused() {
    // Of seventeen digests two start alike.
    let batches: Vec<usize> = (1..=17).collect();
    let scene = Scene::with(&batches);
    let digests: Vec<String> = batches.iter().map(|batch| digest(&key(*batch))).collect();
    let shared = |start: &str| digests.iter().filter(|name| name.starts_with(start)).count();
    let start = digests.iter().map(|name| &name[..1]).find(|start| shared(start) > 1).unwrap();
    let ran = scene.cache(&["show", start]);
    ran.refused(2, &[&format!("{} keys start with `{start}`", shared(start)), "batch="]);
    for name in digests.iter().filter(|name| name.starts_with(start)).take(8) {
        assert!(ran.stderr.contains(&name[..12]), "{ran:?}");
    }
    scene.cache(&["show", "nothing"]).refused(2, &["no key in", "`nothing`"]);
    scene.cache(&["show", ""]).refused(2, &["the key is empty"]);
    // A whole name is meant as such.
    let longer = format!("{}0", digests[0]);
    fs::create_dir(scene.entry(&key(1)).with_file_name(longer)).unwrap();
    assert_eq!(scene.json(&["show", &digests[0]])["name"], json!(digests[0]));
}

#[test]
fn verify_finds_damage_and_repairs_it() {
    let scene = Scene::with(&[1, 2, 4]);
    let clean = scene.cache(&["verify"]).done().stdout;
    assert!(clean.starts_with("sound       3 (30.0 kB) in `"), "{clean}");
    scene.damage(&key(2));

    let found = scene.cache(&["verify"]);
    assert_eq!(found.code, 1, "{found:?}");
    assert!(found.stdout.contains("sound       2 "), "{found:?}");
    assert!(found.stdout.contains("its payload has the checksum"), "{found:?}");
    assert!(found.stdout.contains("verify --repair"), "{found:?}");
    assert!(scene.entry(&key(2)).exists());

    let repaired = scene.cache(&["verify", "--repair", "--format", "json"]);
    assert_eq!(repaired.code, 1, "{repaired:?}");
    let damaged = &repaired.json()["damaged"][0];
    assert_eq!(damaged["damage"]["damage"], "checksum");
    assert!(Path::new(damaged["quarantined"].as_str().unwrap()).exists());
    assert!(!scene.entry(&key(2)).exists());
    assert_eq!(scene.json(&["verify"])["n_sound"], 2);

    scene.damage(&key(4));
    let text = scene.cache(&["verify", "--repair"]).stdout;
    assert!(text.contains("set aside in "), "{text}");
}

/// A bundle with the artifacts of some batches, as another machine would ship it.
fn bundle(batches: &[usize]) -> (Scene, PathBuf) {
    let maker = Scene::with(batches);
    let folder = maker.folder.path("bundle");
    let report = maker.json(&["export", folder.to_str().unwrap()]);
    assert_eq!(report["copied"].as_array().unwrap().len(), batches.len());
    (maker, folder)
}

#[test]
fn a_base_is_read_and_never_written() {
    let (_maker, shipped) = bundle(&[1, 2]);
    let base = shipped.to_str().unwrap();
    let scene = Scene::with(&[4]);
    let text = scene.cache(&["ls", "--base", base]).done().stdout;
    assert_eq!(text.matches("  base\n").count(), 2, "{text}");
    assert_eq!(text.matches("  cache\n").count(), 1, "{text}");
    let json = scene.json(&["show", &digest(&key(1)), "--base", base]);
    assert_eq!(json["entries"][0]["layer"], "base");

    fs::write(entry(&shipped, &key(1)).join("payload"), [8; 10_000]).unwrap();
    let ran = scene.cache(&["verify", "--repair", "--base", base]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stdout.contains("left there, since a base is only read"), "{ran:?}");
    let pruned = scene.json(&["prune", "--max-size", "0B", "--base", base]);
    assert_eq!(values(&pruned["removed"], "name"), [digest(&key(4))]);
    assert!(entry(&shipped, &key(1)).exists() && entry(&shipped, &key(2)).exists());
}

#[test]
fn prune_removes_what_is_over_a_limit() {
    let scene = Scene::with(&[1, 2, 4, 8]);
    for (batch, days) in [(1, 40), (2, 20), (4, 2), (8, 1)] {
        scene.age(&key(batch), days * DAY);
    }
    let held = scene.store().get(&key(2)).unwrap();
    scene.age(&key(2), 20 * DAY);

    let dry = scene.cache(&["prune", "--max-age", "30d", "--max-size", "25kB", "--dry-run"]).done();
    assert_eq!(dry.stdout.matches("would go  ").count(), 2, "{dry:?}");
    assert!(scene.entry(&key(1)).exists(), "nothing was removed");

    let old = scene.json(&["prune", "--max-age", "30d"]);
    assert_eq!(values(&old["removed"], "name"), [digest(&key(1))]);
    assert_eq!((&old["n_kept"], &old["dry_run"]), (&json!(3), &json!(false)));

    let text = scene.cache(&["prune", "--max-size", "0B"]).done().stdout;
    assert!(text.contains(&format!("in use    {}  ", short(&key(2)))), "{text}");
    assert!(text.contains(&format!("removed   {}  ", short(&key(4)))), "{text}");
    assert!(scene.entry(&key(2)).exists());
    drop(held);

    let unfinished = scene.entry(&key(2)).with_file_name(".tmp-left");
    fs::create_dir(&unfinished).unwrap();
    let swept = scene.json(&["prune", "--rubbish"]);
    assert_eq!((&swept["n_kept"], &swept["removed"]), (&json!(1), &json!([])));
    assert!(swept["n_rubbish"].as_u64().unwrap() > 0 && !unfinished.exists(), "{swept}");
}

#[test]
fn prune_wants_a_limit_that_it_understands() {
    let scene = Scene::with(&[1]);
    scene.cache(&["prune"]).refused(2, &["--max-size", "--max-age", "--rubbish"]);
    let wrong = [
        ("--max-size", "20", "it has no unit"),
        ("--max-size", "20G", "`G` is no unit; known are B, kB"),
        ("--max-size", "much", "starts with no number"),
        ("--max-age", "5m", "`m` is no unit; known are s, min, h, d, w"),
        ("--max-age", "99999999999999999999d", "larger than can be counted"),
    ];
    for (option, value, part) in wrong {
        scene.cache(&["prune", option, value]).refused(2, &[option, value, part]);
    }
    scene.cache(&["prune", "--rubbish", "--dry-run"]).refused(2, &["--dry-run"]);
    assert!(scene.entry(&key(1)).exists());
}

#[test]
fn a_bundle_goes_from_machine_to_machine() {
    let maker = Scene::with(&[1, 2, 4]);
    let folder = maker.folder.path("beside the model");
    let path = folder.to_str().unwrap();
    let one = maker.cache(&["export", path, &short(&key(1)), &short(&key(1))]).done().stdout;
    assert!(one.starts_with("copied      1 (10.0 kB) to `"), "{one}");
    let all = maker.cache(&["export", path]).done().stdout;
    assert!(all.contains("copied      2 ") && all.contains("there       1 already"), "{all}");
    maker.cache(&["export", path, "zz"]).refused(2, &["no key in", "`zz`"]);

    let taker = Scene::new();
    let json = taker.json(&["import", path]);
    assert_eq!((json["copied"].as_array().unwrap().len(), &json["n_bytes"]), (3, &json!(30_000)));
    assert_eq!(taker.json(&["verify"])["n_sound"], 3);
    let again = taker.cache(&["import", path]).done().stdout;
    assert!(again.contains("there       3 already"), "{again}");
}

#[test]
fn what_is_damaged_is_not_copied() {
    let (maker, folder) = bundle(&[1, 2]);
    fs::write(entry(&folder, &key(1)).join("payload"), [8; 10_000]).unwrap();
    let taker = Scene::new();
    let ran = taker.cache(&["import", folder.to_str().unwrap()]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stdout.contains("copied      1 ") && ran.stdout.contains("not copied"), "{ran:?}");
    assert!(!taker.entry(&key(1)).exists());

    maker.damage(&key(2));
    let fresh = maker.folder.path("fresh");
    let ran = maker.cache(&["export", fresh.to_str().unwrap(), "--format", "json"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert_eq!(ran.json()["damaged"][0]["damage"]["damage"], "checksum");
    assert_eq!(ran.json()["copied"], json!([digest(&key(1))]));
}

#[test]
fn what_is_no_bundle_is_refused() {
    let scene = Scene::new();
    scene.cache(&["import", "no/such/folder"]).refused(2, &["no/such/folder"]);
    let folder = scene.folder.path(".");
    scene.cache(&["import", folder.to_str().unwrap()]).refused(2, &["no bundle", "v1/entries"]);
    assert!(!scene.root().exists());
}

/// What decides ONNX Runtime's artifacts where it is installed in that version.
fn recipe_of(version: &str) -> Recipe {
    let nowhere = CpuOptions { onnxruntime: Some("no/such.so".into()), ..CpuOptions::default() };
    let recipe = OnnxRuntime::new(&nowhere).recipe(Optimisation::Full).unwrap();
    let machine = Machine {
        compiler: format!("ONNX Runtime {version}"),
        library: None,
        driver: None,
        architecture: Some("x86_64".to_owned()),
        environment: Environment::default(),
    };
    Recipe { machine: Some(machine), ..recipe }
}

/// Asks where no library is installed.
fn explain(scene: &Scene, name: &str, more: &[&str]) -> Ran {
    let model = model(name);
    let args = ["explain", model.to_str().unwrap(), "--onnxruntime", "no/such.so"];
    let backend = if more.contains(&"--backend") { &[][..] } else { &["--backend", "onnxruntime"] };
    scene.cache(&[&args, backend, more].concat())
}

#[test]
fn explain_names_what_is_missing_and_what_made_what_is_there() {
    let scene = Scene::new();
    let buckets = ["--buckets", "batch=1,2", "sequence=32"];
    let empty = explain(&scene, "encoder.onnx", &buckets);
    assert_eq!(empty.code, 1, "{empty:?}");
    assert!(empty.stdout.contains("any  miss: there is no entry at all"), "{empty:?}");
    assert!(empty.stderr.starts_with("note: onnxruntime is not installed here ("), "{empty:?}");
    assert!(!scene.root().exists(), "looking makes nothing");

    let model = Model::open(model("encoder.onnx")).unwrap();
    let key = |recipe: &Recipe| {
        Key::of(model.digest().unwrap(), model.signature(), &Bucket::default(), recipe)
    };
    scene.make(&key(&Recipe { precision: Some("fp16".to_owned()), ..recipe_of("1.31") }));
    let other = explain(&scene, "encoder.onnx", &[&buckets[..], &["--quiet"]].concat());
    assert_eq!((other.code, other.stderr.as_str()), (1, ""), "{other:?}");
    assert!(other.stdout.contains("precision: not set here, `fp16` there"), "{other:?}");
    assert!(!other.stdout.contains("compiler:"), "{other:?}");

    scene.make(&key(&recipe_of("1.31")));
    let unasked = explain(&scene, "encoder.onnx", &[]).done();
    assert!(!unasked.stderr.contains("every shape"), "{unasked:?}");
    let hit = explain(&scene, "encoder.onnx", &buckets).done();
    assert!(hit.stderr.contains("note: one artifact of onnxruntime serves every shape"), "{hit:?}");
    let hit = hit.stdout;
    let made_by = "hit, if the compiler is the one that made it: ONNX Runtime 1.31, x86_64 (";
    assert!(hit.contains(made_by) && hit.contains("1 shape, of which 1 hit"), "{hit}");
    let json = [&buckets[..], &["--format", "json"]].concat();
    let json = explain(&scene, "encoder.onnx", &json).done().json();
    let shape = &json["shapes"][0];
    assert_eq!((&json["backend"], &shape["answer"]), (&json!("onnxruntime"), &json!("possible")));
    assert_eq!(shape["entries"][0]["machine"]["compiler"], "ONNX Runtime 1.31");
    assert_eq!(shape["key"]["compiler"], Value::Null);

    scene.damage(&key(&recipe_of("1.31")));
    let damaged = explain(&scene, "encoder.onnx", &buckets);
    assert_eq!(damaged.code, 1);
    assert!(damaged.stdout.contains("damaged, in the cache: its payload"), "{damaged:?}");
}

#[test]
fn explain_refuses_shapes_and_backends_that_there_are_not() {
    let scene = Scene::new();
    let wrong = [
        ("batch=1,4,x,0,4", "`x` is no extent"),
        ("batch=1,0", "an extent of 0"),
        ("batch", "expected SYMBOL=N"),
        ("rows=1", "the model has no symbol `rows`; it has `batch`, `sequence`"),
        ("batch=1", "no extent is given for `sequence`; add --buckets sequence=N"),
    ];
    for (buckets, part) in wrong {
        explain(&scene, "encoder.onnx", &["--buckets", buckets]).refused(2, &[part]);
    }
    let repeated = ["--buckets", "batch=1,2,2", "--buckets", "sequence=8", "batch=2"];
    assert_eq!(explain(&scene, "encoder.onnx", &repeated).code, 1);
    let buckets = ["--buckets", "batch=1", "sequence=8", "--backend"];
    let on = |name: &str| explain(&scene, "encoder.onnx", &[&buckets[..], &[name]].concat());
    on("nobody").refused(2, &["no backend `nobody`", "onnxruntime"]);
    on("rten").refused(3, &["rten does not make artifacts"]);
    let migraphx = on("migraphx");
    assert_eq!(migraphx.code, 1, "{migraphx:?}");
    assert!(migraphx.stdout.contains("backend  migraphx 3, fp32"), "{migraphx:?}");
    explain(&scene, "no_such.onnx", &[]).refused(2, &["no_such.onnx"]);
}
