//! Does padding change answers? Asked of the model itself, in small, before it is compiled.
//!
//! The same rows run three times on MIGraphX's plain interpreter: alone, padded as requests will be, and among
//! other rows. Padding along each further axis is tried by itself. A model that reduces over its batch, or
//! looks at what its mask should hide, answers differently, and the output and axis are named.
//!
//! Values are pseudo-random and the same every time. A model that passes may still look at padding in a way
//! that these values do not show; a model that fails does look at it.

use shapeyard_core::backend::Outputs;
use shapeyard_core::{DataType, Dim, Extents, Shape, SymbolId, Tensor, TensorSpec, TensorView};

use super::job::Refusal;
use super::make::Work;
use crate::feed::{Feed, Rows};
use crate::fill;
use crate::native::{Bindings, Program};
use crate::options::{CompileOptions, Target};
use crate::roles::Role;

/// Rows of the small request.
const N_ROWS: usize = 2;
/// Rows of the small program.
const N_ROWS_PADDED: usize = 4;
/// Small extents along other axes: short ones first, because the interpreter is slow; a model that cannot be
/// so small is tried in its bucket's own extent.
const SMALL: [(usize, usize); 2] = [(3, 5), (8, 16)];
/// Far above what another order of additions changes, far below what a padded element changes.
const TOLERANCE: f64 = 1e-3;

/// What a small program is run with.
struct Small<'a> {
    program: Program,
    feed: Feed,
    bindings: Bindings,
    work: &'a Work<'a>,
}

/// Refuses a model whose answers change with padding.
pub(super) fn check(work: &Work<'_>, bucket: &Extents, roles: &[Vec<Role>]) -> Result<(), Refusal> {
    let (base, larger) = extents(work, bucket)?;
    let Some(base) = base else { return Ok(()) };
    let mut random = Random(0x5EED);
    let inputs = request(work, &base, &mut random);
    let alone = Small::new(work, &base, roles)?.answer(&inputs, &base)?;
    for (symbol, extents) in larger {
        let mut program = Small::new(work, &extents, roles)?;
        let padded = program.answer(&inputs, &base)?;
        compare(work, roles, symbol, &alone, &padded, "padding")?;
        if Some(symbol) == work.rows {
            let others = among_others(work, &inputs, &extents, &mut random);
            let others = program.answer_rows(&others, &base)?;
            compare(work, roles, symbol, &alone, &others, "other rows")?;
        }
    }
    Ok(())
}

type Probes = (Option<Extents>, Vec<(SymbolId, Extents)>);

/// The small request's extents, and for each symbol those of a program that pads along it alone.
fn extents(work: &Work<'_>, bucket: &Extents) -> Result<Probes, Refusal> {
    let signature = work.signature();
    let symbols: Vec<SymbolId> = signature.bound_symbols().collect();
    if symbols.is_empty() {
        return Ok((None, Vec::new()));
    }
    let own = signature.bucket(bucket);
    let name = |symbol: SymbolId| signature.symbol_name(symbol).to_owned();
    let mut candidates: Vec<Option<(usize, usize)>> = SMALL.iter().copied().map(Some).collect();
    // The bucket's own extent, which is possible for certain, against one less.
    candidates.push(None);
    let mut last = None;
    for small in candidates {
        let pair = |symbol: SymbolId| {
            if Some(symbol) == work.rows {
                return (N_ROWS, N_ROWS_PADDED);
            }
            let whole = own.get(&name(symbol)).unwrap_or(1);
            small.unwrap_or((whole.saturating_sub(1).max(1), whole))
        };
        let at = |padded: Option<SymbolId>| {
            let extent = |&symbol: &SymbolId| {
                let (real, whole) = pair(symbol);
                (name(symbol), if padded == Some(symbol) { whole } else { real })
            };
            signature.extents(&symbols.iter().map(extent).collect())
        };
        let larger: Vec<(SymbolId, Extents)> =
            symbols.iter().map(|&symbol| (symbol, at(Some(symbol)))).collect();
        let base = at(None);
        let possible = [&base].into_iter().chain(larger.iter().map(|(_, extents)| extents));
        match possible.map(|extents| work.parse(extents)).collect::<Result<Vec<_>, _>>() {
            Ok(_) => {
                let larger = larger.into_iter().filter(|(_, extents)| *extents != base).collect();
                return Ok((Some(base), larger));
            }
            Err(refusal) => last = Some(refusal),
        }
    }
    let words = match last {
        Some(Refusal::Model { words }) => words,
        Some(other) => return Err(other),
        None => String::new(),
    };
    Err(Refusal::Model {
        words: format!(
            "whether padding changes its answers cannot be found out, because it takes no other shape \
             ({words}); with padding switched off it runs in exactly the shapes that are compiled"
        ),
    })
}

/// MIGraphX's plain interpreter where this build has it, since it compiles in no time; else the target
/// itself.
fn evaluator(work: &Work<'_>) -> CompileOptions {
    let interpreter = work.library.know_target(Target::Ref.name()).is_ok();
    let target = if interpreter { Target::Ref } else { work.job.options.target };
    CompileOptions { target, ..CompileOptions::default() }
}

impl<'a> Small<'a> {
    fn new(work: &'a Work<'a>, extents: &Extents, roles: &[Vec<Role>]) -> Result<Self, Refusal> {
        let program = work.parse(extents)?.compile(&evaluator(work))?;
        let feed = work.feed(&program, extents, roles)?;
        let bindings = Bindings::new(work.library, &program.inputs()?)?;
        Ok(Self { program, feed, bindings, work })
    }

    fn answer(&mut self, inputs: &[Tensor], request: &Extents) -> Result<Outputs, Refusal> {
        self.run(inputs, request, None)
    }

    /// Inputs with more rows than the request; its own are the first.
    fn answer_rows(&mut self, inputs: &[Tensor], request: &Extents) -> Result<Outputs, Refusal> {
        let n = self.work.rows.and_then(|rows| request.get(rows)).unwrap_or(1);
        self.run(inputs, request, Some(Rows { first: 0, n }))
    }

    fn run(
        &mut self,
        inputs: &[Tensor],
        request: &Extents,
        rows: Option<Rows>,
    ) -> Result<Outputs, Refusal> {
        let words = |error: crate::feed::FeedError| Refusal::Model { words: error.to_string() };
        let views: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
        self.feed.fill(&views, None, &mut self.bindings).map_err(words)?;
        let results = self.program.run(&self.bindings)?;
        let mut outputs = Outputs::new();
        self.feed.prepare(request, &mut outputs).map_err(words)?;
        self.feed.drain(&results, request, rows, &mut outputs).map_err(words)?;
        Ok(outputs)
    }
}

/// The inputs of the small request.
fn request(work: &Work<'_>, extents: &Extents, random: &mut Random) -> Vec<Tensor> {
    let signature = work.signature();
    let tensors = signature.inputs.iter().map(|spec| {
        let dims = spec.shape.as_deref().unwrap_or_default();
        let shape: Shape = dims
            .iter()
            .map(|dim| match dim {
                Dim::Fixed(extent) => *extent,
                Dim::Symbol(symbol) => extents.get(*symbol).unwrap_or(1),
                Dim::Unnamed => 1,
            })
            .collect();
        tensor(spec, &shape, random)
    });
    tensors.collect()
}

/// The same rows in front, and others in place of the padding.
fn among_others(
    work: &Work<'_>,
    inputs: &[Tensor],
    extents: &Extents,
    random: &mut Random,
) -> Vec<Tensor> {
    let mut others = request(work, extents, random);
    for (other, own) in others.iter_mut().zip(inputs) {
        let (size, shape) = (own.dtype().size(), Shape::from(own.shape()));
        let (from, whole) = (own.shape(), Shape::from(other.shape()));
        let from = crate::region::Place::dense(from, None);
        let to = crate::region::Place::dense(&whole, None);
        // An input without rows has the same shape in both, and is taken over whole.
        let _ = crate::region::copy(&shape, size, (own.bytes(), &from), (other.bytes_mut(), &to));
    }
    others
}

/// A tensor of values that the model may meet: indices inside its tables, masks of ones.
fn tensor(spec: &TensorSpec, shape: &[usize], random: &mut Random) -> Tensor {
    let mut tensor = Tensor::zeroed(spec.dtype, shape).unwrap_or_default();
    let is_mask = spec.name.to_lowercase().contains("mask");
    let is_float =
        matches!(spec.dtype, DataType::F16 | DataType::BF16 | DataType::F32 | DataType::F64);
    for slot in tensor.bytes_mut().chunks_exact_mut(spec.dtype.size()) {
        let value = match spec.index_limit {
            _ if is_mask => 1.0,
            Some(limit) => random.below(limit.min(100)) as f64,
            None if is_float => random.unit() * 2.0 - 1.0,
            None => random.below(2) as f64,
        };
        if let Ok(element) = fill::element(spec.dtype, value) {
            slot.copy_from_slice(&element);
        }
    }
    tensor
}

fn compare(
    work: &Work<'_>,
    roles: &[Vec<Role>],
    symbol: SymbolId,
    alone: &Outputs,
    other: &Outputs,
    what: &str,
) -> Result<(), Refusal> {
    let signature = work.signature();
    for (index, (one, two)) in alone.tensors().iter().zip(other.tensors()).enumerate() {
        let derived = roles
            .get(index)
            .into_iter()
            .flatten()
            .any(|role| matches!(role, Role::Derived { symbols } if symbols.contains(&symbol)));
        // Never padded along this symbol: see `Feed::rigid`.
        if derived || are_alike(one, two) {
            continue;
        }
        let name = signature.outputs.get(index).map_or("?", |output| output.name.as_str());
        let symbol = signature.symbol_name(symbol);
        return Err(Refusal::Model {
            words: format!(
                "output `{name}` changes with {what} along `{symbol}`: the same request answers \
                 differently in a larger program; with padding switched off it runs in exactly the \
                 shapes that are compiled, and `fills` say what an input is padded with"
            ),
        });
    }
    Ok(())
}

fn are_alike(one: &Tensor, two: &Tensor) -> bool {
    if one.shape() != two.shape() || one.dtype() != two.dtype() {
        return false;
    }
    let values = |tensor: &Tensor| fill::as_f64(tensor.dtype(), tensor.bytes());
    let (Some(one), Some(two)) = (values(one), values(two)) else {
        return true;
    };
    let finite = one.iter().filter(|value| value.is_finite());
    let scale = finite.fold(0.0_f64, |most, value| most.max(value.abs()));
    one.iter().zip(&two).all(|(a, b)| {
        let same = a == b || (a.is_nan() && b.is_nan());
        same || (a - b).abs() <= TOLERANCE * scale.max(1e-6)
    })
}

/// SplitMix64 (Steele, Lea and Flood, 2014): the same values every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> u64 {
        self.next() % (limit.max(1) as u64)
    }

    /// From 0 to 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
