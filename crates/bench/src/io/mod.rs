//! The `io` suite: what the device path adds to the runtime's own calls.

#![allow(unsafe_code, reason = "the rivals are the calls of a C API, made directly")]

mod copies;
mod graphs;
mod inputs;
mod lab;
mod program;
mod sessions;

use std::path::PathBuf;

use anyhow::Result;

use self::lab::Lab;
use self::sessions::Programs;
use crate::contest::Contest;
use crate::measure::median;
use crate::record::Record;
use crate::suite::{Host, Output, Suite, at_least_one};

/// Contests that gather: bytes of an input, and how many times as long one copy each takes at least.
const INPUTS: [(usize, f64); 2] = [(64, 20.0), (1024, 8.0)];

/// What the device does for a request that is staged, in cycles: less than gathering takes, and more.
const WORK: [i64; 2] = [10_000, 50_000];

/// What to measure.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Runs on the first device of HIP's runtime, or of CUDA's. What is compared with are the runtime's own calls, made \
by hand: copies, graphs, and the least that has to be called for a whole run. Sessions need a MIGraphX that \
runs on that device. On an NVIDIA GPU that is the project's double, whose figures are about the calls around a \
program and not about MIGraphX.

Examples:
  cargo xtask bench io
  cargo xtask bench io --record io.jsonl
  HIP_PLATFORM=nvidia shapeyard-bench io --migraphx ./libmigraphx_c_gpu_double.so --models ./models")]
pub(crate) struct Args {
    /// Folder of the tiny models.
    #[arg(long, value_name = "DIR", default_value = "tests/models")]
    models: PathBuf,
    /// MIGraphX's library, where not the one that is found.
    #[arg(long, value_name = "FILE")]
    migraphx: Option<PathBuf>,
    /// Interleaved rounds of all contenders.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = at_least_one)]
    rounds: usize,
    /// Calls a round.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = at_least_one)]
    calls: usize,
    /// Runs a round of many sessions.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = at_least_one)]
    runs: usize,
    /// Rounds of many sessions.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least_one)]
    lane_rounds: usize,
    #[command(flatten)]
    output: Output,
}

impl Suite for Args {
    const NAME: &'static str = "io";

    fn output(&self) -> &Output {
        &self.output
    }

    fn measure(&self, host: &Host, record: &mut Record) -> Result<()> {
        let (lab, n) = (Lab::open()?, (self.rounds, self.calls));
        let device = &lab.device;
        record.set("device", device.properties().name.clone());
        record.library(device.hip().platform().name(), device.runtime_version().to_string());
        for (size, times) in INPUTS {
            record.contests.push(inputs::contest(&lab, size, times, n)?);
        }
        for cycles in WORK {
            record.contests.push(inputs::staging(&lab, cycles, n)?);
        }
        record.contests.push(copies::contest(&lab, n)?);
        record.contests.push(graphs::kernels(&lab, n)?);
        match Programs::open(self, host.worker()?)? {
            Ok(programs) => {
                record.library("migraphx", &programs.version);
                record.contests.extend(sessions::one(&lab, &programs, n)?);
                record.contests.push(sessions::portions(&programs, n)?);
                record.contests.push(sessions::many(&programs, self)?);
            }
            Err(reason) => {
                eprintln!("{}: without sessions: {reason}", Self::NAME);
                record.set("without_sessions", reason);
            }
        }
        Ok(())
    }
}

/// The median of the rounds' ratios of two contenders, by their places.
fn ratio(contest: &Contest, of: usize, over: usize) -> f64 {
    let [of, over] = [of, over].map(|at| &contest.contenders[at].seconds);
    median(&of.iter().zip(over).map(|(of, over)| of / over).collect::<Vec<f64>>())
}
