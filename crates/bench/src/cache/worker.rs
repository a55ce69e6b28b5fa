//! A process that loads one entry or file when it is told to, and crews of such processes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use shapeyard_cache::{Ask, Produced, Served, Store};
use shapeyard_core::Model;

use super::place;
use crate::child::Child;
use crate::contest::{Sample, timed};

/// How long the producer of the race takes before it writes.
pub(crate) const PRODUCTION: Duration = Duration::from_millis(200);

/// What a worker says when it is ready: JSON, as all that it says.
const READY: bool = true;

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Job {
    /// Opens the store and takes an artifact from it, made if need be.
    Obtain,
    /// Reads the plain file into a new vector.
    Read,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    job: Job,
    /// The folder in which the suite keeps everything.
    #[arg(long)]
    folder: PathBuf,
    /// Which artifact to obtain.
    #[arg(long)]
    artifact: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    took: Duration,
    produced: bool,
}

/// Prepares, says so, waits for a line and does the job.
pub(crate) fn run(args: &Args) -> Result<()> {
    let plain = args.folder.join("plain");
    let bytes = std::fs::read(&plain)?;
    let model = Model::open(args.folder.join("model.onnx"))?;
    println!("{READY}");
    let told = std::io::stdin().read_line(&mut String::new())?;
    ensure!(told > 0, "whoever started this worker is gone");
    let answer = match args.job {
        Job::Obtain => obtain(&args.folder.join("store"), &model, &args.artifact, &bytes)?,
        Job::Read => {
            let (_, took) = timed(|| Ok(std::fs::read(&plain)?))?;
            Answer { took, produced: false }
        }
    };
    println!("{}", serde_json::to_string(&answer)?);
    Ok(())
}

fn obtain(root: &Path, model: &Model, artifact: &str, bytes: &[u8]) -> Result<Answer> {
    let (outcome, took) = timed(|| {
        let store = Store::open(root)?;
        let key = place::key(&store, model, artifact)?;
        let produce = |path: &Path| {
            std::thread::sleep(PRODUCTION);
            std::fs::write(path, bytes)?;
            Ok(Produced::default())
        };
        Ok(store.get_or_produce(&key, &Ask::new(), produce)?)
    })?;
    let known = matches!(outcome.served, Served::Hit | Served::Produced);
    ensure!(known, "the artifact was served as {:?}: {:?}", outcome.served, outcome.warnings);
    Ok(Answer { took, produced: outcome.served == Served::Produced })
}

/// Has so many processes do the job at once; gives what it took and how many of them produced.
///
/// Counted from when all are ready: what it takes to start a process is nobody's merit.
pub(crate) fn at_once(
    n_workers: usize,
    job: Job,
    folder: &Path,
    artifact: &str,
) -> Result<(Sample, usize)> {
    let mut crew =
        (0..n_workers).map(|_| start(job, folder, artifact)).collect::<Result<Vec<Child>>>()?;
    for worker in &mut crew {
        ensure!(worker.answer::<bool>()?, "a worker has another beginning");
    }
    let started = Instant::now();
    for worker in &mut crew {
        worker.order("go")?;
    }
    let mut answers = Vec::with_capacity(n_workers);
    for worker in &mut crew {
        answers.push(worker.answer::<Answer>()?);
    }
    let wall = started.elapsed();
    let loads = answers.iter().map(|answer| answer.took).collect();
    let n_produced = answers.iter().filter(|answer| answer.produced).count();
    Ok((Sample { wall, loads }, n_produced))
}

fn start(job: Job, folder: &Path, artifact: &str) -> Result<Child> {
    let job = job.to_possible_value().context("a job has a name")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["cache-worker", "--artifact", artifact, "--job", job.get_name(), "--folder"]);
    command.arg(folder);
    Child::start(command)
}
