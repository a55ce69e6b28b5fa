//! The `serve-mix` suite: many threads with random shapes at once, by an engine of ours and by sessions that
//! are shared by hand.

pub mod contender;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use shapeyard_core::plan::calibrate::{Split, splits};

use self::contender::{Order, Tally};
use crate::child::Child;
use crate::contest::{Contest, Facts, Measured, Role};
use crate::measure::{Percentiles, order};
use crate::record::Record;
use crate::suite::{Host, Output, Suite, at_least_one, open_model};

/// The hidden command of this program that serves.
pub const CONTENDER: &str = "serve-contender";

/// What to measure.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Every thread sends a request, waits for its answer and sends the next, until the time is up; in equal rounds all \
contenders meet the same order of requests. Each contender serves in a process of its own.

Examples:
  cargo xtask bench serve-mix
  cargo xtask bench serve-mix --lengths 8..128 --seconds 5
  shapeyard bench serve-mix --model M.onnx --threads 32")]
pub struct Args {
    /// The model; requests have rows along `batch` and a length along `sequence`, as far as it has them.
    #[arg(long, value_name = "FILE", default_value = "target/models/minilm-l6/minilm-l6.onnx")]
    model: PathBuf,
    /// Rows of a request at most, each number as often.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_least_one)]
    rows: usize,
    /// Length of a request, shortest and longest, each as often.
    #[arg(long, value_name = "A..B", default_value = "4..32", value_parser = range)]
    lengths: (usize, usize),
    /// Threads that send requests.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_least_one)]
    threads: usize,
    /// Processors that each contender may use.
    #[arg(long, value_name = "N", default_value_t = std::thread::available_parallelism().map_or(1, usize::from), value_parser = at_least_one)]
    processors: usize,
    /// How long each contender serves in a round.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = at_least_one)]
    seconds: usize,
    /// Interleaved rounds of all contenders.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = at_least_one)]
    rounds: usize,
    /// Backends of ours, one contender each in its best split of threads.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "onnxruntime,rten")]
    backends: Vec<String>,
    #[command(flatten)]
    output: Output,
}

fn range(text: &str) -> Result<(usize, usize), String> {
    let bounds = text.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    let bounds = bounds.filter(|(least, most)| *least > 0 && least <= most);
    bounds.ok_or_else(|| "two lengths such as `4..32`, the shorter first".to_owned())
}

impl Suite for Args {
    const NAME: &'static str = "serve-mix";

    fn output(&self) -> &Output {
        &self.output
    }

    fn measure(&self, host: &Host, record: &mut Record) -> Result<()> {
        open_model(&self.model)?;
        let (least, most) = self.lengths;
        record.set("model", super::encode::name_of(&self.model));
        record.set("rows", format!("1 to {}", self.rows));
        record.set("length", format!("{least} to {most}"));
        record.set("threads", self.threads);
        record.set("processors", self.processors);
        record.set("seconds", self.seconds);
        let contest = self.contest(host, record)?;
        record.contests.push(contest);
        Ok(())
    }
}

/// One contender that serves, and what it did.
struct Server {
    name: String,
    role: Role,
    child: Child,
    tallies: Vec<Tally>,
}

impl Args {
    fn contest(&self, host: &Host, record: &mut Record) -> Result<Contest> {
        let splits = splits(self.processors);
        let mut servers = Vec::new();
        for backend in &self.backends {
            for split in &splits {
                let name = format!("ours, {backend}: {split}");
                servers.push(self.start(host, name, Role::Ours, (backend, false), *split)?);
            }
        }
        for split in &splits {
            // One thread has nobody who could look for work beside it.
            for spins in [false, true].into_iter().filter(|spins| !spins || split.n_threads > 1) {
                let how = if spins { ", spinning" } else { "" };
                let name = format!("ONNX Runtime directly, shared by hand: {split}{how}");
                let who = (contender::DIRECT, spins);
                servers.push(self.start(host, name, Role::Rival, who, *split)?);
            }
        }
        let mut notes = Vec::new();
        servers.retain_mut(|server| match server.warm(record) {
            Ok(()) => true,
            Err(error) => {
                notes.push(format!("left out: {}: {error:#}", server.name));
                false
            }
        });
        notes.iter().for_each(|note| eprintln!("{note}"));
        let has_ours = servers.iter().any(|it| it.role == Role::Ours);
        ensure!(has_ours, "none of ours serves: {}", notes.join("; "));
        for round in 0..self.rounds {
            for at in order(round, servers.len()) {
                eprintln!("round {} of {}: {}", round + 1, self.rounds, servers[at].name);
                let seconds = self.seconds as f64;
                servers[at].serve(Order { seconds, round: 1 + round as u64 })?;
            }
        }
        let (least, most) = self.lengths;
        let rows = format!("1 to {} rows of {least} to {most} tokens", self.rows);
        Ok(Contest {
            name: super::encode::name_of(&self.model),
            title: format!("seconds a row: {} threads, each request {rows}", self.threads),
            n_warm_up: 1,
            n_rounds: self.rounds,
            contenders: servers.iter().map(Server::measured).collect(),
            notes,
            ..Contest::default()
        })
    }

    fn start(
        &self,
        host: &Host,
        name: String,
        role: Role,
        (backend, spins): (&str, bool),
        split: Split,
    ) -> Result<Server> {
        let mut command = host.hidden(CONTENDER)?;
        command.arg("--model").arg(&self.model).args(["--backend", backend]);
        command.args(spins.then_some("--spins"));
        let (least, most) = self.lengths;
        let numbers = [
            ("--sessions", split.n_sessions),
            ("--session-threads", split.n_threads),
            ("--rows", self.rows),
            ("--shortest", least),
            ("--longest", most),
            ("--clients", self.threads),
        ];
        for (name, value) in numbers {
            command.args([name, &value.to_string()]);
        }
        Ok(Server { name, role, child: Child::start(command)?, tallies: Vec::new() })
    }
}

impl Server {
    /// Waits until it serves, and makes it fill what it keeps: a round that does not count.
    fn warm(&mut self, record: &mut Record) -> Result<()> {
        let (name, version): (String, String) = self.child.answer()?;
        if !version.is_empty() {
            record.library(&name, version);
        }
        self.serve(Order { seconds: 1.0, round: 0 })?;
        self.tallies.clear();
        Ok(())
    }

    fn serve(&mut self, order: Order) -> Result<()> {
        self.child.order(&serde_json::to_string(&order)?)?;
        let tally: Tally = self.child.answer()?;
        ensure!(tally.n_rows > 0, "`{}` answered nothing; give it more --seconds", self.name);
        self.tallies.push(tally);
        Ok(())
    }

    fn measured(&self) -> Measured {
        let all = &self.tallies;
        let seconds = all.iter().map(|it| it.seconds / it.n_rows as f64).collect();
        let latencies: Vec<f64> = all.iter().flat_map(|it| it.latencies.iter().copied()).collect();
        let n_rows: usize = all.iter().map(|it| it.n_rows).sum();
        let cpu_seconds: f64 = all.iter().map(|it| it.cpu_seconds).sum();
        let peak = all.iter().map(|it| it.peak_memory_bytes).max();
        let more = [("rows/CPU s".to_owned(), n_rows as f64 / cpu_seconds)].into();
        let mut facts = Facts {
            work: Some((1.0, "rows".to_owned())),
            peak_memory_bytes: peak,
            more,
            ..Facts::default()
        };
        for tally in all {
            facts.counts.merge(&tally.counts);
        }
        let calls = Some(Percentiles::of(&latencies));
        Measured { calls, facts, ..Measured::new(self.name.clone(), self.role, seconds) }
    }
}
