//! What follows from the figures: what to run this workload on, and when a device's programs would pay.

use std::fmt::Write as _;

use shapeyard_core::plan::prices::{PerProgram, Price};
use shapeyard_core::plan::{PlanOptions, Policy, Prices, RoutingPlan, Stock, Workload, plan};

use crate::contest::{Contest, Measured, Role};
use crate::record::Record;
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
    let mut text = String::new();
    for record in records {
        for contest in &record.contests {
            if let Some(found) = Found::of(record, contest) {
                // Writing to a string does not fail.
                let _ = found.write(&mut text, prices);
            }
        }
    }
    if text.is_empty() { text } else { format!("\n## What follows\n{text}") }
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

    fn write(&self, text: &mut String, prices: Option<Prices>) -> std::fmt::Result {
        let name = &self.contest.name;
        writeln!(text, "\n### {name}: {} texts, {} tokens", self.n_texts, number(self.n_tokens))?;
        self.write_best(text)?;
        let (Some(workload), Some(cpu)) = (self.workload(), self.cpu()) else { return Ok(()) };
        self.write_device(text, &workload, cpu, prices)
    }

    fn write_best(&self, text: &mut String) -> std::fmt::Result {
        let seconds = self.ours.rounds.median;
        let hours = |seconds: f64| number(seconds / self.n_texts * MANY / 3600.0);
        writeln!(
            text,
            "\nRun it with **{}**: {} texts a second; a million such texts take {} hours.",
            self.ours.name,
            number(self.n_texts / seconds),
            hours(seconds),
        )?;
        for note in self.contest.notes.iter().take(1) {
            writeln!(text, "Here {note}; nothing is compiled, so it has paid at once.")?;
        }
        writeln!(text)?;
        for rival in self.contest.contenders.iter().filter(|it| it.role == Role::Rival) {
            let other = rival.rounds.median;
            let (than, saved) = (other / seconds, hours(other - seconds));
            let (name, verb) = (&rival.name, if other >= seconds { "saves" } else { "costs" });
            writeln!(
                text,
                "* Beside {name}: {} s / {} s = {than:.2}; it {verb} {} hours a million texts.",
                number(other),
                number(seconds),
                saved.trim_start_matches('-'),
            )?;
        }
        Ok(())
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

    /// What the measured CPU costs: a token at full throughput, a start by what single queries of two lengths
    /// have in common.
    fn cpu(&self) -> Option<Price> {
        let prefix = format!("{}, single query of ", self.contest.name);
        let query = |contest: &Contest| {
            let length =
                contest.name.strip_prefix(&prefix)?.split(' ').next()?.parse::<f64>().ok()?;
            Some((length, contest.ours()))
        };
        let queries: Vec<(f64, f64)> = self.record.contests.iter().filter_map(query).collect();
        let launch = match queries[..] {
            [(short, quick), (long, slow), ..] if long > short => {
                (quick - short * (slow - quick) / (long - short)).max(0.0)
            }
            _ => return None,
        };
        let token = self.ours.rounds.median / self.n_tokens;
        Some(Price { load: 0.0, launch, token, token_length: 0.0 })
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
        for (name, prices) in cases {
            let options = PlanOptions {
                lengths: Policy::fitted(N_LENGTHS),
                ..PlanOptions::tokens(TOKEN_BUDGET)
            };
            let stock = Stock { cpu_is_loaded: true, ..Stock::default() };
            // These policies name extents; a plan without them has nothing to say.
            if let Ok(plan) = plan(workload, &options, &prices, &stock) {
                writeln!(text, "| {name} | {} |", cells(&plan))?;
            }
        }
        writeln!(
            text,
            "\nSaved = seconds on the CPU - seconds a pass; it pays after compiling / saved passes, rounded up. A \
             single query never pays for a compile: one pass of it saves milliseconds."
        )
    }
}

fn assumed(cpu: Price, speed: f64) -> Prices {
    let token = cpu.token / speed;
    let device = Price { load: ASSUMED_LOAD, launch: ASSUMED_LAUNCH, token, token_length: 0.0 };
    let compile = PerProgram { fixed: ASSUMED_COMPILE, token: 0.0 };
    Prices { device, cpu, compile, memory: PerProgram::default() }
}

fn cells(plan: &RoutingPlan) -> String {
    let mut lengths: Vec<usize> =
        plan.buckets.iter().filter_map(|it| it.bucket.get("sequence")).collect();
    lengths.sort_unstable();
    lengths.dedup();
    let lengths: Vec<String> = lengths.iter().map(ToString::to_string).collect();
    let lengths = if lengths.is_empty() { "all on the CPU".to_owned() } else { lengths.join(", ") };
    let totals = &plan.totals;
    let saved = totals.cpu_seconds - totals.seconds;
    let pays = match totals.break_even_runs {
        Some(1) => "1 pass".to_owned(),
        Some(n) => format!("{n} passes"),
        None => "never".to_owned(),
    };
    let numbers = [
        totals.padded_over_real(),
        totals.seconds,
        totals.cpu_seconds,
        saved,
        totals.compile_seconds,
    ];
    let [padded, seconds, cpu, saved, compile] = numbers.map(number);
    let n = plan.buckets.len();
    format!("{lengths} | {n} | {padded} | {seconds} | {cpu} | {saved} | {compile} | {pays}")
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
            contenders: vec![Measured::new("ours", Role::Ours, vec![seconds])],
            ..Contest::default()
        };
        let mut record = Record::new("encode", "");
        record.set("tokens", 10_000);
        record.set("lengths", serde_json::json!([[50, 50], [150, 50]]));
        record.contests = vec![texts, query(10, 0.003), query(100, 0.012)];
        record
    }

    #[test]
    fn the_arithmetic_is_that_of_the_figures() {
        let text = write(&[record()], None);
        assert!(
            text.contains("50.0 s / 10.0 s = 5.00; it saves 111 hours a million texts"),
            "{text}"
        );
        assert!(text.contains("1000 µs a token"), "{text}");
        assert!(text.contains("| 20 times | "), "{text}");
        let cpu = Found::of(&record(), &record().contests[0]).unwrap().cpu().unwrap();
        assert!((cpu.launch - 0.002).abs() < 1e-12 && (cpu.token - 0.001).abs() < 1e-12);
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
