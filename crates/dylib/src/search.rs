//! Trying places in order, and what came of each.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::library::OpenError;
use crate::places::Candidate;

/// Loads from the first place that serves.
///
/// `load` is given each candidate's path and answers with the library, or why it does not serve.
pub fn search<T, R: fmt::Display>(
    candidates: impl IntoIterator<Item = Candidate>,
    mut load: impl FnMut(&Path) -> Result<T, Refusal<R>>,
) -> Search<T, R> {
    let mut trace = Trace::default();
    for candidate in candidates {
        match load(&candidate.path) {
            Ok(library) => {
                trace.loaded(candidate);
                return Search { result: Ok(library), steps: trace.steps };
            }
            Err(refusal) => trace.refused(candidate, refusal),
        }
    }
    let (failure, steps) = trace.into_failure();
    Search { result: Err(failure), steps }
}

/// What a search came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search<T, R> {
    /// The library, or why there is none.
    pub result: Result<T, Failure<R>>,
    /// Every place that was looked at, in order.
    pub steps: Vec<SearchStep>,
}

/// Why no place served: the first that had something, or that none had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure<R> {
    /// Nothing is at any of the places.
    NotFound,
    /// A file is there and cannot be loaded.
    Unloadable {
        /// The file, or the name that the loader was asked for.
        path: PathBuf,
        /// The system's words, or ours where it has none.
        reason: String,
    },
    /// A library is there and is not what was looked for.
    Unfit {
        /// The file, or the name that the loader was asked for.
        path: PathBuf,
        /// The caller's objection.
        objection: R,
    },
}

/// Why one place did not serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal<R> {
    /// Nothing was loaded.
    Open(OpenError),
    /// A library was loaded that is not what was looked for.
    Unfit(R),
}

impl<R> From<OpenError> for Refusal<R> {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

/// The steps of a search under way, for callers whose choice is not simply the first that loads.
#[derive(Debug)]
pub struct Trace<R> {
    steps: Vec<SearchStep>,
    failure: Failure<R>,
}

impl<R> Default for Trace<R> {
    fn default() -> Self {
        Self { steps: Vec::new(), failure: Failure::NotFound }
    }
}

impl<R: fmt::Display> Trace<R> {
    /// A candidate was loaded.
    pub fn loaded(&mut self, candidate: Candidate) {
        self.push(candidate, Outcome::Loaded);
    }

    /// A candidate was loaded, and others are looked at for a reason.
    pub fn set_aside(&mut self, candidate: Candidate, reason: impl Into<String>) {
        self.push(candidate, Outcome::SetAside(reason.into()));
    }

    /// A candidate does not serve.
    pub fn refused(&mut self, candidate: Candidate, refusal: Refusal<R>) {
        let outcome = match &refusal {
            Refusal::Open(OpenError::Absent) => Outcome::Absent,
            Refusal::Open(OpenError::Unloadable(reason)) => Outcome::Refused(reason.clone()),
            Refusal::Unfit(objection) => Outcome::Refused(objection.to_string()),
        };
        if matches!(self.failure, Failure::NotFound) {
            let path = candidate.path.clone();
            self.failure = match refusal {
                Refusal::Open(OpenError::Absent) => Failure::NotFound,
                Refusal::Open(OpenError::Unloadable(reason)) => {
                    Failure::Unloadable { path, reason }
                }
                Refusal::Unfit(objection) => Failure::Unfit { path, objection },
            };
        }
        self.push(candidate, outcome);
    }

    /// The steps so far.
    #[must_use]
    pub fn into_steps(self) -> Vec<SearchStep> {
        self.steps
    }

    /// Why nothing was found, with the steps.
    #[must_use]
    pub fn into_failure(self) -> (Failure<R>, Vec<SearchStep>) {
        (self.failure, self.steps)
    }

    fn push(&mut self, Candidate { path, why }: Candidate, outcome: Outcome) {
        self.steps.push(SearchStep { place: path, why, outcome });
    }
}

/// One place where a library was looked for, and what was there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SearchStep {
    /// A file, or a bare name that the system's loader was asked for.
    pub place: PathBuf,
    /// Why this place was looked at.
    pub why: &'static str,
    /// What came of it.
    pub outcome: Outcome,
}

impl SearchStep {
    /// The place with the reason for it in brackets.
    #[must_use]
    pub fn place_and_why(&self) -> String {
        format!("{} ({})", self.place.display(), self.why)
    }
}

/// What came of one place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The library was loaded from here; no further place was looked at.
    Loaded,
    /// It works, and a better one was looked for, with the reason.
    SetAside(String),
    /// Nothing is there.
    Absent,
    /// Something is there that cannot be used, with the reason.
    Refused(String),
}

/// Steps in one line, for an error.
#[must_use]
pub fn list(steps: &[SearchStep]) -> String {
    steps.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for SearchStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place_and_why(), self.outcome)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loaded => f.write_str("loaded"),
            Self::SetAside(reason) => write!(f, "works, but {reason}"),
            Self::Absent => f.write_str("not there"),
            Self::Refused(reason) => f.write_str(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates() -> [Candidate; 4] {
        ["a", "b", "c", "d"].map(|name| Candidate::new(name, "a test"))
    }

    fn load(path: &Path) -> Result<&'static str, Refusal<&'static str>> {
        match path.to_str() {
            Some("a") => Err(OpenError::Absent.into()),
            Some("b") => Err(Refusal::Unfit("another library")),
            Some("c") => Err(OpenError::Unloadable("damaged".to_owned()).into()),
            _ => Ok("loaded"),
        }
    }

    #[test]
    fn the_first_that_serves_ends_the_search() {
        let [a, b, _, d] = candidates();
        let Search { result, steps } = search([a, d, b], load);
        assert_eq!(result, Ok("loaded"));
        assert_eq!(list(&steps), "a (a test): not there, d (a test): loaded");
    }

    #[test]
    fn the_first_that_was_there_tells_why_there_is_none() {
        let [a, b, c, _] = candidates();
        let Search { result, steps } = search([a, c.clone(), b.clone()], load);
        let damaged = Failure::Unloadable { path: "c".into(), reason: "damaged".to_owned() };
        assert_eq!((result, steps.len()), (Err(damaged), 3));
        let unfit = Failure::Unfit { path: "b".into(), objection: "another library" };
        assert_eq!(search([b, c], load).result, Err(unfit));
    }

    #[test]
    fn nothing_anywhere_is_not_found() {
        let [a, ..] = candidates();
        assert_eq!(search([a.clone(), a], load).result, Err(Failure::NotFound));
        assert_eq!(search([], load).result, Err(Failure::NotFound));
    }
}
