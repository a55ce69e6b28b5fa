//! The `plan` suite: how long it takes to decide what runs where, beside what a plan needs in any case.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shapeyard_core::plan::cover::{Freedom, Piece, cover};
use shapeyard_core::plan::fitted::{Filling, lengths, lengths_filled};
use shapeyard_core::plan::prices::{PerProgram, Price};
use shapeyard_core::plan::{
    Bucket, Histogram, PlanOptions, Policy, Prices, Requests, RoutingTable, Stock, Tail, Traffic,
    Work, Workload, plan,
};

use crate::contest::{Contender, Contest, Goal, Role, timed};
use crate::random::Random;
use crate::record::Record;
use crate::suite::{Host, Output, Suite, at_least_one};

/// Lengths of real code; the test suite `fitted` says where they come from.
const CORPUS: &str = "tests/data/lengths-code.txt";

const PLAN_TARGET: Duration = Duration::from_secs(1);
const ROUTE_TARGET: Duration = Duration::from_millis(50);
const N_ROUTED: usize = 100_000;
const N_COVERED: usize = 1000;

/// What to measure.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each measurement runs its contenders in interleaved rounds after one round that does not count.

Examples:
  cargo xtask bench plan
  cargo xtask bench plan --lengths 10000000 --buckets 32
  cargo xtask bench plan --format json > plan.json")]
pub(crate) struct Args {
    /// Lengths to plan for.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = at_least_one)]
    lengths: usize,
    /// Lengths that programs may have.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_least_one)]
    buckets: usize,
    /// Interleaved rounds.
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = at_least_one)]
    rounds: usize,
    #[command(flatten)]
    output: Output,
}

impl Suite for Args {
    const NAME: &'static str = "plan";

    fn output(&self) -> &Output {
        &self.output
    }

    fn measure(&self, _: &Host, record: &mut Record) -> Result<()> {
        record.set("lengths", self.lengths);
        record.set("buckets", self.buckets);
        for measure in [planning, distinct, hostile, traffic, routing, recording] {
            record.contests.push(measure(self)?);
        }
        Ok(())
    }
}

/// As many lengths as asked for, with the mix of the corpus.
fn drawn(n: usize) -> Result<Vec<usize>> {
    let corpus = std::fs::read_to_string(CORPUS)
        .with_context(|| format!("`{CORPUS}` cannot be read; start at the repository's root"))?;
    let corpus: Work = corpus.parse()?;
    let corpus = Workload { work: corpus, ..Workload::default() }.lengths().into_owned();
    let mut numbers = Random(42);
    Ok((0..n).map(|_| corpus[numbers.below(corpus.len())]).collect())
}

/// Prices at which every length is worth a program.
const PRICES: Prices = Prices {
    device: Price { load: 0.1, launch: 1e-3, token: 5e-6, token_length: 0.0 },
    cpu: Price { load: 0.1, launch: 1e-3, token: 50e-6, token_length: 0.0 },
    compile: PerProgram { fixed: 8.0, token: 0.0 },
    memory: PerProgram { fixed: 0.0, token: 0.0 },
};

fn planning(args: &Args) -> Result<Contest> {
    let items = drawn(args.lengths)?;
    let n = args.buckets;
    let filling = Filling { token_budget: 16_384, tail: Tail::PowerOfTwo, launch_tokens: 200 };
    let options = PlanOptions { lengths: Policy::fitted(n), ..PlanOptions::tokens(16_384) };
    let workload = Workload::items("batch", "sequence", items.clone());
    let work = |run: &dyn Fn()| -> Result<Duration> {
        let run = || {
            run();
            Ok(())
        };
        Ok(timed(run)?.1)
    };
    let contenders = vec![
        Contender::new("a routing plan: lengths, programs, routes, reasons", || {
            work(&|| drop(black_box(plan(&workload, &options, &PRICES, &Stock::default()))))
        }),
        Contender::new("sorting the lengths, which a plan by quantiles takes", || {
            work(&|| {
                let mut sorted = items.clone();
                sorted.sort_unstable();
                black_box(sorted);
            })
        })
        .role(Role::Limit),
        Contender::new("fitted lengths, each item a row", || {
            work(&|| drop(black_box(lengths(&Histogram::of(&items), n))))
        })
        .role(Role::Ours),
        Contender::new("fitted lengths, batches of 16,384 tokens", || {
            work(&|| drop(black_box(lengths_filled(&Histogram::of(&items), n, &filling))))
        })
        .role(Role::Ours),
        Contender::new("counting the lengths", || work(&|| drop(black_box(Histogram::of(&items)))))
            .role(Role::Ours),
    ];
    let title = format!("{} lengths into {n}", args.lengths);
    let contest = Contest::run("plan", title, args.rounds, contenders)?;
    Ok(with_target(contest, PLAN_TARGET, "a plan"))
}

/// Work of which counting says little, because no two lengths are alike or counts are weights.
fn hostile(args: &Args) -> Result<Contest> {
    let n = args.lengths;
    let options =
        PlanOptions { lengths: Policy::fitted(args.buckets), ..PlanOptions::tokens(16_384) };
    let steep = |nth: usize| 1 + nth + nth * nth / 64;
    let weight = u64::MAX / n as u64;
    let mut numbers = Random(5);
    // As many numbers of rows as lengths, each with each.
    let side = n.isqrt();
    let requests = (0..n).map(|nth| Requests {
        rows: 1 + nth % side,
        length: 1 + nth / side,
        count: 1 + numbers.below(100) as u64,
    });
    let works = [
        ("all different", Work::Items((1..=n).collect())),
        ("all different, growing faster and faster", Work::Items((0..n).map(steep).collect())),
        (
            "all different, counts as large as numbers are",
            Work::Histogram((1..=n).map(|length| (length, weight)).collect()),
        ),
        ("requests, no two of a shape", Work::Requests(requests.collect())),
    ];
    let contenders = works.into_iter().map(|(name, work)| {
        let workload = Workload { work, ..Workload::items("batch", "sequence", []) };
        let options = &options;
        Contender::new(name, move || {
            Ok(timed(|| Ok(plan(&workload, options, &PRICES, &Stock::default())?))?.1)
        })
        .role(Role::Ours)
    });
    let title = format!("a routing plan for {n} lengths or shapes into {}", args.buckets);
    let contest = Contest::run("hostile", title, args.rounds, contenders.collect())?;
    let slowest = contest.contenders.iter().filter(|it| it.role == Role::Ours);
    let slowest = slowest.map(|it| it.rounds.median).fold(0.0, f64::max);
    Ok(with_goal(contest, "the slowest plan takes", PLAN_TARGET, slowest))
}

/// Lengths fitted where no two are alike.
fn distinct(args: &Args) -> Result<Contest> {
    let items: Vec<usize> = (1..=args.lengths).collect();
    let histogram = Histogram::of(&items);
    let filling = Filling { token_budget: 16_384, tail: Tail::PowerOfTwo, launch_tokens: 200 };
    let contenders = vec![
        Contender::new("fitted lengths, each item a row", || {
            Ok(timed(|| Ok(lengths(&histogram, args.buckets)))?.1)
        }),
        Contender::new("fitted lengths, batches of 16,384 tokens", || {
            Ok(timed(|| Ok(lengths_filled(&histogram, args.buckets, &filling)))?.1)
        })
        .role(Role::Ours),
    ];
    let title = format!("{} lengths, all different, into {}", args.lengths, args.buckets);
    let contest = Contest::run("distinct", title, args.rounds, contenders)?;
    Ok(with_target(contest, PLAN_TARGET, "fitting"))
}

/// Plans for recorded requests: as many shapes as a recorder keeps apart.
fn traffic(args: &Args) -> Result<Contest> {
    let mut traffic = Traffic::default();
    let mut numbers = Random(11);
    for length in drawn(N_ROUTED)? {
        traffic.record(1 + numbers.below(8), length);
    }
    let workload = traffic.workload("batch", "sequence");
    let planned = |max_buckets| {
        let workload = &workload;
        let options = PlanOptions { max_buckets, ..PlanOptions::default() };
        move || {
            let plan = || Ok(plan(workload, &options, &PRICES, &Stock::default())?);
            Ok(timed(plan)?.1)
        }
    };
    let contenders = vec![
        Contender::new("a routing plan, 8 lengths of 4 numbers of rows each", planned(None)),
        Contender::new("the same with at most 8 programs", planned(Some(8))).role(Role::Ours),
    ];
    let n_shapes = traffic.n_shapes();
    let title = format!("{n_shapes} shapes of recorded requests");
    let contest = Contest::run("traffic", title, args.rounds, contenders)?;
    Ok(with_target(contest, PLAN_TARGET, "a plan"))
}

/// Requests of 1 to 200 rows of any length, over seven numbers of rows and eight lengths.
fn routing(args: &Args) -> Result<Contest> {
    let fitted = [47, 79, 115, 167, 232, 312, 406, 512];
    let rows = [1, 2, 4, 8, 16, 32, 64];
    let bucket =
        |rows: usize, length: usize| Bucket::from_iter([("batch", rows), ("sequence", length)]);
    let ready: Vec<Bucket> =
        rows.into_iter().flat_map(|rows| fitted.map(|length| bucket(rows, length))).collect();
    let freedom = Freedom { rows: Some("batch"), rigid: &[] };
    let build = || RoutingTable::new(&["batch", "sequence"], &ready, &freedom);
    let table = build()?;
    let lengths = drawn(N_ROUTED)?;
    let mut numbers = Random(7);
    let requests: Vec<[usize; 2]> =
        lengths.iter().map(|&length| [1 + numbers.below(200), length]).collect();
    let wanted: Vec<Bucket> =
        requests.iter().take(N_COVERED).map(|&[rows, length]| bucket(rows, length)).collect();
    let rows = |pieces: &mut dyn Iterator<Item = Piece>| pieces.map(|it| it.n_rows).sum::<usize>();
    let route = |[rows_wanted, length]: &[usize; 2]| -> Result<()> {
        let mut pieces = table.route(&[*rows_wanted, *length]).context("a request has no route")?;
        ensure!(rows(&mut pieces) == *rows_wanted, "a route has other rows");
        Ok(())
    };
    let contenders = vec![
        Contender::new(format!("{N_ROUTED} requests by a table of {}", ready.len()), || {
            Ok(timed(|| requests.iter().try_for_each(route))?.1)
        }),
        Contender::new(format!("{N_COVERED} requests by `cover`"), || {
            let cover = |wanted| drop(black_box(cover(wanted, &ready, &freedom)));
            Ok(timed(|| {
                wanted.iter().for_each(cover);
                Ok(())
            })?
            .1)
        })
        .role(Role::Ours),
        Contender::new("building the table", || Ok(timed(|| Ok(build()?))?.1)).role(Role::Ours),
    ];
    let contest = Contest::run("route", "requests to programs", args.rounds, contenders)?;
    Ok(with_target(contest, ROUTE_TARGET, "routing"))
}

fn recording(args: &Args) -> Result<Contest> {
    let lengths = drawn(N_ROUTED)?;
    let mut numbers = Random(9);
    let shapes: Vec<(usize, usize)> =
        lengths.into_iter().map(|length| (1 + numbers.below(16), length)).collect();
    let record = |capacity| {
        let shapes = &shapes;
        move || {
            let mut traffic = Traffic::new(capacity);
            let record = || {
                shapes.iter().for_each(|&(rows, length)| traffic.record(rows, length));
                Ok(())
            };
            Ok(timed(record)?.1)
        }
    };
    let contenders = vec![
        Contender::new("4,096 shapes kept apart", record(4096)),
        Contender::new("256 shapes kept apart", record(256)).role(Role::Ours),
    ];
    Contest::run("record", format!("{N_ROUTED} requests counted by shape"), args.rounds, contenders)
}

fn with_target(contest: Contest, target: Duration, what: &str) -> Contest {
    let ours = contest.ours();
    with_goal(contest, &format!("{what} takes"), target, ours)
}

fn with_goal(mut contest: Contest, what: &str, target: Duration, found: f64) -> Contest {
    contest.goals.push(Goal::at_most(format!("seconds that {what}"), target.as_secs_f64(), found));
    contest
}
