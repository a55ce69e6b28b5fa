//! The work itself: parse, compare, probe, quantise, compile, save, read back.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use safetensors::SafeTensors;
use shapeyard_core::model::{Digest, ModelError};
use shapeyard_core::plan::Bucket;
use shapeyard_core::{DataType, Extents, Model, Signature, SymbolId, TensorView};

use super::job::{Answer, Job, Made, Refusal, Traits};
use super::probe;
use crate::device;
use crate::feed::{Feed, Rows};
use crate::native::{Bindings, Memory, Migraphx, NativeError, Parse, Program, ValueShape};
use crate::options::PaddingPolicy;
use crate::roles::{self, Role, Specialised};
use crate::specialise;

/// Calls whose refusal follows from the model alone.
const FINAL: [&str; 2] = ["parse_onnx", "program_compile"];

impl From<NativeError> for Refusal {
    fn from(error: NativeError) -> Self {
        // What reading and compiling refuse they refuse again; of running and loading nobody knows.
        let is_final = match &error {
            NativeError::Status { function, .. } => FINAL.contains(function),
            NativeError::Unknown(_) => true,
            NativeError::Missing { .. } | NativeError::Ending => false,
        };
        let words = error.to_string();
        if is_final { Self::Model { words } } else { Self::Failed { words } }
    }
}

fn refuse(words: impl Into<String>) -> Refusal {
    Refusal::Model { words: words.into() }
}

/// A model on its way to a program.
pub(super) struct Work<'a> {
    pub(super) library: &'static Migraphx,
    pub(super) job: &'a Job,
    pub(super) model: Model,
    pub(super) rows: Option<SymbolId>,
}

/// Makes the program of a job.
pub(super) fn make(library: &'static Migraphx, job: &Job) -> Answer {
    let mut times = BTreeMap::new();
    let mut clock = Instant::now();
    let mut lap = |stage: &str| {
        let milliseconds = u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX);
        times.insert(stage.to_owned(), milliseconds);
        clock = Instant::now();
    };
    // MIGraphX compiles for the device that is the thread's.
    let entered = job.device.map(device::enter).transpose();
    let _entered = entered.map_err(|words| Refusal::Failed { words })?;
    let work = Work::open(library, job)?;
    let extents = work.extents(&job.bucket)?;
    let mut program = work.parse(&extents)?;
    let roles = work.roles(&program, &extents)?;
    lap("parse");
    let named = roles::named(work.signature(), &roles);
    let (traits, holds_for_all) = match (&job.known, job.padding.policy) {
        (_, PaddingPolicy::Never) => (Traits { roles: named, can_split: false }, false),
        (Some(known), PaddingPolicy::Checked) if known.roles == named => (known.clone(), true),
        (_, PaddingPolicy::Checked) => {
            let found = probe::check(&work, &extents, &roles)?;
            lap("probe");
            (Traits { roles: named, can_split: found.can_split }, found.holds_for_all)
        }
    };
    let calibration = work.calibration(&program, &extents, &roles)?;
    // The library read the file by itself, more than once.
    open_unchanged(job)?;
    program.quantise(&job.options, &calibration)?;
    lap("quantise");
    let program = program.compile(&job.options, Memory::Target)?;
    lap("compile");
    save(library, job, &program)?;
    lap("save");
    Ok(Made { traits, holds_for_all, times, log: String::new() })
}

/// The library answers success also for what never reached the disk, so what was written is read back.
fn save(library: &'static Migraphx, job: &Job, program: &Program) -> Result<(), Refusal> {
    let write = |words: String| Refusal::Write { words };
    program.save(&job.output).map_err(|error| write(error.to_string()))?;
    let back = Program::load(library, job.options.target, &job.output)
        .map_err(|error| write(format!("what was written cannot be read back: {error}")))?;
    if back.outputs()? == program.outputs()? {
        return Ok(());
    }
    let words = "what was written reads back as another program".to_owned();
    Err(Refusal::Failed { words })
}

/// The model, if its content is what the job is about. What cannot be read now could be when the job was
/// written, so that says nothing about the model.
fn open_unchanged(job: &Job) -> Result<Model, Refusal> {
    let unreadable = |error: ModelError| Refusal::Failed { words: chain(&error) };
    let model = Model::open(&job.model).map_err(unreadable)?;
    match model.digest().map_err(unreadable)? {
        digest if digest == job.digest => Ok(model),
        _ => Err(Refusal::Changed),
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}

impl<'a> Work<'a> {
    fn open(library: &'static Migraphx, job: &'a Job) -> Result<Self, Refusal> {
        let model = open_unchanged(job)?;
        let model = model.declare(&job.declared).map_err(|error| refuse(error.to_string()))?;
        let rows = specialise::rows(model.signature(), &job.padding).map_err(refuse)?;
        specialise::check_padding(model.signature(), &job.padding).map_err(refuse)?;
        Ok(Self { library, job, model, rows })
    }

    pub(super) fn signature(&self) -> &Signature {
        self.model.signature()
    }

    pub(super) fn extents(&self, bucket: &Bucket) -> Result<Extents, Refusal> {
        specialise::check_bucket(self.signature(), bucket).map_err(refuse)?;
        Ok(self.signature().extents(bucket))
    }

    /// The model in one shape.
    pub(super) fn parse(&self, extents: &Extents) -> Result<Program, Refusal> {
        let inputs = specialise::input_shapes(self.signature(), extents).map_err(refuse)?;
        let parse = Parse { model: &self.job.model, inputs: &inputs };
        Ok(Program::parse(self.library, &parse)?)
    }

    fn specialised(&self, program: &Program, extents: &Extents) -> Result<Specialised, Refusal> {
        let outputs = program.outputs()?.into_iter().map(|output| output.lengths).collect();
        Ok(Specialised { extents: extents.clone(), outputs })
    }

    /// What every axis of every output follows.
    fn roles(&self, program: &Program, extents: &Extents) -> Result<Vec<Vec<Role>>, Refusal> {
        let signature = self.signature();
        let base = self.specialised(program, extents)?;
        let mut others = Vec::new();
        if roles::are_open(signature) {
            for symbol in signature.bound_symbols() {
                let own = self.others(&base, symbol)?;
                others.extend(own.into_iter().map(|other| (symbol, other)));
            }
        }
        roles::find(signature, &base, &others).map_err(refuse)
    }

    /// The model with other extents for one symbol: two if they are possible, since one alone does not
    /// tell what is rounded from what is proportional. Not every extent is possible: a table of positions
    /// ends, a kernel needs room.
    fn others(&self, base: &Specialised, symbol: SymbolId) -> Result<Vec<Specialised>, Refusal> {
        let name = self.signature().symbol_name(symbol).to_owned();
        let extent = base.extents.get(symbol).unwrap_or(1);
        let tries = [
            extent.saturating_mul(2),
            extent + 1,
            extent + 2,
            extent / 2,
            extent.saturating_sub(1),
        ];
        let (mut found, mut last) = (Vec::new(), String::new());
        for other in tries.into_iter().filter(|&other| other != extent && other > 0) {
            let bucket = self.signature().bucket(&base.extents).with(&name, other);
            let extents = self.signature().extents(&bucket);
            match self.parse(&extents).and_then(|program| self.specialised(&program, &extents)) {
                Ok(specialised) if tried(&found, &extents) => drop(specialised),
                Ok(specialised) => found.push(specialised),
                Err(Refusal::Model { words }) => last = words,
                Err(other) => return Err(other),
            }
            if found.len() == 2 {
                break;
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
        Err(refuse(format!(
            "what its outputs follow is not known: the model does not say, and it cannot be compared with \
             another extent of `{name}` ({last}); declare symbols for the axes of its outputs"
        )))
    }

    /// The feed of a program of this model.
    pub(super) fn feed(
        &self,
        program: &Program,
        extents: &Extents,
        roles: &[Vec<Role>],
    ) -> Result<Feed, Refusal> {
        let (inputs, outputs) = (program.inputs()?, program.outputs()?);
        let (padding, rows) = (&self.job.padding, self.rows);
        Feed::new(self.signature(), extents, padding, rows, (&inputs, &outputs), roles)
            .map_err(|error| refuse(error.to_string()))
    }

    /// The calibration, in the program's buffers.
    fn calibration(
        &self,
        program: &Program,
        extents: &Extents,
        roles: &[Vec<Role>],
    ) -> Result<Vec<Bindings>, Refusal> {
        if self.job.options.precision.quantisation.is_none() {
            return Ok(Vec::new());
        }
        let files = self.read_calibration_files()?;
        let feed = self.feed(program, extents, roles)?;
        let inputs = program.inputs()?;
        let mut sets = Vec::new();
        for (path, bytes) in self.job.options.calibration.iter().zip(&files) {
            self.read_calibration(bytes, &feed, &inputs, &mut sets).map_err(|words| {
                Refusal::Calibration { words: format!("`{}`: {words}", path.display()) }
            })?;
        }
        Ok(sets)
    }

    /// The files' bytes, if they are what the job is about.
    fn read_calibration_files(&self) -> Result<Vec<Vec<u8>>, Refusal> {
        let paths = &self.job.options.calibration;
        let files = paths.iter().map(|path| {
            fs::read(path).map_err(|error| Refusal::Calibration {
                words: format!("`{}` cannot be read: {error}", path.display()),
            })
        });
        let files = files.collect::<Result<Vec<_>, _>>()?;
        let digests: Vec<u8> =
            files.iter().flat_map(|bytes| *Digest::of(bytes).as_bytes()).collect();
        if self.job.calibration != Some(Digest::of(&digests)) {
            let words = "its files changed meanwhile; start again".to_owned();
            return Err(Refusal::Calibration { words });
        }
        Ok(files)
    }

    /// Adds a set of inputs; one with more rows than the program becomes several.
    fn read_calibration(
        &self,
        bytes: &[u8],
        feed: &Feed,
        inputs: &[(String, ValueShape)],
        sets: &mut Vec<Bindings>,
    ) -> Result<(), String> {
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
        let signature = self.signature();
        let found = signature
            .inputs
            .iter()
            .map(|input| {
                let tensor = tensors.tensor(&input.name).map_err(|error| error.to_string())?;
                let dtype =
                    dtype_of(tensor.dtype()).ok_or("an element type that no model takes")?;
                Ok((dtype, tensor.shape().to_vec(), tensor.data()))
            })
            .collect::<Result<Vec<(DataType, Vec<usize>, &[u8])>, String>>()?;
        let views: Vec<TensorView<'_>> = found
            .iter()
            .map(|(dtype, shape, data)| TensorView::new(*dtype, shape, data))
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())?;
        let extents = signature.bind(&views).map_err(|error| error.to_string())?;
        signature.check_indices(&views).map_err(|error| error.to_string())?;
        for rows in self.in_pieces(&extents)? {
            let mut bindings =
                Bindings::new(self.library, inputs).map_err(|error| error.to_string())?;
            feed.fill(&views, rows, &mut bindings).map_err(|error| error.to_string())?;
            sets.push(bindings);
        }
        Ok(())
    }

    /// The rows of each piece of a set that fits the program.
    fn in_pieces(&self, set: &Extents) -> Result<Vec<Option<Rows>>, String> {
        let bucket = &self.job.bucket;
        let shape = self.signature().bucket(set);
        if bucket.holds(&shape) {
            return Ok(vec![None]);
        }
        let too_large = || format!("its shape {shape} does not fit into {bucket}");
        let symbol = self.rows.ok_or_else(too_large)?;
        let name = self.signature().symbol_name(symbol);
        let (whole, n_rows) = (bucket.get(name).unwrap_or(1), set.get(symbol).unwrap_or(1));
        if !bucket.holds(&shape.clone().with(name, whole)) {
            return Err(too_large());
        }
        let piece = |first| Rows { first, n: whole.min(n_rows - first), skipped: 0 };
        Ok((0..n_rows).step_by(whole).map(|first| Some(piece(first))).collect())
    }
}

fn tried(found: &[Specialised], extents: &Extents) -> bool {
    found.iter().any(|it| it.extents == *extents)
}

fn dtype_of(dtype: safetensors::Dtype) -> Option<DataType> {
    use safetensors::Dtype;
    Some(match dtype {
        Dtype::BOOL => DataType::Bool,
        Dtype::U8 => DataType::U8,
        Dtype::U16 => DataType::U16,
        Dtype::U32 => DataType::U32,
        Dtype::U64 => DataType::U64,
        Dtype::I8 => DataType::I8,
        Dtype::I16 => DataType::I16,
        Dtype::I32 => DataType::I32,
        Dtype::I64 => DataType::I64,
        Dtype::F16 => DataType::F16,
        Dtype::BF16 => DataType::BF16,
        Dtype::F32 => DataType::F32,
        Dtype::F64 => DataType::F64,
        _ => return None,
    })
}
