//! Batches that fit programs: every batch of a plan has rows and a length that some bucket has.

use std::collections::BTreeMap;

use shapeyard_core::Signature;
use shapeyard_core::plan::{
    Batch, Bucket, PaddingLimit, Plan, PlanOptions, Prices, ReadyBatch, Steps, Workload, grid,
    over_allowed, over_ready, token_budget,
};

use crate::ID;

/// Packs a workload into batches of the programs that are ready; where none are, of those that `steps` allows.
///
/// # Errors
///
/// A sentence, when the model has no such symbols or no program holds an item.
pub(crate) fn plan(
    signature: &Signature,
    (ready, steps): (&[Bucket], &BTreeMap<String, Steps>),
    workload: &Workload,
    options: &PlanOptions,
) -> Result<Plan, String> {
    check_symbols(signature, workload)?;
    let allowed = if ready.is_empty() { allowed(steps, workload, options)? } else { Vec::new() };
    let shapes = if ready.is_empty() { &allowed } else { ready };
    // Nobody else is there to take what may not be padded.
    let options = PlanOptions {
        padding: PaddingLimit::NONE,
        max_buckets: None,
        device_bytes: None,
        ..options.clone()
    };
    let over = if ready.is_empty() { over_allowed } else { over_ready };
    let over = over(shapes, workload, &options, &Prices::PROGRAMS_FIRST);
    let over = over.map_err(|error| error.to_string())?;
    let lengths = workload.lengths();
    let batch = |ReadyBatch { items, bucket }| {
        let Some(bucket) = bucket else { return Err(unheld(&items, &lengths, shapes, workload)) };
        // Without a name for it every item is one position long.
        let length = over.buckets[bucket].get(&workload.length).unwrap_or(1);
        Ok(Batch { items, length })
    };
    let batches = over.batches.into_iter().map(batch).collect::<Result<Vec<Batch>, String>>()?;
    let mut buckets = over.buckets;
    buckets.sort();
    let totals = token_budget::totals(&lengths, &batches);
    Ok(Plan { backend: ID, buckets, batches, totals })
}

fn check_symbols(signature: &Signature, workload: &Workload) -> Result<(), String> {
    let named = [&workload.rows, &workload.length].into_iter().filter(|it| !it.is_empty());
    match named.into_iter().find(|symbol| signature.symbol(symbol).is_none()) {
        None => Ok(()),
        Some(symbol) => {
            let known = signature.symbols.join("`, `");
            Err(format!("it has no symbol `{symbol}`; it has `{known}`"))
        }
    }
}

/// The shapes that may be compiled when they are met: every combination of the steps, of a symbol without
/// any, powers of two up to what the work needs.
fn allowed(
    steps: &BTreeMap<String, Steps>,
    workload: &Workload,
    options: &PlanOptions,
) -> Result<Vec<Bucket>, String> {
    let item_lengths = workload.lengths();
    let longest = item_lengths.iter().copied().max().unwrap_or(1).max(1);
    let shortest = item_lengths.iter().copied().min().unwrap_or(1).max(1);
    let most_rows = (options.token_budget / shortest).clamp(1, item_lengths.len().max(1));
    let wanted = [(&workload.rows, most_rows), (&workload.length, longest)];
    let named = wanted.into_iter().filter(|(symbol, _)| !symbol.is_empty());
    let of_symbol = |(symbol, most): (&String, usize)| {
        let powers = || Steps::PowersOfTwo { max: most.next_power_of_two() };
        (symbol.clone(), steps.get(symbol).cloned().unwrap_or_else(powers))
    };
    grid(&named.map(of_symbol).collect()).map_err(|error| error.to_string())
}

/// Why no program takes these items.
fn unheld(items: &[usize], lengths: &[usize], shapes: &[Bucket], workload: &Workload) -> String {
    let real = items.iter().map(|&item| lengths[item]).max().unwrap_or(0);
    let held = shapes.iter().filter_map(|bucket| bucket.get(&workload.length)).max().unwrap_or(0);
    let symbol = &workload.length;
    format!("an item has {real} tokens, the longest program for `{symbol}` has {held}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shapeyard_core::{AxisSymbol, DataType, Dim, TensorSpec};

    use super::*;

    fn signature() -> Signature {
        let shape = Some(vec![Dim::Unnamed, Dim::Unnamed]);
        let input =
            TensorSpec { name: "x".to_owned(), dtype: DataType::F32, shape, index_limit: None };
        let mut signature = Signature { inputs: vec![input], ..Signature::default() };
        let axis = |axis, symbol: &str| AxisSymbol {
            tensor: "x".to_owned(),
            axis,
            symbol: symbol.to_owned(),
        };
        signature.declare(&[axis(0, "batch"), axis(1, "sequence")]).unwrap();
        signature
    }

    fn workload(lengths: Vec<usize>) -> Workload {
        Workload::items("batch", "sequence", lengths)
    }

    #[test]
    fn an_item_that_no_program_holds_is_told() {
        let steps = BTreeMap::from([("sequence".to_owned(), Steps::List(vec![8, 16]))]);
        let options = PlanOptions::tokens(64);
        let error =
            plan(&signature(), (&[], &steps), &workload(vec![3, 17]), &options).unwrap_err();
        assert_eq!(error, "an item has 17 tokens, the longest program for `sequence` has 16");
    }

    fn shape((rows, length): (usize, usize)) -> Bucket {
        Bucket::from_iter([("batch", rows), ("sequence", length)])
    }

    #[test]
    fn an_uneven_grid_is_used_as_it_is() {
        let ready = [(1, 512), (8, 64), (4, 128)].map(shape);
        let lengths = [vec![60; 17], vec![100; 8], vec![500; 2]].concat();
        for token_budget in [512, 4096] {
            let options = PlanOptions::tokens(token_budget);
            let shapes = (&ready[..], &BTreeMap::new());
            let plan = plan(&signature(), shapes, &workload(lengths.clone()), &options).unwrap();
            let mut runs: Vec<(usize, usize)> =
                plan.batches.iter().map(|it| (it.items.len(), it.length)).collect();
            runs.sort_unstable();
            assert_eq!(runs, [(1, 64), (1, 512), (1, 512), (4, 128), (4, 128), (8, 64), (8, 64)]);
        }
    }

    proptest! {
        #[test]
        fn every_batch_fits_a_bucket_of_the_plan(
            lengths in proptest::collection::vec(0usize..200, 0..80),
            token_budget in 1usize..3000,
            mut ready in proptest::collection::vec((1usize..20, 1usize..200).prop_map(shape), 0..6),
        ) {
            let options = PlanOptions::tokens(token_budget);
            if !ready.is_empty() {
                ready.push(shape((1, 200)));
            }
            let shapes = (&ready[..], &BTreeMap::new());
            let plan = plan(&signature(), shapes, &workload(lengths.clone()), &options).unwrap();
            let mut served: Vec<usize> = plan.batches.iter().flat_map(|it| it.items.clone()).collect();
            served.sort_unstable();
            prop_assert_eq!(served, (0..lengths.len()).collect::<Vec<_>>());
            prop_assert!(ready.is_empty() || plan.buckets.iter().all(|it| ready.contains(it)));
            for batch in &plan.batches {
                let shape = [("batch", batch.items.len()), ("sequence", batch.length)];
                let wanted = Bucket::from_iter(shape);
                let fits = |bucket: &&Bucket| {
                    bucket.holds(&wanted) && bucket.get("sequence") == Some(batch.length)
                };
                prop_assert!(plan.buckets.iter().any(|bucket| fits(&bucket)));
                prop_assert!(batch.items.iter().all(|&item| lengths[item] <= batch.length));
                let longest = batch.items.iter().map(|&item| lengths[item]).max().unwrap_or(0);
                let n_tokens = batch.items.len() * longest;
                // What is ready is filled all the same.
                let most_rows = ready.iter().filter_map(|bucket| bucket.get("batch")).max();
                let is_filled = token_budget > 1 && Some(batch.items.len()) <= most_rows;
                prop_assert!(batch.items.len() == 1 || n_tokens <= token_budget || is_filled);
            }
        }
    }
}
