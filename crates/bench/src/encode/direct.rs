//! ONNX Runtime driven through its own interface: what a careful user would write without us.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};
use ort::session::Session;
use ort::value::TensorRef;
use shapeyard_core::plan::Batch;
use shapeyard_core::plan::calibrate::Split;

use super::contender::Measured;
use crate::contest::Counts;
use crate::direct::{environment, session};
use crate::measure::{cpu_time, peak_memory};

/// Batches of `n_rows` texts as they come.
pub(super) fn in_order(lengths: &[usize], n_rows: usize) -> Vec<Batch> {
    let items: Vec<usize> = (0..lengths.len()).collect();
    let batch = |items: &[usize]| Batch {
        items: items.to_vec(),
        length: items.iter().map(|&item| lengths[item]).max().unwrap_or(0),
    };
    items.chunks(n_rows).map(batch).collect()
}

/// Runs the batches on the sessions of `split`, mean-pools and normalises.
pub(super) fn run(
    model: &Path,
    ids: &[Vec<u32>],
    split: Split,
    batches: &[Batch],
) -> Result<Measured> {
    let environment = environment()?;
    let sessions = (0..split.n_sessions)
        .map(|_| session(&environment, model, split.n_threads, true).map(Mutex::new))
        .collect::<Result<Vec<_>>>()?;
    let next = AtomicUsize::new(0);
    let vectors = Mutex::new(vec![Vec::new(); ids.len()]);
    let (started, before) = (Instant::now(), cpu_time());
    std::thread::scope(|scope| {
        let lane = |session: &'_ Mutex<Session>| -> Result<()> {
            let mut session = session.lock().map_err(|_| anyhow!("a session is poisoned"))?;
            while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                let (rows, _) = encode(&mut session, ids, batch)?;
                let mut vectors = vectors.lock().map_err(|_| anyhow!("a lane panicked"))?;
                for (item, row) in batch.items.iter().zip(rows) {
                    vectors[*item] = row;
                }
            }
            Ok(())
        };
        let lanes: Vec<_> =
            sessions.iter().map(|session| scope.spawn(move || lane(session))).collect();
        lanes
            .into_iter()
            .try_for_each(|lane| lane.join().map_err(|_| anyhow!("a lane panicked"))?)
    })?;
    let (wall, cpu) = (started.elapsed(), cpu_time().saturating_sub(before));
    let vectors = vectors.into_inner().map_err(|_| anyhow!("a lane panicked"))?;
    Ok(Measured {
        wall,
        cpu,
        peak_memory: peak_memory()?,
        n_padded_tokens: batches.iter().map(Batch::n_tokens).sum(),
        setting: None,
        tried: Vec::new(),
        backend: "onnxruntime".to_owned(),
        counts: Counts::default(),
        n_dims: vectors.first().map_or(0, Vec::len),
        vectors: vectors.concat(),
    })
}

/// One session for one text after the other.
pub(super) struct Lane {
    session: Session,
}

impl Lane {
    /// A session of so many threads, which look for work a while before they sleep or do not.
    pub(super) fn open(model: &Path, n_threads: usize, spins: bool) -> Result<Self> {
        Ok(Self { session: session(&environment()?, model, n_threads, spins)? })
    }

    /// The normalised vectors of a batch, and how long the model itself ran.
    pub(super) fn encode(
        &mut self,
        ids: &[Vec<u32>],
        batch: &Batch,
    ) -> Result<(Vec<Vec<f32>>, Duration)> {
        encode(&mut self.session, ids, batch)
    }
}

fn encode(
    session: &mut Session,
    ids: &[Vec<u32>],
    batch: &Batch,
) -> Result<(Vec<Vec<f32>>, Duration)> {
    let shape = [batch.items.len(), batch.length];
    let (mut ids_of_all, mut mask) = (vec![0i64; batch.n_tokens()], vec![0i64; batch.n_tokens()]);
    for (row, &item) in batch.items.iter().enumerate() {
        for (at, &id) in ids[item].iter().enumerate() {
            ids_of_all[row * batch.length + at] = id.into();
            mask[row * batch.length + at] = 1;
        }
    }
    let types = vec![0i64; batch.n_tokens()];
    let mut inputs = Vec::with_capacity(session.inputs().len());
    for input in session.inputs() {
        let values = match input.name() {
            "input_ids" | "ids" => &ids_of_all,
            "attention_mask" => &mask,
            "token_type_ids" => &types,
            other => bail!("ONNX Runtime cannot be driven directly: what is input `{other}`?"),
        };
        inputs.push((
            input.name().to_owned(),
            TensorRef::from_array_view((shape, values.as_slice()))?,
        ));
    }
    let start = Instant::now();
    let outputs = session.run(inputs)?;
    let inside = start.elapsed();
    let (shape, hidden) = outputs[0].try_extract_tensor::<f32>()?;
    ensure!(shape.len() == 3, "the first output is no vector a token");
    let n_dims = usize::try_from(shape[2])?;
    let rows = hidden.chunks_exact(batch.length * n_dims).zip(&batch.items);
    let rows = rows.map(|(row, &item)| mean(&row[..ids[item].len() * n_dims], n_dims)).collect();
    Ok((rows, inside))
}

fn mean(hidden: &[f32], n_dims: usize) -> Vec<f32> {
    let mut sum = vec![0.0f32; n_dims];
    for token in hidden.chunks_exact(n_dims) {
        sum.iter_mut().zip(token).for_each(|(sum, x)| *sum += x);
    }
    let norm = sum.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    sum.iter_mut().for_each(|x| *x /= norm);
    sum
}
