//! Kernels on the host: for the target `ref`, and for what does not depend on any input.

use half::{bf16, f16};

use crate::dtype::{Class, Dtype};
use crate::kernel::{Kernel, Op, Operand};

/// A number as a kernel computes with it. Singles are kept rounded to 32 bits, so that every sum and
/// product is the same as a device's.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Number {
    Float(f64),
    Integer(i64),
}

impl Number {
    fn float(self) -> f64 {
        match self {
            Self::Float(value) => value,
            #[expect(clippy::cast_precision_loss, reason = "as in the kernel")]
            Self::Integer(value) => value as f64,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "as in the kernel")]
    fn integer(self) -> i64 {
        match self {
            Self::Float(value) => value as i64,
            Self::Integer(value) => value,
        }
    }
}

/// Runs a kernel: `operands` has the bytes of each operand's value, `output` those of what it makes.
///
/// Elements beyond the end of a value read as 0 and are not written; a kernel that was made here has none.
pub(crate) fn run(kernel: &Kernel, operands: &[&[u8]], output: &mut [u8]) {
    let mut place = vec![0_usize; kernel.lengths.len()];
    for _ in 0..kernel.n_places() {
        let at = index(&kernel.output, &place);
        let so_far = read(output, kernel.output.dtype, at);
        let made = make(kernel, operands, &place, so_far);
        write(output, kernel.output.dtype, at, made);
        advance(&mut place, &kernel.lengths);
    }
}

fn advance(place: &mut [usize], lengths: &[usize]) {
    for (at, length) in place.iter_mut().zip(lengths).rev() {
        *at += 1;
        if *at < *length {
            return;
        }
        *at = 0;
    }
}

fn index(operand: &Operand, place: &[usize]) -> i64 {
    let steps = operand.strides.iter().zip(place);
    operand.offset + steps.map(|(stride, at)| stride * signed(*at)).sum::<i64>()
}

fn signed(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn make(kernel: &Kernel, operands: &[&[u8]], place: &[usize], so_far: Number) -> Number {
    let class = kernel.class();
    let load = |which: usize, more: i64| {
        let operand = &kernel.operands[which];
        read(operands[which], operand.dtype, index(operand, place) + more)
    };
    let along =
        |which: usize, k: usize| load(which, kernel.operands[which].inner_stride * signed(k));
    let inner = 0..kernel.inner;
    match kernel.op {
        Op::Dot => inner.fold(so_far, |sum, k| {
            let product = binary(Op::Mul, class, along(0, k), along(1, k));
            binary(Op::Add, class, sum, product)
        }),
        Op::Total => inner.fold(so_far, |sum, k| binary(Op::Add, class, sum, along(0, k))),
        Op::Largest => inner.fold(load(0, 0), |best, k| extreme(best, along(0, k), |a, b| a > b)),
        Op::Least => inner.fold(load(0, 0), |best, k| extreme(best, along(0, k), |a, b| a < b)),
        Op::Pick { extent, stride } => {
            let row = load(0, 0).integer();
            let row = if row < 0 { row + extent } else { row };
            let is_inside = (0..extent).contains(&row);
            if is_inside { load(1, row * stride) } else { Number::Integer(0) }
        }
        Op::Sum => {
            let rest = 1..kernel.operands.len();
            rest.fold(load(0, 0), |sum, which| binary(Op::Add, class, sum, load(which, 0)))
        }
        op if kernel.operands.len() > 1 => binary(op, class, load(0, 0), load(1, 0)),
        op => unary(op, class, load(0, 0)),
    }
}

fn extreme(best: Number, next: Number, beats: impl Fn(f64, f64) -> bool) -> Number {
    let is_better = beats(next.float(), best.float()) || next.float().is_nan();
    if is_better { next } else { best }
}

fn binary(op: Op, class: Class, a: Number, b: Number) -> Number {
    if class == Class::Integer {
        let (a, b) = (a.integer(), b.integer());
        return Number::Integer(match op {
            Op::Add => a.wrapping_add(b),
            Op::Sub => a.wrapping_sub(b),
            Op::Mul => a.wrapping_mul(b),
            Op::Div => a.checked_div(b).unwrap_or(0),
            Op::Mod => a.checked_rem_euclid(b).unwrap_or(0),
            Op::Min => a.min(b),
            Op::Max => a.max(b),
            _ => a,
        });
    }
    let (a, b) = (a.float(), b.float());
    rounded(
        class,
        match op {
            Op::Add => a + b,
            Op::Sub => a - b,
            Op::Mul => a * b,
            Op::Div => a / b,
            Op::Mod => a % b,
            Op::Pow => libm::pow(a, b),
            Op::Min => a.min(b),
            Op::Max => a.max(b),
            _ => a,
        },
    )
}

fn unary(op: Op, class: Class, a: Number) -> Number {
    match (op, a) {
        (Op::Not, a) => Number::Integer(i64::from(a.float() == 0.0)),
        (Op::Relu, Number::Integer(a)) => Number::Integer(a.max(0)),
        (Op::Abs, Number::Integer(a)) => Number::Integer(a.wrapping_abs()),
        (Op::Neg, Number::Integer(a)) => Number::Integer(a.wrapping_neg()),
        (Op::Copy, a) | (_, a @ Number::Integer(_)) => a,
        (op, Number::Float(a)) => rounded(
            class,
            match op {
                Op::Relu if a > 0.0 || a.is_nan() => a,
                Op::Relu => 0.0,
                Op::Sqrt => a.sqrt(),
                Op::Abs => a.abs(),
                Op::Neg => -a,
                Op::Exp => a.exp(),
                Op::Erf => libm::erf(a),
                Op::Tanh => a.tanh(),
                _ => a,
            },
        ),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "that is the rounding")]
fn rounded(class: Class, value: f64) -> Number {
    Number::Float(if class == Class::Single { f64::from(value as f32) } else { value })
}

fn read(bytes: &[u8], dtype: Dtype, at: i64) -> Number {
    let size = dtype.n_bytes();
    let start = usize::try_from(at).ok().and_then(|at| at.checked_mul(size));
    let Some(element) = start.and_then(|start| bytes.get(start..)?.get(..size)) else {
        return Number::Integer(0);
    };
    let mut wide = [0; 8];
    wide[..size].copy_from_slice(element);
    let bits = u64::from_le_bytes(wide);
    #[expect(clippy::cast_possible_truncation, reason = "only so many bits are there")]
    match dtype {
        Dtype::Float => Number::Float(f64::from(f32::from_bits(bits as u32))),
        Dtype::Double => Number::Float(f64::from_bits(bits)),
        Dtype::Half => Number::Float(f16::from_bits(bits as u16).to_f64()),
        Dtype::BFloat16 => Number::Float(bf16::from_bits(bits as u16).to_f64()),
        Dtype::Int8 => Number::Integer(i64::from(bits as u8 as i8)),
        Dtype::Int16 => Number::Integer(i64::from(bits as u16 as i16)),
        Dtype::Int32 => Number::Integer(i64::from(bits as u32 as i32)),
        _ => Number::Integer(bits.cast_signed()),
    }
}

fn write(bytes: &mut [u8], dtype: Dtype, at: i64, value: Number) {
    let size = dtype.n_bytes();
    let start = usize::try_from(at).ok().and_then(|at| at.checked_mul(size));
    let place = start.and_then(|start| bytes.get_mut(start..)?.get_mut(..size));
    #[expect(clippy::cast_possible_truncation, reason = "a float is stored in fewer bits")]
    let bits = match dtype {
        Dtype::Float => u64::from((value.float() as f32).to_bits()),
        Dtype::Double => value.float().to_bits(),
        Dtype::Half => u64::from(f16::from_f32(value.float() as f32).to_bits()),
        Dtype::BFloat16 => u64::from(bf16::from_f32(value.float() as f32).to_bits()),
        Dtype::Bool => u64::from(value.float() != 0.0),
        _ => value.integer().cast_unsigned(),
    };
    if let Some(place) = place {
        place.copy_from_slice(&bits.to_le_bytes()[..size]);
    }
}
