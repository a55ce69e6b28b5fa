//! Exit codes, and errors as a person sees them.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::process::ExitCode;

use anyhow::Error;
use clap::builder::styling::{AnsiColor, Style};
use shapeyard_bench::suite::BadArgument;
use shapeyard_cache::{
    ArtifactError, BundleError, CacheError, OpenError as CacheOpenError, StorageError,
};
use shapeyard_core::backend::BackendError;
use shapeyard_core::engine::InferError;
use shapeyard_core::measure::MeasureError;
use shapeyard_core::model::ModelError;
use shapeyard_core::registry::OpenError;
use shapeyard_core::{BindError, DeclareError, RunError, TensorError};
use shapeyard_encode::EncodeError;
use shapeyard_encode::tokens::TokenizeError;
use shapeyard_encode::units::UnitError;

use crate::buckets::BucketsError;
use crate::need::Cold;
use crate::output::StdoutError;
use crate::tensor_files::TensorFileError;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// It did what was asked.
    Done = 0,
    /// It did, and the answer is no or not everything could be read.
    No = 1,
    /// The command line or an input is wrong.
    BadInput = 2,
    /// No backend serves, or a library failed.
    Backend = 3,
    /// A fault of its own.
    Internal = 4,
    /// It was interrupted.
    Interrupted = 130,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// Something about the command line or an input is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct BadInput {
    message: String,
}

impl BadInput {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

/// The person at the keyboard stopped the program.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; {left}")]
pub(crate) struct Interrupted {
    /// What is left behind.
    pub(crate) left: Cow<'static, str>,
}

/// Prints an error; gives the exit code.
pub(crate) fn report(done: Result<Code, Error>) -> Code {
    let error = match done {
        Ok(code) => return code,
        Err(error) => error,
    };
    if let Some(StdoutError(error)) = error.downcast_ref::<StdoutError>()
        && error.kind() == io::ErrorKind::BrokenPipe
    {
        return Code::Done;
    }
    anstream::eprintln!("{}", Shown(&error));
    code_of(&error)
}

/// The code of the first error in the chain that has one.
fn code_of(error: &Error) -> Code {
    // `context` puts its own value beside the chain, where only `downcast_ref` on the whole finds it.
    if error.downcast_ref::<BadInput>().is_some() {
        return Code::BadInput;
    }
    error.chain().find_map(code_of_one).unwrap_or(Code::Internal)
}

fn code_of_one(error: &(dyn std::error::Error + 'static)) -> Option<Code> {
    macro_rules! codes {
        ($($kind:ty => $code:expr),* $(,)?) => {
            $(if let Some(error) = error.downcast_ref::<$kind>() {
                let code: fn(&$kind) -> Code = $code;
                return Some(code(error));
            })*
        };
    }
    codes! {
        BadInput => |_| Code::BadInput,
        BadArgument => |_| Code::BadInput,
        StdoutError => |_| Code::BadInput,
        Interrupted => |_| Code::Interrupted,
        TensorFileError => |_| Code::BadInput,
        UnitError => |_| Code::BadInput,
        TokenizeError => |_| Code::BadInput,
        ModelError => |_| Code::BadInput,
        BindError => |_| Code::BadInput,
        TensorError => |_| Code::BadInput,
        BucketsError => |_| Code::BadInput,
        CacheOpenError => |_| Code::BadInput,
        BundleError => |_| Code::BadInput,
        StorageError => |_| Code::BadInput,
        DeclareError => |_| Code::BadInput,
        Cold => |_| Code::Backend,
        ArtifactError => of_artifact,
        RunError => of_run,
        MeasureError => of_measure,
        BackendError => of_backend,
        OpenError => of_open,
        EncodeError => of_encode,
    }
    None
}

fn of_run(error: &RunError) -> Code {
    match error {
        RunError::Bind(_) => Code::BadInput,
        RunError::ForeignRequest => Code::Internal,
        _ => Code::Backend,
    }
}

fn of_measure(error: &MeasureError) -> Code {
    match error {
        MeasureError::Backend(error) => of_backend(error),
        MeasureError::Run { source: InferError::Run(error), .. } => of_run(error),
        MeasureError::Inputs(_) => Code::BadInput,
        MeasureError::Stopped => Code::Interrupted,
        _ => Code::Backend,
    }
}

fn of_backend(error: &BackendError) -> Code {
    match error {
        BackendError::ModelFile(_) | BackendError::Option { .. } => Code::BadInput,
        BackendError::Cancelled { .. } => Code::Interrupted,
        _ => Code::Backend,
    }
}

fn of_artifact(error: &ArtifactError) -> Code {
    match error {
        ArtifactError::Backend(error) => of_backend(error),
        ArtifactError::Cache(CacheError::Cancelled { .. }) => Code::Interrupted,
        ArtifactError::Cache(CacheError::Storage(_)) => Code::BadInput,
        _ => Code::Backend,
    }
}

fn of_open(error: &OpenError) -> Code {
    match error {
        OpenError::Unknown { .. } => Code::BadInput,
        OpenError::Forced { source, .. } => of_backend(source),
        _ => Code::Backend,
    }
}

fn of_encode(error: &EncodeError) -> Code {
    match error {
        EncodeError::NotAnEncoder { .. }
        | EncodeError::Tokenize(_)
        | EncodeError::TooLarge { .. } => Code::BadInput,
        EncodeError::Backend(error) => of_backend(error),
        EncodeError::Batch { source: InferError::Run(error), .. } => of_run(error),
        _ => Code::Backend,
    }
}

/// An error and its causes, each text once.
struct Shown<'a>(&'a Error);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const RED: Style = AnsiColor::Red.on_default().bold();
        let mut last = self.0.to_string();
        write!(f, "{RED}error:{RED:#} {last}")?;
        for cause in self.0.chain().skip(1) {
            let cause = cause.to_string();
            if !last.contains(&cause) {
                write!(f, "\n  caused by: {cause}")?;
                last = cause;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    fn missing() -> Error {
        ModelError::Unreadable { path: "m".into(), source: io::ErrorKind::NotFound.into() }.into()
    }

    #[test]
    fn codes_are_found_under_context() {
        assert_eq!(code_of(&missing()), Code::BadInput);
        assert_eq!(code_of(&missing().context("more")), Code::BadInput);
        assert_eq!(code_of(&anyhow::anyhow!("a fault")), Code::Internal);
        let interrupted: Error = Interrupted { left: "nothing is left".into() }.into();
        assert_eq!(code_of(&interrupted), Code::Interrupted);
        let io: Result<(), io::Error> = Err(io::ErrorKind::NotFound.into());
        let error = io.with_context(|| BadInput::new("no folder")).unwrap_err();
        assert_eq!(code_of(&error), Code::BadInput);
    }

    #[test]
    fn causes_are_shown_once() {
        let error = anyhow::anyhow!("a").context("b: a").context("c");
        let shown = anstream::adapter::strip_str(&Shown(&error).to_string()).to_string();
        assert_eq!(shown, "error: c\n  caused by: b: a");
    }
}
