//! Packing items of different lengths into batches under a budget of padded tokens.

use super::{Batch, Totals};

/// Packs `lengths` (tokens an item) so that no batch of two or more rows has more than `token_budget`
/// tokens, padding counted; an item that is longer than the budget is a batch of its own.
///
/// Items are taken longest first: rows of a batch then differ least in length, which makes the padding
/// small, and lanes that work on the list side by side end at nearly the same time. Items of one length
/// keep their order, so equal input gives an equal plan.
#[must_use]
pub fn pack(lengths: &[usize], token_budget: usize) -> Vec<Batch> {
    let mut indices: Vec<usize> = (0..lengths.len()).collect();
    indices.sort_by_key(|&item| std::cmp::Reverse(lengths[item]));
    let mut batches = Vec::new();
    let mut rest = indices.as_slice();
    while let Some(&longest) = rest.first() {
        let length = lengths[longest];
        let n_rows = (token_budget / length.max(1)).clamp(1, rest.len());
        let (items, later) = rest.split_at(n_rows);
        batches.push(Batch { items: items.to_vec(), length });
        rest = later;
    }
    batches
}

/// What batches hold in sum.
#[must_use]
pub fn totals(lengths: &[usize], batches: &[Batch]) -> Totals {
    let mut totals = Totals::default();
    for batch in batches {
        totals.n_batches += 1;
        totals.n_items += batch.items.len();
        totals.n_real_tokens += batch.items.iter().map(|&item| lengths[item]).sum::<usize>();
        totals.n_padded_tokens += batch.n_tokens();
    }
    totals
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn long_items_go_alone_and_short_ones_together() {
        let batches = pack(&[3, 100, 5, 4, 30, 4], 16);
        let items: Vec<_> = batches.iter().map(|batch| batch.items.as_slice()).collect();
        assert_eq!(items, [&[1][..], &[4], &[2, 3, 5], &[0]]);
    }

    #[test]
    fn nothing_gives_no_batch() {
        assert_eq!(pack(&[], 512), []);
        assert_eq!(totals(&[], &[]), Totals::default());
    }

    proptest! {
        #[test]
        fn every_item_is_served_once_within_the_budget(
            lengths in proptest::collection::vec(0usize..600, 0..200),
            token_budget in 0usize..5000,
        ) {
            let batches = pack(&lengths, token_budget);
            let mut served: Vec<usize> =
                batches.iter().flat_map(|batch| batch.items.clone()).collect();
            served.sort_unstable();
            prop_assert_eq!(served, (0..lengths.len()).collect::<Vec<_>>());
            for batch in &batches {
                prop_assert!(batch.items.iter().all(|&item| lengths[item] <= batch.length));
                prop_assert!(batch.items.len() == 1 || batch.n_tokens() <= token_budget);
            }
            let totals = totals(&lengths, &batches);
            prop_assert_eq!(totals.n_real_tokens, lengths.iter().sum::<usize>());
            prop_assert!(totals.n_padded_tokens >= totals.n_real_tokens);
        }

        #[test]
        fn one_row_a_batch_needs_no_padding(
            lengths in proptest::collection::vec(1usize..600, 0..200),
        ) {
            let totals = totals(&lengths, &pack(&lengths, 1));
            prop_assert_eq!(totals.n_padded_tokens, totals.n_real_tokens);
        }
    }
}
