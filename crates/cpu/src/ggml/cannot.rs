//! Why a model has no ggml graph.

use super::onnx::Node;

/// Why a model, or a model in one shape, has no ggml graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
    /// The file or the library failed.
    #[error("{0}")]
    Failed(String),
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

    /// Whether another shape might do.
    pub(crate) const fn depends_on_shape(&self) -> bool {
        matches!(self, Self::Shapes { .. })
    }
}
