//! What decides an artifact besides the model and the shape.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{BackendId, Environment, Fingerprint};
use crate::model::Digest;

/// Everything but model and shape that decides what a backend's compile makes.
///
/// Two artifacts of one model, one shape and equal recipes may stand in for each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// The backend.
    pub backend: BackendId,
    /// The version of the backend's own code that decides what is compiled.
    pub backend_version: String,
    /// The number formats that the compiler may use, such as `fp16` or `int8+fp16`.
    pub precision: Option<String>,
    /// The content of the calibration that quantisation follows.
    pub calibration: Option<Digest>,
    /// Options of the compile by name.
    pub options: BTreeMap<String, String>,
    /// What compiles and for what; `None` where the compiler is not installed, so that nobody can say.
    pub machine: Option<Machine>,
}

/// What compiles, and for what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The compiler with its version, as it names itself.
    pub compiler: String,
    /// The content of the compiler's library: two builds may carry one version.
    pub library: Option<Digest>,
    /// The driver with its version.
    pub driver: Option<String>,
    /// The device's whole architecture, features included, such as `gfx90a:sramecc+:xnack-`.
    pub architecture: Option<String>,
    /// The variables that change generated code, as they were when the library was loaded.
    pub environment: Environment,
}

impl Recipe {
    /// The recipe in one line: equal recipes have equal fingerprints, others do not.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        // A record of texts, numbers and ordered maps always has a JSON form.
        let record = serde_json::to_vec(self).unwrap_or_default();
        let digest = Digest::of(&record).to_string();
        let machine = self.machine.as_ref();
        let parts =
            [machine.map(|it| &it.compiler), machine.and_then(|it| it.architecture.as_ref())];
        let mut line = format!("{} {}", self.backend, self.backend_version);
        for part in parts.into_iter().flatten() {
            line.push(' ');
            line.push_str(part);
        }
        Fingerprint(format!("{line} {}", digest.get(..16).unwrap_or(&digest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Recipe {
        Recipe {
            backend: BackendId::new("example"),
            backend_version: "1".to_owned(),
            precision: None,
            calibration: None,
            options: BTreeMap::new(),
            machine: Some(Machine {
                compiler: "Compiler 2.0".to_owned(),
                library: None,
                driver: None,
                architecture: Some("gfx942".to_owned()),
                environment: Environment::default(),
            }),
        }
    }

    #[test]
    fn a_fingerprint_names_what_a_person_asks_for_first() {
        let line = recipe().fingerprint().0;
        assert!(line.starts_with("example 1 Compiler 2.0 gfx942 "), "{line}");
    }

    #[test]
    fn every_field_is_in_the_fingerprint() {
        let digest = Some(Digest::of(b"content"));
        let changes: [fn(&mut Recipe, Option<Digest>); 6] = [
            |it, _| it.backend_version = "2".to_owned(),
            |it, _| it.precision = Some("fp16".to_owned()),
            |it, digest| it.calibration = digest,
            |it, _| drop(it.options.insert("tune".to_owned(), "true".to_owned())),
            |it, digest| it.machine.as_mut().unwrap().library = digest,
            |it, _| it.machine = None,
        ];
        for change in changes {
            let mut other = recipe();
            change(&mut other, digest);
            assert_ne!(other.fingerprint(), recipe().fingerprint());
        }
    }
}
