//! Every suite, one after the other, each in a process of its own, and a page of what they found.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use shapeyard_bench::suite::Host;

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
On two quiet processors --quick takes about six minutes and the whole about forty. A suite that cannot run
here says why in one line and is left out of the page. Run it while nothing else runs.

Examples:
  cargo xtask bench all --quick
  cargo xtask bench all --only encode,cache
  cargo xtask bench all --quick --peers          OpenVINO beside the others
  cargo xtask bench all --out docs/records --no-report   for the page that the repository keeps")]
pub(crate) struct Args {
    /// Fewer rounds on less work: the same page, in minutes.
    #[arg(long)]
    quick: bool,
    /// Run only these.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    only: Vec<String>,
    /// The folder for records and page; what an earlier run left there is replaced.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
    /// Measure OpenVINO in `encode` too, which is installed first.
    #[arg(long)]
    peers: bool,
    /// Leave records only.
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

/// One suite and how it is run.
struct Member {
    suite: &'static str,
    needs: Needs,
    quick: &'static str,
    whole: &'static str,
}

const fn member(
    suite: &'static str,
    needs: Needs,
    quick: &'static str,
    whole: &'static str,
) -> Member {
    Member { suite, needs, quick, whole }
}

const MEMBERS: [Member; 11] = [
    member("sensitivity", Needs::Nothing, "", "--rounds 101"),
    member("plan", Needs::Nothing, "--rounds 3", ""),
    member("cache", Needs::Nothing, "--rounds 9 --long-rounds 3", ""),
    member("overhead", Needs::Migraphx, "--rounds 60", ""),
    member("concurrency", Needs::Migraphx, "--seconds 6 --rounds 3", ""),
    member("router", Needs::Migraphx, "--sleep 3 --rounds 1", ""),
    member("io", Needs::Nothing, "--rounds 9 --lane-rounds 1", ""),
    member("prices", Needs::Model, "--rounds 1 --units 200", ""),
    member("coldstart", Needs::Both, "--rounds 3 --answers 30", ""),
    member("serve-mix", Needs::Model, "--rounds 3 --seconds 2", "--rounds 9"),
    member(
        "encode",
        Needs::Model,
        "--units 80 --rounds 3 --query-rounds 7",
        "--units 2000 --rounds 3",
    ),
];

/// Runs the suites. A suite that fails does not keep the others from running; the exit code is 1 then.
pub(crate) fn run(args: &Args, host: &Host) -> Result<ExitCode> {
    let unknown = args.only.iter().find(|name| MEMBERS.iter().all(|it| it.suite != *name));
    ensure!(unknown.is_none(), "there is no suite `{}`", unknown.map_or("", String::as_str));
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("`{}` cannot be made", args.out.display()))?;
    let records = args.out.join(RECORDS);
    if records.exists() {
        std::fs::remove_file(&records)
            .with_context(|| format!("`{}` cannot be replaced", records.display()))?;
    }
    let start = Instant::now();
    let mut failed = Vec::new();
    for member in &MEMBERS {
        if !args.only.is_empty() && !args.only.iter().any(|name| name == member.suite) {
            continue;
        }
        eprintln!("\n== {} (after {:.0} s)", member.suite, start.elapsed().as_secs_f64());
        if let Some(reason) = member.lacks() {
            eprintln!("skipped: {reason}");
            let record = Record::new(member.suite, format!("{} {}", host.call, member.suite));
            record::append(&records, &Record { skipped: Some(reason), ..record })?;
        } else if !member.run(host, args, &records)? {
            failed.push(member.suite);
        }
    }
    if !args.no_report {
        let files = report::files(std::slice::from_ref(&records), None)?;
        report::write(&args.out, &files)?;
    }
    eprintln!("\n{:.0} s in all; records: {}", start.elapsed().as_secs_f64(), records.display());
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("failed: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}

impl Member {
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
        let words = if args.quick { self.quick } else { self.whole };
        command.args(host.words).arg(self.suite).args(words.split_whitespace());
        command.args((args.peers && self.suite == "encode").then_some("--peers"));
        command.arg("--record").arg(records);
        let status = command.status().with_context(|| format!("`{}` did not start", self.suite))?;
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
            for words in [member.quick, member.whole] {
                let line = ["bench", member.suite].into_iter().chain(words.split_whitespace());
                crate::Args::try_parse_from(line.chain(["--record", "file"])).unwrap();
            }
        }
    }
}
