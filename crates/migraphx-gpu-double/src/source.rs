//! Kernels as source for hiprtc and NVRTC, which take the same.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::dtype::{Class, Dtype};
use crate::kernel::{Kernel, Op, Operand, Step};

/// Halves are bits to the kernels, since only one of the two compilers knows them without headers.
const HALVES: &str = r"
__device__ float float_of_bits(unsigned int bits) { return __uint_as_float(bits); }
__device__ float from_bfloat(unsigned short bits) { return float_of_bits((unsigned int)bits << 16); }
__device__ unsigned short to_bfloat(float value) {
    unsigned int bits = __float_as_uint(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (unsigned short)((bits >> 16) | 0x40u);
    return (unsigned short)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
__device__ float from_half(unsigned short bits) {
    unsigned int sign = (unsigned int)(bits & 0x8000u) << 16;
    unsigned int exponent = (bits >> 10) & 31u, mantissa = bits & 1023u;
    if (exponent == 31u) return float_of_bits(sign | 0x7f800000u | (mantissa << 13));
    if (exponent != 0u) return float_of_bits(sign | ((exponent + 112u) << 23) | (mantissa << 13));
    float small = (float)mantissa * (1.0f / 16777216.0f);
    return sign ? -small : small;
}
__device__ unsigned short to_half(float value) {
    unsigned int bits = __float_as_uint(value);
    unsigned short sign = (unsigned short)((bits >> 16) & 0x8000u);
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u) return (unsigned short)(sign | 0x7e00u);
    if (bits >= 0x477ff000u) return (unsigned short)(sign | 0x7c00u);
    if (bits < 0x38800000u) {
        float scaled = float_of_bits(bits) * 16777216.0f;
        return (unsigned short)(sign | (unsigned short)rintf(scaled));
    }
    bits += 0xfffu + ((bits >> 13) & 1u);
    return (unsigned short)(sign | (unsigned short)((bits - 0x38000000u) >> 13));
}
";

/// The source of a program, and the name of each of its kernels' functions, in the steps' order.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) text: String,
    pub(crate) names: Vec<String>,
}

/// Kernels that do the same share a function.
pub(crate) fn of(steps: &[Step]) -> Source {
    let mut text = HALVES.to_owned();
    let mut names = Vec::new();
    let mut known: HashMap<String, String> = HashMap::new();
    for step in steps {
        let Step::Kernel(kernel) = step else { continue };
        let body = body(kernel);
        let n = known.len();
        let name = known.entry(body).or_insert_with_key(|body| {
            let name = format!("kernel_{n}");
            // Writing to a text cannot fail.
            let _ = writeln!(text, "extern \"C\" __global__ void {name}{body}");
            name
        });
        names.push(name.clone());
    }
    Source { text, names }
}

/// Parameters and body of the function: one thread a place.
fn body(kernel: &Kernel) -> String {
    let mut text = String::from("(");
    for (index, operand) in kernel.operands.iter().enumerate() {
        let _ = write!(text, "const {}* in{index}, ", operand.dtype.in_source());
    }
    let _ = writeln!(text, "{}* out) {{", kernel.output.dtype.in_source());
    let n = kernel.n_places();
    let _ = writeln!(
        text,
        "  long long place = blockIdx.x * (long long)blockDim.x + threadIdx.x;\n  \
         if (place >= {n}LL) return;"
    );
    for (axis, length) in kernel.lengths.iter().enumerate().rev() {
        let _ =
            writeln!(text, "  const long long i{axis} = place % {length}LL; place /= {length}LL;");
    }
    let kind = match kernel.class() {
        Class::Single => "float",
        Class::Double => "double",
        Class::Integer => "long long",
    };
    let _ = writeln!(
        text,
        "  {}* target = out + {};",
        kernel.output.dtype.in_source(),
        at(&kernel.output)
    );
    let _ = writeln!(text, "  {kind} made;\n{}", making(kernel, kind));
    let _ =
        writeln!(text, "  *target = {};\n}}", stored(kernel.output.dtype, kernel.class(), "made"));
    text
}

/// The statements that leave a result in `made`.
fn making(kernel: &Kernel, kind: &str) -> String {
    let load = |index: usize, more: &str| {
        let operand = &kernel.operands[index];
        loaded(operand.dtype, &format!("in{index}[{}{more}]", at(operand)))
    };
    let along = |index: usize| format!(" + k * {}LL", kernel.operands[index].inner_stride);
    let each = format!("  for (long long k = 0; k < {}LL; ++k)", kernel.inner);
    let so_far = loaded(kernel.output.dtype, "*target");
    let v = |index: usize| format!("({kind})({})", load(index, ""));
    match kernel.op {
        Op::Dot => {
            let (a, b) = (load(0, &along(0)), load(1, &along(1)));
            format!("  made = {so_far};\n{each} made += ({kind})({a}) * ({kind})({b});")
        }
        Op::Total => format!("  made = {so_far};\n{each} made += {};", load(0, &along(0))),
        Op::Largest | Op::Least => {
            let sign = if kernel.op == Op::Largest { ">" } else { "<" };
            let next = load(0, &along(0));
            format!(
                "  made = {};\n{each} {{ {kind} next = {next}; \
                 if (next {sign} made || next != next) made = next; }}",
                load(0, "")
            )
        }
        Op::Pick { extent, stride } => format!(
            "  long long row = {};\n  if (row < 0) row += {extent}LL;\n  \
             made = 0;\n  if (row >= 0 && row < {extent}LL) made = {};",
            load(0, ""),
            load(1, &format!(" + row * {stride}LL"))
        ),
        Op::Sum => {
            let parts: Vec<String> = (0..kernel.operands.len()).map(v).collect();
            format!("  made = {};", parts.join(" + "))
        }
        op => {
            let second = if kernel.operands.len() > 1 { v(1) } else { String::new() };
            format!("  {kind} a = {};\n  made = {};", v(0), simple(op, kernel.class(), &second))
        }
    }
}

/// An expression of `a` and, for two operands, of `b`.
fn simple(op: Op, class: Class, b: &str) -> String {
    let suffix = if class == Class::Single { "f" } else { "" };
    match op {
        Op::Relu => "a > 0 ? a : (a != a ? a : 0)".to_owned(),
        Op::Sqrt => format!("sqrt{suffix}(a)"),
        Op::Abs => "a < 0 ? -a : (a == 0 ? 0 : a)".to_owned(),
        Op::Neg => "-a".to_owned(),
        Op::Not => "a == 0".to_owned(),
        Op::Exp => format!("exp{suffix}(a)"),
        Op::Erf => format!("erf{suffix}(a)"),
        Op::Tanh => format!("tanh{suffix}(a)"),
        Op::Add => format!("a + {b}"),
        Op::Sub => format!("a - {b}"),
        Op::Mul => format!("a * {b}"),
        Op::Div if class == Class::Integer => format!("{b} == 0 ? 0 : a / {b}"),
        Op::Div => format!("a / {b}"),
        Op::Mod if class == Class::Integer => format!("{b} == 0 ? 0 : ((a % {b}) + {b}) % {b}"),
        Op::Mod => format!("fmod{suffix}(a, {b})"),
        Op::Pow => format!("pow{suffix}(a, {b})"),
        Op::Min => format!("a < {b} ? a : {b}"),
        Op::Max => format!("a > {b} ? a : {b}"),
        _ => "a".to_owned(),
    }
}

/// The index of the element that belongs to a place.
fn at(operand: &Operand) -> String {
    let mut text = format!("{}LL", operand.offset);
    for (axis, stride) in operand.strides.iter().enumerate().filter(|(_, stride)| **stride != 0) {
        let _ = write!(text, " + i{axis} * {stride}LL");
    }
    text
}

fn loaded(dtype: Dtype, element: &str) -> String {
    match dtype {
        Dtype::Half => format!("from_half({element})"),
        Dtype::BFloat16 => format!("from_bfloat({element})"),
        _ => element.to_owned(),
    }
}

fn stored(dtype: Dtype, class: Class, value: &str) -> String {
    match dtype {
        Dtype::Half => format!("to_half((float){value})"),
        Dtype::BFloat16 => format!("to_bfloat((float){value})"),
        Dtype::Bool => format!("{value} != 0"),
        // A negative number has no place in an unsigned type but by way of a signed one.
        _ if class != Class::Integer && dtype.class() == Class::Integer => {
            format!("({})(long long){value}", dtype.in_source())
        }
        _ => format!("({}){value}", dtype.in_source()),
    }
}
