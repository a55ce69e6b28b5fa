//! One lane through an encoder.

use std::sync::Arc;
use std::time::Instant;

use shapeyard_core::{DataType, StageTimes, Tensor, TensorView, Tier};

use super::Encoder;
use super::graph::Graph;
use super::texts::{Form, Texts};
use crate::ggml::computation::Graphs;
use crate::ggml::session::Lane;
use crate::ggml::stream::Stream;

#[derive(Debug)]
pub(crate) struct EncoderLane {
    encoder: Arc<Encoder>,
    /// Before the stream, so that they go first.
    graphs: Graphs<Form, Graph>,
    stream: Stream,
    texts: Texts,
    /// What is written to a mask, kept from run to run.
    mask: Vec<f32>,
}

impl EncoderLane {
    pub(crate) fn new(encoder: Arc<Encoder>, stream: Stream) -> Result<Self, String> {
        let graphs = Graphs::new(&stream)?;
        Ok(Self { encoder, graphs, stream, texts: Texts::default(), mask: Vec::new() })
    }

    /// Chooses the graph and fills it; `None` where the mask shows nothing.
    fn prepare(
        &mut self,
        ids: &TensorView<'_>,
        mask: &TensorView<'_>,
    ) -> Result<Option<Tier>, String> {
        let Self { encoder, graphs, stream, texts, .. } = self;
        let form = texts.read([ids, mask], encoder.engine.is_processor(), encoder.limits)?;
        if texts.runs.is_empty() {
            return Ok(None);
        }
        let tier = graphs.choose(
            |known| *known == form,
            |arena| {
                let graph = Graph::describe(encoder, stream, arena, form);
                Ok::<_, String>((form, graph.map_err(|cannot| cannot.to_string())?))
            },
        )?;
        if let Some(graph) = graphs.chosen() {
            graph.fill(texts, &mut self.mask)?;
        }
        Ok(Some(tier))
    }

    fn answer(&self, ids: &TensorView<'_>, slot: &mut Tensor) -> Result<(), String> {
        let hidden = self.encoder.hidden;
        let &[batch, length] = ids.shape() else {
            return Err("its ids have not two axes".to_owned());
        };
        slot.reset(DataType::F32, &[batch, length, hidden]).map_err(|error| error.to_string())?;
        let to = slot.as_mut_slice::<f32>().map_err(|error| error.to_string())?;
        self.texts.spread(to, hidden, |from, to| match self.graphs.chosen() {
            Some(graph) => graph.read(from, to),
            None => Err("no graph was chosen".to_owned()),
        })
    }
}

impl Lane for EncoderLane {
    fn run(
        &mut self,
        inputs: &[TensorView<'_>],
        slots: &mut [Tensor],
    ) -> Result<(Tier, StageTimes), String> {
        let ([ids, mask], [slot]) = (inputs, slots) else {
            return Err("an encoder takes ids and a mask, and gives vectors".to_owned());
        };
        let start = Instant::now();
        let tier = self.prepare(ids, mask)?;
        let prepare = start.elapsed();
        let start = Instant::now();
        if let (Some(_), Some(graph)) = (tier, self.graphs.chosen_mut()) {
            graph.compute(&mut self.stream)?;
        }
        let run = start.elapsed();
        let start = Instant::now();
        self.answer(ids, slot)?;
        let times = StageTimes { prepare, run, finish: start.elapsed() };
        Ok((tier.unwrap_or(Tier::Cached), times))
    }
}
