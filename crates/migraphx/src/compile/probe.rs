//! Does padding change answers? Asked of the model itself, in small, before it is compiled.
//!
//! The same rows run on MIGraphX's plain interpreter: alone, padded as requests will be, and with other
//! rows behind them. Padding along each further axis is tried by itself. A model that reduces over its
//! batch, or looks at what its mask should hide, answers differently, and the output and the symbol are
//! named. At last the rows run behind others: where that changes an answer, rows depend on where they
//! stand, and a request may be padded but not split. Others are alike, much larger and much smaller, since
//! maxima and the like hide in what is alike.
//!
//! Values are pseudo-random and the same every time. A model that passes may still look at padding in a way
//! that these values do not show; a model that fails does look at it.

use std::iter;

use shapeyard_core::backend::Outputs;
use shapeyard_core::{DataType, Dim, Extents, Shape, SymbolId, Tensor, TensorSpec, TensorView};

use super::job::Refusal;
use super::make::Work;
use crate::feed::{Feed, FeedError, Rows};
use crate::fill;
use crate::native::{Bindings, Memory, Program};
use crate::options::{CompileOptions, Target};
use crate::region::{self, Place};
use crate::roles::Role;

/// What the small request and the small program have along one symbol.
#[derive(Clone, Copy)]
struct Pair {
    real: usize,
    whole: usize,
}

/// How small requests are made: small ones first, because the interpreter is slow. A model that cannot be
/// so small is tried in sizes that come from its bucket's own extent.
const PAIRS: [fn(is_rows: bool, own: usize) -> Pair; 4] = [
    |is_rows, _| if is_rows { Pair { real: 2, whole: 5 } } else { Pair { real: 3, whole: 5 } },
    |is_rows, _| if is_rows { Pair { real: 2, whole: 5 } } else { Pair { real: 8, whole: 16 } },
    |is_rows, own| match is_rows {
        true => Pair { real: own, whole: own.saturating_mul(2) },
        false => Pair { real: own.saturating_sub(1).max(1), whole: own },
    },
    |_, own| Pair { real: own, whole: own.saturating_mul(2) },
];

/// How many of [`PAIRS`] look at no bucket.
const N_WITHOUT_BUCKET: usize = 2;

/// What a small program is run with.
struct Small {
    program: Program,
    feed: Feed,
    bindings: Bindings,
}

/// What the probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Whether a row's answer is the same wherever it stands, so that a request may be split.
    pub(super) can_split: bool,
    /// Whether the bucket had no part in what was asked, so that the others need not ask again.
    pub(super) holds_for_all: bool,
}

/// Refuses a model whose answers change with padding.
pub(super) fn check(
    work: &Work<'_>,
    bucket: &Extents,
    roles: &[Vec<Role>],
) -> Result<Found, Refusal> {
    let Some(Probes { base, larger, holds_for_all }) = probes(work, bucket)? else {
        return Ok(Found { can_split: false, holds_for_all: true });
    };
    let rounds = rounds(work, &base, roles)?;
    let mut can_split = work.rows.is_some();
    // One program in memory at a time: each has the weights of the whole model.
    for (symbol, extents) in &larger {
        let mut program = Small::new(work, extents, roles)?;
        for round in &rounds {
            can_split &= round.padded(*symbol, extents, &mut program)?;
        }
    }
    Ok(Found { can_split, holds_for_all })
}

/// Which elements of each output were a number in some round.
#[derive(Default)]
struct Evidence(Vec<Vec<bool>>);

impl Evidence {
    fn add(&mut self, outputs: &Outputs) {
        self.0.resize_with(outputs.tensors().len(), Vec::new);
        for (seen, tensor) in self.0.iter_mut().zip(outputs.tensors()) {
            let values = fill::as_f64(tensor.dtype(), tensor.bytes()).unwrap_or_default();
            seen.resize(values.len(), false);
            seen.iter_mut().zip(&values).for_each(|(seen, value)| *seen |= !value.is_nan());
        }
    }

    fn is_complete(&self) -> bool {
        self.0.iter().flatten().all(|&seen| seen)
    }
}

/// The request with one set of values, and its answer when it runs alone.
struct Round<'a> {
    work: &'a Work<'a>,
    roles: &'a [Vec<Role>],
    base: &'a Extents,
    own: Values,
    inputs: Vec<Tensor>,
    alone: Outputs,
}

/// The request with different values, until every element of an answer was a number once.
fn rounds<'a>(
    work: &'a Work<'a>,
    base: &'a Extents,
    roles: &'a [Vec<Role>],
) -> Result<Vec<Round<'a>>, Refusal> {
    let mut program = Small::new(work, base, roles)?;
    let mut evidence = Evidence::default();
    let mut rounds = Vec::new();
    for own in [Values::Signed, Values::Least, Values::Positive] {
        // Roots and logarithms have no answers to negative numbers, and no number differs from no number.
        if matches!(own, Values::Positive) && evidence.is_complete() {
            continue;
        }
        let inputs = request(work, base, own, &mut Random(0x5EED));
        let alone = program.answer(&inputs, base)?;
        evidence.add(&alone);
        rounds.push(Round { work, roles, base, own, inputs, alone });
    }
    match evidence.is_complete() {
        true => Ok(rounds),
        false => Err(unknown("some element of an output is no number, whatever is put in")),
    }
}

impl Round<'_> {
    /// Compares with the answer of a program that pads along `symbol`. Whether a row's answer is the same
    /// wherever it stands there.
    fn padded(
        &self,
        symbol: SymbolId,
        extents: &Extents,
        program: &mut Small,
    ) -> Result<bool, Refusal> {
        let Self { work, roles, base, inputs, alone, .. } = self;
        let padded = program.answer(inputs, base)?;
        agree(work, roles, symbol, alone, &padded)
            .map_err(|output| changes(work, output, symbol, "padding"))?;
        match Some(symbol) == work.rows {
            true => self.among_others(symbol, extents, program),
            false => Ok(true),
        }
    }

    /// The rows before others that are unlike them, and then behind others.
    fn among_others(
        &self,
        symbol: SymbolId,
        extents: &Extents,
        program: &mut Small,
    ) -> Result<bool, Refusal> {
        let Self { work, roles, base, own, inputs, alone } = self;
        let (n, whole) = (base.get(symbol).unwrap_or(1), extents.get(symbol).unwrap_or(1));
        let mut random = Random(0x0DD);
        let mut beside = |others: Values, skipped: usize| {
            let others = request(work, extents, others, &mut random);
            let rows = Rows { first: 0, n, skipped };
            let found = program.run(&among(work, inputs, &others, skipped), base, Some(rows))?;
            Ok::<_, Refusal>(agree(work, roles, symbol, alone, &found))
        };
        for others in [*own, Values::Large, Values::Least] {
            beside(others, 0)?.map_err(|output| changes(work, output, symbol, "other rows"))?;
        }
        for skipped in 1..=(whole - n).min(3) {
            if beside(*own, skipped)?.is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What is run in small.
struct Probes {
    /// The request's extents.
    base: Extents,
    /// For each symbol those of a program that pads along it alone.
    larger: Vec<(SymbolId, Extents)>,
    /// Whether the extents are the same for every bucket.
    holds_for_all: bool,
}

/// `None` for a model without symbols.
fn probes(work: &Work<'_>, bucket: &Extents) -> Result<Option<Probes>, Refusal> {
    let signature = work.signature();
    let symbols: Vec<SymbolId> = signature.bound_symbols().collect();
    if symbols.is_empty() {
        return Ok(None);
    }
    let mut last = String::new();
    for (at_pair, pair) in PAIRS.into_iter().enumerate() {
        let pair =
            |symbol: SymbolId| pair(Some(symbol) == work.rows, bucket.get(symbol).unwrap_or(1));
        let at = |padded: Option<SymbolId>| {
            let extent = |&symbol: &SymbolId| {
                let Pair { real, whole } = pair(symbol);
                let name = signature.symbol_name(symbol).to_owned();
                (name, if padded == Some(symbol) { whole } else { real })
            };
            signature.extents(&symbols.iter().map(extent).collect())
        };
        let base = at(None);
        let larger = symbols.iter().map(|&symbol| (symbol, at(Some(symbol))));
        let larger: Vec<(SymbolId, Extents)> =
            larger.filter(|(_, extents)| *extents != base).collect();
        let possible = iter::once(&base)
            .chain(larger.iter().map(|(_, extents)| extents))
            .try_for_each(|extents| work.parse(extents).map(drop));
        match possible {
            Ok(()) => {
                let holds_for_all = at_pair < N_WITHOUT_BUCKET;
                return Ok(Some(Probes { base, larger, holds_for_all }));
            }
            Err(Refusal::Model { words }) => last = words,
            Err(other) => return Err(other),
        }
    }
    Err(unknown(&format!("it takes no other shape ({last})")))
}

fn unknown(why: &str) -> Refusal {
    Refusal::Model {
        words: format!(
            "whether padding changes its answers cannot be found out: {why}; without \
             padding (`--padding never`) it runs in exactly the shapes that are compiled"
        ),
    }
}

fn changes(work: &Work<'_>, output: usize, symbol: SymbolId, what: &str) -> Refusal {
    let signature = work.signature();
    let name = signature.outputs.get(output).map_or("?", |output| output.name.as_str());
    let symbol = signature.symbol_name(symbol);
    Refusal::Model {
        words: format!(
            "output `{name}` changes with {what} along `{symbol}`: the same request answers differently \
             in a larger program; without padding (`--padding never`) it runs in exactly the shapes that \
             are compiled, and fills (`--fill`) say what an input is padded with"
        ),
    }
}

/// MIGraphX's plain interpreter where this build has it, since it compiles in no time; else the target
/// itself.
fn evaluator(work: &Work<'_>) -> CompileOptions {
    let interpreter = work.library.know_target(Target::Ref.name()).is_ok();
    let target = if interpreter { Target::Ref } else { work.job.options.target };
    CompileOptions { target, ..CompileOptions::default() }
}

impl Small {
    fn new(work: &Work<'_>, extents: &Extents, roles: &[Vec<Role>]) -> Result<Self, Refusal> {
        let program = work.parse(extents)?.compile(&evaluator(work), Memory::Host)?;
        let feed = work.feed(&program, extents, roles)?;
        let bindings = Bindings::new(work.library, &program.inputs()?)?;
        Ok(Self { program, feed, bindings })
    }

    fn answer(&mut self, inputs: &[Tensor], request: &Extents) -> Result<Outputs, Refusal> {
        self.run(inputs, request, None)
    }

    /// Runs inputs that may have more rows than the request; `rows` says where its own stand in the answer.
    fn run(
        &mut self,
        inputs: &[Tensor],
        request: &Extents,
        rows: Option<Rows>,
    ) -> Result<Outputs, Refusal> {
        let words = |error: FeedError| Refusal::Model { words: error.to_string() };
        let views: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
        self.feed.fill(&views, None, &mut self.bindings).map_err(words)?;
        let results = self.program.run(&self.bindings)?;
        let mut outputs = Outputs::new();
        self.feed.prepare(request, &mut outputs).map_err(words)?;
        let bytes = |index, shape: &_| results.bytes(index, shape);
        self.feed.drain(bytes, request, rows, &mut outputs).map_err(words)?;
        Ok(outputs)
    }
}

/// What values are drawn from.
#[derive(Clone, Copy)]
enum Values {
    /// Floats from -1 to 1, small whole numbers, masks of ones.
    Signed,
    /// Floats from 0.1 to 1.
    Positive,
    /// Floats up to 8 in magnitude, whole numbers in the hundreds, all true.
    Large,
    /// Floats of 1/16 at most, ones, all false; masks of one element a row.
    Least,
}

impl Values {
    fn float(self, random: &mut Random) -> f64 {
        match self {
            Self::Signed => random.unit() * 2.0 - 1.0,
            Self::Positive => random.unit() * 0.9 + 0.1,
            Self::Large => random.unit() * 16.0 - 8.0,
            Self::Least => random.unit() / 16.0,
        }
    }

    /// Never 0: models divide by whole numbers, which ends a process.
    fn whole(self, random: &mut Random) -> f64 {
        match self {
            Self::Signed | Self::Positive => random.below(3) as f64 + 1.0,
            Self::Large => random.below(27) as f64 + 100.0,
            Self::Least => 1.0,
        }
    }

    fn truth(self, random: &mut Random) -> f64 {
        match self {
            Self::Signed | Self::Positive => random.below(2) as f64,
            Self::Large => 1.0,
            Self::Least => 0.0,
        }
    }
}

/// The inputs of a request.
fn request(work: &Work<'_>, extents: &Extents, values: Values, random: &mut Random) -> Vec<Tensor> {
    let tensors = work.signature().inputs.iter().map(|spec| {
        let dims = spec.shape.as_deref().unwrap_or_default();
        let shape: Shape = dims
            .iter()
            .map(|dim| match dim {
                Dim::Fixed(extent) => *extent,
                Dim::Symbol(symbol) => extents.get(*symbol).unwrap_or(1),
                Dim::Unnamed => 1,
            })
            .collect();
        tensor(spec, &shape, values, random)
    });
    tensors.collect()
}

/// The request's own rows from row `first` on, and others everywhere else.
fn among(work: &Work<'_>, inputs: &[Tensor], others: &[Tensor], first: usize) -> Vec<Tensor> {
    let mut mixed = others.to_vec();
    let specs = &work.signature().inputs;
    for ((mixed, own), spec) in mixed.iter_mut().zip(inputs).zip(specs) {
        let axes = spec.shape.iter().flatten();
        let rows = |dim: &Dim| matches!(dim, Dim::Symbol(symbol) if Some(*symbol) == work.rows);
        let axis = axes.clone().position(rows);
        let (size, shape) = (own.dtype().size(), Shape::from(mixed.shape()));
        let from = Place::dense(own.shape(), None);
        let to = Place::dense(&shape, axis.map(|axis| (axis, first)));
        // An input without rows has the same shape in both, and is taken over whole.
        let _ = region::copy(own.shape(), size, (own.bytes(), &from), (mixed.bytes_mut(), &to));
    }
    mixed
}

const fn is_float(dtype: DataType) -> bool {
    matches!(dtype, DataType::F16 | DataType::BF16 | DataType::F32 | DataType::F64)
}

/// A tensor of values that the model may meet: indices inside its tables, masks of ones, whole numbers that
/// may be divided by.
fn tensor(spec: &TensorSpec, shape: &[usize], values: Values, random: &mut Random) -> Tensor {
    let mut tensor = Tensor::zeroed(spec.dtype, shape).unwrap_or_default();
    let is_mask = spec.name.to_lowercase().contains("mask");
    let row: usize = shape.iter().skip(1).product::<usize>().max(1);
    for (at, slot) in tensor.bytes_mut().chunks_exact_mut(spec.dtype.size()).enumerate() {
        // The first element of a row is there in any case: a row without a token has no answer.
        let is_late = at % row != 0 && matches!(values, Values::Least);
        let value = match spec.index_limit {
            _ if is_mask => f64::from(!is_late),
            Some(limit) => random.below(limit.min(100)) as f64,
            None if is_float(spec.dtype) => values.float(random),
            None if spec.dtype == DataType::Bool => values.truth(random),
            None => values.whole(random),
        };
        if let Ok(element) = fill::element(spec.dtype, value) {
            slot.copy_from_slice(&element);
        }
    }
    tensor
}

/// Whether two answers agree in every output that is ever cut along the symbol.
///
/// # Errors
///
/// The position of the first output that does not.
fn agree(
    work: &Work<'_>,
    roles: &[Vec<Role>],
    symbol: SymbolId,
    one: &Outputs,
    two: &Outputs,
) -> Result<(), usize> {
    let n_outputs = work.signature().outputs.len();
    for (index, (one, two)) in one.tensors().iter().zip(two.tensors()).enumerate().take(n_outputs) {
        let derived = roles
            .get(index)
            .into_iter()
            .flatten()
            .any(|role| matches!(role, Role::Derived { symbols } if symbols.contains(&symbol)));
        // Never padded along this symbol: see `Feed::rigid`.
        if !derived && !are_alike(one, two) {
            return Err(index);
        }
    }
    Ok(())
}

/// Whole numbers are compared exactly. Floats may differ by what another order of additions changes, each
/// by itself: one large value says nothing about the others. What cannot be compared is not alike.
fn are_alike(one: &Tensor, two: &Tensor) -> bool {
    if one.shape() != two.shape() || one.dtype() != two.dtype() {
        return false;
    }
    // Some thousand units in the last place of the type.
    let tolerance = match one.dtype() {
        DataType::F64 | DataType::F32 => 1e-4,
        DataType::F16 => 1e-2,
        DataType::BF16 => 5e-2,
        _ => return one == two,
    };
    let values = |tensor: &Tensor| fill::as_f64(tensor.dtype(), tensor.bytes());
    let (Some(one), Some(two)) = (values(one), values(two)) else { return false };
    let typical = typical_magnitude(&one);
    one.iter().zip(&two).all(|(a, b)| {
        let same = a == b || (a.is_nan() && b.is_nan());
        same || (a - b).abs() <= tolerance * a.abs().max(b.abs()).max(typical)
    })
}

/// The lower quartile of the finite magnitudes: what an element that happens to be nearly 0 is measured
/// against. Large values, such as those that masks leave, do not reach it unless nearly all are large.
fn typical_magnitude(values: &[f64]) -> f64 {
    let mut magnitudes: Vec<f64> =
        values.iter().copied().filter(|value| value.is_finite()).map(f64::abs).collect();
    magnitudes.sort_by(f64::total_cmp);
    magnitudes.get(magnitudes.len() / 4).copied().unwrap_or_default()
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
