//! What programs can do, read off their artifacts.

use shapeyard_core::backend::Artifact;

use crate::compile::Traits;
use crate::roles::Role;

/// What the programs of some artifacts can do, known without loading them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Whether a request with too many rows may be split over them.
    pub can_split: bool,
    /// Symbols along which an output cannot be cut, so that nothing may be padded along them.
    pub rigid: Vec<String>,
}

impl Limits {
    /// The limits of all of these artifacts together; `rows` is the symbol that counts rows. An artifact
    /// whose notes cannot be read limits nothing: loading it will fail.
    #[must_use]
    pub fn of(artifacts: &[Artifact], rows: Option<&str>) -> Self {
        let mut limits = Self { can_split: rows.is_some(), rigid: Vec::new() };
        for traits in artifacts.iter().filter_map(|artifact| Traits::of(&artifact.notes).ok()) {
            limits.can_split &= traits.can_split
                && traits.roles.iter().all(|axes| {
                    let counts = |role: &&Role<String>| {
                        matches!(role, Role::Follows { symbol, .. } if Some(symbol.as_str()) == rows)
                    };
                    axes.iter().filter(counts).count() == 1
                });
            for role in traits.roles.iter().flatten() {
                let Role::Derived { symbols } = role else { continue };
                let new = symbols.iter().filter(|symbol| !limits.rigid.contains(symbol));
                let new: Vec<String> = new.cloned().collect();
                limits.rigid.extend(new);
            }
        }
        limits
    }
}
