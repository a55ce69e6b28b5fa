//! Which fields of two keys differ, and how far two keys are apart.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Key;
use super::encode::visit;

/// A field that two keys do not have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The field, such as `compiler` or `environment.MIGRAPHX_DISABLE_PASSES`.
    pub field: String,
    /// Its value in the key asked about; `None` where it is not set.
    pub ours: Option<String>,
    /// Its value in the other key; `None` where it is not set.
    pub theirs: Option<String>,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |value: &Option<String>| match value {
            Some(value) => format!("`{value}`"),
            None => "not set".to_owned(),
        };
        write!(f, "{}: {} here, {} there", self.field, text(&self.ours), text(&self.theirs))
    }
}

type Leaves = BTreeMap<Vec<String>, Option<String>>;

pub(super) fn differences(ours: &Key, theirs: &Key) -> Vec<Difference> {
    let (our_order, ours) = leaves(ours);
    let (their_order, theirs) = leaves(theirs);
    let mut seen = BTreeSet::new();
    let paths = our_order.into_iter().chain(their_order);
    paths
        .filter(|path| ours.get(path) != theirs.get(path) && seen.insert(path.clone()))
        .map(|path| Difference {
            field: path.join("."),
            ours: ours.get(&path).cloned().flatten(),
            theirs: theirs.get(&path).cloned().flatten(),
        })
        .collect()
}

/// Which fields are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compared {
    Everything,
    /// All but what is known only where the compiler is installed.
    ButMachine,
}

impl Compared {
    pub(super) fn counts(self, difference: &Difference) -> bool {
        const OF_MACHINE: [&str; 5] =
            ["compiler", "library", "driver", "architecture", "environment"];
        self == Self::Everything || !OF_MACHINE.contains(&difference.top_field())
    }
}

impl Difference {
    /// The field of the record itself.
    fn top_field(&self) -> &str {
        self.field.split_once('.').map_or(&self.field, |(top, _)| top)
    }
}

/// How unlike two keys are: the sum over the top fields that differ, 0 for equal keys.
///
/// A person asks "why was this model compiled again for this shape", so an entry of the same shape
/// and model from an older compiler is nearer than one of another shape from the same compiler.
pub(crate) fn distance(differences: &[Difference]) -> u32 {
    let fields: BTreeSet<&str> = differences.iter().map(Difference::top_field).collect();
    fields.into_iter().map(weight).sum()
}

fn weight(field: &str) -> u32 {
    match field {
        "backend" => 32,
        "bucket" => 16,
        "model" => 12,
        "inputs" | "outputs" => 4,
        _ => 1,
    }
}

/// The leaves by path, and the paths in the record's order.
fn leaves(key: &Key) -> (Vec<Vec<String>>, Leaves) {
    let (mut order, mut leaves) = (Vec::new(), Leaves::new());
    visit(key, &mut |path, leaf| {
        let path: Vec<String> = path.iter().map(|&segment| segment.to_owned()).collect();
        order.push(path.clone());
        leaves.insert(path, leaf.text());
    });
    (order, leaves)
}
