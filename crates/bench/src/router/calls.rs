//! What a router adds to a call: the decision where a request goes.
//!
//! What is called does nothing, so that a microsecond can be told from the noise.

use std::sync::Arc;

use anyhow::Result;
use shapeyard_core::backend::{
    Artifact, BackendError, BackendId, Domain, Executable, ReadyShapes, Session, SessionOptions,
};
use shapeyard_core::plan::prices::Price;
use shapeyard_core::plan::{Bucket, Prices};
use shapeyard_core::router::{Router, RouterOptions};
use shapeyard_core::{
    Model, Outputs, Request, RunError, RunReport, Signature, StageTimes, Tensor, TensorView, Tier,
};

use crate::calls::{ADDS, Caller, run};
use crate::contest::{Contest, Goal};

const MODEL: &str = "tests/models/add_one.onnx";
const N_CALLS: usize = 2000;
/// What a decision may take, in microseconds.
const TARGET_US: f64 = 1.0;
/// Programs that are ready, of one row each more than the one before.
const N_PROGRAMS: usize = 16;

/// Answers at once, with nothing.
struct Nothing {
    signature: Arc<Signature>,
    domain: Domain,
}

struct NoSession;

const NOTHING: BackendId = BackendId::new("nothing");

impl Executable for Nothing {
    fn backend(&self) -> BackendId {
        NOTHING
    }

    fn signature(&self) -> &Arc<Signature> {
        &self.signature
    }

    fn domain(&self) -> Domain {
        self.domain.clone()
    }

    fn session(&self, _: &SessionOptions) -> Result<Box<dyn Session>, BackendError> {
        Ok(Box::new(NoSession))
    }

    fn admit(&self, _: &Artifact) -> Result<(), BackendError> {
        Err(BackendError::Unsupported { backend: NOTHING, what: "take artifacts" })
    }
}

impl Session for NoSession {
    fn run(&mut self, _: &Request<'_>, _: &mut Outputs) -> Result<RunReport, RunError> {
        Ok(RunReport::exact_on_host(NOTHING, Tier::Rebind, StageTimes::default()))
    }
}

pub(super) fn contest(n_rounds: usize) -> Result<Contest> {
    let signature = Arc::new(Model::open(MODEL)?.signature().clone());
    let nothing = |domain| Arc::new(Nothing { signature: Arc::clone(&signature), domain });
    let price = |token| Price { load: 0.0, launch: 0.0, token, token_length: 0.0 };
    let prices = Prices { device: price(1.0), cpu: price(2.0), ..Prices::default() };
    let options = RouterOptions { prices: Some(prices), ..RouterOptions::default() };
    let router = Router::new(nothing(programs(&signature)), nothing(Domain::Any), options)?;
    let (alone, router): (Arc<dyn Executable>, Arc<dyn Executable>) =
        (nothing(Domain::Any), Arc::new(router));
    let inputs = [3, 5].map(|rows| Tensor::from_slice(&[rows, 4], &vec![1.0_f32; rows * 4]));
    let [few, many] = inputs;
    let (few, many) = (few?, many?);
    let shapes: [&[&Tensor]; 2] = [&[&few], &[&few, &many]];
    let mut callers = Vec::new();
    for (n, (shapes, name)) in
        shapes.into_iter().zip(["one shape", "two shapes in turn"]).enumerate()
    {
        let (theirs, ours) = (call(&alone, shapes)?, call(&router, shapes)?);
        callers.push(Caller::rival(format!("without a router, {name}"), theirs));
        callers.push(Caller::ours(format!("through a router, {name}"), 2 * n, ours));
    }
    let mut contest =
        run("calls", "a call through a router", (n_rounds.max(9), N_CALLS), &mut callers)?;
    let added = contest.contenders.iter().filter_map(|it| it.facts.more.get(ADDS).copied());
    let most = added.fold(f64::NEG_INFINITY, f64::max);
    contest.goals.push(Goal::at_most("µs that routing adds to a call", TARGET_US, most));
    Ok(contest)
}

/// Programs along the model's one symbol.
fn programs(signature: &Signature) -> Domain {
    let names = || signature.bound_symbols().map(|symbol| signature.symbol_name(symbol).to_owned());
    let bucket = |rows: usize| names().map(|name| (name, rows)).collect::<Bucket>();
    let buckets = (1..=N_PROGRAMS).map(bucket).collect();
    Domain::Buckets(ReadyShapes {
        buckets,
        rows: names().next(),
        can_split: true,
        rigid: Vec::new(),
    })
}

/// Calls with these inputs in turn.
fn call<'a>(
    executable: &'a Arc<dyn Executable>,
    inputs: &'a [&'a Tensor],
) -> Result<impl FnMut() -> Result<()> + 'a> {
    let mut session = executable.session(&SessionOptions::threads(1))?;
    let (mut outputs, mut n) = (Outputs::new(), 0);
    Ok(move || {
        let views: [TensorView<'_>; 1] = [inputs[n % inputs.len()].view()];
        n += 1;
        let request = Request::bind(executable.signature(), &views)?;
        session.run(&request, &mut outputs)?;
        Ok(())
    })
}
