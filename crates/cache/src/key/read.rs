//! Reading the record.

use serde::{Deserialize, Serialize};
use shapeyard_core::backend::Machine;

use super::Key;
use super::encode::{Leaf, visit};

/// A field of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Its name, such as `compiler` or `bucket.batch`.
    pub name: String,
    /// Its value; `None` where it is not set.
    pub value: Option<String>,
}

impl Key {
    /// The version of the backend's own code.
    #[must_use]
    pub fn backend_version(&self) -> &str {
        &self.backend_version
    }

    /// The compiler with its version.
    #[must_use]
    pub fn compiler(&self) -> Option<&str> {
        self.compiler.as_deref()
    }

    /// The number formats that the compiler may use.
    #[must_use]
    pub fn precision(&self) -> Option<&str> {
        self.precision.as_deref()
    }

    /// What compiles, and for what; `None` where the key names no compiler.
    #[must_use]
    pub fn machine(&self) -> Option<Machine> {
        Some(Machine {
            compiler: self.compiler.clone()?,
            library: self.library,
            driver: self.driver.clone(),
            architecture: self.architecture.clone(),
            environment: self.environment.clone().unwrap_or_default(),
        })
    }

    /// Every field, in the order of the record. A list or map without members is one field, `empty`.
    #[must_use]
    pub fn fields(&self) -> Vec<Field> {
        let mut fields = Vec::new();
        visit(self, &mut |path, leaf| {
            let value = match leaf {
                Leaf::Members(0) => Some("empty".to_owned()),
                // The members themselves follow.
                Leaf::Members(_) => return,
                leaf => leaf.text(),
            };
            fields.push(Field { name: path.join("."), value });
        });
        fields
    }
}
