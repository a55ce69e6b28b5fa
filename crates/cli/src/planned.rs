//! The shapes of a plan, those first whose compiles save most.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use shapeyard_core::Model;
use shapeyard_core::model::Digest;
use shapeyard_core::plan::routing::PlannedBucket;
use shapeyard_core::plan::{Bucket, RoutingPlan};

use crate::exit::BadInput;

/// What `shapeyard plan` writes, as far as it matters here.
#[derive(Debug, Deserialize)]
struct File {
    model_digest: Digest,
    plan: RoutingPlan,
}

/// The shapes of the plan in `path`, which has to be of this model.
pub(crate) fn buckets(path: &Path, model: &Model, digest: Digest) -> Result<Vec<Bucket>, BadInput> {
    let refuse = |why: String| BadInput::new(format!("the plan `{}` {why}", path.display()));
    let bytes = fs::read(path).map_err(|error| refuse(format!("cannot be read: {error}")))?;
    let file: File = serde_json::from_slice(&bytes)
        .map_err(|error| refuse(format!("is not what `shapeyard plan --out` writes: {error}")))?;
    if file.model_digest != digest {
        let name = model.path().display();
        return Err(refuse(format!("was made for another model than `{name}`; plan anew")));
    }
    let signature = model.signature();
    let bound: Vec<&str> = signature.bound_symbols().map(|it| signature.symbol_name(it)).collect();
    let mut planned = file.plan.buckets;
    // A second of compiling is worth what it saves a pass. Equal worth keeps the plan's order.
    let worth = |it: &PlannedBucket| it.saved_seconds / it.compile_seconds.max(1e-3);
    planned.sort_by(|a, b| worth(b).total_cmp(&worth(a)));
    for it in &planned {
        let names: Vec<&str> = it.bucket.iter().map(|(symbol, _)| symbol).collect();
        if names.len() != bound.len() || names.iter().any(|name| !bound.contains(name)) {
            let why = format!("has the shape {}, and the model's symbols are {bound:?}", it.bucket);
            return Err(refuse(why));
        }
    }
    Ok(planned.into_iter().map(|it| it.bucket).collect())
}
