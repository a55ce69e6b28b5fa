//! What holds for every routing plan, whatever the workload, the options and the prices.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use proptest::prelude::*;
use shapeyard_core::Route;
use shapeyard_core::plan::prices::{PerProgram, Price};
use shapeyard_core::plan::{
    Bucket, Histogram, Objective, PaddingLimit, PlanOptions, Policy, Prices, Requests, RoutingPlan,
    Steps, Stock, Tail, Work, Workload, plan,
};

fn works() -> impl Strategy<Value = Work> {
    let length = || prop_oneof![6 => 0_usize..40, 3 => 40_usize..300, 1 => 1000_usize..3000];
    let request = (1_usize..20, length(), 0_u64..30).prop_map(|(rows, length, count)| Requests {
        rows,
        length,
        count,
    });
    prop_oneof![
        proptest::collection::vec(length(), 0..80).prop_map(Work::Items),
        proptest::collection::vec((length(), 1_u64..40), 0..20)
            .prop_map(|entries| Work::Histogram(Histogram::from(entries))),
        proptest::collection::vec(request, 0..20).prop_map(Work::Requests),
    ]
}

fn price() -> impl Strategy<Value = Price> {
    let cost = |most: f64| prop_oneof![1 => Just(0.0), 3 => 0.0..most];
    (cost(2.0), cost(0.01), cost(1e-3), cost(1e-6))
        .prop_map(|(load, launch, token, token_length)| Price { load, launch, token, token_length })
}

fn prices() -> impl Strategy<Value = Prices> {
    (price(), price(), 0.0..50.0, 0.0..1e6).prop_map(|(device, cpu, compile, memory)| Prices {
        device,
        cpu,
        compile: PerProgram { fixed: compile, token: 1e-3 },
        memory: PerProgram { fixed: memory, token: 10.0 },
    })
}

fn policy() -> impl Strategy<Value = Policy> {
    prop_oneof![
        (1_usize..8).prop_map(Policy::fitted),
        (1_usize..400).prop_map(|max| Steps::PowersOfTwo { max }.into()),
        proptest::collection::vec(1_usize..300, 1..5).prop_map(|list| Steps::List(list).into()),
    ]
}

fn options() -> impl Strategy<Value = PlanOptions> {
    let tail = prop_oneof![Just(Tail::Full), Just(Tail::PowerOfTwo), Just(Tail::Split)];
    let share = prop_oneof![Just(1.0), 0.0..1.0];
    let limits = (
        proptest::option::of(0_usize..8),
        proptest::option::of(0.0..200.0),
        proptest::option::of(0_u64..5_000_000),
        proptest::option::of(1_u64..1000),
    );
    let objective = prop_oneof![4 => Just(Objective::Throughput), 1 => Just(Objective::Latency)];
    (0_usize..3000, policy(), policy(), tail, share, 0_usize..20, limits, objective).prop_map(
        |(token_budget, lengths, rows, tail, share, tokens, limits, objective)| PlanOptions {
            token_budget,
            lengths,
            rows,
            tail,
            padding: PaddingLimit { share, tokens },
            max_buckets: limits.0,
            compile_seconds: limits.1,
            device_bytes: limits.2,
            n_runs: limits.3,
            objective,
        },
    )
}

fn workload(work: Work) -> Workload {
    Workload { rows: "batch".to_owned(), length: "sequence".to_owned(), work }
}

fn shape(bucket: &Bucket) -> (usize, usize) {
    (bucket.get("batch").unwrap(), bucket.get("sequence").unwrap())
}

/// Every row of the work: of items the longest first, of requests those of most rows first, each whole.
fn order(workload: &Workload) -> Vec<usize> {
    let Work::Requests(requests) = &workload.work else {
        let lengths = workload.lengths();
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by_key(|&row| std::cmp::Reverse(lengths[row]));
        return order;
    };
    let single = requests.iter().flat_map(|it| (0..it.count).map(|_| (it.rows, it.length)));
    let mut first_row = 0;
    let mut ranges: Vec<_> = single
        .map(|(rows, length)| {
            first_row += rows;
            ((rows, length), first_row - rows..first_row)
        })
        .collect();
    ranges.sort_by_key(|(shape, _)| std::cmp::Reverse(*shape));
    ranges.into_iter().flat_map(|(_, rows)| rows).collect()
}

/// The rows of every batch, taken apart into its pieces: program and rows.
fn pieces<'a>(plan: &'a RoutingPlan, workload: &Workload) -> Vec<(Option<&'a Bucket>, Vec<usize>)> {
    let mut pieces = Vec::new();
    for (nth, rows) in plan.rows(workload) {
        let mut rest = rows.as_slice();
        for piece in &plan.batches[nth].pieces {
            let (mine, later) = rest.split_at(piece.n_rows);
            pieces.push((piece.bucket.map(|nth| &plan.buckets[nth].bucket), mine.to_vec()));
            rest = later;
        }
        assert_eq!(rest, [0; 0], "rows of a batch that no piece takes");
    }
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_row_is_served_once_and_in_order_by_a_program_that_holds_it(
        work in works(), options in options(), prices in prices(),
    ) {
        let workload = workload(work);
        let lengths = workload.lengths();
        let plan = plan(&workload, &options, &prices, &Stock::default()).unwrap();
        let pieces = pieces(&plan, &workload);
        let served: Vec<usize> = pieces.iter().flat_map(|(_, rows)| rows.clone()).collect();
        prop_assert_eq!(served, order(&workload));
        for (bucket, rows) in pieces {
            if let Some((n_rows, length)) = bucket.map(shape) {
                prop_assert!(rows.len() <= n_rows);
                prop_assert!(rows.iter().all(|&row| lengths[row] <= length));
            }
        }
    }

    #[test]
    fn a_plan_never_costs_more_than_the_cpu_alone_by_its_own_prices(
        work in works(), options in options(), prices in prices(), cpu_is_loaded: bool,
    ) {
        let stock = Stock { cpu_is_loaded, ..Stock::default() };
        let plan = plan(&workload(work), &options, &prices, &stock).unwrap();
        let totals = plan.totals;
        prop_assert!(totals.seconds <= totals.cpu_seconds * (1.0 + 1e-9) + 1e-9, "{plan}");
        let loads: f64 = plan.buckets.iter().map(|it| it.load_seconds).sum();
        let on_cpu = plan.batches.iter().flat_map(|it| &it.pieces).any(|it| it.bucket.is_none());
        let cpu_load = if on_cpu && !cpu_is_loaded { prices.cpu.load } else { 0.0 };
        let runs: f64 = plan.batches.iter().map(|it| it.seconds).sum();
        prop_assert!((runs + loads + cpu_load - totals.seconds).abs() < 1e-6);
    }

    #[test]
    fn no_limit_is_exceeded(work in works(), options in options(), prices in prices()) {
        let plan = plan(&workload(work), &options, &prices, &Stock::default()).unwrap();
        let totals = plan.totals;
        prop_assert!(options.max_buckets.is_none_or(|most| plan.buckets.len() <= most));
        prop_assert!(options.compile_seconds.is_none_or(|most| totals.compile_seconds <= most));
        prop_assert!(options.device_bytes.is_none_or(|most| totals.n_bytes <= most));
        for batches in plan.batches.iter().filter(|it| it.route != Route::Fallback) {
            let on_device = batches.pieces.iter().filter_map(|it| Some((it.bucket?, it.n_rows)));
            let device_rows: usize = on_device.clone().map(|(_, n_rows)| n_rows).sum();
            let tokens = |(nth, _): (usize, usize)| {
                let (rows, length) = shape(&plan.buckets[nth].bucket);
                (rows * length) as f64
            };
            let padded: f64 = on_device.map(tokens).sum();
            let row = batches.n_real_tokens as f64 / batches.n_batches as f64 / batches.n_rows as f64;
            let real = row * device_rows as f64;
            // Real tokens are whole ones.
            let allowed = options.padding.allows(real + 1.0, padded, device_rows);
            prop_assert!(allowed, "{real} {padded} {batches:?}");
        }
    }

    #[test]
    fn sums_are_those_of_the_parts(work in works(), options in options(), prices in prices()) {
        let workload = workload(work);
        let plan = plan(&workload, &options, &prices, &Stock::default()).unwrap();
        let lengths = workload.lengths();
        prop_assert_eq!(plan.totals.n_rows, lengths.len() as u64);
        prop_assert_eq!(plan.totals.n_real_tokens, lengths.iter().sum::<usize>() as u64);
        let share: f64 = plan.buckets.iter().map(|it| it.share).sum();
        let on_device = plan.totals.n_real_tokens - plan.totals.n_cpu_tokens;
        let wanted = on_device as f64 / plan.totals.n_real_tokens.max(1) as f64;
        let slack = plan.buckets.len() as f64 / plan.totals.n_real_tokens.max(1) as f64;
        prop_assert!((share - wanted).abs() <= slack + 1e-9);
        let saved: f64 = plan.buckets.iter().map(|it| it.saved_seconds).sum();
        let runs_on_cpu = plan.batches.iter().flat_map(|it| &it.pieces).any(|it| it.bucket.is_none());
        if !runs_on_cpu && plan.totals.n_real_tokens > 0 {
            let wanted = plan.totals.cpu_seconds - plan.totals.seconds;
            prop_assert!((saved - wanted).abs() <= 1e-6 * (1.0 + wanted.abs()), "{saved} {wanted}");
        }
        let json = serde_json::to_string(&plan).unwrap();
        prop_assert_eq!(serde_json::from_str::<RoutingPlan>(&json).unwrap().buckets.len(), plan.buckets.len());
    }
}

/// More shapes than programs are chosen by.
#[test]
fn thousands_of_shapes_are_served_like_few() {
    let shapes = (1..=90).flat_map(|rows| (1..=90).map(move |length| (rows, length)));
    let requests: Vec<Requests> =
        shapes.map(|(rows, length)| Requests { rows, length, count: 1 }).collect();
    let workload = workload(Work::Requests(requests));
    let padding = PaddingLimit { share: 0.3, tokens: 0 };
    for padding in [PaddingLimit::NONE, padding] {
        let options = PlanOptions { padding, ..PlanOptions::default() };
        let plan = plan(&workload, &options, &FAST_DEVICE, &Stock::default()).unwrap();
        let lengths = workload.lengths();
        let pieces = pieces(&plan, &workload);
        let served: Vec<usize> = pieces.iter().flat_map(|(_, rows)| rows.clone()).collect();
        assert_eq!(served, order(&workload));
        let mut n_on_device = 0;
        for (bucket, rows) in &pieces {
            if let Some((n_rows, length)) = bucket.map(shape) {
                n_on_device += rows.len();
                assert!(rows.len() <= n_rows);
                let fits = |row: usize| {
                    let is_allowed = padding.shortest(length) <= lengths[row];
                    lengths[row] <= length && is_allowed
                };
                assert!(rows.iter().all(|&row| fits(row)), "{bucket:?}");
            }
        }
        assert_eq!(plan.totals.n_rows, lengths.len() as u64);
        assert!(n_on_device > lengths.len() / 2);
        assert!(plan.totals.seconds < plan.totals.cpu_seconds);
        assert!(plan.batches.len() < 90 * 16, "what is alike is told together");
    }
}

#[test]
fn work_without_end_is_counted_as_far_as_numbers_go() {
    let most = u64::MAX;
    let works = [
        Work::Histogram(Histogram::from(vec![(1, most), (usize::MAX, most), (9, 1)])),
        Work::Requests(vec![
            Requests { rows: usize::MAX, length: usize::MAX, count: most },
            Requests { rows: 3, length: usize::MAX, count: 2 },
            Requests { rows: 1, length: 0, count: most },
        ]),
    ];
    for work in works {
        let plan = plan(&workload(work), &PlanOptions::default(), &FAST_DEVICE, &Stock::default());
        assert_eq!(plan.unwrap().totals.n_rows, most);
    }
}

const FAST_DEVICE: Prices = Prices {
    device: Price { load: 0.0, launch: 1e-3, token: 1e-6, token_length: 0.0 },
    cpu: Price { load: 0.0, launch: 0.0, token: 1e-4, token_length: 0.0 },
    compile: PerProgram { fixed: 10.0, token: 0.0 },
    memory: PerProgram { fixed: 0.0, token: 0.0 },
};

#[test]
fn only_what_is_compiled_is_used_when_nothing_may_be_compiled() {
    let ready =
        |rows: usize, length: usize| Bucket::from_iter([("batch", rows), ("sequence", length)]);
    let stock = Stock { compiled: vec![ready(4, 64), ready(1, 128)], ..Stock::default() };
    let options = PlanOptions { compile_seconds: Some(0.0), ..PlanOptions::tokens(1024) };
    let workload = workload(Work::Items(vec![60; 7]));
    let plan = plan(&workload, &options, &FAST_DEVICE, &stock).unwrap();
    let buckets: Vec<&Bucket> = plan.buckets.iter().map(|it| &it.bucket).collect();
    assert_eq!(buckets, [&ready(4, 64)]);
    assert_eq!(plan.batches[0].route, Route::Split);
    assert_eq!(plan.totals.compile_seconds, 0.0);
    assert_eq!(plan.totals.break_even_runs, Some(0));
}

#[test]
fn what_runs_rarely_is_not_compiled() {
    let workload = workload(Work::Items(vec![100; 100]));
    let planned = |n_runs| {
        let options = PlanOptions { n_runs, ..PlanOptions::tokens(1000) };
        plan(&workload, &options, &FAST_DEVICE, &Stock::default()).unwrap().buckets.len()
    };
    // A pass saves about a second of the CPU's; the compile takes ten.
    assert_eq!([planned(None), planned(Some(100)), planned(Some(5))], [1, 1, 0]);
}

#[test]
fn shapes_by_the_million_are_refused() {
    let every = || Policy::from(Steps::Linear { first: 1, max: 2000, step: 1 });
    let options = PlanOptions { lengths: every(), rows: every(), ..PlanOptions::default() };
    let requests = (1..=500).map(|length| Requests { rows: 3, length, count: 1 });
    let workload = workload(Work::Requests(requests.collect()));
    plan(&workload, &options, &FAST_DEVICE, &Stock::default()).unwrap_err();
}
