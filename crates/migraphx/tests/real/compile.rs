//! Compiles under supervision.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use shapeyard_core::Model;
use shapeyard_core::backend::{
    Backend, BackendError, Cancellation, CompileEnd, CompileJob, LoadJob,
};
use shapeyard_migraphx::{CompilePlace, Compiler, MigraphxOptions, WorkerProgram};

use super::common::{backend, backend_with, bucket, compile, inputs, model, options, run, session};

/// A worker that does what the script says in place of compiling.
fn script(words: &str) -> CompilePlace {
    CompilePlace::worker(WorkerProgram::new("/bin/sh", ["-c", words]))
}

fn scripted(words: &str, compiler: &Compiler) -> MigraphxOptions {
    MigraphxOptions { compiler: Compiler { place: script(words), ..compiler.clone() }, ..options() }
}

fn end_of(test: &str, words: &str, compiler: &Compiler) -> Option<(CompileEnd, String)> {
    let backend = backend_with(test, scripted(words, compiler))?;
    let folder = tempfile::tempdir().unwrap();
    let one = bucket([("batch", 1)]);
    let error = compile(backend.as_ref(), &model("add_one.onnx"), one, folder.path()).unwrap_err();
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "something was left");
    match error {
        BackendError::Compile { end, log, .. } => Some((end, log)),
        error => panic!("{error}"),
    }
}

#[test]
fn pitfall_27_a_compile_that_hangs_is_ended() {
    let limit = Duration::from_millis(300);
    let compiler = Compiler { time_limit: limit, ..Compiler::default() };
    let start = Instant::now();
    let Some((end, log)) = end_of("hang", "echo thinking >&2; exec sleep 600", &compiler) else {
        return;
    };
    assert_eq!(end, CompileEnd::TimedOut { limit });
    assert_eq!(log.trim(), "thinking");
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_compile_that_crashes_or_is_killed_is_an_error_with_its_words() {
    let crash = "echo 'Assertion failed' >&2; kill -ABRT $$";
    let Some((end, log)) = end_of("crash", crash, &Compiler::default()) else { return };
    assert_eq!(end, CompileEnd::Died { how: "signal 6 (SIGABRT)".to_owned() });
    assert_eq!(log.trim(), "Assertion failed");
    let (end, _) = end_of("kill", "kill -KILL $$", &Compiler::default()).unwrap();
    assert_eq!(end, CompileEnd::Died { how: "signal 9 (SIGKILL)".to_owned() });
    let (end, _) = end_of("exit", "exit 7", &Compiler::default()).unwrap();
    assert_eq!(end, CompileEnd::Died { how: "exit code 7 without an answer".to_owned() });
}

#[test]
fn a_compile_that_takes_too_much_memory_is_ended() {
    let limit = 64 << 20;
    let compiler = Compiler { memory_limit: Some(limit), ..Compiler::default() };
    let greedy = "exec python3 -c 'import time; x = bytearray(300 << 20); time.sleep(600)'";
    let Some((end, _)) = end_of("memory", greedy, &compiler) else { return };
    assert_eq!(end, CompileEnd::OutOfMemory { limit });
}

#[test]
fn a_compile_that_nobody_wants_any_more_is_ended() {
    let options = scripted("exec sleep 600", &Compiler::default());
    let Some(backend) = backend_with("cancel", options) else { return };
    let (folder, model) = (tempfile::tempdir().unwrap(), model("add_one.onnx"));
    let asked = AtomicBool::new(false);
    let cancelled = || asked.swap(true, Ordering::Relaxed);
    let job = CompileJob {
        cancellation: Cancellation::when(&cancelled),
        ..CompileJob::new(&model, bucket([("batch", 1)]), folder.path().join("out"))
    };
    let error = backend.compile(&job).unwrap_err();
    assert!(matches!(error, BackendError::Cancelled { .. }), "{error}");
}

#[test]
fn a_worker_that_is_not_there_is_said_so() {
    let place = CompilePlace::worker(WorkerProgram::new("/nowhere/worker", [""; 0]));
    let compiler = Compiler { place, ..Compiler::default() };
    let options = MigraphxOptions { compiler, ..options() };
    let Some(backend) = backend_with("missing worker", options) else { return };
    let folder = tempfile::tempdir().unwrap();
    let one = bucket([("batch", 1)]);
    let error = compile(backend.as_ref(), &model("add_one.onnx"), one, folder.path()).unwrap_err();
    assert!(matches!(error, BackendError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("SHAPEYARD_MIGRAPHX_WORKER"), "{error}");
}

#[test]
fn a_model_that_the_compiler_refuses_is_refused_in_its_words() {
    let Some(backend) = backend("refusal") else { return };
    let (folder, model) = (tempfile::tempdir().unwrap(), model("unknown_operator.onnx"));
    let shape = model.signature().symbols.iter().map(|symbol| (symbol.clone(), 2)).collect();
    let error = compile(backend.as_ref(), &model, shape, folder.path()).unwrap_err();
    let BackendError::Model { reason, .. } = &error else { panic!("{error}") };
    assert!(reason.contains("migraphx_parse_onnx"), "{reason}");
    assert!(reason.contains("nknown operator"), "{reason}");
    // And the next one is compiled.
    let one = bucket([("batch", 1)]);
    compile(backend.as_ref(), &super::common::model("add_one.onnx"), one, folder.path()).unwrap();
}

#[test]
fn a_model_that_changed_is_not_compiled_under_its_old_name() {
    let Some(backend) = backend("changed model") else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    fs::copy(super::common::model_path("add_one.onnx"), &path).unwrap();
    let opened = Model::open(&path).unwrap();
    opened.digest().unwrap();
    fs::copy(super::common::model_path("dense.onnx"), &path).unwrap();
    let error =
        compile(backend.as_ref(), &opened, bucket([("batch", 1)]), folder.path()).unwrap_err();
    assert!(error.to_string().contains("changed meanwhile"), "{error}");
}

#[test]
fn pitfall_36_weights_are_found_whatever_the_working_folder_is() {
    let Some(backend) = backend("external weights") else { return };
    let (folder, model) = (tempfile::tempdir().unwrap(), model("external.onnx"));
    let shape = model.signature().symbols.iter().map(|symbol| (symbol.clone(), 2)).collect();
    compile(backend.as_ref(), &model, shape, folder.path()).unwrap();
}

#[test]
fn a_damaged_program_never_reaches_the_library() {
    let Some(backend) = backend("damage") else { return };
    let (folder, model) = (tempfile::tempdir().unwrap(), model("add_one.onnx"));
    let shape = bucket([("batch", 2)]);
    let artifact = compile(backend.as_ref(), &model, shape.clone(), folder.path()).unwrap();
    let whole = fs::read(&artifact.payload).unwrap();
    let refused = |bytes: &[u8]| {
        fs::write(&artifact.payload, bytes).unwrap();
        let job = LoadJob { artifacts: std::slice::from_ref(&artifact), ..LoadJob::of(&model) };
        match backend.load(&job) {
            Err(BackendError::Artifact { .. }) => {}
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("a damaged program was loaded"),
        }
    };
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    refused(&flipped);
    refused(&whole[..whole.len() - 1]);
    refused(&[whole.clone(), vec![0]].concat());
    refused(&[]);
    fs::write(&artifact.payload, &whole).unwrap();
    let job = LoadJob { artifacts: std::slice::from_ref(&artifact), ..LoadJob::of(&model) };
    let executable = backend.load(&job).unwrap();
    let requests = inputs(executable.as_ref(), &shape, 0);
    run(executable.as_ref(), session(executable.as_ref()).as_mut(), &requests).unwrap();
}

#[test]
fn an_artifact_of_another_model_or_compiler_is_not_loaded() {
    let Some(backend) = backend("foreign artifacts") else { return };
    let (folder, model) = (tempfile::tempdir().unwrap(), model("add_one.onnx"));
    let artifact =
        compile(backend.as_ref(), &model, bucket([("batch", 2)]), folder.path()).unwrap();
    let other = super::common::model("dense.onnx");
    let load = |model: &Model, artifact| {
        backend.load(&LoadJob { artifacts: &[artifact], ..LoadJob::of(model) }).err().unwrap()
    };
    assert!(load(&other, artifact.clone()).to_string().contains("its model is"));
    let mut aged = artifact;
    aged.fingerprint.0.push('x');
    assert!(load(&model, aged).to_string().contains("its fingerprint is"));
}

#[test]
fn what_a_worker_started_ends_with_it() {
    let limit = Duration::from_millis(300);
    let compiler = Compiler { time_limit: limit, ..Compiler::default() };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("grandchild");
    let words = format!("sleep 600 & echo $! > '{}'; wait", file.display());
    let Some((end, _)) = end_of("grandchildren", &words, &compiler) else { return };
    assert_eq!(end, CompileEnd::TimedOut { limit });
    assert_dead(&file);
    // Also when the worker ends by itself.
    let words = format!("sleep 600 & echo $! > '{}'; exit 7", file.display());
    let (end, _) = end_of("grandchildren", &words, &Compiler::default()).unwrap();
    assert!(matches!(end, CompileEnd::Died { .. }), "{end:?}");
    assert_dead(&file);
}

/// The process whose number is in the file ends soon.
fn assert_dead(file: &Path) {
    let process = fs::read_to_string(file).unwrap();
    let stat = Path::new("/proc").join(process.trim()).join("stat");
    let patience = Instant::now() + Duration::from_secs(5);
    // Dead and not yet collected is dead.
    while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < patience, "the grandchild lives on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_worker_that_has_answered_is_not_waited_for() {
    let words = "read folder; echo '{\"Err\":{\"model\":{\"words\":\"no\"}}}' > $folder/answer.json; \
                 exec sleep 600";
    let options = scripted(words, &Compiler::default());
    let Some(backend) = backend_with("answered", options) else { return };
    let folder = tempfile::tempdir().unwrap();
    let (one, start) = (bucket([("batch", 1)]), Instant::now());
    let error = compile(backend.as_ref(), &model("add_one.onnx"), one, folder.path()).unwrap_err();
    assert!(matches!(&error, BackendError::Model { reason, .. } if reason == "no"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_compile_of_low_priority_gives_way() {
    let compiler = Compiler { low_priority: true, ..Compiler::default() };
    // Also what it starts does, from the moment at which it knows its job.
    let words = "read folder; nice >&2; cat /proc/self/stat >&2; exit 7";
    let Some((_, log)) = end_of("priority", words, &compiler) else {
        return;
    };
    let (nice, stat) = log.split_once('\n').unwrap();
    assert_eq!(nice, "19");
    assert_eq!(policy(stat), "5", "SCHED_IDLE");
    let own = fs::read_to_string("/proc/self/stat").unwrap();
    let (_, log) = end_of("priority", words, &Compiler::default()).unwrap();
    assert_eq!(policy(&log), policy(&own), "as this process");
}

/// The policy of the scheduler in `/proc/PID/stat`: field 41, of which the first two end with a parenthesis.
fn policy(stat: &str) -> &str {
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(41 - 3).unwrap()
}
