//! An encoder's tensors, from a GGUF file to where a device computes.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use bytemuck::Pod;
use ggml_sys::ggml_type;
use half::{bf16, f16};
use shapeyard_core::model::gguf::{GgufFile, GgufTensor, GgufType};

use crate::ggml::cannot::Cannot;
use crate::ggml::context::{Context, Tensor};
use crate::ggml::kernels::product::{PANEL, panels};
use crate::ggml::layers::{Layout, Matrix};
use crate::ggml::library::Engine;
use crate::ggml::mapped::{Mapped, Residence};
use crate::ggml::narrow::widen;
use crate::ggml::store::Store;
use crate::ggml::stream::Stream;

/// The ending of a matrix's name in files that anybody reads, which have it by rows.
pub(crate) const ROWS: &str = "weight";

/// The ending of its name in files of ours, which may have it in panels.
pub(crate) const PANELS: &str = "panels";

/// Whose file tensors come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A user's own, with matrices by rows. It may be written anew at any time, by a download or a conversion, and
    /// is copied.
    Foreign,
    /// One that was compiled, in which matrices may lie in panels.
    Artifact(Residence),
}

/// Whether a tensor is a table of which rows are picked, and not multiplied with.
pub(crate) fn is_table(name: &str) -> bool {
    name.ends_with("_embd.weight") || name == "token_types.weight"
}

/// Tensors that were asked for and have no memory yet.
pub(crate) struct Weights<'a> {
    engine: &'a Arc<Engine>,
    file: &'a GgufFile,
    may_have_panels: bool,
    content: File,
    mapped: Option<Mapped>,
    context: Context,
    waiting: Vec<Waiting<'a>>,
}

/// A tensor of the file that is copied.
struct Waiting<'a> {
    from: &'a GgufTensor,
    leaf: Tensor,
    change: Change,
}

/// What becomes of a tensor on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Nothing,
    /// The type in which it is held, and whether its rows become panels.
    Into {
        held: GgufType,
        in_panels: bool,
    },
}

impl<'a> Weights<'a> {
    pub(crate) fn of(
        engine: &'a Arc<Engine>,
        path: &Path,
        file: &'a GgufFile,
        origin: Origin,
    ) -> Result<Self, Cannot> {
        let content = File::open(path)?;
        let mapped = match origin {
            Origin::Artifact(Residence::Mapped) => Mapped::new(engine, &content)?,
            Origin::Artifact(Residence::Copied) | Origin::Foreign => None,
        };
        let may_have_panels = origin != Origin::Foreign;
        let context = Context::new(engine, file.tensors.len(), 0)?;
        let waiting = Vec::new();
        Ok(Self { engine, file, may_have_panels, content, mapped, context, waiting })
    }

    fn has(&self, name: &str) -> bool {
        self.file.tensors.contains_key(name)
    }

    /// The rows of a table that a file may lack.
    pub(crate) fn n_rows(&self, table: &str) -> Option<usize> {
        self.file.tensors.get(table)?.shape.first().copied()
    }

    fn find(&self, name: &str, shape: &[usize]) -> Result<&'a GgufTensor, Cannot> {
        let missing = || Cannot::Model(format!("it has no `{name}`"));
        let found = self.file.tensors.get(name).ok_or_else(missing)?;
        if found.shape == shape {
            Ok(found)
        } else {
            Err(Cannot::Model(format!("`{name}` is {:?}, not {shape:?}", found.shape)))
        }
    }

    /// A list of floats, such as a bias.
    pub(crate) fn vector(&mut self, name: &str, n: usize) -> Result<Tensor, Cannot> {
        let found = self.find(name, &[n])?;
        if found.dtype != GgufType::F32 {
            return Err(Cannot::Model(format!("`{name}` is no list of f32")));
        }
        self.place(found, found.dtype, &[n], Change::Nothing)
    }

    /// A table whose rows are picked.
    pub(crate) fn table(&mut self, name: &str, shape: [usize; 2]) -> Result<Tensor, Cannot> {
        let found = self.find(name, &shape)?;
        self.place(found, found.dtype, &shape, Change::Nothing)
    }

    /// The matrix of a layer, under the layer's name.
    pub(crate) fn matrix(
        &mut self,
        layer: &str,
        [n_outputs, n_inputs]: [usize; 2],
    ) -> Result<Matrix, Cannot> {
        let in_panels = [n_outputs.div_ceil(PANEL), n_inputs, PANEL];
        let panels = format!("{layer}.{PANELS}");
        let (tensor, layout) = if self.may_have_panels && self.has(&panels) {
            if !self.engine.is_processor() {
                return Err(Cannot::Model(format!("`{panels}` is laid out for the processor")));
            }
            let found = self.find(&panels, &in_panels)?;
            if !has_kernel(found.dtype) {
                return Err(Cannot::Model(format!("`{panels}` is of a type without a product")));
            }
            (self.place(found, found.dtype, &in_panels, Change::Nothing)?, Layout::Panels)
        } else {
            let found = self.find(&format!("{layer}.{ROWS}"), &[n_outputs, n_inputs])?;
            let held = held(found.dtype);
            if has_kernel(held) && self.engine.is_processor() {
                let change = Change::Into { held, in_panels: true };
                (self.place(found, held, &in_panels, change)?, Layout::Panels)
            } else {
                let change = match held == found.dtype {
                    true => Change::Nothing,
                    false => Change::Into { held, in_panels: false },
                };
                (self.place(found, held, &[n_outputs, n_inputs], change)?, Layout::Rows)
            }
        };
        Ok(Matrix { tensor, layout, n_inputs, n_outputs })
    }

    fn place(
        &mut self,
        from: &'a GgufTensor,
        held: GgufType,
        shape: &[usize],
        change: Change,
    ) -> Result<Tensor, Cannot> {
        let leaf = self.context.leaf(ggml_type(held.number().cast_signed()), shape)?;
        let stays = match &self.mapped {
            Some(mapped) if change == Change::Nothing => {
                mapped.place(&leaf, from.offset, from.n_bytes)?
            }
            _ => false,
        };
        if !stays {
            self.waiting.push(Waiting { from, leaf: leaf.clone(), change });
        }
        Ok(leaf)
    }

    /// Gives every tensor its memory, and fills it.
    pub(crate) fn finish(self, stream: &Stream) -> Result<Store, Cannot> {
        let Self { mut content, mapped, context, waiting, .. } = self;
        let store = Store::new(context, stream, waiting.len(), mapped)?;
        for Waiting { from, leaf, change } in waiting {
            content.seek(SeekFrom::Start(from.offset))?;
            let mut part = (&mut content).take(from.n_bytes);
            let Change::Into { held, in_panels } = change else {
                store.read(&leaf, &mut part)?;
                continue;
            };
            let mut bytes = Vec::new();
            part.read_to_end(&mut bytes)?;
            if bytes.len() as u64 != from.n_bytes {
                return Err(Cannot::File(io::ErrorKind::UnexpectedEof.into()));
            }
            let n_inputs = in_panels.then(|| from.shape.last().copied().unwrap_or(1));
            match held {
                GgufType::F16 => write(&store, &leaf, &halves(from.dtype, &bytes), n_inputs)?,
                _ => write(&store, &leaf, &floats(from.dtype, &bytes), n_inputs)?,
            }
        }
        Ok(store)
    }
}

/// Whether our product reads panels of this type.
fn has_kernel(held: GgufType) -> bool {
    matches!(held, GgufType::F32 | GgufType::F16)
}

/// The type in which memory holds a matrix: one in which nothing else is rounded more than the matrix is.
fn held(stored: GgufType) -> GgufType {
    match stored {
        GgufType::Q8_0 => GgufType::F16,
        GgufType::BF16 => GgufType::F32,
        other => other,
    }
}

fn write<T: Pod + Default>(
    store: &Store,
    leaf: &Tensor,
    values: &[T],
    n_inputs: Option<usize>,
) -> Result<(), String> {
    match n_inputs {
        Some(n_inputs) => store.write(leaf, &panels(values, n_inputs)),
        None => store.write(leaf, values),
    }
}

fn halves(stored: GgufType, bytes: &[u8]) -> Vec<f16> {
    match stored {
        GgufType::Q8_0 => widen::widen(bytes),
        _ => bytes.as_chunks().0.iter().copied().map(f16::from_le_bytes).collect(),
    }
}

fn floats(stored: GgufType, bytes: &[u8]) -> Vec<f32> {
    match stored {
        GgufType::BF16 => {
            bytes.as_chunks().0.iter().copied().map(|it| bf16::from_le_bytes(it).to_f32()).collect()
        }
        _ => bytes.as_chunks().0.iter().copied().map(f32::from_le_bytes).collect(),
    }
}
