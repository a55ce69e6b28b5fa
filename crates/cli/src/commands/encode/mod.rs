//! `shapeyard encode`.

mod args;
mod destination;
mod partial;
mod report;
mod watch;

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Error, Result};
use shapeyard_core::engine::InferError;
use shapeyard_core::plan::{Histogram, Work};
use shapeyard_core::{Model, RunError};
use shapeyard_encode::tokens::{TextTokenizer, Tokens};
use shapeyard_encode::units::{self, Collected, SkipReason, Skipped};
use shapeyard_encode::{Embeddings, EncodeError, EncodeReport, Encoder};

pub(crate) use self::args::Args;
use self::destination::{Destination, units_path};
use self::partial::Partial;
use self::report::{Finished, OutsideTimes};
use self::watch::Watch;
use crate::backends;
use crate::background::Watched;
use crate::cli::Global;
use crate::exit::{Code, Interrupted};
use crate::human;
use crate::interrupt::Interrupt;
use crate::loading::{Loaded, Loading};
use crate::need::Need;
use crate::output::Output;
use crate::prices;
use crate::progress::Progress;

pub(crate) fn run(args: &Args, global: &Global, output: &Output) -> Result<Code> {
    let model = Arc::new(args.axes.open(&args.model)?);
    let tokenizer = TextTokenizer::open(&args.tokenizer, args.max_length)?;
    tokenizer.check_fits(model.signature())?;
    let destination = Destination::new(&args.out)?;
    let mut outside_times = OutsideTimes::default();
    let collected =
        timed(&mut outside_times.read, || units::collect(&args.paths, &args.unit_options()))?;
    note_skipped(&collected, output);
    let traffic = args.traffic.open()?;
    traffic.iter().try_for_each(|file| file.check(&Work::Items(vec![1])))?;

    let interrupt = Interrupt::listen()?;
    let texts: Vec<&str> = collected.units.iter().map(|unit| unit.text.as_str()).collect();
    let n_threads = args.backend.n_threads();
    let tokens = timed(&mut outside_times.tokenize, || tokenizer.encode_all(&texts, n_threads))?;
    interrupt.check("nothing was written")?;
    let loading = Loading {
        args: &args.backend,
        choice: args.backend.choice()?,
        axes: &args.axes,
        global,
        model: &model,
        output,
        interrupt: &interrupt,
    };
    let need = need(&model, &tokens, args.max_length)?;
    let loaded = timed(&mut outside_times.load, || loading.open(&need, args.session_options()));
    interrupt.check("nothing was written")?;
    let loaded = loaded?;
    let partial = Partial::of(&model, args, &loaded.backend.probe())?;
    let (backend, executable) = (Arc::clone(&loaded.backend), Arc::clone(&loaded.executable));
    let encoder = Encoder::new(backend, Arc::clone(&model), executable)?;
    let options = args.encode_options(&tokenizer, &loaded);
    let mut embeddings = encoder.embeddings(&tokens, &options)?;

    let n_resumed =
        if args.resume { partial.restore(&collected.units, &mut embeddings)? } else { 0 };
    let progress = Progress::of(output, tokens.len() - n_resumed, "units");
    let watch = Watch { progress: &progress, interrupt: &interrupt };
    let compiles = watched(args, &loaded, &progress, output)?;
    let encoded = encoder.encode(&tokens, &options, &mut embeddings, &watch);
    let compiled = compiles.map(Watched::finish);
    progress.finish();
    let kept = || keep(&partial, &collected, &embeddings);
    let encoded = match encoded {
        Ok(encoded) if encoded.interrupted => return Err(interrupted(kept()).into()),
        Ok(encoded) => encoded,
        Err(error) => {
            let what = format!("not all was encoded{}", remedy(&error));
            return Err(failed(explain(error, &loading), &what, kept()));
        }
    };

    let written = timed(&mut outside_times.write, || {
        destination.write(&embeddings, &collected.units, &tokens)
    });
    written.map_err(|error| failed(error, "the embeddings were not written", kept()))?;
    partial.remove();
    if let Err(error) = refine(args, global, &model, &encoded, output) {
        output.note(format_args!("the prices in the cache are not refined: {error:#}"));
    }
    if let Some(traffic) = traffic {
        let lengths: Vec<usize> = tokens.iter().map(|tokens| tokens.ids.len()).collect();
        traffic.add(&Work::Histogram(Histogram::of(&lengths)))?;
    }
    output.beside(&Finished {
        out: args.out.display().to_string(),
        units_file: units_path(&args.out).display().to_string(),
        n_units: collected.units.len(),
        n_rows: embeddings.values().len().checked_div(embeddings.n_dims()).unwrap_or(0),
        n_dims: embeddings.n_dims(),
        n_tokens: tokens.iter().map(|tokens| tokens.ids.len()).sum(),
        n_truncated: tokens.iter().filter(|tokens| tokens.truncated).count(),
        n_resumed,
        max_length: args.max_length,
        passed_over: &loaded.passed_over,
        programs: &loaded.programs,
        compiled,
        skipped: &collected.skipped,
        outside_times,
        tokens_per_second: encoded.tokens_per_second(),
        items_per_second: encoded.items_per_second(),
        report: &encoded,
    })?;
    Ok(if collected.has_unreadable() { Code::No } else { Code::Done })
}

/// Adds what the batches took to what was calibrated.
fn refine(
    args: &Args,
    global: &Global,
    model: &Model,
    encoded: &EncodeReport,
    output: &Output,
) -> Result<()> {
    if encoded.measured.is_empty() {
        return Ok(());
    }
    let Some(opened) = args.backend.cache.look(output)? else { return Ok(()) };
    let registry = backends::registry(global, Arc::new(args.backend.migraphx.backend()?));
    prices::refine(&opened.store, &registry, model, &encoded.measured)
}

/// Watches what is compiled meanwhile, where that was asked for and is possible.
fn watched(
    args: &Args,
    loaded: &Loaded,
    progress: &Progress,
    output: &Output,
) -> Result<Option<Watched>> {
    let router = loaded.router.as_ref().filter(|_| args.backend.compile_background);
    let start = |router| Watched::start(router, progress.clone(), *output);
    Ok(router.map(start).transpose()?)
}

/// What the work will ask of the model.
fn need(model: &Model, tokens: &[Tokens], limit: usize) -> Result<Need> {
    let (rows, length) = shapeyard_encode::axes(model.signature())?;
    let (rows, length) = (rows.to_owned(), length.to_owned());
    let lengths = tokens.iter().map(|tokens| tokens.ids.len()).collect();
    Ok(Need::Texts { rows, length, lengths, limit })
}

/// A batch that found no program gets the command that compiles one.
fn explain(error: EncodeError, loading: &Loading<'_>) -> Error {
    match &error {
        EncodeError::Batch {
            source: InferError::Run(RunError::NotReady { wanted, nearest }),
            ..
        } => loading.cold(wanted, nearest).into(),
        _ => error.into(),
    }
}

/// A model that has fewer positions than a unit has tokens fails inside the engine.
fn remedy(error: &EncodeError) -> String {
    match error {
        EncodeError::Batch {
            length, source: InferError::Run(RunError::Library { .. }), ..
        } => {
            format!("; if the model takes fewer than {length} tokens, lower --max-length")
        }
        _ => String::new(),
    }
}

/// Does some work and adds the time that it took.
fn timed<T>(seconds: &mut f64, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    *seconds += started.elapsed().as_secs_f64();
    result
}

/// Keeps what is done for a later run, and says so.
fn keep(partial: &Partial, collected: &Collected, embeddings: &Embeddings) -> Result<String> {
    let n_units = collected.units.len();
    Ok(match partial.keep(&collected.units, embeddings)? {
        0 => "nothing was written".to_owned(),
        n_kept => {
            let path = partial.path().display();
            format!(
                "{n_kept} of {n_units} units are kept in {path}; the same command with --resume goes on"
            )
        }
    })
}

/// What the person at the keyboard stopped, and what became of it.
fn interrupted(kept: Result<String>) -> Interrupted {
    let left = kept.unwrap_or_else(|lost| not_kept(&lost));
    Interrupted { left: left.into() }
}

/// An error, and what became of the work before it. The error itself comes first where there are two.
fn failed(error: Error, what: &str, kept: Result<String>) -> Error {
    let message = match kept {
        Ok(left) => format!("{what}; {left}"),
        Err(lost) => format!("{what}: {error:#}; {}", not_kept(&lost)),
    };
    error.context(message)
}

fn not_kept(lost: &Error) -> String {
    format!("what was done could not be kept: {lost:#}")
}

/// Names what could not be read, and counts what was not text.
fn note_skipped(collected: &Collected, output: &Output) {
    for skipped in &collected.skipped {
        match skipped.reason {
            SkipReason::TooLarge { .. } => {
                output.note(format_args!("{skipped}; raise --max-file-bytes"));
            }
            _ if skipped.reason.is_failure() => output.note(skipped),
            _ => {}
        }
    }
    let left_out = left_out(&collected.skipped);
    if !left_out.is_empty() {
        output.note(format_args!("left out: {left_out}; --format json lists them"));
    }
}

/// Whether a reason is of one kind.
type IsReason = fn(&SkipReason) -> bool;

/// How many files of which kind hold no text to encode.
fn left_out(skipped: &[Skipped]) -> String {
    let kinds: [(&str, IsReason); 5] = [
        ("non-text file", |it| matches!(it, SkipReason::NotText { .. })),
        ("link", |it| matches!(it, SkipReason::Link)),
        ("special file", |it| matches!(it, SkipReason::NotAFile)),
        ("unit list", |it| matches!(it, SkipReason::UnitList)),
        ("other JSON-lines file", |it| matches!(it, SkipReason::NotRecords { .. })),
    ];
    let count = |(noun, is): (&str, IsReason)| {
        let n = skipped.iter().filter(|skipped| is(&skipped.reason)).count();
        (n > 0).then(|| human::count(n, noun))
    };
    kinds.into_iter().filter_map(count).collect::<Vec<_>>().join(", ")
}
