//! Why a model has no ggml graph.

use std::io;

use shapeyard_core::Model;
use shapeyard_core::backend::BackendError;
use shapeyard_core::model::ModelError;

use super::ID;
use super::context::Refusal;
use super::onnx::Node;
use crate::dynamic;

/// Why a model, or a model in one shape, has no ggml graph.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cannot {
    /// An operator that is in neither table.
    #[error("it has no operator `{operator}`, which node `{node}` needs")]
    Operator { operator: String, node: String },
    /// An operator that is there, but not as this node wants it.
    #[error("it does not take `{operator}` as node `{node}` has it: {reason}")]
    Case { operator: String, node: String, reason: String },
    /// Shapes that do not fit each other, which only a request brings.
    #[error("node `{node}` (`{operator}`) gets shapes that do not fit: {reason}")]
    Shapes { operator: String, node: String, reason: String },
    /// A constant that it cannot hold.
    #[error("constant `{name}`: {reason}")]
    Constant { name: String, reason: String },
    /// An output or an input is not what its declaration says.
    #[error("`{name}` {reason}")]
    Border { name: String, reason: String },
    /// Something else in the file that it does not take.
    #[error("{0}")]
    Model(String),
    /// The file cannot be read, or not any more as it was when it was opened.
    #[error("{0}")]
    File(#[from] io::Error),
    /// The library failed, or the machine has not enough to give.
    #[error("{0}")]
    Failed(String),
}

/// What has no other name is said by what wraps the library.
impl From<String> for Cannot {
    fn from(message: String) -> Self {
        Self::Failed(message)
    }
}

impl From<Refusal> for Cannot {
    fn from(refusal: Refusal) -> Self {
        Self::Model(refusal.to_string())
    }
}

impl Cannot {
    pub(crate) fn operator(node: &Node) -> Self {
        Self::Operator { operator: node.operator.clone(), node: node.name.clone() }
    }

    pub(crate) fn case(node: &Node, reason: impl Into<String>) -> Self {
        let (operator, name) = (node.operator.clone(), node.name.clone());
        Self::Case { operator, node: name, reason: reason.into() }
    }

    pub(crate) fn shapes(node: &Node, reason: impl Into<String>) -> Self {
        let (operator, name) = (node.operator.clone(), node.name.clone());
        Self::Shapes { operator, node: name, reason: reason.into() }
    }

    /// The error for whoever loads the model: each asks for another reaction.
    pub(crate) fn about(self, model: &Model) -> BackendError {
        match self {
            Self::File(source) => {
                ModelError::Unreadable { path: model.path().to_owned(), source }.into()
            }
            Self::Failed(message) => BackendError::Library { backend: ID, what: LOAD, message },
            refusal => dynamic::refuse(&ID, model, refusal),
        }
    }

    /// Whether another shape might do.
    pub(crate) const fn depends_on_shape(&self) -> bool {
        matches!(self, Self::Shapes { .. })
    }
}

/// What the library was doing when it failed.
pub(crate) const LOAD: &str = "load a model";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ggml::caught;

    #[test]
    fn each_cause_asks_for_its_own_reaction() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/models/add_one.onnx");
        let model = Model::open(path).unwrap();
        let about = |cannot: Cannot| cannot.about(&model);
        let memory = "no memory for its tensors".to_owned();
        assert!(matches!(about(memory.into()), BackendError::Library { .. }));
        let panic = caught::<()>(|| panic!("a fault of ours")).unwrap_err();
        assert!(matches!(about(panic), BackendError::Library { .. }));
        let cut = io::Error::from(io::ErrorKind::UnexpectedEof);
        assert!(matches!(about(cut.into()), BackendError::ModelFile(_)));
        assert!(matches!(about(Refusal::from("too large").into()), BackendError::Model { .. }));
    }
}
