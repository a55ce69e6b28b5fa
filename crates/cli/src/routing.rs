//! A model that two backends share.

use std::sync::Arc;

use anyhow::Result;
use shapeyard_cache::{CachedArtifacts, Store};
use shapeyard_core::BackendId;
use shapeyard_core::backend::ArtifactSource;
use shapeyard_core::plan::prices::Measurements;
use shapeyard_core::plan::{Histogram, Prices};
use shapeyard_core::registry::Registry;
use shapeyard_core::router::{BackgroundOptions, Router, RouterOptions};

use crate::backends;
use crate::loading::Loading;
use crate::need::{Cold, Need};
use crate::prices::measured_of;

/// Tokens of a batch that prices are compared by.
const TOKEN_BUDGET: usize = 512;

impl Loading<'_> {
    /// What was measured of the two here, if both were.
    pub(crate) fn prices(
        &self,
        store: &Store,
        router: &Router,
        (registry, need): (&Registry, &Need),
    ) -> Result<Option<Prices>> {
        let measured = |id: &BackendId| -> Result<Option<Measurements>> {
            let backend = backends::named(registry, id)?;
            let of = measured_of(store, self.model, backend.as_ref())?;
            Ok(of.and_then(|of| store.measurements(&of)))
        };
        let device = measured(&router.preferred().backend())?;
        let cpu = measured(&router.fallback().backend())?;
        Ok(device.zip(cpu).and_then(|(device, cpu)| together(&device, &cpu, &need.lengths())))
    }

    /// Says what programs lack, and who answers that.
    pub(crate) fn note_lacking(&self, router: &Router, cold: Option<&Cold>) {
        let Some(cold) = cold else { return };
        let (id, instead) = (router.preferred().backend(), router.fallback().backend());
        let meanwhile = if self.args.compile_background { " until it is compiled" } else { "" };
        let line = if self.args.compile_background { cold.what() } else { cold.line() };
        self.output.note(format_args!("{id} has {line}; {instead} answers that{meanwhile}"));
    }
}

/// How requests are routed; what they lack is made by `background`.
pub(crate) fn options(background: Option<Arc<CachedArtifacts>>) -> RouterOptions {
    let source = |source| source as Arc<dyn ArtifactSource>;
    let background = background.map(source).map(BackgroundOptions::new);
    RouterOptions { background, ..RouterOptions::default() }
}

/// The prices of programs and of the backend beside them, with threads shared out as suits the work best.
fn together(device: &Measurements, cpu: &Measurements, lengths: &Histogram) -> Option<Prices> {
    let of_best = |measured: &Measurements| {
        measured.cheapest(lengths, TOKEN_BUDGET).map(|choice| choice.fit.price)
    };
    Some(Prices {
        device: of_best(device)?,
        cpu: of_best(cpu)?,
        compile: device.compile().unwrap_or_default(),
        memory: device.memory().unwrap_or_default(),
    })
}
