//! The backend's sessions on a device: one beside the same calls made by hand, and many at the same time.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hip_sys::MemcpyKind;
use hipgraph::Stream;
use shapeyard_core::backend::{
    Artifact, Backend as _, CompileJob, Executable, LoadJob, Session, SessionOptions, Status,
};
use shapeyard_core::plan::Bucket;
use shapeyard_core::{Model, Outputs, Request, StageTimes, Tensor, TensorView, Tier};
use shapeyard_migraphx::{
    CompileOptions, CompilePlace, Compiler, MigraphxBackend, MigraphxOptions, Target, WorkerProgram,
};
use tempfile::TempDir;

use super::lab::{Lab, address, raw};
use super::program::Program;
use super::{Args, graphs, ratio};
use crate::calls::{self, ADDS, Caller};
use crate::contest::{Contender, Contest, Facts, Goal, Role, timed};
use crate::inputs::inputs;

/// 100 small kernels.
const CHAIN: &str = "chain.onnx";
/// Rows of its program.
const CHAIN_ROWS: usize = 256;
/// Runs before a program is captured by hand.
const N_WARM: usize = 3;
/// Rows of a program for requests in portions, and portions of a request.
const PORTION_ROWS: usize = 1 << 14;
const N_PORTIONS: usize = 8;
/// What many sessions run, the rows of its programs, and the most rows of a request.
const DENSE: &str = "dense.onnx";
const DENSE_ROWS: [usize; 3] = [1, 4, 16];
const MOST_ROWS: usize = 24;
/// Sessions, and copies of the programs that they share.
const LANES: [(usize, usize); 5] = [(1, 1), (2, 1), (2, 2), (8, 2), (8, 8)];

/// MIGraphX, and a folder for what it compiles.
pub(super) struct Programs {
    library: Option<PathBuf>,
    models: PathBuf,
    worker: WorkerProgram,
    pub(super) version: String,
    folder: TempDir,
}

impl Programs {
    /// A sentence where MIGraphX does not run on the device.
    pub(super) fn open(args: &Args, worker: WorkerProgram) -> Result<Result<Self, String>> {
        let (library, models) = (args.migraphx.clone(), args.models.clone());
        let mut programs =
            Self { library, models, worker, version: String::new(), folder: tempfile::tempdir()? };
        match programs.backend(1)?.probe().status {
            Status::Usable { version, .. } => programs.version = version,
            Status::Unusable { reason, remedy } => return Ok(Err(format!("{reason}; {remedy}"))),
        }
        Ok(Ok(programs))
    }

    fn backend(&self, n_copies: usize) -> Result<MigraphxBackend> {
        let place = CompilePlace::worker(self.worker.clone());
        Ok(MigraphxBackend::new(MigraphxOptions {
            library: self.library.clone(),
            compile: CompileOptions { target: Target::Gpu, ..CompileOptions::default() },
            compiler: Compiler { place, ..Compiler::default() },
            instances: NonZeroUsize::new(n_copies).unwrap_or(NonZeroUsize::MIN),
            ..MigraphxOptions::default()
        })?)
    }

    /// Programs of a model for these numbers of rows.
    fn compile(&self, name: &str, rows: &[usize]) -> Result<(Arc<Model>, Vec<Artifact>)> {
        let model = Arc::new(Model::open(self.models.join(name))?);
        let backend = self.backend(1)?;
        let compile = |&rows: &usize| {
            let output = self.folder.path().join(format!("{name}-{rows}.mxr"));
            Ok(backend.compile(&CompileJob::new(&model, with_rows(rows), output))?)
        };
        let artifacts = rows.iter().map(compile).collect::<Result<_>>()?;
        Ok((model, artifacts))
    }

    fn load(
        &self,
        (model, artifacts): &(Arc<Model>, Vec<Artifact>),
        n_copies: usize,
    ) -> Result<Arc<dyn Executable>> {
        let job = LoadJob { artifacts, ..LoadJob::of(model) };
        Ok(self.backend(n_copies)?.load(&job)?)
    }
}

fn with_rows(rows: usize) -> Bucket {
    [("batch", rows)].into_iter().collect()
}

fn session(executable: &Arc<dyn Executable>) -> Result<Box<dyn Session>> {
    Ok(executable.session(&SessionOptions::threads(1))?)
}

/// A whole run of a session beside the calls that it is made of, and its kernels beside a raw graph.
pub(super) fn one(lab: &Lab, programs: &Programs, n: (usize, usize)) -> Result<[Contest; 2]> {
    let compiled = programs.compile(CHAIN, &[CHAIN_ROWS])?;
    let executable = programs.load(&compiled, 1)?;
    let tensors = inputs(executable.signature(), &with_rows(CHAIN_ROWS), 1)?;
    let views: Vec<TensorView<'_>> = tensors.iter().map(Tensor::view).collect();
    let request = Request::bind(executable.signature(), &views)?;
    let (mut session, mut outputs) = (session(&executable)?, Outputs::new());

    let payload: &Path = &compiled.1.first().context("nothing was compiled")?.payload;
    let mut program = Program::load(programs.library.as_deref(), payload, &lab.device)?;
    let stream = Stream::new(&lab.device)?;
    let raw = stream.raw();
    for _ in 0..N_WARM {
        program.enqueue_on(raw)?;
        lab.raw_wait(raw)?;
        session.run(&request, &mut outputs)?;
    }
    let graph = lab.raw_graph(raw, || program.enqueue_on(raw))?;
    let device_time = {
        let addresses = program.addresses();
        graphs::device_time(lab, (&stream, graph), &mut program, addresses, n)?
    };

    let input = tensors.first().context("the model has no input")?.bytes();
    let (there, back) = (lab.raw_pinned(input.len())?, lab.raw_pinned(program.output.n_bytes())?);
    let mut answer = vec![0_u8; back.len()];
    let mut by_hand = || -> Result<()> {
        there.copy_from_slice(input);
        lab.raw_copy_in(address(&program.input), there, raw)?;
        lab.raw_launch(graph, raw)?;
        let (to, from) =
            (back.as_mut_ptr().cast(), ptr::without_provenance(address(&program.output)));
        raw!(lab.hip(), memcpy_async(to, from, back.len(), MemcpyKind::DEVICE_TO_HOST, raw))?;
        lab.raw_wait(raw)?;
        answer.copy_from_slice(back);
        Ok(())
    };
    let (mut stages, mut n_runs) = (StageTimes::default(), 0_u32);
    let mut callers = [
        Caller::rival("raw calls: gather, copy, launch a graph, copy, wait", &mut by_hand),
        Caller::ours("a session that replays", 0, || {
            let report = session.run(&request, &mut outputs)?;
            let StageTimes { prepare, run, finish } = report.times;
            stages.prepare += prepare;
            stages.run += run;
            stages.finish += finish;
            n_runs += 1;
            ensure!(report.replayed, "a run was not replayed");
            ensure!(report.tier == Tier::Rebind, "it was served as {:?}", report.tier);
            Ok(())
        }),
    ];
    let title = format!("{CHAIN} with {CHAIN_ROWS} rows on the device, from host to host");
    let mut session_time = calls::run("session", &title, n, &mut callers)?;
    drop(callers);
    let mean = |stage: Duration| stage.as_secs_f64() * 1e6 / f64::from(n_runs.max(1));
    session_time.notes.push(format!(
        "a session's run takes {:.2} µs to gather and send, {:.2} to drain; the device's part is the rest",
        mean(stages.prepare),
        mean(stages.finish)
    ));
    let own = outputs.tensors().first().map(Tensor::bytes);
    ensure!(own == Some(answer.as_slice()), "a session answers otherwise than the calls by hand");
    let adds = session_time.contenders[1].facts.more.get(ADDS).copied().unwrap_or(f64::NAN);
    session_time.goals = vec![
        Goal::at_most("µs that a session adds to the raw calls", 5.0, adds),
        Goal::at_most("a session's run, over the raw calls", 1.1, ratio(&session_time, 1, 0)),
    ];
    Ok([device_time, session_time])
}

/// A request that is split: the next portion is gathered and the last is drained while the device works. Beside
/// it as many requests, each waited for.
pub(super) fn portions(programs: &Programs, n: (usize, usize)) -> Result<Contest> {
    let compiled = programs.compile(DENSE, &[PORTION_ROWS])?;
    let executable = programs.load(&compiled, 1)?;
    let signature = executable.signature();
    let [whole, portion] = [PORTION_ROWS * N_PORTIONS, PORTION_ROWS];
    let [whole, portion] = [with_rows(whole), with_rows(portion)];
    let [whole, portion] = [inputs(signature, &whole, 1)?, inputs(signature, &portion, 1)?];
    let [whole, portion] = [&whole, &portion]
        .map(|tensors| tensors.iter().map(Tensor::view).collect::<Vec<TensorView<'_>>>());
    let whole = Request::bind(signature, &whole)?;
    let portion = Request::bind(signature, &portion)?;
    let (mut one, mut other) = (session(&executable)?, session(&executable)?);
    let (mut outputs, mut other_outputs) = (Outputs::new(), Outputs::new());
    let mut callers = [
        Caller::rival(format!("{N_PORTIONS} requests, each waited for"), || {
            for _ in 0..N_PORTIONS {
                other.run(&portion, &mut other_outputs)?;
            }
            Ok(())
        }),
        Caller::ours(format!("one request of {N_PORTIONS} portions"), 0, || {
            let report = one.run(&whole, &mut outputs)?;
            ensure!(report.n_pieces == N_PORTIONS, "it ran in {} portions", report.n_pieces);
            Ok(())
        }),
    ];
    let title = format!("{N_PORTIONS} portions of {PORTION_ROWS} rows of {DENSE}");
    let mut contest = calls::run("portions", &title, n, &mut callers)?;
    contest.goals =
        vec![Goal::at_most("one request, over one for each portion", 1.0, ratio(&contest, 1, 0))];
    Ok(contest)
}

/// One of several contenders: sessions, each on a thread of its own during a round.
struct Lanes {
    executable: Arc<dyn Executable>,
    sessions: Vec<Box<dyn Session>>,
}

/// Requests of every number of rows on one session and on many; every answer is compared with the one that
/// the request had alone.
pub(super) fn many(programs: &Programs, args: &Args) -> Result<Contest> {
    let compiled = programs.compile(DENSE, &DENSE_ROWS)?;
    let serial = programs.load(&compiled, 1)?;
    let requests: Vec<Vec<Tensor>> = (1..=MOST_ROWS)
        .map(|rows| inputs(serial.signature(), &with_rows(rows), rows))
        .collect::<Result<_>>()?;
    let mut alone = session(&serial)?;
    let answers: Vec<Vec<Tensor>> = requests
        .iter()
        .map(|inputs| {
            let views: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
            let mut outputs = Outputs::new();
            alone.run(&Request::bind(serial.signature(), &views)?, &mut outputs)?;
            Ok(outputs.into_tensors())
        })
        .collect::<Result<_>>()?;
    let mut contenders = Vec::new();
    for (n_lanes, n_copies) in LANES {
        let executable = programs.load(&compiled, n_copies)?;
        let sessions = (0..n_lanes).map(|_| session(&executable)).collect::<Result<_>>()?;
        let mut lanes = Lanes { executable, sessions };
        let (requests, answers, n_runs) = (&requests, &answers, args.runs);
        let run = move || Ok(timed(|| lanes.run(requests, answers, n_runs))?.1);
        let role = if n_lanes == 1 { Role::Rival } else { Role::Ours };
        contenders.push(
            Contender::new(format!("sessions: {n_lanes}, copies: {n_copies}"), run).role(role),
        );
    }
    let title = format!("{} runs of {DENSE} with 1 to {MOST_ROWS} rows, all compared", args.runs);
    let mut contest = Contest::run("sessions", title, args.lane_rounds, contenders)?;
    for measured in &mut contest.contenders {
        measured.facts =
            Facts { work: Some((args.runs as f64, "requests".to_owned())), ..Facts::default() };
    }
    contest.goals = vec![
        Goal::at_most("two sessions on two copies, over one", 1.0, ratio(&contest, 2, 0)),
        Goal::at_most("eight sessions on eight copies, over one", 1.0, ratio(&contest, 4, 0)),
    ];
    contest.notes.push(format!(
        "every one of {} answers is the serial one",
        args.runs * (args.lane_rounds + 1) * LANES.len()
    ));
    Ok(contest)
}

impl Lanes {
    fn run(&mut self, requests: &[Vec<Tensor>], answers: &[Vec<Tensor>], n: usize) -> Result<()> {
        let (executable, n_lanes) = (&self.executable, self.sessions.len());
        thread::scope(|scope| {
            let lanes: Vec<_> = self
                .sessions
                .iter_mut()
                .enumerate()
                .map(|(lane, session)| {
                    scope.spawn(move || -> Result<()> {
                        let mut outputs = Outputs::new();
                        for at in (lane..n).step_by(n_lanes) {
                            let which = (at * 7) % requests.len();
                            let views: Vec<TensorView<'_>> =
                                requests[which].iter().map(Tensor::view).collect();
                            let request = Request::bind(executable.signature(), &views)?;
                            session.run(&request, &mut outputs)?;
                            ensure!(
                                outputs.tensors() == answers[which],
                                "run {at} of session {lane} answers otherwise than alone"
                            );
                        }
                        Ok(())
                    })
                })
                .collect();
            for lane in lanes {
                lane.join().map_err(|_| anyhow::anyhow!("a session's thread panicked"))??;
            }
            Ok(())
        })
    }
}
