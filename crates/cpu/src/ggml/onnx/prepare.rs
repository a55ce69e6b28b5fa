//! A model made ready to be described in any shape: constants folded, nodes put together, weights in place.

use std::sync::Arc;

use shapeyard_core::Model;

use super::host::{Allowance, HostTensor};
use super::program::{self, Node, Program, ValueId};
use super::weights::{self, Weights};
use super::{evaluate, fuse, operators};
use crate::ggml::cannot::Cannot;
use crate::ggml::context::Refusal;
use crate::ggml::library::Engine;

/// Constants larger than this are weights: once they are in place, the host forgets them.
const LARGEST_ON_HOST: usize = 4096;

/// A model that every lane shares.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) engine: Arc<Engine>,
    pub(crate) program: Program,
    pub(crate) weights: Weights,
}

/// Reads a model and puts its weights in place.
pub(crate) fn prepare(engine: &Arc<Engine>, model: &Model) -> Result<Prepared, Cannot> {
    let mut program = program::read(model)?;
    fold(&mut program)?;
    fuse::fuse(&mut program);
    check_operators(&program)?;
    let weights = weights::place(engine, &program)?;
    let outputs = program.outputs.clone();
    program.constants.retain(|id, constant| {
        constant.len() <= LARGEST_ON_HOST || !constant.is_float() || outputs.contains(id)
    });
    Ok(Prepared { engine: Arc::clone(engine), program, weights })
}

/// Computes what depends on constants alone.
fn fold(program: &mut Program) -> Result<(), Cannot> {
    let mut allowance = Allowance::of(program.constants.values().map(|it| it.len()).sum());
    let mut kept = Vec::with_capacity(program.nodes.len());
    for node in std::mem::take(&mut program.nodes) {
        let constants = &program.constants;
        let known = |input: &Option<ValueId>| input.is_none_or(|id| constants.contains_key(&id));
        if !evaluate::knows(&node.operator) || !node.inputs.iter().all(known) {
            kept.push(node);
            continue;
        }
        let inputs: Vec<Option<&HostTensor>> = node
            .inputs
            .iter()
            .map(|input| input.and_then(|id| constants.get(&id)).map(Arc::as_ref))
            .collect();
        let refused = |it: Refusal| Cannot::case(&node, it.to_string());
        let made = evaluate::evaluate(&node, &inputs).map_err(refused)?;
        allowance.take(made.len()).map_err(refused)?;
        program.constants.extend(node.outputs.first().map(|&output| (output, Arc::new(made))));
    }
    program.nodes = kept;
    Ok(())
}

/// The first operator that neither table has.
fn check_operators(program: &Program) -> Result<(), Cannot> {
    let known = |node: &&Node| evaluate::knows(&node.operator) || operators::knows(&node.operator);
    match program.nodes.iter().find(|node| !known(node)) {
        Some(node) => Err(Cannot::operator(node)),
        None => Ok(()),
    }
}
