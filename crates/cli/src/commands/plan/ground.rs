//! What a plan stands on: prices, where they come from, and the programs that are there.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use serde::Serialize;
use shapeyard_cache::{CachedArtifacts, Store};
use shapeyard_core::Model;
use shapeyard_core::backend::{Backend, Optimisation, ShapeSupport};
use shapeyard_core::plan::prices::{PerProgram, Price};
use shapeyard_core::plan::{Bucket, Histogram, Prices, Stock, Workload};

use super::{Args, read};
use crate::backends;
use crate::buckets::grid_of;
use crate::cli::Global;
use crate::exit::BadInput;
use crate::human;
use crate::output::Output;
use crate::prices::{self, Measured};

/// What is assumed where nothing was measured.
const ASSUMED: Prices = Prices {
    device: Price { load: 0.3, launch: 1e-3, token: 5e-6, token_length: 0.0 },
    cpu: Price { load: 0.15, launch: 0.5e-3, token: 50e-6, token_length: 0.0 },
    compile: PerProgram { fixed: 8.0, token: 0.0 },
    memory: PerProgram { fixed: 34e6, token: 0.0 },
};

/// Where a price comes from.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "from")]
pub(super) enum Source {
    /// A guess that knows neither model nor machine.
    Assumed,
    /// The file that was named.
    File,
    /// What was measured of this model on this machine.
    Measured(Box<Measured>),
}

/// Where the prices of both sides come from.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sources {
    pub(super) device: Source,
    pub(super) cpu: Source,
}

/// What is known before a plan is made.
pub(super) struct Ground {
    pub(super) prices: Prices,
    pub(super) sources: Sources,
    pub(super) stock: Stock,
}

impl Ground {
    pub(super) fn of(
        args: &Args,
        global: &Global,
        (model, workload): (&Arc<Model>, &Workload),
        output: &Output,
    ) -> Result<Self> {
        let store = args.cache.look(output)?.map(|opened| Arc::new(opened.store));
        let device: Arc<dyn Backend> = Arc::new(args.migraphx.backend()?);
        let compiled = match &args.present[..] {
            [] => in_cache(store.as_ref(), &device, model)?,
            axes => grid_of(axes, model.signature())?,
        };
        let stock = Stock { compiled, ..Stock::default() };
        if let Some(path) = &args.prices {
            let sources = Sources { device: Source::File, cpu: Source::File };
            return Ok(Self { prices: of_file(path)?, sources, stock });
        }
        let lengths = workload.work.histogram();
        let (mut found, mut prices) = ((None, None), ASSUMED);
        if let Some(store) = &store {
            let work = (lengths.as_ref(), args.token_budget);
            found = measured(store, model, &device, global, work)?;
        }
        if let Some(measured) = &found.0 {
            prices.device = measured.choice.fit.price;
            prices.compile = measured.all.compile().unwrap_or(prices.compile);
            prices.memory = measured.all.memory().unwrap_or(prices.memory);
        }
        if let Some(measured) = &found.1 {
            prices.cpu = measured.choice.fit.price;
        }
        let source = |found: Option<Measured>| {
            found.map_or(Source::Assumed, |it| Source::Measured(it.into()))
        };
        let sources = Sources { device: source(found.0), cpu: source(found.1) };
        Ok(Self { prices, sources, stock })
    }
}

/// What was measured of the device, and of the first CPU backend that was measured.
fn measured(
    store: &Store,
    model: &Model,
    device: &Arc<dyn Backend>,
    global: &Global,
    work: (&Histogram, usize),
) -> Result<(Option<Measured>, Option<Measured>)> {
    let of = |backend: &dyn Backend| prices::measured(store, model, backend, work);
    let registry = backends::registry(global, Arc::clone(device));
    let takes_any = |it: &&Arc<dyn Backend>| it.capabilities().shapes == ShapeSupport::Dynamic;
    let mut cpu = None;
    for backend in registry.backends().iter().filter(takes_any) {
        cpu = cpu.or(of(backend.as_ref())?);
    }
    Ok((of(device.as_ref())?, cpu))
}

/// The programs of a model that are compiled.
fn in_cache(
    store: Option<&Arc<Store>>,
    device: &Arc<dyn Backend>,
    model: &Arc<Model>,
) -> Result<Vec<Bucket>> {
    let Some(store) = store else { return Ok(Vec::new()) };
    let (store, device, model) = (Arc::clone(store), Arc::clone(device), Arc::clone(model));
    Ok(CachedArtifacts::new(store, device, model, Optimisation::default())?.buckets()?)
}

fn of_file(path: &Path) -> Result<Prices, BadInput> {
    let text = read(path, "prices")?;
    let bad = |why: String| BadInput::new(format!("`{}` holds no prices: {why}", path.display()));
    let prices: Prices = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    match prices.unreal() {
        Some((name, price)) => Err(bad(format!("`{name}` is {price}; expected is 0 or more"))),
        None => Ok(prices),
    }
}

impl Sources {
    /// What a person should know before any seconds are believed.
    pub(super) fn warning(&self) -> Option<&'static str> {
        match (&self.device, &self.cpu) {
            (Source::Assumed, Source::Assumed) => Some(
                "prices are assumed; `shapeyard calibrate` measures them, or give them by --prices",
            ),
            (Source::Assumed, _) => Some(
                "the prices of programs are assumed: none was measured here, and seconds say little",
            ),
            (_, Source::Assumed) => {
                Some("the prices of the cpu are assumed; `shapeyard calibrate` measures them")
            }
            _ => None,
        }
    }
}

impl Source {
    /// Where a price comes from, for people.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Assumed => "assumed".to_owned(),
            Self::File => "as given".to_owned(),
            Self::Measured(it) => format!(
                "{}, {}, measured {} ago, off by {:.0}% (at most {:.0}%)",
                it.backend,
                it.choice.split,
                human::since(it.measured_at_ms, human::now_ms()),
                100.0 * it.choice.fit.median_error,
                100.0 * it.choice.fit.largest_error
            ),
        }
    }
}
