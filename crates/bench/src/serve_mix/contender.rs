//! One process that serves: an engine of ours, or sessions of ONNX Runtime that threads take from a pool.

use std::path::PathBuf;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use ort::session::Session;
use serde::{Deserialize, Serialize};
use shapeyard_core::backend::{LoadJob, SessionOptions, Status};
use shapeyard_core::engine::{Engine, EngineOptions, InferRequest};
use shapeyard_core::plan::Bucket;
use shapeyard_core::registry::{Choice, Registry};
use shapeyard_core::{Model, Outputs, Tensor};

use crate::contest::Counts;
use crate::direct;
use crate::inputs::inputs;
use crate::measure::{cpu_time, peak_memory};
use crate::random::Random;
use crate::suite::Host;

/// The name of what is no backend of ours.
pub(super) const DIRECT: &str = "direct";

/// One process; the suite starts it.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(long)]
    model: PathBuf,
    #[arg(long)]
    backend: String,
    #[arg(long)]
    sessions: usize,
    #[arg(long)]
    session_threads: usize,
    #[arg(long)]
    rows: usize,
    #[arg(long)]
    shortest: usize,
    #[arg(long)]
    longest: usize,
    #[arg(long)]
    clients: usize,
    /// Threads of ONNX Runtime look for work a while before they sleep, when it is driven directly.
    #[arg(long)]
    spins: bool,
}

/// How long to serve, and which requests.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) seconds: f64,
    pub(super) round: u64,
}

/// What was done meanwhile.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Tally {
    pub(super) seconds: f64,
    pub(super) cpu_seconds: f64,
    pub(super) n_rows: usize,
    /// Seconds from a request to its answer.
    pub(super) latencies: Vec<f64>,
    pub(super) peak_memory_bytes: u64,
    pub(super) counts: Counts,
}

/// Serves as often as it is told to.
///
/// # Errors
///
/// What it failed of.
pub fn run(host: &Host, args: &Args) -> Result<()> {
    let model = Model::open(&args.model)?;
    let server = Server::open(host, args, &model)?;
    println!("{}", serde_json::to_string(&(&args.backend, &server.version()))?);
    for line in std::io::stdin().lines() {
        let order: Order = serde_json::from_str(&line?)?;
        println!("{}", serde_json::to_string(&serve(args, &model, &server, order)?)?);
    }
    Ok(())
}

fn serve(args: &Args, model: &Model, server: &Server, order: Order) -> Result<Tally> {
    let (start, cpu_before) = (Instant::now(), cpu_time());
    let end = start + Duration::from_secs_f64(order.seconds);
    let tallies: Vec<Result<Tally>> = thread::scope(|scope| {
        let client = |nth: usize| {
            let random = Random(order.round << 32 | nth as u64);
            move || client(args, model, server, random, end)
        };
        let clients: Vec<_> = (0..args.clients).map(|nth| scope.spawn(client(nth))).collect();
        let join = |client: thread::ScopedJoinHandle<'_, _>| {
            client.join().unwrap_or_else(|_| Err(anyhow!("a client panicked")))
        };
        clients.into_iter().map(join).collect()
    });
    let mut all = Tally { seconds: start.elapsed().as_secs_f64(), ..Tally::default() };
    all.cpu_seconds = cpu_time().saturating_sub(cpu_before).as_secs_f64();
    all.peak_memory_bytes = peak_memory()?;
    for tally in tallies {
        let tally = tally?;
        all.n_rows += tally.n_rows;
        all.latencies.extend(tally.latencies);
        all.counts.merge(&tally.counts);
    }
    Ok(all)
}

fn client(
    args: &Args,
    model: &Model,
    server: &Server,
    mut random: Random,
    end: Instant,
) -> Result<Tally> {
    let (mut tally, mut outputs) = (Tally::default(), Outputs::new());
    while Instant::now() < end {
        let n_rows = 1 + random.below(args.rows);
        let length = args.shortest + random.below(args.longest - args.shortest + 1);
        let shape: Bucket = [("batch", n_rows), ("sequence", length)].into_iter().collect();
        let given = inputs(model.signature(), &shape, n_rows)?;
        let sent = Instant::now();
        outputs = server.answer(model, given, outputs, &mut tally)?;
        tally.latencies.push(sent.elapsed().as_secs_f64());
        tally.n_rows += n_rows;
    }
    Ok(tally)
}

/// Who answers.
enum Server {
    Ours { engine: Engine, version: String },
    Direct { idle: Mutex<Vec<Session>>, returned: Condvar },
}

impl Server {
    fn open(host: &Host, args: &Args, model: &Model) -> Result<Self> {
        if args.backend == DIRECT {
            let environment = direct::environment()?;
            let open =
                |_| direct::session(&environment, &args.model, args.session_threads, args.spins);
            let idle = (0..args.sessions).map(open).collect::<Result<Vec<_>>>()?;
            return Ok(Self::Direct { idle: Mutex::new(idle), returned: Condvar::new() });
        }
        let registry = Registry::new(shapeyard_cpu::backends(&host.cpu));
        let choice: Choice = args.backend.parse()?;
        let session = SessionOptions::threads(args.session_threads);
        let opened = registry.open(&choice, &LoadJob::of(model).for_sessions(session))?;
        let version = match opened.backend.probe().status {
            Status::Usable { version, .. } => version,
            Status::Unusable { .. } => String::new(),
        };
        let options =
            EngineOptions { n_sessions: args.sessions, session, queue_capacity: args.clients };
        Ok(Self::Ours { engine: Engine::start(&opened.executable, &options)?, version })
    }

    fn version(&self) -> &str {
        match self {
            Self::Ours { version, .. } => version,
            Self::Direct { .. } => "",
        }
    }

    /// Waits for an answer; gives the outputs' memory back.
    fn answer(
        &self,
        model: &Model,
        given: Vec<Tensor>,
        outputs: Outputs,
        tally: &mut Tally,
    ) -> Result<Outputs> {
        match self {
            Self::Ours { engine, .. } => {
                let request = InferRequest { inputs: given, outputs };
                let ticket = engine.submit_wait(request).map_err(|it| anyhow!("{it}"))?;
                let response = ticket.wait().map_err(|failed| anyhow!("{failed}"))?;
                let report = &response.report;
                tally.counts.add_tier(report.tier, 1)?;
                tally.counts.add_route(report.route, 1)?;
                Ok(response.outputs)
            }
            Self::Direct { idle, returned } => {
                let mut all = idle.lock().unwrap_or_else(PoisonError::into_inner);
                let mut session = loop {
                    match all.pop() {
                        Some(session) => break session,
                        None => all = returned.wait(all).unwrap_or_else(PoisonError::into_inner),
                    }
                };
                drop(all);
                let answer = direct::run(&mut session, model.signature(), &given).map(drop);
                idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
                returned.notify_one();
                answer.map(|()| outputs)
            }
        }
    }
}
