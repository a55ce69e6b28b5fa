//! The encoder on a real engine (the embedded one, so that it runs everywhere) and a tiny model.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shapeyard_core::backend::{
    Artifact, BackendError, BackendId, Domain, Executable, Fingerprint, InUse, LoadJob,
    Optimisation, ReadyShapes, Session, SessionOptions, Waiting,
};
use shapeyard_core::model::Digest;
use shapeyard_core::plan::Bucket;
use shapeyard_core::plan::calibrate::Split;
use shapeyard_core::registry::{Choice, Opened, Registry};
use shapeyard_core::router::{RoutedBackend, Router, RouterOptions};
use shapeyard_core::{Model, Signature};
use shapeyard_cpu::CpuOptions;
use shapeyard_encode::pool::Pooling;
use shapeyard_encode::tokens::Tokens;
use shapeyard_encode::{
    Embeddings, EncodeError, EncodeOptions, Encoder, Observer, Repeated, Unobserved,
};

fn tiny(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models").join(name)
}

fn load(name: &str) -> (Model, Opened) {
    let registry = Registry::new(shapeyard_cpu::backends(&CpuOptions::default()));
    let choice = "rten".parse::<Choice>().unwrap();
    let model = Model::open(tiny(name)).unwrap();
    let opened = registry.open(&choice, &LoadJob::of(&model)).unwrap();
    (model, opened)
}

fn open(name: &str) -> Result<Encoder, EncodeError> {
    let (model, opened) = load(name);
    Encoder::new(opened.backend, Arc::new(model), opened.executable)
}

/// An executable that keeps what sessions it is asked for.
struct Watched {
    inner: Arc<dyn Executable>,
    asked: Mutex<Vec<SessionOptions>>,
}

impl Executable for Watched {
    fn backend(&self) -> BackendId {
        self.inner.backend()
    }

    fn signature(&self) -> &Arc<Signature> {
        self.inner.signature()
    }

    fn domain(&self) -> Domain {
        self.inner.domain()
    }

    fn session(&self, options: &SessionOptions) -> Result<Box<dyn Session>, BackendError> {
        self.asked.lock().unwrap().push(*options);
        self.inner.session(options)
    }

    fn admit(&self, artifact: &Artifact) -> Result<(), BackendError> {
        self.inner.admit(artifact)
    }
}

/// `n` texts of 2 to 40 tokens, no two alike up to 16,384.
fn texts(n: usize) -> Vec<Tokens> {
    let text = |nth: usize| {
        // The first two tokens are a number of two digits.
        let id = |at: usize| match at {
            0 => nth % 128,
            1 => nth / 128 % 128,
            at => (nth * 13 + at * 5) % 128,
        };
        let ids: Vec<u32> = (0..2 + nth * 7 % 39).map(|at| id(at) as u32).collect();
        Tokens { type_ids: vec![0; ids.len()], ids, truncated: false }
    };
    (0..n).map(text).collect()
}

const FIXED: EncodeOptions = EncodeOptions {
    pooling: Pooling::Mean,
    normalise: true,
    pad_id: 0,
    n_threads: 2,
    split: Some(Split { n_sessions: 2, n_threads: 1 }),
    token_budget: Some(1),
    share_equal: true,
    waiting: Waiting::Sleep,
};

/// One session, which runs beside the thread that encodes, or on it.
const LONE: EncodeOptions =
    EncodeOptions { split: Some(Split { n_sessions: 1, n_threads: 1 }), ..FIXED };

fn encode(texts: &[Tokens], options: &EncodeOptions) -> Embeddings {
    let encoder = open("encoder.onnx").unwrap();
    let mut embeddings = encoder.embeddings(texts, options).unwrap();
    let report = encoder.encode(texts, options, &mut embeddings, &Unobserved).unwrap();
    assert_eq!(report.totals.n_items, texts.len());
    assert_eq!(report.totals.n_real_tokens, texts.iter().map(|t| t.ids.len()).sum::<usize>());
    assert!(!report.interrupted);
    embeddings
}

fn assert_close(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    // Written so that NaN is no agreement.
    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?}\n{b:?}");
}

#[test]
fn one_encoding_after_another_uses_the_same_sessions() {
    let (model, opened) = load("encoder.onnx");
    let watched = Arc::new(Watched { inner: opened.executable, asked: Mutex::default() });
    let encoder = Encoder::new(opened.backend, Arc::new(model), Arc::clone(&watched) as _).unwrap();
    let texts = texts(3);
    let encode = |options: &EncodeOptions| {
        let mut embeddings = encoder.embeddings(&texts, options).unwrap();
        encoder.encode(&texts, options, &mut embeddings, &Unobserved).unwrap();
        watched.asked.lock().unwrap().len()
    };
    assert_eq!([encode(&FIXED), encode(&FIXED), encode(&FIXED)], [2, 2, 2]);
    let one = EncodeOptions { split: Some(Split { n_sessions: 1, n_threads: 2 }), ..FIXED };
    assert_eq!([encode(&one), encode(&one), encode(&FIXED)], [3, 3, 5]);
    let spinning = EncodeOptions { waiting: Waiting::Spin, ..one };
    assert_eq!([encode(&one), encode(&spinning), encode(&spinning)], [6, 7, 7]);
    let last = watched.asked.lock().unwrap()[6];
    assert_eq!(last, SessionOptions::threads(2).waiting(Waiting::Spin));
}

#[test]
fn what_batches_took_is_told_where_all_sessions_were_busy() {
    let encoder = open("encoder.onnx").unwrap();
    let measured = |n: usize| {
        let texts = texts(n);
        let mut embeddings = encoder.embeddings(&texts, &FIXED).unwrap();
        encoder.encode(&texts, &FIXED, &mut embeddings, &Unobserved).unwrap().measured
    };
    assert!(measured(15).is_empty(), "sessions may have been idle");
    let [mut of] = <[_; 1]>::try_from(measured(100)).unwrap();
    assert_eq!(of.backend, BackendId::new("rten"));
    let sums = of.of(FIXED.split.unwrap()).runs.sums();
    let tokens: usize = texts(100).iter().map(|it| it.ids.len()).sum();
    assert_eq!(sums.iter().map(|it| it.n_runs).sum::<f64>(), 100.0);
    assert_eq!(sums.iter().map(|it| it.tokens).sum::<f64>(), tokens as f64);
    assert!(sums.iter().all(|it| it.cost > 0.0));
}

#[test]
fn equal_texts_run_once() {
    let mut all = texts(8);
    // One of other token types is another text.
    let mut other = all[5].clone();
    other.type_ids[0] = 1;
    all.extend([all[3].clone(), all[5].clone(), other, all[3].clone()]);
    let apart = EncodeOptions { share_equal: false, ..FIXED };
    for options in [FIXED, EncodeOptions { pooling: Pooling::None, normalise: false, ..LONE }] {
        let encoder = open("encoder.onnx").unwrap();
        let mut embeddings = encoder.embeddings(&all, &options).unwrap();
        let seen = Seen::default();
        let report = encoder.encode(&all, &options, &mut embeddings, &seen).unwrap();
        let n_tokens = 2 * all[3].ids.len() + all[5].ids.len();
        assert_eq!((report.totals.n_items, report.interrupted), (9, false));
        assert_eq!(report.repeated, Repeated { n_items: 3, n_tokens });
        assert_eq!(seen.0.get(), (12, all.iter().map(|it| it.ids.len()).sum()));
        assert!((0..all.len()).all(|item| embeddings.is_done(item)));
        let mut wanted = encoder.embeddings(&all, &options).unwrap();
        let apart = EncodeOptions { share_equal: false, ..options };
        let report = encoder.encode(&all, &apart, &mut wanted, &Unobserved).unwrap();
        assert_eq!((report.totals.n_items, report.repeated.n_items), (12, 0));
        assert_close(embeddings.values(), wanted.values());
    }
    // What equals a text that is done does not run at all.
    let encoder = open("encoder.onnx").unwrap();
    let mut wanted = encoder.embeddings(&all, &apart).unwrap();
    encoder.encode(&all, &apart, &mut wanted, &Unobserved).unwrap();
    let mut embeddings = encoder.embeddings(&all, &FIXED).unwrap();
    (0..8).for_each(|item| assert!(embeddings.restore(item, wanted.vectors(item))));
    let report = encoder.encode(&all, &FIXED, &mut embeddings, &Unobserved).unwrap();
    assert_eq!((report.totals.n_items, report.repeated.n_items), (1, 3));
    assert_close(embeddings.values(), wanted.values());
}

/// Texts and tokens that were told as done.
#[derive(Default)]
struct Seen(Cell<(usize, usize)>);

impl Observer for Seen {
    fn progress(&self, n_items: usize, n_tokens: usize) {
        let (items, tokens) = self.0.get();
        self.0.set((items + n_items, tokens + n_tokens));
    }
}

#[test]
fn padding_and_order_change_nothing() {
    let texts = texts(60);
    let alone = encode(&texts, &FIXED);
    for token_budget in [64, 100, 2000] {
        let packed = encode(&texts, &EncodeOptions { token_budget: Some(token_budget), ..FIXED });
        assert_close(packed.values(), alone.values());
    }
    let reversed: Vec<Tokens> = texts.iter().rev().cloned().collect();
    let reversed = encode(&reversed, &EncodeOptions { token_budget: Some(200), ..FIXED });
    for item in 0..texts.len() {
        assert_close(reversed.vectors(texts.len() - 1 - item), alone.vectors(item));
    }
}

#[test]
fn a_calibrated_run_gives_the_same_vectors_and_says_what_it_tried() {
    let texts = texts(8000);
    let encoder = open("encoder.onnx").unwrap();
    let options = EncodeOptions { split: None, token_budget: None, ..FIXED };
    let mut embeddings = encoder.embeddings(&texts, &options).unwrap();
    let report = encoder.encode(&texts, &options, &mut embeddings, &Unobserved).unwrap();
    assert_eq!(report.totals.n_items, texts.len());
    // Two splits and the three budgets that trials of this size can judge, halved until one is left.
    assert_eq!(report.tried.len(), 6 + 3 + 2, "{:?}", report.tried);
    assert!(report.tried.iter().any(|tried| tried.setting == report.setting));
    assert_close(embeddings.values(), encode(&texts, &FIXED).values());
}

#[test]
fn every_token_keeps_its_vector_without_pooling() {
    let texts = texts(9);
    let options = EncodeOptions { pooling: Pooling::None, normalise: false, ..FIXED };
    let tokens = encode(&texts, &options);
    let means = encode(&texts, &EncodeOptions { normalise: false, ..FIXED });
    for (item, text) in texts.iter().enumerate() {
        let rows = tokens.vectors(item).chunks(tokens.n_dims());
        assert_eq!(rows.len(), text.ids.len());
        let mut mean = vec![0.0; tokens.n_dims()];
        for row in rows {
            mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += x / text.ids.len() as f32);
        }
        assert_close(&mean, means.vectors(item));
    }
}

/// Stops after a number of batches.
struct StopAfter(Cell<usize>);

impl Observer for StopAfter {
    fn progress(&self, _: usize, _: usize) {
        self.0.set(self.0.get().saturating_sub(1));
    }

    fn stop(&self) -> bool {
        self.0.get() == 0
    }
}

#[test]
fn an_interrupted_run_keeps_what_it_did_and_goes_on_from_there() {
    let texts = texts(60);
    let whole = encode(&texts, &FIXED);
    for options in [FIXED, LONE] {
        let encoder = open("encoder.onnx").unwrap();
        let mut embeddings = encoder.embeddings(&texts, &options).unwrap();
        let stop = StopAfter(Cell::new(10));
        let report = encoder.encode(&texts, &options, &mut embeddings, &stop).unwrap();
        assert!(report.interrupted);
        let n_done = (0..60).filter(|&item| embeddings.is_done(item)).count();
        assert!((10..60).contains(&n_done), "{n_done}");
        assert_eq!(n_done, report.totals.n_items);
        let rest = encoder.encode(&texts, &options, &mut embeddings, &Unobserved).unwrap();
        assert_eq!(rest.totals.n_items, 60 - n_done);
        assert_close(embeddings.values(), whole.values());
    }
}

#[test]
fn a_lone_session_gives_the_same_vectors_for_one_batch_and_for_many() {
    let texts = texts(9);
    let whole = encode(&texts, &FIXED);
    assert_close(encode(&texts, &LONE).values(), whole.values());
    let together = EncodeOptions { token_budget: Some(10_000), ..LONE };
    assert_close(encode(&texts, &together).values(), whole.values());
}

/// Programs of fixed shapes, of which none is ready at first. What runs in them is the embedded engine.
struct Programs {
    inner: Arc<dyn Executable>,
    ready: Mutex<Vec<Bucket>>,
}

impl Executable for Programs {
    fn backend(&self) -> BackendId {
        BackendId::new("programs")
    }

    fn signature(&self) -> &Arc<Signature> {
        self.inner.signature()
    }

    fn domain(&self) -> Domain {
        let buckets = self.ready.lock().unwrap().clone();
        let rows = Some("batch".to_owned());
        Domain::Buckets(ReadyShapes { buckets, rows, can_split: true, rigid: Vec::new() })
    }

    fn session(&self, options: &SessionOptions) -> Result<Box<dyn Session>, BackendError> {
        self.inner.session(options)
    }

    fn admit(&self, artifact: &Artifact) -> Result<(), BackendError> {
        self.ready.lock().unwrap().push(artifact.bucket.clone());
        Ok(())
    }
}

/// Lets a program become ready when some texts are done.
struct AdmitsAfter(Cell<usize>, Arc<Router>);

impl Observer for AdmitsAfter {
    fn progress(&self, n_items: usize, _: usize) {
        // As slow as a real model: else planning anew would not pay.
        std::thread::sleep(Duration::from_millis(5));
        let left = self.0.get().saturating_sub(n_items);
        if left == 0 && self.0.replace(left) > 0 {
            let bucket = Bucket::from_iter([("batch", 8), ("sequence", 40)]);
            let artifact = Artifact {
                backend: self.1.backend(),
                model: Digest::of(b"model"),
                bucket,
                optimisation: Optimisation::Full,
                fingerprint: Fingerprint(String::new()),
                payload: "program".into(),
                n_bytes: 0,
                checksum: Digest::of(b""),
                notes: BTreeMap::new(),
                in_use: InUse::default(),
            };
            self.1.admit(&artifact).unwrap();
        }
        self.0.set(left);
    }
}

#[test]
fn a_program_that_becomes_ready_serves_the_rest() {
    let texts = texts(120);
    let (model, opened) = load("encoder.onnx");
    let programs = Programs { inner: Arc::clone(&opened.executable), ready: Mutex::default() };
    let router = Router::new(Arc::new(programs), opened.executable, RouterOptions::default());
    let router = Arc::new(router.unwrap());
    let backend = Arc::clone(&opened.backend);
    let backend = RoutedBackend::new(Arc::clone(&backend), backend, Arc::clone(&router));
    let executable = Arc::clone(&router) as Arc<dyn Executable>;
    let encoder = Encoder::new(Arc::new(backend), Arc::new(model), executable).unwrap();
    let options = EncodeOptions { token_budget: Some(41), ..FIXED };
    let mut embeddings = encoder.embeddings(&texts, &options).unwrap();
    let admits = AdmitsAfter(Cell::new(20), router);
    let report = encoder.encode(&texts, &options, &mut embeddings, &admits).unwrap();
    assert_eq!((report.totals.n_items, report.interrupted), (120, false));
    // Two together before, as many as the budget allows, and eight after.
    let n_batches = report.totals.n_batches;
    assert!((100 / 8..60).contains(&n_batches), "{n_batches}: {:?}", report.routes);
    assert_close(embeddings.values(), encode(&texts, &FIXED).values());
}

#[test]
fn models_that_are_no_encoder_say_what_they_lack() {
    for name in ["dense.onnx", "many_inputs.onnx", "conv.onnx"] {
        let error = open(name).unwrap_err();
        assert!(matches!(error, EncodeError::NotAnEncoder { .. }), "{error}");
    }
}

#[test]
fn nothing_to_do_is_done() {
    let report_of = |texts: &[Tokens]| {
        let encoder = open("encoder.onnx").unwrap();
        let mut embeddings = encoder.embeddings(texts, &FIXED).unwrap();
        encoder.encode(texts, &FIXED, &mut embeddings, &Unobserved).unwrap()
    };
    assert_eq!(report_of(&[]).totals.n_batches, 0);
    assert_eq!(report_of(&texts(1)).totals.n_batches, 1);
}

#[test]
fn a_batch_that_fails_names_itself() {
    let mut texts = texts(5);
    texts[3].ids[1] = 128;
    let encoder = open("encoder.onnx").unwrap();
    for options in [FIXED, LONE] {
        let mut embeddings = encoder.embeddings(&texts, &options).unwrap();
        let error = encoder.encode(&texts, &options, &mut embeddings, &Unobserved).unwrap_err();
        assert!(matches!(error, EncodeError::Batch { n_rows: 1, .. }), "{error}");
        assert!(!embeddings.is_done(3));
    }
    let mut alone = encoder.embeddings(&texts[3..4], &LONE).unwrap();
    let error = encoder.encode(&texts[3..4], &LONE, &mut alone, &Unobserved).unwrap_err();
    assert!(matches!(error, EncodeError::Batch { n_rows: 1, .. }), "{error}");
}

#[test]
fn the_axes_of_an_encoder_are_found_and_others_are_refused() {
    let model = |name: &str| Model::open(tiny(name)).unwrap();
    let encoder = model("encoder.onnx");
    assert_eq!(shapeyard_encode::axes(encoder.signature()).unwrap(), ("batch", "sequence"));
    let error = shapeyard_encode::axes(model("dense.onnx").signature()).unwrap_err();
    assert!(error.to_string().contains("no input `input_ids`"), "{error}");
}
