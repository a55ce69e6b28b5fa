//! What follows from the figures: what to run this workload on, and when a device's programs would pay.

use std::fmt::Write as _;

use shapeyard_core::plan::calibrate::{Setting, Split};
use shapeyard_core::plan::prices::{PerProgram, Price};
use shapeyard_core::plan::{PlanOptions, Policy, Prices, RoutingPlan, Stock, Workload, plan};

use crate::contest::{Contest, Measured, Ratio, Role};
use crate::record::{Record, Way, way_of};
use crate::table::number;

/// How many times as fast as the measured CPU a device is assumed to run tokens, where no prices are given.
const ASSUMED_SPEEDS: [f64; 3] = [2.0, 5.0, 20.0];
/// Seconds to start a batch on an assumed device.
const ASSUMED_LAUNCH: f64 = 1e-3;
/// Seconds to compile and to load an assumed program.
const ASSUMED_COMPILE: f64 = 8.0;
const ASSUMED_LOAD: f64 = 0.1;
/// Tokens a batch of a device, and lengths that get programs.
const TOKEN_BUDGET: usize = 16_384;
const N_LENGTHS: usize = 8;
/// What a workload's seconds are shown for: more texts than anybody reads.
const MANY: f64 = 1e6;

/// The end of the page.
pub(super) fn write(records: &[Record], prices: Option<Prices>) -> String {
    let found: Vec<Found<'_>> = records
        .iter()
        .flat_map(|record| record.contests.iter().filter_map(|it| Found::of(record, it)))
        .collect();
    let mut text = String::new();
    if found.is_empty() {
        return text;
    }
    // Writing to a string does not fail.
    let _ = summary(&mut text, &found);
    for it in &found {
        let _ = it.write(&mut text, prices);
    }
    text
}

/// What to run, a line a model.
fn summary(text: &mut String, found: &[Found<'_>]) -> std::fmt::Result {
    writeln!(text, "\n## What follows\n")?;
    if found.iter().any(|it| it.record.noise.is_noisy()) {
        writeln!(
            text,
            "**The machine was busy when this was measured: run it again on a quiet one before you rely on it.**\n"
        )?;
    }
    let heads = ["model", "run it on", "texts/s", "times arrival order", "times the best other"];
    let more = ["peak MiB", "single query, ms"];
    writeln!(text, "| {} | {} |", heads.join(" | "), more.join(" | "))?;
    writeln!(text, "| --- | --- | ---: | ---: | ---: | ---: | ---: |")?;
    for it in found {
        let seconds = it.ours.rounds.median;
        let times = |other: Option<&Measured>| {
            other.map_or(String::new(), |other| format!("{:.2}", Ratio::of(other, it.ours).median))
        };
        let mut rivals = it.contest.contenders.iter().filter(|it| it.role == Role::Rival);
        let arrival = rivals.find(|it| it.name.contains(ARRIVAL));
        let memory =
            it.ours.facts.peak_memory_bytes.map_or(String::new(), |it| (it >> 20).to_string());
        let queries = it.queries();
        let queries = queries.iter().map(|it| {
            format!("{} of {} tokens ({})", number(1e3 * it.seconds), it.length, it.backend)
        });
        let (name, how, rate) = (&it.contest.name, it.how(), number(it.n_texts / seconds));
        let (arrival, best) = (times(arrival), times(it.contest.best(Role::Rival)));
        let queries = queries.collect::<Vec<_>>().join(", ");
        writeln!(text, "| {name} | {how} | {rate} | {arrival} | {best} | {memory} | {queries} |")?;
    }
    // Only what ran on one machine on the same texts can be told apart.
    for run in found.chunk_by(|a, b| std::ptr::eq(a.record, b.record)).filter(|run| run.len() > 1) {
        let rate = |it: &&Found<'_>| it.n_texts / it.ours.rounds.median;
        let Some(it) = run.iter().max_by(|a, b| rate(a).total_cmp(&rate(b))) else { continue };
        writeln!(
            text,
            "\nThe most texts a second: **{}** on {}. Files of narrower weights give other vectors; `tests/reference` and \
             the cosines above say how near they are.",
            it.contest.name,
            it.how()
        )?;
    }
    Ok(())
}

/// What the name of a contender has that takes texts in arrival order.
pub(crate) const ARRIVAL: &str = "arrival order";

/// What single queries of a length take.
struct Query {
    length: usize,
    seconds: f64,
    backend: String,
}

/// One model on one workload.
struct Found<'a> {
    record: &'a Record,
    contest: &'a Contest,
    ours: &'a Measured,
    n_texts: f64,
    n_tokens: f64,
}

impl<'a> Found<'a> {
    /// What a contest over the texts of an `encode` says; nothing for others.
    fn of(record: &'a Record, contest: &'a Contest) -> Option<Self> {
        let ours = contest.best(Role::Ours).filter(|_| record.suite == "encode")?;
        let (n_texts, _) = ours.facts.work.as_ref()?;
        let n_tokens = record.settings.get("tokens")?.as_f64()?;
        Some(Self { record, contest, ours, n_texts: *n_texts, n_tokens })
    }

    /// How the best of ours ran; one in arrival order finds nothing.
    fn way(&self) -> Option<Way> {
        let value = self.record.settings.get(&way_of(&self.contest.name, &self.ours.name))?;
        serde_json::from_value(value.clone()).ok()
    }

    /// The backend and its setting in words.
    fn how(&self) -> String {
        match self.way() {
            Some(Way { backend, setting }) => format!("{backend}, {setting}"),
            None => self.ours.name.clone(),
        }
    }

    fn write(&self, text: &mut String, prices: Option<Prices>) -> std::fmt::Result {
        let name = &self.contest.name;
        writeln!(text, "\n### {name}: {} texts, {} tokens", self.n_texts, number(self.n_tokens))?;
        self.write_best(text)?;
        let Some(workload) = self.workload() else { return Ok(()) };
        self.write_device(text, &workload, self.cpu(), prices)
    }

    fn write_best(&self, text: &mut String) -> std::fmt::Result {
        let seconds = self.ours.rounds.median;
        let hours = |seconds: f64| number(seconds / self.n_texts * MANY / 3600.0);
        writeln!(
            text,
            "\nRun it on **{}**: {} texts a second; a million such texts take {} hours. It takes every shape, so there \
             are no buckets to choose and nothing is compiled: it pays from the first run.",
            self.how(),
            number(self.n_texts / seconds),
            hours(seconds),
        )?;
        if let Some(Way { backend, setting: Setting { split, token_budget } }) = self.way() {
            let Split { n_sessions, n_threads } = split;
            let threads = n_sessions * n_threads;
            writeln!(
                text,
                "\n```sh\nshapeyard encode MODEL --tokenizer tokenizer.json TEXTS --out embeddings.npy --backend {backend} \
                 --threads {threads} --sessions {n_sessions} --token-budget {token_budget}\n```\n\n\
                 Without the last three options it finds such a setting on the job."
            )?;
        }
        writeln!(text)?;
        for rival in self.contest.contenders.iter().filter(|it| it.role == Role::Rival) {
            // Of the rounds that both took part in, as in the table above.
            let than = Ratio::of(rival, self.ours).median;
            let (name, saved) = (&rival.name, hours(seconds * (than - 1.0).abs()));
            let verb = if than >= 1.0 { "saves" } else { "costs" };
            writeln!(
                text,
                "* Beside {name}: {than:.2} times as long as ours; ours {verb} {saved} hours a million texts."
            )?;
        }
        Ok(())
    }

    /// Single queries, as the better of ours answers them.
    fn queries(&self) -> Vec<Query> {
        let prefix = format!("{}, single query of ", self.contest.name);
        let query = |contest: &Contest| {
            let length = contest.name.strip_prefix(&prefix)?.split(' ').next()?.parse().ok()?;
            let ours = contest.best(Role::Ours)?;
            let backend = ours.name.trim_start_matches("ours, ").split(", ").next()?.to_owned();
            Some(Query { length, seconds: ours.rounds.median, backend })
        };
        self.record.contests.iter().filter_map(query).collect()
    }

    /// The lengths that were measured.
    fn workload(&self) -> Option<Workload> {
        let counts = self.record.settings.get("lengths")?.as_array()?;
        let pair = |it: &serde_json::Value| {
            let (length, n) = (it.get(0)?.as_u64()?, it.get(1)?.as_u64()?);
            Some(vec![usize::try_from(length).ok()?; usize::try_from(n).ok()?])
        };
        let lengths: Vec<usize> = counts.iter().filter_map(pair).flatten().collect();
        Some(Workload::items("batch", "sequence", lengths))
    }

    /// What the measured CPU costs. Starting the batches is in the time of the tokens already.
    fn cpu(&self) -> Price {
        let token = self.ours.rounds.median / self.n_tokens;
        Price { load: 0.0, launch: 0.0, token, token_length: 0.0 }
    }

    fn write_device(
        &self,
        text: &mut String,
        workload: &Workload,
        cpu: Price,
        measured: Option<Prices>,
    ) -> std::fmt::Result {
        let cpu_words = format!("{} µs a token", number(1e6 * cpu.token));
        let cases: Vec<(String, Prices)> = match measured {
            Some(prices) => vec![("measured".to_owned(), Prices { cpu, ..prices })],
            None => {
                ASSUMED_SPEEDS.map(|speed| (format!("{speed} times"), assumed(cpu, speed))).into()
            }
        };
        let basis = match measured {
            Some(_) => "by the prices that were given".to_owned(),
            None => format!(
                "**assumed**: {} ms to start a batch, {ASSUMED_COMPILE} s to compile a program; give measured ones \
                 by `--prices`",
                1e3 * ASSUMED_LAUNCH
            ),
        };
        writeln!(
            text,
            "\nWould programs of fixed shapes on a device pay for these texts? The CPU is as measured, {cpu_words}; \
             the device is {basis}. A pass is all texts once.\n"
        )?;
        let heads = ["device's tokens, beside the CPU's", "lengths", "programs", "padded / real"];
        let more = ["s a pass", "s on the CPU", "saved s", "compiling s", "pays after"];
        writeln!(text, "| {} | {} |", heads.join(" | "), more.join(" | "))?;
        writeln!(text, "| --- | --- |{}", " ---: |".repeat(heads.len() + more.len() - 2))?;
        for (name, prices) in &cases {
            let options = PlanOptions {
                lengths: Policy::fitted(N_LENGTHS),
                ..PlanOptions::tokens(TOKEN_BUDGET)
            };
            let stock = Stock { cpu_is_loaded: true, ..Stock::default() };
            // These policies name extents; a plan without them has nothing to say.
            if let Ok(plan) = plan(workload, &options, prices, &stock) {
                writeln!(text, "| {name} | {} |", cells(&plan, self.ours.rounds.median))?;
            }
        }
        writeln!(
            text,
            "\nSaved = seconds on the CPU - seconds a pass; it pays after compiling / saved passes, rounded up."
        )?;
        self.write_queries(text, &cases)
    }

    /// After how many single queries a program of just their length has paid.
    fn write_queries(&self, text: &mut String, cases: &[(String, Prices)]) -> std::fmt::Result {
        for Query { length, seconds, backend } in self.queries() {
            let pays = |(name, prices): &(String, Prices)| {
                let device = prices.device.batch(1, length);
                let compile = prices.compile.of(1, length);
                let (saved, device) = (seconds - device, number(1e3 * device));
                match (compile / saved).ceil() {
                    n if saved > 0.0 => format!("{name}: {device} ms there, after {n:.0} queries"),
                    _ => format!("{name}: {device} ms there, never"),
                }
            };
            let pays: Vec<String> = cases.iter().map(pays).collect();
            let cpu = number(1e3 * seconds);
            writeln!(
                text,
                "\nA single query of {length} tokens takes {cpu} ms on the CPU ({backend}); a program for it pays ({}).",
                pays.join("; ")
            )?;
        }
        Ok(())
    }
}

fn assumed(cpu: Price, speed: f64) -> Prices {
    let token = cpu.token / speed;
    let device = Price { load: ASSUMED_LOAD, launch: ASSUMED_LAUNCH, token, token_length: 0.0 };
    let compile = PerProgram { fixed: ASSUMED_COMPILE, token: 0.0 };
    Prices { device, cpu, compile, memory: PerProgram::default() }
}

/// What a plan says beside what the CPU was measured to take.
fn cells(plan: &RoutingPlan, cpu: f64) -> String {
    let mut lengths: Vec<usize> =
        plan.buckets.iter().filter_map(|it| it.bucket.get("sequence")).collect();
    lengths.sort_unstable();
    lengths.dedup();
    let lengths: Vec<String> = lengths.iter().map(ToString::to_string).collect();
    let (totals, n) = (&plan.totals, plan.buckets.len());
    let (lengths, seconds) = match n {
        0 => ("all on the CPU".to_owned(), cpu),
        _ => (lengths.join(", "), totals.seconds),
    };
    let saved = cpu - seconds;
    let pays = match (totals.compile_seconds / saved).ceil() {
        n if n.is_finite() && n > 1.0 => format!("{n:.0} passes"),
        n if n.is_finite() && n > 0.0 => "1 pass".to_owned(),
        _ => "never".to_owned(),
    };
    let numbers =
        [totals.padded_over_real(), seconds, cpu, saved, totals.compile_seconds].map(number);
    format!("{lengths} | {n} | {} | {pays}", numbers.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contest::Facts;

    fn record() -> Record {
        let mut ours = Measured::new("ours", Role::Ours, vec![10.0]);
        ours.facts = Facts { work: Some((100.0, "texts".to_owned())), ..Facts::default() };
        let rival = Measured::new("arrival order", Role::Rival, vec![50.0]);
        let texts =
            Contest { name: "m".to_owned(), contenders: vec![ours, rival], ..Contest::default() };
        let query = |length: usize, seconds: f64| Contest {
            name: format!("m, single query of {length} tokens"),
            contenders: vec![Measured::new("ours, rten, sleeping", Role::Ours, vec![seconds])],
            ..Contest::default()
        };
        let mut record = Record::new("encode", "");
        record.set("tokens", 10_000);
        record.set("lengths", serde_json::json!([[50, 50], [150, 50]]));
        let split = Split { n_sessions: 2, n_threads: 1 };
        let setting = Setting { split, token_budget: 512 };
        let way = serde_json::to_value(Way { backend: "onnxruntime".to_owned(), setting });
        record.set(&way_of("m", "ours"), way.unwrap());
        record.contests = vec![texts, query(10, 0.003), query(100, 0.012)];
        record
    }

    #[test]
    fn the_arithmetic_is_that_of_the_figures() {
        let text = write(&[record()], None);
        assert!(
            text.contains("5.00 times as long as ours; ours saves 111 hours a million texts"),
            "{text}"
        );
        assert!(
            text.contains("--backend onnxruntime --threads 2 --sessions 2 --token-budget 512"),
            "{text}"
        );
        let line = "| m | onnxruntime, 2 sessions of 1 thread, 512 tokens a batch | 10.0 | 5.00 | 5.00 |  | 3.00 of 10";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("1000 µs a token"), "{text}");
        assert!(text.contains("| 20 times | "), "{text}");
        // 10 tokens of 50 µs after a start of 1 ms: 8 s / (3 ms - 1.5 ms).
        assert!(text.contains("takes 3.00 ms on the CPU (rten)"), "{text}");
        assert!(text.contains("20 times: 1.50 ms there, after 5334 queries"), "{text}");
        let price = Price { load: 0.0, launch: 1e-3, token: 5e-5, token_length: 1e-5 };
        let prices = Prices { device: price, ..assumed(price, 1.0) };
        // As much again for every token of every token.
        let text = write(&[record()], Some(prices));
        assert!(text.contains("measured: 2.50 ms there, after 160"), "{text}");
        let cpu = Found::of(&record(), &record().contests[0]).unwrap().cpu();
        assert!((cpu.token - 0.001).abs() < 1e-12);
    }

    #[test]
    fn a_device_no_faster_than_the_cpu_gets_no_program() {
        let prices = assumed(Price { load: 0.0, launch: 0.0, token: 1e-3, token_length: 0.0 }, 1.0);
        let text = write(&[record()], Some(prices));
        assert!(text.contains("| measured | all on the CPU | 0 |"), "{text}");
    }

    #[test]
    fn other_suites_advise_nothing() {
        assert_eq!(write(&[Record { suite: "cache".to_owned(), ..record() }], None), "");
    }
}
