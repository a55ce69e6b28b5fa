//! Batches that fit programs: every batch of a plan has rows and a length that some bucket has.

use std::collections::BTreeMap;

use shapeyard_core::Signature;
use shapeyard_core::plan::{Batch, Bucket, Plan, PlanOptions, Steps, Workload, token_budget};

use crate::ID;

/// Packs a workload into batches of the lengths and rows that programs have.
///
/// Items take the smallest length that holds them, longest first, and batches the most rows under the
/// token budget.
///
/// # Errors
///
/// A sentence, when the model has no such symbols or an item is longer than every program.
pub(crate) fn plan(
    signature: &Signature,
    steps: &BTreeMap<String, Steps>,
    workload: &Workload,
    options: &PlanOptions,
) -> Result<Plan, String> {
    let item_lengths = workload.lengths();
    let longest = item_lengths.iter().copied().max().unwrap_or(1).max(1);
    let lengths = extents(signature, steps, &workload.length, longest)?;
    let most_rows = (options.token_budget / lengths.first().copied().unwrap_or(1)).max(1);
    let rows = extents(signature, steps, &workload.rows, most_rows.min(item_lengths.len().max(1)))?;
    let mut items: Vec<usize> = (0..item_lengths.len()).collect();
    items.sort_by_key(|&item| std::cmp::Reverse(item_lengths[item]));
    let (mut batches, mut buckets) = (Vec::new(), Vec::new());
    let mut rest = items.as_slice();
    while let Some(&first) = rest.first() {
        let real = item_lengths[first];
        let length = lengths.iter().copied().find(|&length| length >= real).ok_or_else(|| {
            format!(
                "an item has {real} tokens, the longest program for `{}` has {}",
                workload.length,
                lengths.last().copied().unwrap_or(0)
            )
        })?;
        let fit = (options.token_budget / length).max(1);
        let whole = rows.iter().copied().rev().find(|&rows| rows <= fit).or(rows.first().copied());
        let n_rows = whole.unwrap_or(1).min(rest.len());
        let (items, later) = rest.split_at(n_rows);
        batches.push(Batch { items: items.to_vec(), length });
        let program = rows.iter().copied().find(|&rows| rows >= n_rows).unwrap_or(n_rows);
        let bucket: Bucket = [(&workload.rows, program), (&workload.length, length)]
            .into_iter()
            .filter(|(symbol, _)| !symbol.is_empty())
            .map(|(symbol, extent)| (symbol.clone(), extent))
            .collect();
        if !buckets.contains(&bucket) {
            buckets.push(bucket);
        }
        rest = later;
    }
    buckets.sort();
    let totals = token_budget::totals(&item_lengths, &batches);
    Ok(Plan { backend: ID, buckets, batches, totals })
}

/// The extents of a symbol, smallest first; of an axis that the workload does not use, one.
fn extents(
    signature: &Signature,
    steps: &BTreeMap<String, Steps>,
    symbol: &str,
    wanted: usize,
) -> Result<Vec<usize>, String> {
    if symbol.is_empty() {
        return Ok(vec![wanted]);
    }
    if signature.symbol(symbol).is_none() {
        let known = signature.symbols.join("`, `");
        return Err(format!("it has no symbol `{symbol}`; it has `{known}`"));
    }
    let power = Steps::PowersOfTwo { max: wanted.next_power_of_two() };
    steps.get(symbol).unwrap_or(&power).extents().map_err(|error| error.to_string())
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
        let error = plan(&signature(), &steps, &workload(vec![3, 17]), &options).unwrap_err();
        assert_eq!(error, "an item has 17 tokens, the longest program for `sequence` has 16");
    }

    proptest! {
        #[test]
        fn every_batch_fits_a_bucket_of_the_plan(
            lengths in proptest::collection::vec(0usize..200, 0..80),
            token_budget in 1usize..3000,
        ) {
            let options = PlanOptions::tokens(token_budget);
            let plan = plan(&signature(), &BTreeMap::new(), &workload(lengths.clone()), &options).unwrap();
            let mut served: Vec<usize> = plan.batches.iter().flat_map(|it| it.items.clone()).collect();
            served.sort_unstable();
            prop_assert_eq!(served, (0..lengths.len()).collect::<Vec<_>>());
            for batch in &plan.batches {
                let shape = [("batch", batch.items.len()), ("sequence", batch.length)];
                let wanted = Bucket::from_iter(shape);
                let fits = |bucket: &&Bucket| {
                    bucket.holds(&wanted) && bucket.get("sequence") == Some(batch.length)
                };
                prop_assert!(plan.buckets.iter().any(|bucket| fits(&bucket)));
                prop_assert!(batch.items.iter().all(|&item| lengths[item] <= batch.length));
                prop_assert!(batch.items.len() == 1 || batch.n_tokens() <= token_budget);
            }
        }
    }
}
