//! Threads that each send a request, wait for its answer, check it and send the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use shapeyard_core::Outputs;
use shapeyard_core::backend::{Executable, SessionOptions};
use shapeyard_core::engine::{Engine, EngineOptions, InferRequest};

use crate::concurrency::rows::{N_ROWS, Rows};
use crate::random::Random;

/// Threads with requests of every size, as a search of a game tree sends them.
pub(super) struct Crowd<'a> {
    pub(super) rows: &'a Rows,
    pub(super) n_threads: usize,
    pub(super) most_rows: usize,
    pub(super) seed: usize,
}

/// One answer that was right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    /// From handing the request in to having its answer.
    pub(super) seconds: f64,
    pub(super) done: Instant,
    /// Whether it came from a program, whole or in part.
    pub(super) by_program: bool,
}

impl Crowd<'_> {
    /// Sends requests while `work` runs; gives what it gave, and all answers.
    pub(super) fn run<T>(
        &self,
        executable: &Arc<dyn Executable>,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<(T, Vec<Answer>)> {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let session = SessionOptions::threads(1);
        let options =
            EngineOptions { n_sessions: processors, session, queue_capacity: self.n_threads };
        let engine = Engine::start(executable, &options)?;
        let end = AtomicBool::new(false);
        thread::scope(|scope| {
            let client = |thread: usize| {
                let (engine, end) = (&engine, &end);
                let random = Random((self.seed as u64) << 32 | thread as u64);
                move || self.client(engine, random, end)
            };
            let threads: Vec<_> = (0..self.n_threads).map(|n| scope.spawn(client(n))).collect();
            let result = work();
            end.store(true, Ordering::Relaxed);
            let mut answers = Vec::new();
            for thread in threads {
                let of_thread = thread.join().map_err(|_| anyhow!("a thread panicked"))?;
                answers.extend(of_thread?);
            }
            Ok((result?, answers))
        })
    }

    fn client(&self, engine: &Engine, mut random: Random, end: &AtomicBool) -> Result<Vec<Answer>> {
        let (mut answers, mut outputs) = (Vec::new(), Outputs::new());
        while !end.load(Ordering::Relaxed) {
            let n_rows = 1 + random.below(self.most_rows);
            let wanted: Vec<usize> = (0..n_rows).map(|_| random.below(N_ROWS)).collect();
            let request = InferRequest { inputs: self.rows.request(&wanted)?, outputs };
            let sent = Instant::now();
            let ticket = engine.submit_wait(request).map_err(|it| anyhow!("{it}"))?;
            let response = ticket.wait().map_err(|failed| anyhow!("{failed}"))?;
            let (seconds, done) = (sent.elapsed().as_secs_f64(), Instant::now());
            self.rows.n_equal(&wanted, response.outputs.tensors())?;
            let by_program = response.report.backend == shapeyard_migraphx::ID;
            answers.push(Answer { seconds, done, by_program });
            outputs = response.outputs;
        }
        ensure!(!answers.is_empty(), "no request was answered; give it more seconds");
        Ok(answers)
    }
}
