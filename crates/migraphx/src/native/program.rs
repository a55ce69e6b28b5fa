//! A program: parsed, quantised, compiled, saved, loaded, run.

use std::ffi::{CStr, c_char, c_void};
use std::marker::PhantomData;
use std::path::Path;
use std::ptr;
use std::slice;

use migraphx_sys::{
    const_migraphx_argument_t, const_migraphx_shape_t, migraphx_arguments, migraphx_program,
    migraphx_shape_datatype_t,
};
use shapeyard_core::{DataType, Shape};

use super::bindings::Bindings;
use super::handle::{Handle, call, call_late, create};
use super::library::{Migraphx, c_path, c_text};
use super::places::Places;
use super::{NativeError, gate};
use crate::options::{CompileOptions, Quantisation, Storage, Target};

/// An input or output of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ValueShape {
    pub(crate) dtype: DataType,
    /// The extents; a rank of 0 shows as one axis of 1.
    pub(crate) lengths: Shape,
    /// Distances in elements, one an axis.
    pub(crate) strides: Shape,
    /// Bytes from the first element to the end of the last.
    pub(crate) n_bytes: usize,
}

/// How a model is read.
#[derive(Debug)]
pub(crate) struct Parse<'a> {
    pub(crate) model: &'a Path,
    /// The extents of every input.
    pub(crate) inputs: &'a [(String, Shape)],
}

/// Whose memory a program takes its inputs from and leaves its outputs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// The host's; for a device the library copies by itself.
    Host,
    /// The target's own.
    Target,
}

/// A program of the library.
pub(crate) struct Program {
    library: &'static Migraphx,
    handle: Handle<migraphx_program>,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Program")
    }
}

impl Program {
    /// Reads a model in one shape.
    pub(crate) fn parse(
        library: &'static Migraphx,
        parse: &Parse<'_>,
    ) -> Result<Self, NativeError> {
        let api = library.api();
        let options = create!(api, onnx_options_create => onnx_options_destroy)?;
        for (name, extents) in parse.inputs {
            let (name, mut extents) = (c_text(name)?, extents.clone());
            let (data, n) = (extents.as_mut_ptr(), extents.len());
            call!(
                api,
                onnx_options_set_input_parameter_shape(options.get(), name.as_ptr(), data, n)
            )?;
        }
        // Weights are found beside the model whatever the working folder is.
        let folder = parse.model.parent().unwrap_or(Path::new("."));
        let folder = c_path(folder)?;
        if api.onnx_options_set_external_data_path.is_some() {
            call_late!(api, onnx_options_set_external_data_path(options.get(), folder.as_ptr()))?;
        }
        let path = c_path(parse.model)?;
        let handle = create!(api, parse_onnx => program_destroy, path.as_ptr(), options.get())?;
        gate::watch_exit();
        Ok(Self { library, handle })
    }

    /// Loads what [`Self::save`] wrote. The file has to be one that was written by a compile, byte for
    /// byte: the library does not notice damage.
    pub(crate) fn load(
        library: &'static Migraphx,
        target: Target,
        path: &Path,
    ) -> Result<Self, NativeError> {
        library.know_target(target.name())?;
        let api = library.api();
        let options = create!(api, file_options_create => file_options_destroy)?;
        let path = c_path(path)?;
        let handle = create!(api, load => program_destroy, path.as_ptr(), options.get())?;
        gate::watch_exit();
        Ok(Self { library, handle })
    }

    /// Writes the program to a file.
    pub(crate) fn save(&self, path: &Path) -> Result<(), NativeError> {
        let api = self.library.api();
        let options = create!(api, file_options_create => file_options_destroy)?;
        call!(api, file_options_set_file_format(options.get(), c"msgpack".as_ptr()))?;
        let path = c_path(path)?;
        call!(api, save(self.handle.get(), path.as_ptr(), options.get()))
    }

    /// Changes the numbers that the program computes with. `calibration` has every input, bound to what
    /// the model is to be measured with.
    pub(crate) fn quantise(
        &mut self,
        options: &CompileOptions,
        calibration: &[Bindings],
    ) -> Result<(), NativeError> {
        let api = self.library.api();
        // Integers first: they are measured on the graph as it came.
        match options.precision.quantisation {
            None => {}
            Some(Quantisation::Int8) => {
                let target = self.library.target(options.target.name())?;
                let int8 =
                    create!(api, quantize_int8_options_create => quantize_int8_options_destroy)?;
                for set in calibration {
                    call!(
                        api,
                        quantize_int8_options_add_calibration_data(int8.get(), set.parameters())
                    )?;
                }
                call!(api, quantize_int8(self.handle.get(), target.get(), int8.get()))?;
            }
            Some(Quantisation::Fp8) => self.quantise_fp8(options, calibration)?,
        }
        match options.precision.storage {
            Storage::F32 => Ok(()),
            Storage::F16 => call!(api, quantize_fp16(self.handle.get())),
            Storage::BF16 => call_late!(api, quantize_bf16(self.handle.get())),
        }
    }

    fn quantise_fp8(
        &mut self,
        options: &CompileOptions,
        calibration: &[Bindings],
    ) -> Result<(), NativeError> {
        let api = self.library.api();
        let (Some(make), Some(destroy)) =
            (api.quantize_fp8_options_create, api.quantize_fp8_options_destroy)
        else {
            return Err(super::handle::missing("quantize_fp8_options_create"));
        };
        let target = self.library.target(options.target.name())?;
        // SAFETY: the place for the handle is valid.
        let fp8 =
            Handle::create("quantize_fp8_options_create", destroy, |out| unsafe { make(out) })?;
        for set in calibration {
            call_late!(
                api,
                quantize_fp8_options_add_calibration_data(fp8.get(), set.parameters())
            )?;
        }
        call_late!(api, quantize_fp8(self.handle.get(), target.get(), fp8.get()))
    }

    /// Compiles for a target. Takes the program: one that was compiled must not be compiled again.
    pub(crate) fn compile(
        self,
        options: &CompileOptions,
        memory: Memory,
    ) -> Result<Self, NativeError> {
        let api = self.library.api();
        let target = self.library.target(options.target.name())?;
        let compile = create!(api, compile_options_create => compile_options_destroy)?;
        // `ref` has no other memory than the host's.
        let offload_copy = options.target == Target::Gpu && memory == Memory::Host;
        call!(api, compile_options_set_offload_copy(compile.get(), offload_copy))?;
        call!(api, compile_options_set_fast_math(compile.get(), options.fast_math))?;
        let tune = options.exhaustive_tune;
        call!(api, compile_options_set_exhaustive_tune_flag(compile.get(), tune))?;
        call!(api, program_compile(self.handle.get(), target.get(), compile.get()))?;
        gate::watch_exit();
        Ok(self)
    }

    /// The inputs that the program takes: those that it did not fold away, in no order.
    pub(crate) fn inputs(&self) -> Result<Vec<(String, ValueShape)>, NativeError> {
        let mut parameters = self.parameters()?;
        parameters.retain(|(name, _)| output_index(name).is_none());
        Ok(parameters)
    }

    /// The parameters that say where outputs belong, each with the output's position. Those that the
    /// program keeps elsewhere have none, and none has on the host.
    pub(crate) fn output_places(&self) -> Result<Vec<(usize, String, ValueShape)>, NativeError> {
        let parameters = self.parameters()?.into_iter();
        let place = |(name, shape): (String, ValueShape)| Some((output_index(&name)?, name, shape));
        Ok(parameters.filter_map(place).collect())
    }

    /// Everything that the program has to be given, in no order.
    fn parameters(&self) -> Result<Vec<(String, ValueShape)>, NativeError> {
        let api = self.library.api();
        let shapes = create!(api, program_get_parameter_shapes => program_parameter_shapes_destroy, self.handle.get())?;
        let mut n = 0;
        call!(api, program_parameter_shapes_size(&mut n, shapes.get()))?;
        let mut names: Vec<*const c_char> = vec![ptr::null(); n];
        call!(api, program_parameter_shapes_names(names.as_mut_ptr(), shapes.get()))?;
        let mut inputs = Vec::with_capacity(n);
        for name in names {
            let mut shape = ptr::null();
            if name.is_null() {
                return Err(NativeError::Unknown("an input has no name".to_owned()));
            }
            call!(api, program_parameter_shapes_get(&mut shape, shapes.get(), name))?;
            // SAFETY: the library wrote a text that ends in a zero and lives as long as `shapes`.
            let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
            inputs.push((name, self.value_shape(shape)?));
        }
        Ok(inputs)
    }

    /// The outputs, in the model's order.
    pub(crate) fn outputs(&self) -> Result<Vec<ValueShape>, NativeError> {
        let api = self.library.api();
        let shapes = create!(api, program_get_output_shapes => shapes_destroy, self.handle.get())?;
        let mut n = 0;
        call!(api, shapes_size(&mut n, shapes.get()))?;
        (0..n)
            .map(|index| {
                let mut shape = ptr::null();
                call!(api, shapes_get(&mut shape, shapes.get(), index))?;
                self.value_shape(shape)
            })
            .collect()
    }

    /// What the library says of a shape that another handle lends.
    fn value_shape(&self, shape: const_migraphx_shape_t) -> Result<ValueShape, NativeError> {
        let api = self.library.api();
        let mut is_dynamic = false;
        call!(api, shape_dynamic(&mut is_dynamic, shape))?;
        if is_dynamic {
            let words = "a shape stays open although every symbol has a value";
            return Err(NativeError::Unknown(words.to_owned()));
        }
        let mut number = migraphx_shape_datatype_t(0);
        call!(api, shape_type(&mut number, shape))?;
        let mut n_bytes = 0;
        call!(api, shape_bytes(&mut n_bytes, shape))?;
        let (mut lengths, mut n_lengths) = (ptr::null(), 0);
        call!(api, shape_lengths(&mut lengths, &mut n_lengths, shape))?;
        let (mut strides, mut n_strides) = (ptr::null(), 0);
        call!(api, shape_strides(&mut strides, &mut n_strides, shape))?;
        Ok(ValueShape {
            dtype: self.library.dtype(number)?,
            // SAFETY: the library wrote where so many numbers are, which live as long as the shape.
            lengths: unsafe { numbers(lengths, n_lengths) },
            // SAFETY: as above.
            strides: unsafe { numbers(strides, n_strides) },
            n_bytes,
        })
    }

    /// Runs the program. `&mut`: two runs of one program at the same time share its scratch memory. The
    /// results may be that memory, or that of the inputs, so both stay borrowed.
    pub(crate) fn run<'a>(
        &'a mut self,
        bindings: &'a Bindings,
    ) -> Result<Results<'a>, NativeError> {
        let api = self.library.api();
        let (program, parameters) = (self.handle.get(), bindings.parameters());
        let handle = create!(api, program_run => arguments_destroy, program, parameters)?;
        Ok(Results { library: self.library, handle, borrows: PhantomData })
    }
}

impl Program {
    /// Gives the program to a stream of the device, which `places` are addresses of, and returns before it
    /// has run. `&mut` as in [`Self::run`]; the results are addresses too.
    ///
    /// # Safety
    ///
    /// Every place is memory of the program's device, as large as the program says, until the stream has
    /// come so far; no other run of the program is under way on another stream.
    pub(crate) unsafe fn enqueue(
        &mut self,
        places: &Places,
        stream: *mut c_void,
    ) -> Result<Enqueued, NativeError> {
        let api = self.library.api();
        let (program, parameters) = (self.handle.get(), places.parameters());
        // The library compares the name with that of the type that HIP's streams point to.
        let kind = c"ihipStream_t".as_ptr();
        let handle = create!(api, program_run_async => arguments_destroy, program, parameters, stream, kind)?;
        Ok(Enqueued { library: self.library, handle })
    }
}

/// What a run on a device will have given.
pub(crate) struct Enqueued {
    library: &'static Migraphx,
    handle: Handle<migraphx_arguments>,
}

impl Enqueued {
    /// Where an output of so many bytes will be.
    pub(crate) fn address(&self, index: usize, n_bytes: usize) -> Result<usize, NativeError> {
        let buffer = buffer_of(self.library, &self.handle, index, n_bytes)?;
        Ok(buffer.addr())
    }
}

/// The memory of an output that should have `wanted` bytes.
fn buffer_of(
    library: &'static Migraphx,
    handle: &Handle<migraphx_arguments>,
    index: usize,
    wanted: usize,
) -> Result<*mut c_char, NativeError> {
    let api = library.api();
    let mut argument: const_migraphx_argument_t = ptr::null();
    call!(api, arguments_get(&mut argument, handle.get(), index))?;
    let mut found: const_migraphx_shape_t = ptr::null();
    call!(api, argument_shape(&mut found, argument))?;
    let mut n_bytes = 0;
    call!(api, shape_bytes(&mut n_bytes, found))?;
    if n_bytes != wanted {
        return Err(NativeError::Unknown(format!(
            "output {index} has {n_bytes} bytes, the program says {wanted}"
        )));
    }
    let mut buffer: *mut c_char = ptr::null_mut();
    call!(api, argument_buffer(&mut buffer, argument))?;
    if buffer.is_null() && wanted > 0 {
        return Err(NativeError::Unknown(format!("output {index} has no memory")));
    }
    Ok(buffer)
}

/// The output whose place a parameter says: `main:#output_3`, and `#output_:00012` from the tenth on.
fn output_index(parameter: &str) -> Option<usize> {
    let (_, number) = parameter.rsplit_once("#output_")?;
    number.trim_start_matches(':').parse().ok()
}

/// Copies numbers that the library lends.
///
/// # Safety
///
/// `data` is null with `n` = 0, or points to `n` numbers.
unsafe fn numbers(data: *const usize, n: usize) -> Shape {
    if data.is_null() {
        return Shape::new();
    }
    // SAFETY: the caller vouches for it.
    unsafe { slice::from_raw_parts(data, n) }.into()
}

/// What a run gave. Some of it may be memory of the program or of an input.
pub(crate) struct Results<'a> {
    library: &'static Migraphx,
    handle: Handle<migraphx_arguments>,
    borrows: PhantomData<&'a mut Program>,
}

impl Results<'_> {
    /// The bytes of an output, whose shape is `shape`.
    pub(crate) fn bytes(&self, index: usize, shape: &ValueShape) -> Result<&[u8], NativeError> {
        let buffer = buffer_of(self.library, &self.handle, index, shape.n_bytes)?;
        if shape.n_bytes == 0 {
            return Ok(&[]);
        }
        // SAFETY: the library says that the output has so many bytes; they live as long as the handle,
        // the program and its inputs, which are borrowed here.
        Ok(unsafe { slice::from_raw_parts(buffer.cast::<u8>(), shape.n_bytes) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pitfall_50_an_output_is_known_by_its_number_however_it_is_written() {
        for (name, index) in [
            ("main:#output_0", Some(0)),
            ("main:#output_10", Some(10)),
            ("#output_:00010", Some(10)),
            ("input_ids", None),
            ("#output_", None),
            ("scratch", None),
        ] {
            assert_eq!(output_index(name), index, "{name}");
        }
    }
}
