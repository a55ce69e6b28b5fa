//! A plan for people.

use std::io::{self, Write};
use std::time::Duration;

use shapeyard_core::Route;
use shapeyard_core::plan::routing::{PlannedBatches, PlannedBucket};

use super::Planned;
use crate::human;
use crate::output::Report;
use crate::table::Table;

/// So many kinds of batches are listed, those with the most tokens.
const N_BATCHES: usize = 20;

/// So many reasons are listed.
const N_REASONS: usize = 12;

impl Report for Planned {
    const COMMAND: &'static str = "plan";

    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        self.programs(out)?;
        if self.is_explained {
            self.batches(out)?;
        }
        self.totals(out)?;
        self.present(out)?;
        self.reasons(out)
    }
}

impl Planned {
    fn programs(&self, out: &mut dyn Write) -> io::Result<()> {
        let heading =
            ["PROGRAM", "RUNS", "TOKENS", "PADDING", "TIME", "SAVES", "COMPILE", "PAID AFTER"];
        let mut table = Table::new(heading);
        for it in &self.plan.buckets {
            table.row([
                it.bucket.to_string(),
                it.n_runs.to_string(),
                percent(it.share),
                padding(it.n_real_tokens, it.n_padded_tokens),
                time(it.seconds),
                saved(it.saved_seconds),
                time(it.compile_seconds),
                paid(it),
            ]);
        }
        if self.plan.buckets.is_empty() {
            return writeln!(out, "no program is worth it");
        }
        table.write(out)
    }

    fn batches(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut batches: Vec<&PlannedBatches> = self.plan.batches.iter().collect();
        batches.sort_by_key(|it| std::cmp::Reverse(it.n_real_tokens));
        let n_more = batches.len().saturating_sub(N_BATCHES);
        let mut table = Table::new(["BATCHES", "ROWS", "LENGTH", "ROUTE", "WHERE", "WHY"]);
        for it in batches.into_iter().take(N_BATCHES) {
            table.row([
                it.n_batches.to_string(),
                it.n_rows.to_string(),
                it.length.to_string(),
                route(it.route).to_owned(),
                self.place(it),
                it.reason.clone(),
            ]);
        }
        if self.plan.batches.is_empty() {
            return Ok(());
        }
        writeln!(out)?;
        table.write(out)?;
        if n_more > 0 {
            writeln!(
                out,
                "and {n_more} kinds more, with fewer tokens; --format json has them all"
            )?;
        }
        Ok(())
    }

    /// Programs and the rows that each takes; equal pieces are counted.
    fn place(&self, batches: &PlannedBatches) -> String {
        let name = |bucket: Option<usize>| {
            let program = bucket.and_then(|nth| self.plan.buckets.get(nth));
            program.map_or_else(|| "cpu".to_owned(), |it| it.bucket.to_string())
        };
        let mut counted: Vec<(Option<usize>, usize)> = Vec::new();
        for piece in &batches.pieces {
            match counted.last_mut() {
                Some((bucket, n)) if *bucket == piece.bucket => *n += 1,
                _ => counted.push((piece.bucket, 1)),
            }
        }
        let parts = counted.into_iter().map(|(bucket, n)| match n {
            1 => name(bucket),
            n => format!("{n} x {}", name(bucket)),
        });
        parts.collect::<Vec<_>>().join(" + ")
    }

    /// What was decided about the plan as a whole; without --explain the last of it.
    fn reasons(&self, out: &mut dyn Write) -> io::Result<()> {
        let most = if self.is_explained { N_REASONS } else { 1 };
        let reasons = &self.plan.reasons;
        let n_more = reasons.len().saturating_sub(most);
        if !reasons.is_empty() {
            writeln!(out)?;
        }
        if n_more > 0 && self.is_explained {
            writeln!(out, "- {n_more} programs more are left out; --format json says why")?;
        }
        // What was decided last matters most.
        reasons.iter().skip(n_more).try_for_each(|reason| writeln!(out, "- {reason}"))?;
        if !self.is_explained && !self.plan.batches.is_empty() {
            writeln!(out, "--explain says where each batch runs, and why")?;
        }
        Ok(())
    }

    /// What the plan is worth beside the programs that are there.
    fn present(&self, out: &mut dyn Write) -> io::Result<()> {
        let Some(present) = &self.present else { return Ok(()) };
        let (n, used) = (human::count(present.buckets.len(), "program"), present.n_used);
        let seconds = time(present.totals.seconds);
        writeln!(out, "present    {n}, {used} of them used: {seconds} a pass")?;
        let compile = time(self.plan.totals.compile_seconds);
        let saves = saved(present.saved_seconds);
        match present.break_even_runs.filter(|_| present.saved_seconds > 1e-9) {
            Some(0) => writeln!(out, "saves      {saves} a pass beside them, without a compile"),
            Some(n) => writeln!(
                out,
                "saves      {saves} a pass beside them; {compile} of compiling, paid after {}",
                passes(n)
            ),
            None => writeln!(out, "saves      nothing beside them"),
        }
    }

    fn totals(&self, out: &mut dyn Write) -> io::Result<()> {
        let totals = &self.plan.totals;
        let n_rows = totals.n_rows;
        writeln!(out)?;
        let batches = if totals.n_batches == 1 { "batch" } else { "batches" };
        writeln!(out, "rows       {n_rows} in {} {batches}", totals.n_batches)?;
        writeln!(
            out,
            "tokens     {} real, {} run: {:.3} for each real one",
            totals.n_real_tokens,
            totals.n_padded_tokens,
            totals.padded_over_real()
        )?;
        let cpu_share = totals.n_cpu_tokens as f64 / totals.n_real_tokens.max(1) as f64;
        writeln!(out, "on the cpu {} of the real tokens", percent(cpu_share))?;
        let (seconds, cpu) = (time(totals.seconds), time(totals.cpu_seconds));
        writeln!(out, "time       {seconds} a pass; {cpu} on the cpu alone")?;
        writeln!(out, "prices     programs: {}", self.prices_from.device.text())?;
        writeln!(out, "           cpu: {}", self.prices_from.cpu.text())?;
        let compile = time(totals.compile_seconds);
        match totals.break_even_runs {
            _ if self.plan.buckets.is_empty() => Ok(()),
            Some(n) => writeln!(out, "compiling  {compile}, paid after {}", passes(n)),
            None => writeln!(out, "compiling  {compile}, which never pays"),
        }
    }
}

fn paid(bucket: &PlannedBucket) -> String {
    bucket.break_even_runs.map_or_else(|| "never".to_owned(), passes)
}

fn passes(n: u64) -> String {
    if n == 1 { "1 pass".to_owned() } else { format!("{n} passes") }
}

fn saved(seconds: f64) -> String {
    if seconds < 0.0 { format!("-{}", time(-seconds)) } else { time(seconds) }
}

fn time(seconds: f64) -> String {
    Duration::try_from_secs_f64(seconds).map_or_else(|_| "for ever".to_owned(), human::time)
}

fn percent(share: f64) -> String {
    format!("{:.1}%", 100.0 * share)
}

fn padding(n_real: u64, n_padded: u64) -> String {
    percent(1.0 - n_real as f64 / n_padded.max(1) as f64)
}

fn route(route: Route) -> &'static str {
    match route {
        Route::Exact => "exact",
        Route::Padded => "padded",
        Route::Split => "split",
        Route::Fallback => "cpu",
        Route::Hybrid => "hybrid",
        _ => "other",
    }
}
