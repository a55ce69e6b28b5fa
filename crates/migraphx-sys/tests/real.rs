//! The real library. `cargo xtask migraphx-root` gets it on a machine without an AMD GPU; its script
//! `run` is what these tests have to be run by.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on fails"
)]
#![allow(unsafe_code, reason = "the calls of a C API")]
#![cfg(unix)]

use std::env;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::ptr;
use std::slice;
use std::thread;

use migraphx_sys::{
    Api, DataTypes, Library, LoadError, SearchOptions, ShapeType, Version, migraphx_status,
    target_lock,
};

const ADD_ONE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/models/add_one.onnx");

/// Opens the library, or says in the log of skipped tests that there is none and leaves the test.
macro_rules! library_or_skip {
    ($name:literal) => {
        match Library::open(&SearchOptions::default()) {
            Ok(library) => library,
            Err(LoadError::NotFound { .. }) => {
                return skip(concat!("migraphx-sys ", $name, ": MIGraphX is not in reach"));
            }
            Err(error) => panic!("{error}"),
        }
    };
}

fn skip(line: &str) {
    eprintln!("{line}");
    if let Some(log) = env::var_os("SHAPEYARD_SKIP_LOG") {
        let mut log = File::options().append(true).create(true).open(log).unwrap();
        writeln!(log, "{line}").unwrap();
    }
}

/// Calls a function of the table and expects success; its outputs are written then.
macro_rules! call {
    ($api:expr, $function:ident($($argument:expr),* $(,)?)) => {{
        // SAFETY: each test gives handles that it created and has not destroyed, and places for what
        // is written; the functions copy names and lengths.
        let status = unsafe { ($api.$function)($($argument),*) };
        assert!(status.is_success(), "{}: {status:?}", stringify!($function));
    }};
}

/// Calls a function that writes one handle or number first, and returns what it wrote.
macro_rules! made {
    ($api:expr, $function:ident($($argument:expr),* $(,)?)) => {{
        let mut out = Default::default();
        call!($api, $function(Out::place(&mut out) $(, $argument)*));
        Out::value(out)
    }};
}

/// A place for an output that starts as null.
struct Out<T>(*mut T);

impl<T> Default for Out<T> {
    fn default() -> Self {
        Self(ptr::null_mut())
    }
}

impl<T> Out<T> {
    fn place(&mut self) -> *mut *mut T {
        &mut self.0
    }

    fn value(self) -> *mut T {
        assert!(!self.0.is_null(), "success without a handle");
        self.0
    }
}

#[test]
fn every_required_function_is_there() {
    let library = library_or_skip!("every_required_function_is_there");
    assert_eq!(Api::REQUIRED.len(), 145);
    for name in Api::REQUIRED {
        assert!(library.symbol(name).is_some(), "{name:?}");
    }
    assert!(library.symbol(c"migraphx_no_such_function").is_none());
}

#[test]
fn optional_functions_are_there_as_the_version_says() {
    let library = library_or_skip!("optional_functions_are_there_as_the_version_says");
    let version = library.version().unwrap();
    assert_eq!(version.major, 2, "{version}");
    for function in library.api.optional() {
        let minor = function
            .since
            .strip_prefix("MIGraphX 2.")
            .and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok());
        let expected = minor.is_some_and(|minor| minor <= version.minor);
        assert_eq!(function.present, expected, "{} in {version}", function.name);
    }
}

#[test]
fn the_version_is_asked_of_the_library() {
    let library = library_or_skip!("the_version_is_asked_of_the_library");
    let version = library.version().unwrap();
    assert!(version >= Version { major: 2, minor: 14, patch: 0 }, "{version}");
    assert_eq!(library.version().unwrap(), version);
}

#[test]
fn the_loader_finds_it_and_the_path_is_known() {
    let library = library_or_skip!("the_loader_finds_it_and_the_path_is_known");
    assert!(library.path().is_absolute(), "{}", library.path().display());
    let again = Library::open(&SearchOptions::at(library.path())).unwrap();
    assert_eq!((again.path(), again.steps().len()), (library.path(), 1));
}

#[test]
fn data_types_have_the_sizes_that_the_numbering_says() {
    let library = library_or_skip!("data_types_have_the_sizes_that_the_numbering_says");
    let (api, types) = (&library.api, library.data_types());
    assert_eq!(types, DataTypes::WithFp4x2);
    for shape_type in ShapeType::ALL.into_iter().filter(|known| *known != ShapeType::Tuple) {
        let number = types.number(shape_type).unwrap();
        let shape = made!(api, shape_create(number, [1_usize].as_mut_ptr(), 1));
        let mut bytes = 0;
        call!(api, shape_bytes(&mut bytes, shape));
        assert_eq!(Some(bytes), shape_type.n_bytes(), "{shape_type:?}");
        let mut back = number;
        back.0 = u32::MAX;
        call!(api, shape_type(&mut back, shape));
        assert_eq!(types.shape_type(back), Some(shape_type));
        call!(api, shape_destroy(shape));
    }
}

#[test]
fn a_failure_is_a_status_and_writes_no_handle() {
    let library = library_or_skip!("a_failure_is_a_status_and_writes_no_handle");
    let api = &library.api;
    let options = made!(api, onnx_options_create());
    let mut program = ptr::null_mut();
    // SAFETY: the options are alive, and the path is a C string.
    let status = unsafe { (api.parse_onnx)(&mut program, c"no/such.onnx".as_ptr(), options) };
    assert_eq!((status, program), (migraphx_status::UNKNOWN_ERROR, ptr::null_mut()));
    call!(api, onnx_options_destroy(options));
}

#[test]
fn a_model_is_parsed_compiled_and_run() {
    let library = library_or_skip!("a_model_is_parsed_compiled_and_run");
    let api = &library.api;
    let model = fs::read(ADD_ONE).unwrap();
    let options = made!(api, onnx_options_create());
    let (batch, width) = (2, 4);
    let mut lengths = [batch, width];
    call!(
        api,
        onnx_options_set_input_parameter_shape(options, c"x".as_ptr(), lengths.as_mut_ptr(), 2)
    );
    let program = made!(api, parse_onnx_buffer(model.as_ptr().cast(), model.len(), options));
    call!(api, onnx_options_destroy(options));
    compile_for_ref(api, program);
    let mut input: Vec<f32> = (0_u8..8).map(f32::from).collect();
    let expected: Vec<f32> = input.iter().map(|value| value + 1.0).collect();
    assert_eq!(run(&library, program, c"x", &mut lengths, &mut input), expected);
    call!(api, program_destroy(program));
}

/// `operation_create` takes its attributes by a format with arguments, as C's `printf` does.
#[test]
fn a_function_with_variable_arguments_is_called() {
    let library = library_or_skip!("a_function_with_variable_arguments_is_called");
    let api = &library.api;
    let mut lengths = [2_usize, 3];
    let float = library.data_types().number(ShapeType::Float).unwrap();
    let shape = made!(api, shape_create(float, lengths.as_mut_ptr(), 2));
    let program = made!(api, program_create());
    let module = made!(api, program_get_main_module(program));
    let x = made!(api, module_add_parameter(module, c"x".as_ptr(), shape.cast_const()));
    let axis: c_int = 1;
    let format = c"{axes: [%i]}";
    let sum = made!(api, operation_create(c"reduce_sum".as_ptr(), format.as_ptr(), axis));
    let arguments = [x.cast_const()];
    let arguments = made!(api, instructions_create(arguments.as_ptr(), 1));
    let total = made!(api, module_add_instruction(module, sum, arguments));
    let results = [total.cast_const()];
    let results = made!(api, instructions_create(results.as_ptr(), 1));
    made!(api, module_add_return(module, results));
    compile_for_ref(api, program);
    let mut input = [1.0, 2.0, 3.0, 10.0, 20.0, 30.0];
    assert_eq!(run(&library, program, c"x", &mut lengths, &mut input), [6.0, 60.0]);
    call!(api, instructions_destroy(arguments));
    call!(api, instructions_destroy(results));
    call!(api, operation_destroy(sum));
    call!(api, shape_destroy(shape));
    call!(api, program_destroy(program));
}

#[test]
fn targets_can_be_created_on_many_threads_under_the_lock() {
    let library = library_or_skip!("targets_can_be_created_on_many_threads_under_the_lock");
    let api = &library.api;
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let target = {
                    let _guard = target_lock();
                    made!(api, target_create(c"ref".as_ptr()))
                };
                call!(api, target_destroy(target));
            });
        }
    });
}

/// The function's name is changed in a copy of the real library, so that the loader misses it.
#[test]
fn a_real_library_without_a_function_is_too_old() {
    let library = library_or_skip!("a_real_library_without_a_function_is_too_old");
    let copy = changed_copy(library.path(), b"migraphx_shape_ndim\0", b"migraphx_shape_nope\0");
    let error = Library::open(&SearchOptions::at(&*copy)).unwrap_err();
    let LoadError::TooOld { missing, .. } = error else { panic!("{error:?}") };
    assert_eq!(missing, [c"migraphx_shape_ndim"]);
}

#[test]
fn a_real_library_without_its_parts_names_the_first() {
    let library = library_or_skip!("a_real_library_without_its_parts_names_the_first");
    let copy = changed_copy(library.path(), b"libmigraphx_tf.so.", b"libmigraphx_XX.so.");
    let error = Library::open(&SearchOptions::at(&*copy)).unwrap_err();
    let LoadError::Unloadable { reason, .. } = error else { panic!("{error:?}") };
    assert!(reason.contains("libmigraphx_XX.so."), "{reason}");
}

fn changed_copy(library: &Path, old: &[u8], new: &[u8]) -> tempfile::TempPath {
    assert_eq!(old.len(), new.len());
    let mut bytes = fs::read(library).unwrap();
    let start = bytes.windows(old.len()).position(|window| window == old).unwrap();
    bytes[start..start + old.len()].copy_from_slice(new);
    let mut file = tempfile::NamedTempFile::with_suffix(".so").unwrap();
    file.write_all(&bytes).unwrap();
    file.into_temp_path()
}

fn compile_for_ref(api: &Api, program: *mut migraphx_sys::migraphx_program) {
    let target = {
        let _guard = target_lock();
        made!(api, target_create(c"ref".as_ptr()))
    };
    let options = made!(api, compile_options_create());
    call!(api, program_compile(program, target, options));
    call!(api, compile_options_destroy(options));
    call!(api, target_destroy(target));
}

/// Runs a program of one input and one output, both `float`.
fn run(
    library: &Library,
    program: *mut migraphx_sys::migraphx_program,
    name: &CStr,
    lengths: &mut [usize],
    input: &mut [f32],
) -> Vec<f32> {
    let api = &library.api;
    let float = library.data_types().number(ShapeType::Float).unwrap();
    let shape = made!(api, shape_create(float, lengths.as_mut_ptr(), lengths.len()));
    let buffer: *mut c_void = input.as_mut_ptr().cast();
    let argument = made!(api, argument_create(shape.cast_const(), buffer));
    let parameters = made!(api, program_parameters_create());
    call!(api, program_parameters_add(parameters, name.as_ptr(), argument.cast_const()));
    let outputs = made!(api, program_run(program, parameters));
    let values = floats(api, outputs);
    call!(api, arguments_destroy(outputs));
    call!(api, program_parameters_destroy(parameters));
    call!(api, argument_destroy(argument));
    call!(api, shape_destroy(shape));
    values
}

fn floats(api: &Api, outputs: *mut migraphx_sys::migraphx_arguments) -> Vec<f32> {
    let mut output = ptr::null();
    call!(api, arguments_get(&mut output, outputs, 0));
    let mut shape = ptr::null();
    call!(api, argument_shape(&mut shape, output));
    let mut n_elements = 0;
    call!(api, shape_elements(&mut n_elements, shape));
    let mut buffer: *mut c_char = ptr::null_mut();
    call!(api, argument_buffer(&mut buffer, output));
    // SAFETY: the buffer of a `float` output has so many elements, is aligned, and lives as long as
    // `outputs`, which the caller destroys later.
    unsafe { slice::from_raw_parts(buffer.cast::<f32>(), n_elements) }.to_vec()
}

#[test]
fn a_model_can_be_parsed_by_path() {
    let library = library_or_skip!("a_model_can_be_parsed_by_path");
    let api = &library.api;
    let options = made!(api, onnx_options_create());
    let path = CString::new(ADD_ONE).unwrap();
    let program = made!(api, parse_onnx(path.as_ptr(), options));
    let shapes = made!(api, program_get_parameter_shapes(program));
    let mut count = 0;
    call!(api, program_parameter_shapes_size(&mut count, shapes));
    assert_eq!(count, 1);
    call!(api, program_parameter_shapes_destroy(shapes));
    call!(api, program_destroy(program));
    call!(api, onnx_options_destroy(options));
}
