//! How near fitted buckets come to the optimum on real lengths, of which they saw only a part.
//!
//! The optima are lower bounds for equally many static lengths, found by exhaustive dynamic programming over
//! the whole corpus.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use shapeyard_core::plan::fitted::{Filling, lengths, lengths_filled};
use shapeyard_core::plan::{Histogram, Steps, Tail, Work};

const N_DRAWS: u64 = 20;

fn corpus() -> Vec<usize> {
    let work: Work = include_str!("../data/lengths-code.txt").parse().unwrap();
    let of = |&(length, n): &(usize, u64)| std::iter::repeat_n(length, usize::try_from(n).unwrap());
    work.histogram().entries().iter().flat_map(of).collect()
}

/// A tenth of the items, drawn at random, and the rest.
fn tenth(lengths: &[usize], seed: u64) -> (Histogram, Histogram) {
    let mut shuffled = lengths.to_vec();
    let mut state = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed + 1);
    for at in (1..shuffled.len()).rev() {
        // Xorshift; Marsaglia, Journal of Statistical Software 8(14), 2003.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        shuffled.swap(at, usize::try_from(state % (at as u64 + 1)).unwrap());
    }
    let (seen, rest) = shuffled.split_at(lengths.len() / 10);
    (Histogram::of(seen), Histogram::of(rest))
}

fn ratio(padded: u64, histogram: &Histogram) -> f64 {
    padded as f64 / histogram.n_tokens() as f64
}

/// The worst of many draws: what lengths fitted to a tenth pad on the rest, over what the best would.
fn worst(n: usize) -> f64 {
    let corpus = corpus();
    let loss = |seed| {
        let (seen, rest) = tenth(&corpus, seed);
        let padded = |lengths: &[usize]| rest.padded_to(lengths).unwrap() as f64;
        padded(&lengths(&seen, n)) / padded(&lengths(&rest, n))
    };
    (0..N_DRAWS).map(loss).fold(0.0, f64::max)
}

#[test]
fn fitted_lengths_reach_the_known_optimum() {
    let all = Histogram::of(&corpus());
    let optimum = |n| ratio(all.padded_to(&lengths(&all, n)).unwrap(), &all);
    for (n, wanted) in [(2, 1.725), (4, 1.303), (8, 1.140), (16, 1.066), (32, 1.031)] {
        assert!((optimum(n) - wanted).abs() < 5e-4, "{n} lengths: {}", optimum(n));
    }
    assert_eq!(lengths(&all, 8), [47, 79, 115, 167, 232, 312, 406, 512]);
    let powers = Steps::PowersOfTwo { max: 512 }.extents().unwrap();
    assert!(ratio(all.padded_to(&powers).unwrap(), &all) > 1.299);
}

#[test]
fn a_tenth_of_the_lengths_is_enough() {
    for n in [4, 8, 16] {
        let loss = worst(n);
        println!("{n} lengths: at most {:.2}% over the optimum", 100.0 * (loss - 1.0));
        assert!(loss < 1.02, "{n} lengths: {loss}");
    }
}

#[test]
fn batches_under_a_token_budget_come_near_the_best_known() {
    let corpus = corpus();
    let all = Histogram::of(&corpus);
    for (token_budget, best) in [(4096, 1.143), (16_384, 1.153)] {
        for tail in [Tail::Full, Tail::PowerOfTwo, Tail::Split] {
            let filling = Filling { token_budget, tail, launch_tokens: 0 };
            let of = |histogram: &Histogram, lengths: &[usize]| {
                ratio(filling.padded_to(histogram, lengths).unwrap(), histogram)
            };
            let fitted = of(&all, &lengths_filled(&all, 8, &filling));
            let seen = |seed| {
                let (seen, rest) = tenth(&corpus, seed);
                of(&rest, &lengths_filled(&seen, 8, &filling))
            };
            let partly = (0..N_DRAWS).map(seen).fold(0.0, f64::max);
            println!("{token_budget} tokens, {tail:?}: {fitted:.4}, a tenth seen {partly:.4}");
            assert!(fitted <= 1.03 * best, "{token_budget} tokens, {tail:?}: {fitted}");
            // What is left of other work does not fit full batches that were fitted to a tenth of it.
            let holds_for_others = tail != Tail::Full;
            assert!(
                !holds_for_others || partly <= 1.03 * best,
                "{token_budget}, {tail:?}: {partly}"
            );
        }
    }
}
