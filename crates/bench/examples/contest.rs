//! A contest of one's own: two ways to sort, in rounds that take turns.
//!
//! `cargo run --release -p shapeyard-bench --example contest`

use shapeyard_bench::contest::{Contender, Contest, timed};
use shapeyard_bench::random::Random;

fn main() -> anyhow::Result<()> {
    let mut random = Random(1);
    let numbers: Vec<usize> = (0..100_000).map(|_| random.below(1 << 30)).collect();
    let sorted = |sort: fn(&mut [usize])| {
        let numbers = &numbers;
        move || {
            let mut own = numbers.clone();
            Ok(timed(|| {
                sort(&mut own);
                Ok(own.len())
            })?
            .1)
        }
    };
    let contenders = vec![
        Contender::new("unstable", sorted(<[usize]>::sort_unstable)),
        Contender::new("stable", sorted(<[usize]>::sort)),
    ];
    Contest::run("sort", "100,000 numbers", 9, contenders)?.print();
    Ok(())
}
