//! `cargo xtask bindings`: the declarations of `migraphx-sys`, from MIGraphX's own header.
//!
//! The header is itself generated and regular: one statement a declaration, no macros but one list of
//! data types. So a reader for just that form is enough, and no machine needs a C compiler's library.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};

use crate::availability::Availability;
use crate::migraphx_root::{self, Content, MigraphxRoot};
use crate::paths::Layout;
use crate::terminal;

/// How many functions the header of ROCm 6.0 has; they are the ones that a library must have.
const N_REQUIRED: usize = 145;

/// Functions that came later, with the release. What is in no release yet has a signature that may
/// still change, and is for those who know what they load.
const SINCE: [(&str, &str); 14] = [
    ("migraphx_onnx_options_set_limit_loop_iterations", "MIGraphX 2.9 (ROCm 6.1)"),
    ("migraphx_onnx_options_set_external_data_path", "MIGraphX 2.10 (ROCm 6.2)"),
    ("migraphx_quantize_fp8", "MIGraphX 2.12 (ROCm 6.4)"),
    ("migraphx_quantize_fp8_options_create", "MIGraphX 2.12 (ROCm 6.4)"),
    ("migraphx_quantize_fp8_options_destroy", "MIGraphX 2.12 (ROCm 6.4)"),
    ("migraphx_quantize_fp8_options_assign_to", "MIGraphX 2.12 (ROCm 6.4)"),
    ("migraphx_quantize_fp8_options_add_calibration_data", "MIGraphX 2.12 (ROCm 6.4)"),
    ("migraphx_argument_load", "MIGraphX 2.13 (ROCm 7.0)"),
    ("migraphx_argument_save", "MIGraphX 2.13 (ROCm 7.0)"),
    ("migraphx_parse_tf_buffer", "MIGraphX 2.13 (ROCm 7.0)"),
    ("migraphx_quantize_bf16", "MIGraphX 2.13 (ROCm 7.0)"),
    ("migraphx_quantize_bf16_with_op_names", "MIGraphX 2.13 (ROCm 7.0)"),
    ("migraphx_get_onnx_operator_name_at_index", "MIGraphX 2.15 (ROCm 7.2)"),
    ("migraphx_get_onnx_operators_size", "MIGraphX 2.15 (ROCm 7.2)"),
];

/// Functions that the header of 2.14 does not have, in Rust's words: name, parameters, release.
const NEWER: [(&str, &str, &str); 12] = [
    (
        "migraphx_get_onnx_operator_name_at_index",
        "out: *mut *mut c_char, index: usize",
        "MIGraphX 2.15 (ROCm 7.2)",
    ),
    ("migraphx_get_onnx_operators_size", "out: *mut usize", "MIGraphX 2.15 (ROCm 7.2)"),
    (
        "migraphx_onnx_options_set_use_debug_symbols",
        "onnx_options: migraphx_onnx_options_t, value: bool",
        "MIGraphX 2.16",
    ),
    (
        "migraphx_program_run_trace",
        "out: *mut migraphx_arguments_t, program: migraphx_program_t, \
         params: migraphx_program_parameters_t, callback: migraphx_trace_callback_t, \
         data: *mut c_void",
        "MIGraphX 2.16",
    ),
    ("migraphx_trace_info_create", "trace_info: *mut migraphx_trace_info_t", "MIGraphX 2.16"),
    ("migraphx_trace_info_destroy", "trace_info: migraphx_trace_info_t", "MIGraphX 2.16"),
    (
        "migraphx_trace_info_assign_to",
        "output: migraphx_trace_info_t, input: const_migraphx_trace_info_t",
        "MIGraphX 2.16",
    ),
    (
        "migraphx_trace_info_get_index",
        "out: *mut usize, trace_info: const_migraphx_trace_info_t",
        "MIGraphX 2.16",
    ),
    (
        "migraphx_trace_info_get_name",
        "out: *mut *const c_char, trace_info: const_migraphx_trace_info_t",
        "MIGraphX 2.16",
    ),
    (
        "migraphx_trace_info_get_result",
        "out: *mut const_migraphx_argument_t, trace_info: const_migraphx_trace_info_t",
        "MIGraphX 2.16",
    ),
    // Seen in development only.
    (
        "migraphx_compile_options_set_compile_mode",
        "compile_options: migraphx_compile_options_t, value: i8",
        "a release after MIGraphX 2.16",
    ),
    (
        "migraphx_compile_options_set_advance_backend_options",
        "compile_options: migraphx_compile_options_t, format: *const c_char, ...",
        "a release after MIGraphX 2.16",
    ),
];

const NEWER_HANDLES: [&str; 1] = ["migraphx_trace_info"];
const NEWER_CALLBACKS: [(&str, &str); 1] =
    [("migraphx_trace_callback_t", "info: migraphx_trace_info_t, data: *mut c_void")];

/// Write the declarations of crates/migraphx-sys from the header in the private MIGraphX root
///
/// The root is set up first, as by `cargo xtask migraphx-root`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask bindings
  cargo xtask bindings --check                   only say whether they are what the header says")]
pub(crate) struct Args {
    /// Write nothing, and fail when the file is not what the header says
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(layout: &Layout, args: &Args) -> Result<()> {
    terminal::heading("bindings");
    let root = match migraphx_root::prepare(layout, Content::Reference)? {
        Availability::Ready(root) => root,
        Availability::Missing(reason) if args.check => {
            terminal::say(format_args!("not checked: {reason}"));
            return Ok(());
        }
        Availability::Missing(reason) => bail!("{reason}"),
    };
    let (path, text) = (file(layout), generate(&root)?);
    let shown = layout.shown(&path);
    let old = fs::read_to_string(&path).unwrap_or_default();
    if old == text {
        terminal::say(format_args!("{shown} is what the header says"));
    } else if !args.check {
        fs::write(&path, text).with_context(|| format!("cannot write {shown}"))?;
        terminal::say(format_args!("{shown} is written"));
    } else if old.lines().next() != text.lines().next() {
        // The distribution moves on by itself; that is no fault of a change under test.
        terminal::say(format_args!(
            "not checked: {shown} is from another release than the header here; write it anew with \
             `cargo xtask bindings`"
        ));
    } else {
        bail!("{shown} is not what the header says; write it anew with `cargo xtask bindings`");
    }
    Ok(())
}

fn file(layout: &Layout) -> PathBuf {
    layout.root().join("crates").join("migraphx-sys").join("src").join("bindings.rs")
}

fn generate(root: &MigraphxRoot) -> Result<String> {
    let read = |name: &str| {
        let path = root.headers().join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let header = Header::parse(&read("migraphx.h")?).context("migraphx.h is not as known")?;
    let version = version(&read("version.h")?).context("version.h tells no version")?;
    write_rust(&header, &version)
}

fn version(text: &str) -> Option<String> {
    let part = |name: &str| {
        let (_, rest) = text.split_once(&format!("#define MIGRAPHX_VERSION_{name} "))?;
        Some(rest.lines().next()?.trim().to_owned())
    };
    Some([part("MAJOR")?, part("MINOR")?, part("PATCH")?].join("."))
}

/// What the header declares, with types in Rust's words.
#[derive(Debug, Default)]
struct Header {
    statuses: Vec<(String, String)>,
    data_types: Vec<String>,
    handles: Vec<String>,
    /// Names with parameters.
    callbacks: Vec<(String, String)>,
    functions: Vec<(String, String)>,
}

impl Header {
    fn parse(text: &str) -> Result<Self> {
        let code = without_comments(text);
        let mut header = Self { data_types: data_types(&code)?, ..Self::default() };
        for statement in without_directives(&code).split(';') {
            let words: Vec<&str> = statement.split_whitespace().collect();
            header.add(&words.join(" ")).with_context(|| format!("in `{}`", statement.trim()))?;
        }
        ensure!(
            header.data_types.len() > 2 && !header.statuses.is_empty(),
            "the enums are missing"
        );
        Ok(header)
    }

    fn add(&mut self, statement: &str) -> Result<()> {
        if let Some(function) = statement.strip_prefix("MIGRAPHX_C_EXPORT migraphx_status ") {
            let (name, parameters) = function.split_once('(').context("`(` is missing")?;
            self.functions.push((name.to_owned(), rust_parameters(parameters)?));
        } else if let Some(callback) = statement.strip_prefix("typedef migraphx_status (*") {
            let (name, parameters) = callback.split_once(")(").context("`)(` is missing")?;
            self.callbacks.push((name.to_owned(), rust_parameters(parameters)?));
        } else if let Some(handle) = statement.strip_prefix("typedef struct ") {
            let (name, _) = handle.split_once("* ").context("`*` is missing")?;
            self.handles.push(name.to_owned());
        } else if let Some(values) = enum_values(statement, "migraphx_status") {
            self.statuses = values;
        } else {
            let is_known = statement.is_empty()
                || statement == "}"
                || statement.starts_with("typedef const struct ")
                || statement.ends_with("} migraphx_shape_datatype_t");
            ensure!(is_known, "this form of statement is not known");
        }
        Ok(())
    }
}

fn without_comments(text: &str) -> String {
    let mut rest = text;
    let mut code = String::new();
    while let Some((before, after)) = rest.split_once("/*") {
        code.push_str(before);
        rest = after.split_once("*/").map_or("", |(_, after)| after);
    }
    code.push_str(rest);
    code.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect()
}

/// The opening of the C++ guard goes too, since it ends with no semicolon.
fn without_directives(code: &str) -> String {
    let joined = code.replace("\\\n", " ");
    let lines = joined.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.filter(|line| !line.contains("\"C\" {")).collect::<Vec<_>>().join("\n")
}

/// The names `x` of `migraphx_shape_x`: those in the enum itself, then those of the list macro.
fn data_types(code: &str) -> Result<Vec<String>> {
    let (before, _) =
        code.split_once("} migraphx_shape_datatype_t").context("the data types are missing")?;
    let (_, body) = before.rsplit_once('{').context("the data types are missing")?;
    let own = body.split(',').filter_map(|entry| entry.trim().strip_prefix("migraphx_shape_"));
    let mut names: Vec<String> = own.map(str::to_owned).collect();
    let (_, list) = code.split_once("VISIT_TYPES(m)").context("the list of types is missing")?;
    let list = list.lines().take_while(|line| !line.trim().is_empty());
    for line in list.filter_map(|line| line.trim().strip_prefix("m(")) {
        names.push(line.split(',').next().unwrap_or_default().to_owned());
    }
    Ok(names)
}

/// `typedef enum { prefix_name = value, ... } prefix` as pairs of name and value.
fn enum_values(statement: &str, prefix: &str) -> Option<Vec<(String, String)>> {
    let body = statement.strip_prefix("typedef enum {")?;
    let body = body.strip_suffix(&format!("}} {prefix}"))?;
    let entries = body.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    entries
        .map(|entry| {
            let (name, value) = entry.split_once(" = ")?;
            let name = name.trim().strip_prefix(prefix)?.strip_prefix('_')?;
            Some((name.to_uppercase(), value.to_owned()))
        })
        .collect()
}

fn rust_parameters(parameters: &str) -> Result<String> {
    let list = parameters.strip_suffix(')').context("`)` is missing")?;
    let rust = list.split(',').map(|parameter| rust_parameter(parameter.trim()));
    Ok(rust.collect::<Result<Vec<_>>>()?.join(", "))
}

fn rust_parameter(parameter: &str) -> Result<String> {
    if parameter == "..." {
        return Ok(parameter.to_owned());
    }
    let (c_type, name) = parameter.rsplit_once(' ').context("a parameter has no name")?;
    let name = if name == "type" { "type_" } else { name };
    Ok(format!("{name}: {}", rust_type(c_type)?))
}

/// `const` before the first `*` is that of what is pointed to.
fn rust_type(c_type: &str) -> Result<String> {
    let (base, is_constant) = match c_type.strip_prefix("const ") {
        Some(base) => (base, true),
        None => (c_type, false),
    };
    let name = base.trim_end_matches('*');
    let n_pointers = base.len() - name.len();
    let mut rust = rust_name(name)?;
    for level in 0..n_pointers {
        let pointer = if level == 0 && is_constant { "*const" } else { "*mut" };
        rust = format!("{pointer} {rust}");
    }
    ensure!(n_pointers > 0 || !is_constant, "`{c_type}` is a constant value");
    Ok(rust)
}

fn rust_name(name: &str) -> Result<String> {
    let rust = match name {
        "void" => "c_void",
        "char" => "c_char",
        "size_t" => "usize",
        "int64_t" => "i64",
        "int8_t" => "i8",
        "bool" => "bool",
        _ if name.starts_with("migraphx_") || name.starts_with("const_migraphx_") => name,
        _ => bail!("the type `{name}` is not known"),
    };
    Ok(rust.to_owned())
}

/// The whole file. Lists stand in macros, whose text rustfmt leaves alone.
fn write_rust(header: &Header, version: &str) -> Result<String> {
    let (required, optional) = sorted_by_age(header)?;
    let mut out = format!(
        "// @generated by `cargo xtask bindings` from migraphx.h of MIGraphX {version}; do not edit.\n\n\
         #![allow(non_camel_case_types, reason = \"the names are those of the C header\")]\n\n\
         use std::ffi::{{CStr, c_char, c_uint, c_void}};\nuse std::ptr::NonNull;\n\n\
         use crate::table::{{MissingFunctions, OptionalFunction}};\n\n"
    );
    write_status(&mut out, header)?;
    write_data_types(&mut out, header)?;
    out.push_str("handles! {\n");
    for name in header.handles.iter().map(String::as_str).chain(NEWER_HANDLES) {
        writeln!(out, "    {name}, {name}_t, const_{name}_t;")?;
    }
    out.push_str("}\n\ncallbacks! {\n");
    let known = header.callbacks.iter().map(|(name, args)| (name.as_str(), args.as_str()));
    for (name, parameters) in known.chain(NEWER_CALLBACKS) {
        writeln!(out, "    {name}({parameters});")?;
    }
    out.push_str("}\n\nfunctions! {\n    required {\n");
    for (name, parameters) in required {
        writeln!(out, "        c\"{name}\" {}({parameters});", field(name))?;
    }
    out.push_str("    }\n    optional {\n");
    for (name, parameters, since) in optional {
        writeln!(out, "        c\"{name}\" since \"{since}\" {}({parameters});", field(name))?;
    }
    out.push_str("    }\n}\n");
    Ok(out)
}

type Declared<'a> = (&'a str, &'a str);
type DeclaredSince<'a> = (&'a str, &'a str, &'a str);

fn sorted_by_age(header: &Header) -> Result<(Vec<Declared<'_>>, Vec<DeclaredSince<'_>>)> {
    let (mut required, mut optional) = (Vec::new(), Vec::new());
    for (name, parameters) in &header.functions {
        let newer = NEWER.iter().map(|(name, _, since)| (*name, *since));
        match SINCE.into_iter().chain(newer).find(|(known, _)| known == name) {
            Some((_, since)) => optional.push((name.as_str(), parameters.as_str(), since)),
            None => required.push((name.as_str(), parameters.as_str())),
        }
    }
    ensure!(
        required.len() == N_REQUIRED,
        "the header has {} functions that are not known to be newer than ROCm 6.0, which has \
         {N_REQUIRED}; add what is new to SINCE in xtask's bindings.rs",
        required.len()
    );
    let in_header = |name: &str| header.functions.iter().any(|(known, _)| known == name);
    optional.extend(NEWER.into_iter().filter(|(name, ..)| !in_header(name)));
    Ok((required, optional))
}

fn write_status(out: &mut String, header: &Header) -> Result<()> {
    out.push_str(
        "/// What a function answers. The words that go with a failure are on standard error.\n\
         #[must_use]\n#[repr(transparent)]\n#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]\n\
         pub struct migraphx_status(pub c_uint);\n\nimpl migraphx_status {\n",
    );
    for (name, value) in &header.statuses {
        writeln!(out, "    /// `migraphx_status_{}`", name.to_lowercase())?;
        writeln!(out, "    pub const {name}: Self = Self({value});")?;
    }
    out.push_str("}\n\n");
    Ok(())
}

fn write_data_types(out: &mut String, header: &Header) -> Result<()> {
    out.push_str(
        "/// The number of a data type, which depends on the loaded library: see\n\
         /// [`DataTypes`](crate::DataTypes).\n\
         #[repr(transparent)]\n#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]\n\
         pub struct migraphx_shape_datatype_t(pub c_uint);\n\n\
         /// The data types in the order of the header; other releases number them otherwise.\n\
         #[cfg(test)]\n#[rustfmt::skip]\npub(crate) const HEADER_DATA_TYPES: &[&str] = &[\n",
    );
    for name in &header.data_types {
        writeln!(out, "    \"{name}\",")?;
    }
    out.push_str("];\n\n");
    Ok(())
}

fn field(name: &str) -> &str {
    name.strip_prefix("migraphx_").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "\
/* a ; comment */
#define MIGRAPHX_SHAPE_VISIT_TYPES(m) \\
    m(bool_type, bool) \\
    m(bf16_type, bf16)

#ifdef __cplusplus
extern \"C\" {
#endif
// codes; more later
typedef enum
{
    migraphx_status_success   = 0,
    migraphx_status_bad_param = 1,

} migraphx_status;
typedef enum
{
    migraphx_shape_tuple_type,
    MIGRAPHX_SHAPE_VISIT_TYPES(X)
} migraphx_shape_datatype_t;
typedef struct migraphx_shape* migraphx_shape_t;
typedef const struct migraphx_shape* const_migraphx_shape_t;
typedef migraphx_status (*migraphx_call)(size_t* out, char* text);
MIGRAPHX_C_EXPORT migraphx_status migraphx_shape_lengths(const size_t** out,
                                                         migraphx_shape_datatype_t type,
                                                         const const_migraphx_shape_t* shape);
MIGRAPHX_C_EXPORT migraphx_status
migraphx_operation_create(const char* name, ...);
#ifdef __cplusplus
}
#endif
";

    fn pairs(list: &[(String, String)]) -> Vec<(&str, &str)> {
        list.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    #[test]
    fn every_form_of_declaration_is_read() {
        let header = Header::parse(HEADER).unwrap();
        assert_eq!(pairs(&header.statuses), [("SUCCESS", "0"), ("BAD_PARAM", "1")]);
        assert_eq!(header.data_types, ["tuple_type", "bool_type", "bf16_type"]);
        assert_eq!(header.handles, ["migraphx_shape"]);
        let callback = [("migraphx_call", "out: *mut usize, text: *mut c_char")];
        assert_eq!(pairs(&header.callbacks), callback);
        let functions = [
            (
                "migraphx_shape_lengths",
                "out: *mut *const usize, type_: migraphx_shape_datatype_t, \
                 shape: *const const_migraphx_shape_t",
            ),
            ("migraphx_operation_create", "name: *const c_char, ..."),
        ];
        assert_eq!(pairs(&header.functions), functions);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for (old, new) in [("size_t* out", "long* out"), ("typedef struct", "struct")] {
            let error = Header::parse(&HEADER.replace(old, new)).unwrap_err();
            assert!(format!("{error:#}").contains("not known"), "{error:#}");
        }
    }

    #[test]
    fn a_new_function_needs_its_release() {
        let error = sorted_by_age(&Header::parse(HEADER).unwrap()).unwrap_err();
        assert!(error.to_string().contains("SINCE"), "{error}");
    }

    #[test]
    fn the_version_is_read() {
        let text = "#define MIGRAPHX_VERSION_MAJOR 2\n#define MIGRAPHX_VERSION_MINOR 14\n\
                    #define MIGRAPHX_VERSION_PATCH 0\n";
        assert_eq!(version(text).as_deref(), Some("2.14.0"));
    }
}
