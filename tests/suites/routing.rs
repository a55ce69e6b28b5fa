//! Routing plans of named workloads, readable as documentation: which programs a workload is worth, where each
//! batch of it runs, and why.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use shapeyard_core::plan::prices::{PerProgram, Price};
use shapeyard_core::plan::{
    Bucket, Histogram, Objective, PaddingLimit, PlanOptions, Policy, Prices, Requests, Stock, Tail,
    Traffic, Work, Workload, plan,
};

/// A device that is ten times as fast a token, and slow to start: a program takes 0.3 s to load and 8 s to
/// compile.
const PRICES: Prices = Prices {
    device: Price { load: 0.3, launch: 1e-3, token: 5e-6, token_length: 0.0 },
    cpu: Price { load: 0.15, launch: 0.5e-3, token: 50e-6, token_length: 0.0 },
    compile: PerProgram { fixed: 8.0, token: 0.0 },
    memory: PerProgram { fixed: 34e6, token: 0.0 },
};

fn workload(work: Work) -> Workload {
    Workload { rows: "batch".to_owned(), length: "sequence".to_owned(), work }
}

fn counted<const N: usize>(entries: [(usize, u64); N]) -> Work {
    Work::Histogram(Histogram::from(entries.to_vec()))
}

fn planned(work: Work, options: &PlanOptions) -> String {
    plan(&workload(work), options, &PRICES, &Stock::default()).unwrap().to_string()
}

fn lengths(n: usize) -> PlanOptions {
    PlanOptions { lengths: Policy::fitted(n), ..PlanOptions::tokens(1024) }
}

#[test]
fn all_short() {
    let work = counted([(3, 400), (4, 900), (5, 1200), (6, 900), (7, 600)]);
    insta::assert_snapshot!(planned(work, &lengths(2)));
}

#[test]
fn all_long() {
    insta::assert_snapshot!(planned(counted([(509, 100), (510, 150), (512, 203)]), &lengths(2)));
}

#[test]
fn one_giant() {
    let work = counted([(9, 2000), (12, 2000), (4000, 1)]);
    insta::assert_snapshot!(planned(work, &lengths(2)));
}

#[test]
fn bimodal() {
    let work = counted([(8, 3000), (10, 2000), (480, 150), (500, 90)]);
    insta::assert_snapshot!(planned(work, &lengths(2)));
}

#[test]
fn one_query() {
    insta::assert_snapshot!(planned(Work::Items(vec![17]), &lengths(8)));
}

/// In a process that has its programs loaded, the same arithmetic gives the query to the device.
#[test]
fn one_query_where_its_program_is_resident() {
    let resident = vec![Bucket::from_iter([("batch", 1), ("sequence", 256)])];
    let stock = Stock { resident, ..Stock::default() };
    let options = PlanOptions { compile_seconds: Some(0.0), ..lengths(8) };
    let plan = plan(&workload(Work::Items(vec![200])), &options, &PRICES, &stock);
    insta::assert_snapshot!(plan.unwrap());
}

#[test]
fn an_empty_workload() {
    insta::assert_snapshot!(planned(Work::default(), &lengths(8)));
}

#[test]
fn a_budget_that_allows_nothing() {
    let options = PlanOptions { max_buckets: Some(0), ..lengths(2) };
    insta::assert_snapshot!(planned(counted([(100, 500), (200, 300)]), &options));
}

#[test]
fn seconds_for_two_compiles_only() {
    let options = PlanOptions { compile_seconds: Some(20.0), ..lengths(4) };
    let work = counted([(50, 900), (100, 500), (200, 300), (400, 150)]);
    insta::assert_snapshot!(planned(work, &options));
}

#[test]
fn little_padding_allowed() {
    let padding = PaddingLimit { share: 0.1, tokens: 2 };
    let options = PlanOptions { padding, ..lengths(2) };
    let work = counted([(5, 4000), (7, 4000), (95, 200), (100, 307), (50, 100)]);
    insta::assert_snapshot!(planned(work, &options));
}

#[test]
fn answers_rather_than_throughput() {
    let options = PlanOptions { objective: Objective::Latency, ..lengths(2) };
    insta::assert_snapshot!(planned(counted([(20, 900), (200, 700)]), &options));
}

/// 9,289 units, most of them near 128 tokens, on the prices of the experience report: a CPU whose integers are
/// nearly as fast, programs that take minutes to compile.
#[test]
fn an_index_of_code() {
    let prices = Prices {
        device: Price { load: 0.617, launch: 8.5e-3, token: 2e-6, token_length: 0.0 },
        cpu: Price { load: 0.156, launch: 0.0, token: 3e-6, token_length: 0.0 },
        compile: PerProgram { fixed: 136.7, token: 0.0 },
        memory: PerProgram { fixed: 34e6, token: 0.0 },
    };
    let work = counted([(40, 12), (120, 3000), (128, 6277)]);
    let options = PlanOptions { lengths: Policy::fitted(2), ..PlanOptions::tokens(1024 * 128) };
    let plan = plan(&workload(work), &options, &prices, &Stock::default()).unwrap();
    insta::assert_snapshot!(plan);
}

/// Sixteen threads that search a game tree hand in what they have, 1 to 16 positions of one size; each counted its own.
fn game_search() -> Workload {
    let mut all = Traffic::default();
    for thread in 1..=16_u64 {
        let (mut traffic, mut state) =
            (Traffic::default(), thread.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        for _ in 0..128 {
            // Xorshift; Marsaglia, Journal of Statistical Software 8(14), 2003.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            traffic.record(1 + usize::try_from(state % 16).unwrap(), 1);
        }
        all.merge(&traffic);
    }
    all.workload("batch", "")
}

/// A position costs 2 ms on the CPU and 0.1 ms on the device.
const POSITIONS: Prices = Prices {
    device: Price { load: 0.1, launch: 0.8e-3, token: 0.1e-3, token_length: 0.0 },
    cpu: Price { load: 0.1, launch: 0.0, token: 2e-3, token_length: 0.0 },
    compile: PerProgram { fixed: 20.0, token: 0.0 },
    memory: PerProgram { fixed: 0.0, token: 0.0 },
};

#[test]
fn a_game_search_with_four_programs() {
    let options = PlanOptions { rows: Policy::fitted(4), ..PlanOptions::default() };
    let plan = plan(&game_search(), &options, &POSITIONS, &Stock::default()).unwrap();
    insta::assert_snapshot!(plan);
}

/// While larger programs are still compiled, requests are split over those that are ready.
#[test]
fn a_game_search_with_what_is_ready() {
    let ready = |rows: usize| Bucket::from_iter([("batch", rows)]);
    let stock =
        Stock { resident: vec![ready(1), ready(4)], cpu_is_loaded: true, ..Stock::default() };
    let options = PlanOptions { compile_seconds: Some(0.0), ..PlanOptions::default() };
    let plan = plan(&game_search(), &options, &POSITIONS, &stock).unwrap();
    insta::assert_snapshot!(plan);
}

/// The last rows of a request are cheaper on the CPU than in one more run of a program.
#[test]
fn rows_beside_a_program() {
    let resident = vec![Bucket::from_iter([("batch", 32), ("sequence", 64)])];
    let stock = Stock { resident, cpu_is_loaded: true, ..Stock::default() };
    let options =
        PlanOptions { compile_seconds: Some(0.0), tail: Tail::Full, ..PlanOptions::default() };
    let requests = Work::Requests(vec![Requests { rows: 33, length: 60, count: 10 }]);
    let plan = plan(&workload(requests), &options, &PRICES, &stock).unwrap();
    insta::assert_snapshot!(plan);
}
