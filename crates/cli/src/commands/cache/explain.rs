//! `shapeyard cache explain`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use serde::Serialize;
use shapeyard_cache::{Difference, Explanation, Key, Near, Possible, StorageError, Store};
use shapeyard_core::Signature;
use shapeyard_core::backend::{Backend, BackendId, Machine, Optimisation, Recipe, Status};
use shapeyard_core::model::Digest;
use shapeyard_core::plan::Bucket;
use shapeyard_core::registry::Choice;

use super::{bucket, damage, short};
use crate::axes::AxisArgs;
use crate::backends;
use crate::buckets::BucketArgs;
use crate::cache_args::CacheArgs;
use crate::cli::Global;
use crate::exit::Code;
use crate::human;
use crate::migraphx_args::MigraphxArgs;
use crate::output::{Output, Report};
use crate::progress::Progress;

const AFTER_HELP: &str = "\
Examples:
  shapeyard cache explain model.onnx --buckets batch=1,2,4 sequence=32,64
  shapeyard cache explain model.onnx --buckets batch=1 --base model.bundle --format json
  shapeyard cache explain model.onnx --buckets batch=..64 --precision fp16 --target gpu

A program is found under the options that it was warmed with, such as --precision. Every \
combination of extents is looked up. A miss names the fields in which the nearest entry differs:
`here` is what was asked for, `there` is what the entry has. Where the backend's compiler is not \
installed, nobody can say which compiler, driver and device will ask: an entry that agrees in everything \
else is then a hit on the machine that is named beside it. A backend whose programs take every shape has \
one artifact for all of them.

Ends with 0 if every shape is a hit, with 1 if one is not.";

/// So many differing fields are named for people.
const N_FIELDS: usize = 4;

/// Say for each shape of a model whether its artifact is there, and if not, what differs
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct Args {
    /// The ONNX file
    model: PathBuf,
    #[command(flatten)]
    buckets: BucketArgs,
    /// Whose artifacts are meant [default: those of the first backend that makes any]
    #[arg(long, value_name = "NAME", default_value = "auto", hide_default_value = true)]
    backend: Choice,
    #[command(flatten)]
    axes: AxisArgs,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    migraphx: MigraphxArgs,
}

pub(super) fn run(args: &Args, global: &Global, output: &Output) -> Result<Code> {
    let model = args.axes.open(&args.model)?;
    let registry = backends::registry(global, Arc::new(args.migraphx.backend()?));
    let (backend, recipe) =
        backends::that_compiles(&registry, &args.backend, Optimisation::default())?;
    if recipe.machine.is_none() {
        output.note(absence(backend.as_ref()));
    }
    let buckets = args.buckets.shapes(model.signature(), backend.as_ref(), output)?;
    let opened = args.cache.open(output)?;
    let asked = Asked { digest: model.digest()?, signature: model.signature(), recipe: &recipe };
    let progress = Progress::of(output, buckets.len(), "shapes");
    let report = Explained::of(&opened.store, model.path(), &asked, &buckets, &progress)?;
    progress.finish();
    let code = if report.n_hits == report.shapes.len() { Code::Done } else { Code::No };
    output.result(&report)?;
    Ok(code)
}

fn absence(backend: &dyn Backend) -> String {
    let reason = match backend.probe().status {
        Status::Unusable { reason, .. } => format!(" ({reason})"),
        Status::Usable { .. } => String::new(),
    };
    format!(
        "{} is not installed here{reason}, so compiler, driver, device and environment are not compared",
        backend.id()
    )
}

/// What is looked up, but for the shape.
#[derive(Debug)]
struct Asked<'a> {
    digest: Digest,
    signature: &'a Signature,
    recipe: &'a Recipe,
}

impl Asked<'_> {
    fn explain(&self, store: &Store, bucket: &Bucket) -> Result<Shape, StorageError> {
        let key = Key::of(self.digest, self.signature, bucket, self.recipe);
        let explanation = match self.recipe.machine {
            Some(_) => store.explain(&key)?,
            None => store.explain_elsewhere(&key)?,
        };
        Ok(Shape { key, explanation })
    }
}

#[derive(Serialize)]
struct Explained {
    model: PathBuf,
    digest: Digest,
    backend: BackendId,
    recipe: Recipe,
    /// Those that are only possible included.
    n_hits: usize,
    shapes: Vec<Shape>,
}

#[derive(Serialize)]
struct Shape {
    key: Key,
    #[serde(flatten)]
    explanation: Explanation,
}

impl Shape {
    fn is_hit(&self) -> bool {
        matches!(self.explanation, Explanation::Hit { .. } | Explanation::Possible { .. })
    }
}

impl Explained {
    fn of(
        store: &Store,
        model: &Path,
        asked: &Asked<'_>,
        buckets: &[Bucket],
        progress: &Progress,
    ) -> Result<Self, StorageError> {
        let mut shapes = Vec::with_capacity(buckets.len());
        for bucket in buckets {
            shapes.push(asked.explain(store, bucket)?);
            progress.advance(1);
        }
        Ok(Self {
            model: model.to_owned(),
            digest: asked.digest,
            backend: asked.recipe.backend.clone(),
            recipe: asked.recipe.clone(),
            n_hits: shapes.iter().filter(|shape| shape.is_hit()).count(),
            shapes,
        })
    }
}

impl Report for Explained {
    const COMMAND: &'static str = "cache explain";

    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "model    {} ({})", self.model.display(), short(self.digest))?;
        writeln!(out, "backend  {}\n", recipe(&self.recipe))?;
        let named: Vec<String> = self.shapes.iter().map(|shape| bucket(&shape.key)).collect();
        let width = named.iter().map(|name| name.chars().count()).max().unwrap_or_default();
        for (name, shape) in named.iter().zip(&self.shapes) {
            let answer = answer(&shape.explanation).join(&format!("\n{:width$}  ", ""));
            writeln!(out, "{name:<width$}  {answer}")?;
        }
        let shapes = human::count(self.shapes.len(), "shape");
        writeln!(out, "\n{shapes}, of which {} hit", self.n_hits)
    }
}

fn recipe(recipe: &Recipe) -> String {
    let compiler = recipe.machine.as_ref().map(machine);
    let parts = [recipe.precision.as_ref(), compiler.as_ref()];
    let mut line = format!("{} {}", recipe.backend, recipe.backend_version);
    for part in parts.into_iter().flatten() {
        line.push_str(", ");
        line.push_str(part);
    }
    line
}

/// What compiles and for what, in short.
fn machine(machine: &Machine) -> String {
    let environment = machine.environment.iter().map(|(name, value)| format!("{name}={value}"));
    let known =
        [Some(machine.compiler.clone()), machine.architecture.clone(), machine.driver.clone()];
    let library = machine.library.map(|digest| format!("library {}", short(digest)));
    let parts = known.into_iter().chain([library]).flatten().chain(environment);
    human::line(&parts.collect::<Vec<_>>().join(", "))
}

/// The lines that say what became of a shape.
fn answer(explanation: &Explanation) -> Vec<String> {
    match explanation {
        Explanation::Hit { layer, .. } => vec![format!("hit, in the {}", damage::layer(*layer))],
        Explanation::Possible { entries } => entries.iter().map(possible).collect(),
        Explanation::Damaged { layer, damage, .. } => {
            let damage = human::line(&damage.to_string());
            vec![format!("damaged, in the {}: {damage}", damage::layer(*layer))]
        }
        Explanation::Unreadable { path, reason } => {
            vec![format!("unreadable: {}: {reason}", path.display())]
        }
        Explanation::Failed { record } => {
            let reason = human::line(record.text.lines().next().unwrap_or_default());
            let left = human::since(human::now_ms(), record.expires_at_ms);
            vec![format!("failed: {reason} (remembered for another {left})")]
        }
        Explanation::Miss { nearest } => {
            nearest.first().map_or_else(|| vec!["miss: there is no entry at all".to_owned()], miss)
        }
        _ => vec!["neither hit nor miss".to_owned()],
    }
}

fn possible(entry: &Possible) -> String {
    let (key, layer) = (short(entry.digest), damage::layer(entry.layer));
    match &entry.machine {
        Some(made_by) => {
            let made_by = machine(made_by);
            format!(
                "hit, if the compiler is the one that made it: {made_by} ({key} in the {layer})"
            )
        }
        None => format!("hit, if the compiler is the one that made it ({key} in the {layer})"),
    }
}

fn miss(near: &Near) -> Vec<String> {
    let (key, layer) = (short(near.digest), damage::layer(near.layer));
    let mut lines = vec![format!("miss; nearest is {key} in the {layer}, which differs in")];
    lines.extend(near.differences.iter().take(N_FIELDS).map(|it| format!("  {}", difference(it))));
    if let Some(n @ 1..) = near.differences.len().checked_sub(N_FIELDS) {
        lines.push(format!("  and {}", human::count(n, "more field")));
    }
    lines
}

/// Digests are told apart by their starts.
fn difference(difference: &Difference) -> String {
    let shorter = |value: &Option<String>| {
        let digest = value.as_ref().and_then(|value| value.parse::<Digest>().ok());
        digest.map(short).or_else(|| value.clone())
    };
    let (ours, theirs) = (shorter(&difference.ours), shorter(&difference.theirs));
    let field = difference.field.clone();
    let shown =
        if ours == theirs { difference.clone() } else { Difference { field, ours, theirs } };
    human::line(&shown.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use shapeyard_cache::{Ask, Produced};
    use shapeyard_core::backend::Environment;

    use super::*;

    fn recipe_of(compiler: Option<&str>) -> Recipe {
        let machine = |compiler: &str| Machine {
            compiler: compiler.to_owned(),
            library: None,
            driver: None,
            architecture: Some("gfx942".to_owned()),
            environment: Environment::from_iter([("MIGRAPHX_X".to_owned(), "1".to_owned())]),
        };
        Recipe {
            backend: BackendId::new("migraphx"),
            backend_version: "1".to_owned(),
            precision: Some("fp16".to_owned()),
            calibration: None,
            options: BTreeMap::new(),
            machine: compiler.map(machine),
        }
    }

    fn of_batch(batch: usize) -> Bucket {
        [("batch", batch)].into_iter().collect()
    }

    /// A store with artifacts for batches of 1 and 2, made by one compiler, asked on behalf of another.
    fn explained(compiler: Option<&str>, batches: &[usize]) -> (usize, String) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("cache")).unwrap();
        let (digest, signature) = (Digest::of(b"model"), &Signature::default());
        for batch in [1, 2] {
            let key =
                Key::of(digest, signature, &of_batch(batch), &recipe_of(Some("MIGraphX 2.14")));
            let produce = |path: &Path| {
                fs::write(path, "a program")?;
                Ok(Produced::default())
            };
            store.get_or_produce(&key, &Ask::new(), produce).unwrap();
        }
        let asked = Asked { digest, signature, recipe: &recipe_of(compiler) };
        let buckets: Vec<Bucket> = batches.iter().copied().map(of_batch).collect();
        let output = Output::new(crate::output::Format::Json, true);
        let progress = Progress::of(&output, buckets.len(), "shapes");
        let path = Path::new("m.onnx");
        let report = Explained::of(&store, path, &asked, &buckets, &progress).unwrap();
        let mut text = Vec::new();
        report.text(&mut text).unwrap();
        serde_json::to_string(&report).unwrap();
        (report.n_hits, String::from_utf8(text).unwrap())
    }

    #[test]
    fn a_shape_that_nobody_compiled_is_a_miss() {
        let (n_hits, text) = explained(Some("MIGraphX 2.14"), &[1, 2, 4]);
        assert_eq!(n_hits, 2);
        assert!(text.contains("\nbatch=1  hit, in the cache\nbatch=2  hit"), "{text}");
        assert!(text.contains("\nbatch=4  miss; nearest is "), "{text}");
        assert!(text.contains("\n           bucket.batch: `4` here, "), "{text}");
        assert!(text.ends_with("\n3 shapes, of which 2 hit\n"), "{text}");
    }

    #[test]
    fn another_compiler_is_named() {
        let (n_hits, text) = explained(Some("MIGraphX 2.15"), &[1]);
        assert_eq!(n_hits, 0);
        let wanted =
            "which differs in\n           compiler: `MIGraphX 2.15` here, `MIGraphX 2.14` there";
        assert!(text.contains(wanted), "{text}");
    }

    #[test]
    fn without_a_compiler_the_right_one_is_named() {
        let (n_hits, text) = explained(None, &[1, 4]);
        assert_eq!(n_hits, 1);
        let wanted =
            "hit, if the compiler is the one that made it: MIGraphX 2.14, gfx942, MIGRAPHX_X=1 (";
        assert!(text.contains(wanted), "{text}");
        assert!(text.contains("batch=4  miss") && !text.contains("compiler:"), "{text}");
    }

    #[test]
    fn many_differences_are_cut_short_and_digests_too() {
        let difference = |n: usize| Difference {
            field: format!("field{n}"),
            ours: Some(Digest::of(b"ours").to_string()),
            theirs: None,
        };
        let near = Near {
            digest: Digest::of(b"near"),
            layer: shapeyard_cache::LayerKind::Base,
            differences: (0..6).map(difference).collect(),
        };
        let lines = miss(&near);
        assert_eq!(lines.len(), 6);
        let wanted = format!("  field0: `{}` here, not set there", short(Digest::of(b"ours")));
        assert_eq!((&lines[1], lines[5].as_str()), (&wanted, "  and 2 more fields"));
    }
}
