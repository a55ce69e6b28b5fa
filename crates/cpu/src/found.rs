//! Libraries that are looked for at run time, once.

use shapeyard_core::backend::{BackendError, BackendId, Fingerprint, Probe, SearchStep, Status};

/// What a search came to.
#[derive(Debug)]
pub(crate) struct Found<L> {
    /// The library, or why there is none.
    pub(crate) library: Result<L, String>,
    /// Where it was looked for.
    pub(crate) steps: Vec<SearchStep>,
    /// What to do where it is missing.
    pub(crate) remedy: &'static str,
}

/// A library that can say which it is.
pub(crate) trait Versioned {
    fn version(&self) -> &str;
    fn fingerprint(&self) -> &Fingerprint;
}

impl<L: Versioned> Found<L> {
    /// What a backend of this library answers to a probe.
    pub(crate) fn probe(&self, backend: BackendId) -> Probe {
        let status = match &self.library {
            Ok(library) => Status::Usable {
                version: library.version().to_owned(),
                fingerprint: library.fingerprint().clone(),
            },
            Err(reason) => {
                Status::Unusable { reason: reason.clone(), remedy: self.remedy.to_owned() }
            }
        };
        Probe { backend, status, searched: self.steps.clone(), devices: Vec::new() }
    }

    /// The library, for a backend that cannot do without it.
    pub(crate) fn needed(&self, backend: BackendId) -> Result<&L, BackendError> {
        self.library.as_ref().map_err(|reason| BackendError::Unavailable {
            backend,
            reason: reason.clone(),
            remedy: self.remedy.to_owned(),
        })
    }

    /// The library, where there is one.
    pub(crate) fn get(&self) -> Option<&L> {
        self.library.as_ref().ok()
    }
}

/// The trace of a search as the core has it; the place that served says what it is.
pub(crate) fn steps(
    steps: impl IntoIterator<Item = shapeyard_dylib::SearchStep>,
    title: Option<&str>,
) -> Vec<SearchStep> {
    let step = |step: shapeyard_dylib::SearchStep| {
        let outcome = match (&step.outcome, title) {
            (shapeyard_dylib::Outcome::Loaded, Some(title)) => title.to_owned(),
            (outcome, _) => outcome.to_string(),
        };
        SearchStep { place: step.place_and_why(), outcome }
    };
    steps.into_iter().map(step).collect()
}
