//! The double through `migraphx-sys`, as little wrapped as tests allow.

#![allow(dead_code, reason = "each user needs its part")]

use std::collections::BTreeMap;
use std::env;
use std::ffi::{CStr, CString, c_char, c_void};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::ptr;
use std::slice;
use std::sync::{Mutex, MutexGuard, PoisonError};

use migraphx_c_gpu_double::{CHANGE_FUNCTION, library_path};
use migraphx_sys::{
    Library, SearchOptions, migraphx_arguments_t, migraphx_program_parameters_t,
    migraphx_program_t, migraphx_shape_datatype_t, migraphx_status,
};

/// Whatever went wrong; its words are on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed(pub(crate) u32);

/// The loaded double. Its settings belong to the process, so there is one at a time.
pub(crate) struct Double {
    pub(crate) library: Library,
    _alone: MutexGuard<'static, ()>,
}

/// A shape: the type's number, the extents, the distances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) number: u32,
    pub(crate) lengths: Vec<usize>,
    pub(crate) strides: Vec<usize>,
    pub(crate) n_bytes: usize,
}

/// Calls a function of the table.
macro_rules! call {
    ($double:expr, $function:ident($($argument:expr),* $(,)?)) => {{
        // SAFETY: each test gives handles that it created and has not destroyed, and places for what
        // is written.
        let status = unsafe { ($double.library.api.$function)($($argument),*) };
        if status.is_success() { Ok(()) } else { Err(crate::common::Failed(status.0)) }
    }};
}

/// Calls a function that makes an object, and returns the handle.
macro_rules! made {
    ($double:expr, $function:ident($($argument:expr),* $(,)?)) => {{
        let mut out = std::ptr::null_mut();
        call!($double, $function(&mut out $(, $argument)*)).map(|()| {
            assert!(!out.is_null(), "success without a handle");
            out
        })
    }};
}
pub(crate) use {call, made};

pub(crate) fn model_path(file: &str) -> PathBuf {
    match env::var_os("SHAPEYARD_TINY_MODELS") {
        Some(folder) => PathBuf::from(folder).join(file),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models").join(file),
    }
}

pub(crate) fn skip(name: &str, reason: &str) {
    assert!(env::var_os("SHAPEYARD_REQUIRE_DEVICE").is_none(), "{name}: {reason}");
    let line = format!("migraphx-gpu-double {name}: {reason}");
    eprintln!("{line}");
    if let Some(log) = env::var_os("SHAPEYARD_SKIP_LOG") {
        let mut log = File::options().append(true).create(true).open(log).unwrap();
        writeln!(log, "{line}").unwrap();
    }
}

/// For a test of what a machine without a device does.
pub(crate) fn skip_where_there_is(name: &str) {
    eprintln!("migraphx-gpu-double {name}: there is a device here");
}

pub(crate) fn c_text(text: impl AsRef<std::ffi::OsStr>) -> CString {
    CString::new(text.as_ref().as_encoded_bytes()).unwrap()
}

impl Double {
    /// The double with these settings.
    pub(crate) fn with(settings: &str) -> Self {
        static ONE: Mutex<()> = Mutex::new(());
        let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let path = library_path().expect("Cargo puts the shared library beside its tests");
        // The numbering is asked when the library is opened.
        let first = Library::open(&SearchOptions::at(&path)).unwrap();
        change(&first, settings);
        let library = Library::open(&SearchOptions::at(path)).unwrap();
        Self { library, _alone: alone }
    }

    /// Other settings from now on; they may not change the numbering.
    pub(crate) fn change(&self, settings: &str) {
        change(&self.library, settings);
    }

    fn target(&self, name: &CStr) -> Result<*mut migraphx_sys::migraphx_target, Failed> {
        made!(self, target_create(name.as_ptr()))
    }

    fn shape(&self, shape: migraphx_sys::const_migraphx_shape_t) -> Shape {
        let mut number = migraphx_shape_datatype_t(0);
        call!(self, shape_type(&mut number, shape)).unwrap();
        let (mut n_bytes, mut data, mut n) = (0, ptr::null(), 0);
        call!(self, shape_bytes(&mut n_bytes, shape)).unwrap();
        call!(self, shape_lengths(&mut data, &mut n, shape)).unwrap();
        // SAFETY: the library wrote where so many numbers are.
        let lengths = unsafe { slice::from_raw_parts(data, n) }.to_vec();
        call!(self, shape_strides(&mut data, &mut n, shape)).unwrap();
        // SAFETY: as above.
        let strides = unsafe { slice::from_raw_parts(data, n) }.to_vec();
        Shape { number: number.0, lengths, strides, n_bytes }
    }
}

fn change(library: &Library, settings: &str) {
    let function = library.symbol(CHANGE_FUNCTION).unwrap();
    // SAFETY: the double's function of that name has this signature.
    let change: unsafe extern "C" fn(*const c_char) -> migraphx_status =
        unsafe { std::mem::transmute(function) };
    let settings = c_text(settings);
    // SAFETY: the text ends in a zero.
    assert!(unsafe { change(settings.as_ptr()) }.is_success(), "{settings:?}");
}

/// A program of the double.
pub(crate) struct Program<'a> {
    pub(crate) double: &'a Double,
    pub(crate) raw: migraphx_program_t,
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        call!(self.double, program_destroy(self.raw)).unwrap();
    }
}

impl<'a> Program<'a> {
    pub(crate) fn parse(
        double: &'a Double,
        model: &Path,
        inputs: &[(&str, &[usize])],
    ) -> Result<Self, Failed> {
        let options = made!(double, onnx_options_create())?;
        for (name, lengths) in inputs {
            let (name, mut lengths) = (c_text(name), lengths.to_vec());
            let (data, n) = (lengths.as_mut_ptr(), lengths.len());
            call!(double, onnx_options_set_input_parameter_shape(options, name.as_ptr(), data, n))?;
        }
        let path = c_text(model);
        let raw = made!(double, parse_onnx(path.as_ptr(), options));
        call!(double, onnx_options_destroy(options))?;
        Ok(Self { double, raw: raw? })
    }

    /// A model with every open axis at `extent`.
    pub(crate) fn open(double: &'a Double, file: &str, extent: usize) -> Result<Self, Failed> {
        let options = made!(double, onnx_options_create())?;
        call!(double, onnx_options_set_default_dim_value(options, extent))?;
        let path = c_text(model_path(file));
        let raw = made!(double, parse_onnx(path.as_ptr(), options));
        call!(double, onnx_options_destroy(options))?;
        Ok(Self { double, raw: raw? })
    }

    pub(crate) fn compile(self, target: &CStr, offload_copy: bool) -> Result<Self, Failed> {
        let options = made!(self.double, compile_options_create())?;
        call!(self.double, compile_options_set_offload_copy(options, offload_copy))?;
        let target = self.double.target(target)?;
        let answer = call!(self.double, program_compile(self.raw, target, options));
        call!(self.double, target_destroy(target))?;
        call!(self.double, compile_options_destroy(options))?;
        answer.map(|()| self)
    }

    pub(crate) fn save(&self, path: &Path, format: &CStr) -> Result<(), Failed> {
        let options = made!(self.double, file_options_create())?;
        call!(self.double, file_options_set_file_format(options, format.as_ptr()))?;
        let path = c_text(path);
        let answer = call!(self.double, save(self.raw, path.as_ptr(), options));
        call!(self.double, file_options_destroy(options))?;
        answer
    }

    pub(crate) fn load(double: &'a Double, path: &Path) -> Result<Self, Failed> {
        let options = made!(double, file_options_create())?;
        let path = c_text(path);
        let raw = made!(double, load(path.as_ptr(), options));
        call!(double, file_options_destroy(options))?;
        Ok(Self { double, raw: raw? })
    }

    /// The parameters, in the order of the library.
    pub(crate) fn parameters(&self) -> Vec<(String, Shape)> {
        let double = self.double;
        let shapes = made!(double, program_get_parameter_shapes(self.raw)).unwrap();
        let mut n = 0;
        call!(double, program_parameter_shapes_size(&mut n, shapes)).unwrap();
        let mut names: Vec<*const c_char> = vec![ptr::null(); n];
        call!(double, program_parameter_shapes_names(names.as_mut_ptr(), shapes)).unwrap();
        let parameters = names.into_iter().map(|name| {
            let mut shape = ptr::null();
            call!(double, program_parameter_shapes_get(&mut shape, shapes, name)).unwrap();
            // SAFETY: the library wrote a text that ends in a zero.
            let name = unsafe { CStr::from_ptr(name) }.to_str().unwrap().to_owned();
            (name, double.shape(shape))
        });
        let parameters = parameters.collect();
        call!(double, program_parameter_shapes_destroy(shapes)).unwrap();
        parameters
    }

    pub(crate) fn outputs(&self) -> Vec<Shape> {
        let double = self.double;
        let shapes = made!(double, program_get_output_shapes(self.raw)).unwrap();
        let mut n = 0;
        call!(double, shapes_size(&mut n, shapes)).unwrap();
        let outputs = (0..n).map(|index| {
            let mut shape = ptr::null();
            call!(double, shapes_get(&mut shape, shapes, index)).unwrap();
            double.shape(shape)
        });
        let outputs = outputs.collect();
        call!(double, shapes_destroy(shapes)).unwrap();
        outputs
    }

    /// An object with these parameters at these addresses.
    pub(crate) fn bind(&self, addresses: &BTreeMap<String, usize>) -> Bound<'a> {
        let double = self.double;
        let parameters = made!(double, program_parameters_create()).unwrap();
        for (name, shape) in self.parameters() {
            let Some(address) = addresses.get(&name) else { continue };
            add(double, parameters, &name, &shape, *address);
        }
        Bound { double, raw: parameters }
    }

    /// Runs with parameters in memory of the host, and copies what comes back from there.
    pub(crate) fn run_on_host(
        &self,
        inputs: &BTreeMap<String, Vec<u8>>,
    ) -> Result<Vec<Vec<u8>>, Failed> {
        let addresses = inputs.iter().map(|(name, bytes)| (name.clone(), bytes.as_ptr().addr()));
        for bytes in inputs.values() {
            bytes.as_ptr().expose_provenance();
        }
        let bound = self.bind(&addresses.collect());
        let results = made!(self.double, program_run(self.raw, bound.raw))?;
        let results = Results { double: self.double, raw: results };
        let outputs = self.outputs();
        let copied = results.addresses().into_iter().zip(outputs).map(|(address, shape)| {
            let data = ptr::with_exposed_provenance::<u8>(address);
            // SAFETY: so many bytes of the host are there until the results go.
            unsafe { slice::from_raw_parts(data, shape.n_bytes) }.to_vec()
        });
        Ok(copied.collect())
    }
}

fn add(
    double: &Double,
    parameters: migraphx_program_parameters_t,
    name: &str,
    shape: &Shape,
    address: usize,
) {
    let (mut lengths, mut strides) = (shape.lengths.clone(), shape.strides.clone());
    let number = migraphx_shape_datatype_t(shape.number);
    let (data, n) = (lengths.as_mut_ptr(), lengths.len());
    let (steps, m) = (strides.as_mut_ptr(), strides.len());
    let raw = made!(double, shape_create_with_strides(number, data, n, steps, m)).unwrap();
    let memory = ptr::with_exposed_provenance_mut::<c_void>(address);
    let argument = made!(double, argument_create(raw.cast_const(), memory)).unwrap();
    let name = c_text(name);
    call!(double, program_parameters_add(parameters, name.as_ptr(), argument.cast_const()))
        .unwrap();
    call!(double, argument_destroy(argument)).unwrap();
    call!(double, shape_destroy(raw)).unwrap();
}

/// Parameters of a run.
pub(crate) struct Bound<'a> {
    double: &'a Double,
    pub(crate) raw: migraphx_program_parameters_t,
}

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        call!(self.double, program_parameters_destroy(self.raw)).unwrap();
    }
}

/// What a run gave.
pub(crate) struct Results<'a> {
    pub(crate) double: &'a Double,
    pub(crate) raw: migraphx_arguments_t,
}

impl Results<'_> {
    /// Where each output is.
    pub(crate) fn addresses(&self) -> Vec<usize> {
        let mut n = 0;
        call!(self.double, arguments_size(&mut n, self.raw)).unwrap();
        let addresses = (0..n).map(|index| {
            let mut argument = ptr::null();
            call!(self.double, arguments_get(&mut argument, self.raw, index)).unwrap();
            let mut buffer = ptr::null_mut();
            call!(self.double, argument_buffer(&mut buffer, argument)).unwrap();
            buffer.expose_provenance()
        });
        addresses.collect()
    }
}

impl Drop for Results<'_> {
    fn drop(&mut self) {
        call!(self.double, arguments_destroy(self.raw)).unwrap();
    }
}

/// Bytes that suit a parameter's type: small numbers, the same every time.
pub(crate) fn made_up(double: &Double, shape: &Shape, seed: usize) -> Vec<u8> {
    use migraphx_sys::ShapeType;
    let n: usize = shape.lengths.iter().product();
    let kind = double.library.data_types().shape_type(migraphx_shape_datatype_t(shape.number));
    let at = |index: usize| (index * 7 + seed * 11) % 13;
    let halves = |index: usize| at(index) as f32 / 6.0 - 1.0;
    let numbers = 0..n;
    match kind.unwrap() {
        ShapeType::Float => numbers.flat_map(|index| halves(index).to_le_bytes()).collect(),
        ShapeType::Double => numbers.flat_map(|i| f64::from(halves(i)).to_le_bytes()).collect(),
        ShapeType::Half => {
            numbers.flat_map(|index| half::f16::from_f32(halves(index)).to_le_bytes()).collect()
        }
        ShapeType::BFloat16 => {
            numbers.flat_map(|index| half::bf16::from_f32(halves(index)).to_le_bytes()).collect()
        }
        ShapeType::Bool => numbers.map(|index| u8::from(at(index) % 2 == 0)).collect(),
        integer => {
            let size = integer.n_bytes().unwrap();
            // Small enough for the tables that models look them up in.
            numbers.flat_map(|i| (at(i) % 2).to_le_bytes().into_iter().take(size)).collect()
        }
    }
}

/// Inputs for a program, by name; what are no inputs are left out.
pub(crate) fn inputs(program: &Program<'_>, seed: usize) -> BTreeMap<String, Vec<u8>> {
    let parameters = program.parameters().into_iter().enumerate();
    parameters
        .filter(|(_, (name, _))| !name.starts_with("main:") && name != "scratch")
        .map(|(_, (name, shape))| {
            let own = name.bytes().map(usize::from).sum::<usize>();
            let bytes = made_up(program.double, &shape, seed + own);
            (name, bytes)
        })
        .collect()
}
