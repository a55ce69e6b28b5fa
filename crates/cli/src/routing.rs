//! A model that two backends share.

use std::sync::Arc;

use anyhow::Result;
use shapeyard_cache::{CachedArtifacts, Store};
use shapeyard_core::BackendId;
use shapeyard_core::backend::ArtifactSource;
use shapeyard_core::plan::{PaddingLimit, Prices};
use shapeyard_core::registry::Registry;
use shapeyard_core::router::{BackgroundOptions, Router, RouterOptions, Wanted};

use crate::backends;
use crate::loading::Loading;
use crate::need::{Cold, Need};
use crate::prices::{self, Measured};

impl Loading<'_> {
    /// What was measured of the two here, if both were.
    pub(crate) fn prices(
        &self,
        store: &Store,
        router: &Router,
        (registry, need): (&Registry, &Need),
    ) -> Result<Option<Prices>> {
        let (lengths, token_budget) = need.work();
        let measured = |id: &BackendId| -> Result<Option<Measured>> {
            let backend = backends::named(registry, id)?;
            prices::measured(store, self.model, backend.as_ref(), (&lengths, token_budget))
        };
        let device = measured(&router.preferred().backend())?;
        let cpu = measured(&router.fallback().backend())?;
        Ok(device.zip(cpu).map(|(device, cpu)| Prices {
            device: device.choice.fit.price,
            cpu: cpu.choice.fit.price,
            compile: device.all.compile().unwrap_or_default(),
            memory: device.all.memory().unwrap_or_default(),
        }))
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

/// How requests are routed; what they lack is made by `background`, of what is `wanted` where that was said.
pub(crate) fn options(
    padding: PaddingLimit,
    background: Option<Arc<CachedArtifacts>>,
    wanted: Option<Wanted>,
) -> RouterOptions {
    let source = |source| source as Arc<dyn ArtifactSource>;
    let mut background = background.map(source).map(BackgroundOptions::new);
    if let (Some(options), Some(wanted)) = (&mut background, wanted) {
        options.wanted = wanted;
    }
    RouterOptions { prices: None, padding, background }
}
