//! Every tiny model in every batch, on every backend that takes it.

use shapeyard_core::backend::{Backend, BackendError, LoadJob};
use shapeyard_core::plan::Bucket;

use super::asked::{Asked, ask, runs_any_shape, runs_in_buckets};
use super::support::{Programs, batches, dynamic, migraphx, model, onnxruntime, rten};

/// More than twice the largest of [`SMALL`], so that requests are split into two and three.
const LARGEST: usize = 33;
/// Powers of two that larger batches have to be split over.
const SMALL: [usize; 5] = [1, 2, 4, 8, 16];
/// Further ones, under which every batch is padded.
const LARGE: [usize; 2] = [32, 64];

/// What is special about a model.
#[derive(Clone, Copy, Default)]
struct Case {
    /// rten says that it does not take it.
    not_rten: bool,
    /// An output has no rows, so that the answers to parts of a request cannot be put together.
    whole: bool,
    /// Extents of the symbols besides `batch`.
    others: &'static [(&'static str, usize)],
}

const PLAIN: Case = Case { not_rten: false, whole: false, others: &[] };

macro_rules! models {
    ($($name:ident: $case:expr;)*) => {$(
        #[test]
        fn $name() {
            conforms(concat!(stringify!($name), ".onnx"), $case);
        }
    )*};
}

models! {
    identity: PLAIN;
    add_one: PLAIN;
    dense: PLAIN;
    external: Case { not_rten: true, ..PLAIN };
    picture: PLAIN;
    many_inputs: PLAIN;
    many_outputs: PLAIN;
    mixed_types: Case { not_rten: true, ..PLAIN };
    odd_rows: Case { not_rten: true, ..PLAIN };
    half: Case { not_rten: true, ..PLAIN };
    bfloat: Case { not_rten: true, ..PLAIN };
    scalars: Case { whole: true, ..PLAIN };
    fixed_leading: Case { whole: true, ..PLAIN };
    unnamed_dims: PLAIN;
    unshaped: PLAIN;
    initializer_inputs: PLAIN;
    halves: PLAIN;
    views: PLAIN;
    time_major: Case { others: &[("sequence", 3)], ..PLAIN };
    shared_mask: Case { others: &[("sequence", 3)], ..PLAIN };
    encoder: Case { others: &[("sequence", 4)], ..PLAIN };
}

fn conforms(file: &str, case: Case) {
    let Some(reference) = onnxruntime(file) else { return };
    let mut reference = dynamic(reference.as_ref(), file);
    let shape = |batch| case.others.iter().copied().chain([("batch", batch)]).collect::<Bucket>();
    let asked = ask(&mut reference, (1..=LARGEST).map(shape));
    runs_any_shape(reference.lane(), &asked);
    match case.not_rten {
        true => refuses(rten().as_ref(), file),
        false => runs_any_shape(dynamic(rten().as_ref(), file), &asked),
    }
    if let Some(backend) = migraphx(file) {
        runs_buckets(backend.as_ref(), file, &case, &asked);
    }
}

fn refuses(backend: &dyn Backend, file: &str) {
    match backend.load(&LoadJob::of(&model(file))) {
        Err(BackendError::Model { .. }) => {}
        Err(error) => panic!("{file}: {error}"),
        Ok(_) => panic!("{file}: it is taken now; say so in the table"),
    }
}

fn runs_buckets(backend: &dyn Backend, file: &str, case: &Case, asked: &[Asked]) {
    let with_others = |bucket: Bucket| {
        case.others.iter().fold(bucket, |bucket, (symbol, extent)| bucket.with(symbol, *extent))
    };
    let buckets = batches(&[SMALL.as_slice(), &LARGE].concat()).into_iter().map(with_others);
    let programs = Programs::compile(backend, model(file), buckets)
        .unwrap_or_else(|error| panic!("{file}: {error}"));
    for most in [16, 64] {
        let few = |bucket: &Bucket| bucket.get("batch").unwrap() <= most;
        let mut loaded = programs.load(backend, few);
        let ready: Vec<Bucket> =
            programs.artifacts().iter().map(|it| it.bucket.clone()).filter(few).collect();
        for asked in asked {
            runs_in_buckets(&mut loaded, asked, &ready, !case.whole);
        }
    }
}
