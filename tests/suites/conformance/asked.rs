//! Requests with ONNX Runtime's answers, and what a run of them has to say of itself.

use shapeyard_core::plan::Bucket;
use shapeyard_core::plan::cover::{Freedom, cover};
use shapeyard_core::{BindingMode, Route, RunError, RunReport, StageTimes, Tensor, Tier};

use super::requests::{assert_alike, inputs};
use super::support::Loaded;

/// A request with ONNX Runtime's answer.
pub(crate) struct Asked {
    pub(crate) shape: Bucket,
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) answer: Vec<Tensor>,
}

/// Asks for each of these shapes.
pub(crate) fn ask(reference: &mut Loaded, shapes: impl IntoIterator<Item = Bucket>) -> Vec<Asked> {
    let asked = shapes.into_iter().enumerate().map(|(seed, shape)| {
        let inputs = inputs(reference.executable.signature(), &shape, seed);
        let answer = reference.answer(&inputs);
        Asked { shape, inputs, answer }
    });
    asked.collect()
}

/// Runs a request twice, and checks both answers and the tiers.
pub(crate) fn run_twice(loaded: &mut Loaded, asked: &Asked) -> Result<RunReport, RunError> {
    let what = format!("{} {}", loaded.name(), asked.shape);
    let (first, answer) = loaded.run(&asked.inputs)?;
    assert_alike(&answer, &asked.answer, &what);
    let (again, answer) = loaded.run(&asked.inputs)?;
    assert_alike(&answer, &asked.answer, &format!("{what} again"));
    assert_eq!((first.tier, again.tier), (Tier::Cached, Tier::Rebind), "{what}");
    assert_eq!(first.backend, loaded.executable.backend());
    let timeless = |report: &RunReport| RunReport {
        times: StageTimes::default(),
        tier: Tier::Cached,
        ..report.clone()
    };
    assert_eq!(timeless(&first), timeless(&again), "{what}");
    Ok(first)
}

pub(crate) fn runs_any_shape(mut loaded: Loaded, asked: &[Asked]) {
    for asked in asked {
        let report = run_twice(&mut loaded, asked).unwrap();
        assert_eq!(report.route, Route::Exact);
        assert_eq!((report.n_pieces, report.n_padded_rows), (1, 0));
        assert_eq!(report.binding, BindingMode::Host);
    }
}

/// Runs a request, and checks that the report tells of the programs that cover it, or that nothing does.
pub(crate) fn runs_in_buckets(loaded: &mut Loaded, asked: &Asked, ready: &[Bucket], splits: bool) {
    let freedom = Freedom { rows: splits.then_some("batch"), rigid: &[] };
    let what = format!("{} over {}", asked.shape, ready.last().unwrap());
    let Some(pieces) = cover(&asked.shape, ready, &freedom) else {
        match loaded.run(&asked.inputs).map(|(report, _)| report) {
            Err(RunError::NotReady { wanted, .. }) => assert_eq!(wanted, asked.shape),
            other => panic!("{what}: {other:?}"),
        }
        return;
    };
    let report = run_twice(loaded, asked).unwrap_or_else(|error| panic!("{what}: {error}"));
    let rows = |bucket: &Bucket| bucket.get("batch").unwrap();
    let n_program_rows: usize = pieces.iter().map(|piece| rows(&ready[piece.bucket])).sum();
    assert_eq!(report.n_padded_rows, n_program_rows - rows(&asked.shape), "{what}");
    assert_eq!(report.n_pieces, pieces.len(), "{what}");
    let route = match pieces.as_slice() {
        [piece] if ready[piece.bucket] == asked.shape => Route::Exact,
        [_] => Route::Padded,
        _ => Route::Split,
    };
    assert_eq!(report.route, route, "{what}");
    assert_eq!((report.binding, report.replayed), (BindingMode::Staged, false), "{what}");
}
