//! The encoder on a real engine (the embedded one, so that it runs everywhere) and a tiny model.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use shapeyard_core::backend::{
    Artifact, BackendError, BackendId, Domain, Executable, LoadJob, Session, SessionOptions,
    Waiting,
};
use shapeyard_core::plan::calibrate::Split;
use shapeyard_core::registry::{Choice, Opened, Registry};
use shapeyard_core::{Model, Signature};
use shapeyard_cpu::CpuOptions;
use shapeyard_encode::pool::Pooling;
use shapeyard_encode::tokens::Tokens;
use shapeyard_encode::{Embeddings, EncodeError, EncodeOptions, Encoder, Observer, Unobserved};

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

/// `n` texts of 2 to 40 tokens, no two alike.
fn texts(n: usize) -> Vec<Tokens> {
    let text = |nth: usize| {
        let ids: Vec<u32> =
            (0..2 + nth * 7 % 39).map(|at| (nth * 13 + at * 5) as u32 % 128).collect();
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
    waiting: Waiting::Sleep,
};

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
    let encoder = open("encoder.onnx").unwrap();
    let mut embeddings = encoder.embeddings(&texts, &FIXED).unwrap();
    let stop = StopAfter(Cell::new(10));
    let report = encoder.encode(&texts, &FIXED, &mut embeddings, &stop).unwrap();
    assert!(report.interrupted);
    let n_done = (0..60).filter(|&item| embeddings.is_done(item)).count();
    assert!((10..60).contains(&n_done), "{n_done}");
    assert_eq!(n_done, report.totals.n_items);
    let rest = encoder.encode(&texts, &FIXED, &mut embeddings, &Unobserved).unwrap();
    assert_eq!(rest.totals.n_items, 60 - n_done);
    assert_close(embeddings.values(), whole.values());
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
    let mut embeddings = encoder.embeddings(&texts, &FIXED).unwrap();
    let error = encoder.encode(&texts, &FIXED, &mut embeddings, &Unobserved).unwrap_err();
    assert!(matches!(error, EncodeError::Batch { n_rows: 1, .. }), "{error}");
    assert!(!embeddings.is_done(3));
}

#[test]
fn the_axes_of_an_encoder_are_found_and_others_are_refused() {
    let model = |name: &str| Model::open(tiny(name)).unwrap();
    let encoder = model("encoder.onnx");
    assert_eq!(shapeyard_encode::axes(encoder.signature()).unwrap(), ("batch", "sequence"));
    let error = shapeyard_encode::axes(model("dense.onnx").signature()).unwrap_err();
    assert!(error.to_string().contains("no input `input_ids`"), "{error}");
}
