//! Threads that each send a request, wait for its answer, check it and send the next.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use shapeyard_core::Outputs;
use shapeyard_core::engine::InferRequest;

use super::place::Contender;
use super::rows::{N_ROWS, Rows};
use crate::measure::cpu_time;
use crate::random::Random;

/// How many rows requests have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Batches {
    /// So many.
    Fixed(usize),
    /// From 1 to so many, each as often.
    UpTo(usize),
}

/// What the threads did in one round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) seconds: f64,
    /// Processor time of the whole process meanwhile.
    pub(crate) cpu_seconds: f64,
    pub(crate) n_rows: usize,
    pub(crate) n_padded_rows: usize,
    pub(crate) n_equal_rows: usize,
    /// From handing a request in to having its answer.
    pub(crate) latencies_ms: Vec<f64>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.n_rows += other.n_rows;
        self.n_padded_rows += other.n_padded_rows;
        self.n_equal_rows += other.n_equal_rows;
        self.latencies_ms.extend(other.latencies_ms);
    }
}

/// Runs the threads for so long. Equal rounds of all contenders send equal rows.
pub(crate) fn run(
    contender: &Contender,
    rows: &Rows,
    n_threads: usize,
    time: Duration,
    round: usize,
) -> Result<Tally> {
    let (start, cpu_before) = (Instant::now(), cpu_time());
    let tallies: Vec<Result<Tally>> = thread::scope(|scope| {
        let client = |thread: usize| {
            let random = Random((round as u64) << 32 | thread as u64);
            move || client(contender, rows, random, start + time)
        };
        let threads: Vec<_> = (0..n_threads).map(|n| scope.spawn(client(n))).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked")))
        };
        threads.into_iter().map(join).collect()
    });
    let cpu_seconds = (cpu_time() - cpu_before).as_secs_f64();
    let mut all = Tally { seconds: start.elapsed().as_secs_f64(), cpu_seconds, ..Tally::default() };
    for tally in tallies {
        all.add(tally?);
    }
    ensure!(!all.latencies_ms.is_empty(), "no request was answered; give it more seconds");
    Ok(all)
}

fn client(contender: &Contender, rows: &Rows, mut random: Random, end: Instant) -> Result<Tally> {
    let (mut tally, mut outputs) = (Tally::default(), Outputs::new());
    while Instant::now() < end {
        let n_rows = match contender.batches {
            Batches::Fixed(n_rows) => n_rows,
            Batches::UpTo(most) => 1 + random.below(most),
        };
        let wanted: Vec<usize> = (0..n_rows).map(|_| random.below(N_ROWS)).collect();
        let request = InferRequest { inputs: rows.request(&wanted)?, outputs };
        let sent = Instant::now();
        let ticket = contender.engine.submit_wait(request).map_err(|it| anyhow!("{it}"))?;
        let response = ticket.wait().map_err(|failed| anyhow!("{failed}"))?;
        tally.latencies_ms.push(sent.elapsed().as_secs_f64() * 1e3);
        tally.n_rows += n_rows;
        tally.n_padded_rows += response.report.n_padded_rows;
        tally.n_equal_rows += rows.n_equal(&wanted, response.outputs.tensors())?;
        outputs = response.outputs;
    }
    Ok(tally)
}
