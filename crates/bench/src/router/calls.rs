//! What a router adds to a call: the decision where a request goes.

use std::sync::Arc;

use anyhow::Result;
use shapeyard_core::backend::{Backend as _, Executable, LoadJob, SessionOptions};
use shapeyard_core::plan::Prices;
use shapeyard_core::plan::prices::Price;
use shapeyard_core::router::{Router, RouterOptions};
use shapeyard_core::{Model, Outputs, Request, Tensor, TensorView};
use shapeyard_cpu::Rten;

use crate::calls::{ADDS, Caller, run};
use crate::contest::{Contest, Goal};

/// A model that takes almost no time.
const MODEL: &str = "tests/models/add_one.onnx";
const N_CALLS: usize = 2000;
/// What a decision may take, in microseconds.
const TARGET_US: f64 = 1.0;

pub(super) fn contest(n_rounds: usize) -> Result<Contest> {
    let model = Model::open(MODEL)?;
    let executable = || Rten::new().load(&LoadJob::of(&model));
    let price = |token| Price { load: 0.0, launch: 0.0, token, token_length: 0.0 };
    let prices = Prices { device: price(1.0), cpu: price(2.0), ..Prices::default() };
    let options = RouterOptions { prices: Some(prices), ..RouterOptions::default() };
    let router = Router::new(executable()?, executable()?, options)?;
    let (alone, router): (_, Arc<dyn Executable>) = (executable()?, Arc::new(router));
    let inputs = [3, 5].map(|rows| Tensor::from_slice(&[rows, 4], &vec![1.0_f32; rows * 4]));
    let [few, many] = inputs;
    let (few, many) = (few?, many?);
    let shapes: [&[&Tensor]; 2] = [&[&few], &[&few, &many]];
    let mut callers = Vec::new();
    for (n, (shapes, name)) in
        shapes.into_iter().zip(["one shape", "two shapes in turn"]).enumerate()
    {
        let (theirs, ours) = (call(&alone, shapes)?, call(&router, shapes)?);
        callers.push(Caller::rival(format!("rten alone, {name}"), theirs));
        callers.push(Caller::ours(format!("through a router, {name}"), 2 * n, ours));
    }
    let mut contest =
        run("calls", "a call through a router", (n_rounds.max(9), N_CALLS), &mut callers)?;
    let added = contest.contenders.iter().filter_map(|it| it.facts.more.get(ADDS).copied());
    let most = added.fold(f64::NEG_INFINITY, f64::max);
    contest.goals.push(Goal::at_most("µs that routing adds to a call", TARGET_US, most));
    Ok(contest)
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
