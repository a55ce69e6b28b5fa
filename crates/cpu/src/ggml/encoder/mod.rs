//! Encoders from GGUF files, through graphs that are written for them.
//!
//! On the processor a graph is of so many tokens, whatever the texts that they are of: see [`texts`].

mod bert;
mod graph;
mod lane;
mod modern_bert;
mod texts;
pub(crate) mod weights;

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use shapeyard_core::model::gguf::{EncoderKind, EncoderSizes, GgufFile};

use self::bert::Bert;
use self::graph::Sketch;
pub(crate) use self::lane::EncoderLane;
use self::modern_bert::ModernBert;
use self::texts::{Form, Limits};
pub(crate) use self::weights::Origin;
use self::weights::Weights;
use super::cannot::Cannot;
use super::computation::Arena;
use super::context::Made;
use super::library::Engine;
use super::store::Store;
use super::stream::Stream;

/// An encoder that every lane shares.
#[derive(Debug)]
pub(crate) struct Encoder {
    pub(crate) engine: Arc<Engine>,
    network: Network,
    limits: Limits,
    n_layers: usize,
    hidden: usize,
    /// Keeps the tensors' memory.
    _store: Store,
}

#[derive(Debug)]
enum Network {
    Bert(Bert),
    ModernBert(ModernBert),
}

impl Network {
    fn forward(&self, sketch: &mut Sketch<'_>) -> Made {
        match self {
            Self::Bert(bert) => bert.forward(sketch),
            Self::ModernBert(modern) => modern.forward(sketch),
        }
    }
}

impl Encoder {
    /// Reads the tensors of an encoder of these sizes from a file, which may be one that was compiled of it.
    pub(crate) fn load(
        engine: &Arc<Engine>,
        sizes: &EncoderSizes,
        path: &Path,
        file: &GgufFile,
        origin: Origin,
    ) -> Result<Self, Cannot> {
        let mut weights = Weights::of(engine, path, file, origin)?;
        let network = match &sizes.kind {
            EncoderKind::Bert => Network::Bert(Bert::read(&mut weights, sizes)?),
            EncoderKind::ModernBert(local) => {
                Network::ModernBert(ModernBert::read(&mut weights, sizes, local)?)
            }
            other => return Err(Cannot::Model(format!("ggml has no graph for {other:?}"))),
        };
        let stream = Stream::new(engine, NonZeroUsize::MIN)?;
        let encoder = Self {
            engine: Arc::clone(engine),
            network,
            limits: Limits { vocabulary: sizes.vocabulary, positions: sizes.positions },
            n_layers: sizes.n_layers,
            hidden: sizes.hidden,
            _store: weights.finish(&stream)?,
        };
        encoder.check(&stream)?;
        Ok(encoder)
    }

    /// Only a trial shows whether the device computes what the graph needs.
    fn check(&self, stream: &Stream) -> Result<(), Cannot> {
        let form = match self.engine.is_processor() {
            true => Form::Packed { n_tokens: 1 },
            false => Form::Rectangle { batch: 1, length: 1 },
        };
        graph::Graph::describe(self, stream, &mut Arena::new(stream)?, form).map(drop)
    }
}
