//! Every suite, one after the other, each in a process of its own, and a page of what they found.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result};
use shapeyard_bench::suite::{BadArgument, Host};

use crate::record::{self, Record};
use crate::report;

/// Names the script that runs a program where MIGraphX is; `cargo xtask bench` sets it.
const ROOT_VARIABLE: &str = "SHAPEYARD_BENCH_ROOT";
/// The real model, which `cargo xtask models` makes.
const MODEL: &str = "target/models/minilm-l6/minilm-l6.onnx";
const RECORDS: &str = "records.jsonl";

/// What to run.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
On two quiet processors --quick takes less than ten minutes; the whole takes several times as long. A suite that cannot run \
here says why in one line and is left out of the page. Run it while nothing else runs.

Examples:
  cargo xtask bench all --quick
  cargo xtask bench all --only encode,cache
  cargo xtask bench all --quick --peers          OpenVINO and sentence-transformers beside the others
  cargo xtask bench all --out docs/records --no-report   for the page that the repository keeps")]
pub(crate) struct Args {
    /// Fewer rounds on less work: the same page, in minutes
    #[arg(long)]
    quick: bool,
    /// Run only these
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    only: Vec<String>,
    /// The folder for records and page; what an earlier run of the same suites left there is replaced
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
    /// Measure OpenVINO and sentence-transformers in `encode` too, as far as they are there
    #[arg(long)]
    peers: bool,
    /// Leave records only
    #[arg(long)]
    no_report: bool,
}

/// What a suite cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    Nothing,
    /// The real model and ONNX Runtime.
    Model,
    /// MIGraphX: it runs inside the root.
    Migraphx,
    /// All of that, as far as it is there.
    Both,
}

/// How a suite is run, and the seconds that this takes on two quiet processors.
type Way = (&'static str, u32);

/// One suite and how it is run.
struct Member {
    suite: &'static str,
    needs: Needs,
    quick: Way,
    whole: Way,
}

const fn member(suite: &'static str, needs: Needs, quick: Way, whole: Way) -> Member {
    Member { suite, needs, quick, whole }
}

const MEMBERS: [Member; 11] = [
    member("sensitivity", Needs::Nothing, ("", 1), ("--rounds 901", 2)),
    member("plan", Needs::Nothing, ("--rounds 3", 6), ("", 12)),
    member("cache", Needs::Nothing, ("--rounds 9 --long-rounds 3", 20), ("", 60)),
    member("overhead", Needs::Migraphx, ("--rounds 60", 8), ("", 30)),
    member("concurrency", Needs::Migraphx, ("--seconds 3 --rounds 3", 35), ("", 200)),
    member("router", Needs::Migraphx, ("--sleep 3 --rounds 1", 20), ("", 150)),
    member("io", Needs::Nothing, ("--rounds 9 --lane-rounds 1", 1), ("", 1)),
    member("prices", Needs::Model, ("--rounds 1 --units 60", 75), ("", 420)),
    member("coldstart", Needs::Both, ("--rounds 3 --answers 30", 25), ("", 80)),
    member("serve-mix", Needs::Model, ("--rounds 3 --seconds 1", 40), ("--rounds 9", 240)),
    member(
        "encode",
        Needs::Model,
        ("--units 40 --rounds 3 --query-rounds 5", 280),
        ("--units 2000 --rounds 3", 3000),
    ),
];

/// Runs the suites. A suite that fails does not keep the others from running; the exit code is 1 then.
pub(crate) fn run(args: &Args, host: &Host) -> Result<ExitCode> {
    let unknown = args.only.iter().find(|name| MEMBERS.iter().all(|it| it.suite != *name));
    let unknown = unknown.map(|name| BadArgument::new(format!("there is no suite `{name}`")));
    unknown.map_or(Ok(()), Err)?;
    let is_wanted =
        |it: &&Member| args.only.is_empty() || args.only.iter().any(|name| name == it.suite);
    let members: Vec<&Member> = MEMBERS.iter().filter(is_wanted).collect();
    let records = args.out.join(RECORDS);
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("`{}` cannot be made", args.out.display()))?;
    if records.exists() {
        // Of another form it would be lost when the first suite is done; its reader decides that, now.
        record::read(&records)?;
    }
    let mut progress = Progress::start(members.iter().map(|it| it.way(args).1).collect());
    let mut failed = Vec::new();
    for member in &members {
        eprintln!("\n== {}: {progress}", member.suite);
        if let Some(reason) = member.lacks() {
            eprintln!("skipped: {reason}");
            let record = Record::new(member.suite, format!("{} {}", host.call, member.suite));
            record::replace(&records, &[Record { skipped: Some(reason), ..record }])?;
        } else if !member.run(host, args, &records)? {
            failed.push(member.suite);
        }
        progress.done();
    }
    if !args.no_report {
        let files = report::files(std::slice::from_ref(&records), None, false)?;
        report::write(&args.out, &files)?;
    }
    eprintln!("\n{:.0} s in all; records: {}", progress.elapsed(), records.display());
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("failed: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}

/// How far a run is, by what its suites take on two quiet processors.
struct Progress {
    start: Instant,
    /// Of each suite, in order.
    expected: Vec<u32>,
    n_done: usize,
}

impl Progress {
    fn start(expected: Vec<u32>) -> Self {
        Self { start: Instant::now(), expected, n_done: 0 }
    }

    fn done(&mut self) {
        self.n_done += 1;
    }

    fn elapsed(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Seconds that are left if this machine goes on as it began; faster than two quiet processors it is not
    /// taken to be, since the first suites are short.
    fn left(&self, elapsed: f64) -> f64 {
        let (done, left) = self.expected.split_at(self.n_done);
        let [done, left] = [done, left].map(|it| it.iter().copied().map(f64::from).sum::<f64>());
        let pace = if done > 0.0 { (elapsed / done).max(1.0) } else { 1.0 };
        left * pace
    }
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (nth, n, elapsed) = (self.n_done + 1, self.expected.len(), self.elapsed());
        let minutes = self.left(elapsed) / 60.0;
        write!(f, "suite {nth} of {n} after {elapsed:.0} s, about {minutes:.1} min left")
    }
}

impl Member {
    const fn way(&self, args: &Args) -> Way {
        if args.quick { self.quick } else { self.whole }
    }

    /// What this machine lacks for the suite.
    fn lacks(&self) -> Option<String> {
        let needs_model = matches!(self.needs, Needs::Model | Needs::Both);
        if needs_model && !Path::new(MODEL).exists() {
            return Some(format!("there is no `{MODEL}`; `cargo xtask models` makes it"));
        }
        let has_library = std::env::var_os("ORT_DYLIB_PATH").is_some_and(|it| !it.is_empty());
        (needs_model && !has_library).then(|| {
            "ORT_DYLIB_PATH names no ONNX Runtime; `cargo xtask setup` finds one".to_owned()
        })
    }

    /// Whether it succeeded.
    fn run(&self, host: &Host, args: &Args, records: &Path) -> Result<bool> {
        let own = std::env::current_exe().context("this program does not know its own path")?;
        let root = std::env::var_os(ROOT_VARIABLE).filter(|root| !root.is_empty());
        let in_root = matches!(self.needs, Needs::Migraphx | Needs::Both);
        let mut command = match root.filter(|_| in_root) {
            Some(root) => {
                let mut command = Command::new(root);
                command.arg(own);
                command
            }
            None => Command::new(own),
        };
        let (words, _) = self.way(args);
        command.args(host.words).arg(self.suite).args(words.split_whitespace());
        command.args((args.peers && self.suite == "encode").then_some("--peers"));
        // What is there is replaced once there is something else.
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let new = folder.path().join(RECORDS);
        command.arg("--record").arg(&new);
        let status = command.status().with_context(|| format!("`{}` did not start", self.suite))?;
        // Nor is a whole run replaced by a part of one.
        if status.success() {
            record::replace(records, &record::read(&new)?)?;
        }
        Ok(status.success())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn every_member_is_a_suite_that_takes_its_arguments() {
        for member in &MEMBERS {
            for (words, _) in [member.quick, member.whole] {
                let line = ["bench", member.suite].into_iter().chain(words.split_whitespace());
                crate::Args::try_parse_from(line.chain(["--record", "file"])).unwrap();
            }
        }
    }
    #[test]
    fn what_is_left_follows_the_pace_so_far() {
        let progress = Progress { start: Instant::now(), expected: vec![10, 20, 30], n_done: 1 };
        assert_eq!(progress.left(20.0), 100.0);
        assert_eq!(progress.left(1.0), 50.0);
        assert!(progress.to_string().starts_with("suite 2 of 3 after 0 s"));
    }
}
