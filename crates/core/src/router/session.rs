//! One lane through a router: a lane through each of the two.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use super::Shared;
use super::activity::{Activity, Quiet};
use super::demand::Progress;
use super::rests::Rests;
use super::routes::{Decision, Routes};
use crate::backend::{BackendError, Outputs, Request, RunError, Session};
use crate::plan::Bucket;
use crate::{Extents, Fallback, FallbackReason, Route, RunReport};

pub(super) struct RouterSession {
    shared: Arc<Shared>,
    preferred: Box<dyn Session>,
    fallback: Box<dyn Session>,
    routes: Arc<Routes>,
    last: Option<Last>,
    /// Programs that this lane could not load.
    rests: Rests,
    /// Answers of the two, before they are put together.
    parts: [Outputs; 2],
}

/// The last request's shape, and what was found out about it.
struct Last {
    extents: Extents,
    decision: Decision,
    /// Whether no program would save it time.
    is_content: bool,
}

impl RouterSession {
    pub(super) fn new(
        shared: Arc<Shared>,
        preferred: Box<dyn Session>,
        fallback: Box<dyn Session>,
    ) -> Self {
        let routes = shared.routes();
        let (rests, parts) = Default::default();
        Self { shared, preferred, fallback, routes, last: None, rests, parts }
    }

    /// Where a request goes, and how far the program is that it lacks.
    fn decide(&mut self, request: &Extents) -> (Decision, Progress) {
        if self.routes.generation != self.shared.generation() {
            self.routes = self.shared.routes();
            self.last = None;
            self.rests.clear();
        }
        let known = self.last.take().filter(|last| last.extents == *request);
        let mut last = known.unwrap_or_else(|| Last {
            extents: request.clone(),
            decision: self.routes.decide(request).0,
            is_content: self.shared.background.is_none(),
        });
        let progress = match &self.shared.background {
            Some(background) if !last.is_content => background.count(&self.routes, request),
            _ => Progress::Content,
        };
        last.is_content = progress == Progress::Content;
        (self.last.insert(last).decision, progress)
    }

    /// What went wrong with a program that the request would run in, where that rests.
    fn resting(&self, request: &Extents, decision: Decision) -> Option<String> {
        if self.rests.is_empty() {
            return None;
        }
        let n_rows = match decision {
            Decision::Preferred => self.routes.n_rows(request),
            Decision::Hybrid { n_preferred, .. } => n_preferred,
            Decision::Fallback(_) => return None,
        };
        let is_used = |program: &Bucket| self.is_used(request, n_rows, program);
        self.rests.words(Instant::now(), is_used).map(str::to_owned)
    }

    /// So many rows of a request have run in programs.
    fn worked(&mut self, request: &Extents, n_rows: usize) {
        if self.rests.is_empty() {
            return;
        }
        let mut rests = std::mem::take(&mut self.rests);
        rests.worked(|program| self.is_used(request, n_rows, program));
        self.rests = rests;
    }

    /// Whether rows of a request run in a program; one that is made when it is met is of the request's own shape.
    fn is_used(&self, request: &Extents, n_rows: usize, program: &Bucket) -> bool {
        self.routes.uses(request, n_rows, program) || self.routes.is_shape(request, program)
    }

    /// Runs all of a request on the fallback.
    fn fall_back(
        &mut self,
        request: &Request<'_>,
        reason: FallbackReason,
        outputs: &mut Outputs,
    ) -> Result<RunReport, RunError> {
        let request = request.bound_to(self.shared.fallback.signature());
        let Activity { preferred, fallback, compiles } = &self.shared.activity;
        let (quiet, _running) = (Quiet::of([preferred, compiles]), fallback.begin());
        let report = self.fallback.run(&request, outputs)?;
        let n_rows = self.routes.n_rows(request.extents());
        let backend = report.backend.clone();
        let fallback = Some(Fallback { backend, reason, n_rows, error: None });
        Ok(RunReport { route: Route::Fallback, fallback, disturbed: !quiet.lasted(), ..report })
    }

    /// Lets the fallback answer what the preferred executable could not, where another can.
    fn run_instead(
        &mut self,
        request: &Request<'_>,
        error: RunError,
        outputs: &mut Outputs,
    ) -> Result<RunReport, RunError> {
        let Some(reason) = reason_of(&error) else { return Err(error) };
        if reason == FallbackReason::NotReady {
            // A program went since the routes were made, to make room for others.
            self.shared.renew();
            return self.fall_back(request, reason, outputs);
        }
        let words = words(&error);
        if let RunError::Prepare { wanted, .. } = &error {
            self.rests.failed(wanted, &words, Instant::now());
        }
        self.fall_back_after(request, reason, words, outputs)
    }

    /// Lets the fallback answer after the preferred executable failed.
    fn fall_back_after(
        &mut self,
        request: &Request<'_>,
        reason: FallbackReason,
        words: String,
        outputs: &mut Outputs,
    ) -> Result<RunReport, RunError> {
        let mut report = self.fall_back(request, reason, outputs)?;
        if let Some(fallback) = &mut report.fallback {
            fallback.error = Some(words);
        }
        Ok(report)
    }

    fn run_preferred(
        &mut self,
        request: &Request<'_>,
        outputs: &mut Outputs,
    ) -> Result<RunReport, RunError> {
        let Activity { preferred, fallback, compiles } = &self.shared.activity;
        let (quiet, running) = (Quiet::of([fallback, compiles]), preferred.begin());
        let answer = self.preferred.run(request, outputs);
        let disturbed = !quiet.lasted();
        drop(running);
        match answer {
            Ok(report) => {
                self.worked(request.extents(), self.routes.n_rows(request.extents()));
                Ok(RunReport { disturbed, ..report })
            }
            Err(error) => self.run_instead(request, error, outputs),
        }
    }

    fn run_both(
        &mut self,
        request: &Request<'_>,
        (n_preferred, reason): (usize, FallbackReason),
        outputs: &mut Outputs,
    ) -> Result<RunReport, RunError> {
        let Some(layout) = &self.routes.layout else {
            return self.fall_back(request, reason, outputs);
        };
        let n_rows = self.routes.n_rows(request.extents());
        let [first, then] = &mut self.parts;
        let Activity { preferred, fallback, .. } = &self.shared.activity;
        let signature = self.shared.preferred.signature();
        let running = preferred.begin();
        let answer = layout.run(self.preferred.as_mut(), signature, request, 0..n_preferred, first);
        drop(running);
        let report = match answer {
            Ok(report) => report,
            Err(error) => return self.run_instead(request, error, outputs),
        };
        let others = self.shared.fallback.signature();
        let running = fallback.begin();
        let rest =
            layout.run(self.fallback.as_mut(), others, request, n_preferred..n_rows, then)?;
        drop(running);
        let joining = Instant::now();
        layout.join(first, then, (signature, &report.backend), outputs)?;
        let (mut times, mut sent) = (report.times, report.sent);
        sent += rest.sent;
        times.prepare += rest.times.prepare;
        times.run += rest.times.run;
        times.finish += rest.times.finish + joining.elapsed();
        let n_rows = n_rows - n_preferred;
        let fallback = Fallback { backend: rest.backend, reason, n_rows, error: None };
        self.worked(request.extents(), n_preferred);
        Ok(RunReport {
            route: Route::Hybrid,
            fallback: Some(fallback),
            n_pieces: report.n_pieces + rest.n_pieces,
            n_padded_rows: report.n_padded_rows + rest.n_padded_rows,
            sent,
            times,
            disturbed: true,
            ..report
        })
    }
}

/// Why a program did not answer, where more is known by how far it is.
fn explained(reason: FallbackReason, progress: Progress) -> FallbackReason {
    match (reason, progress) {
        // Those that are ready would answer, at more cost.
        (FallbackReason::Cheaper, _) => reason,
        (_, Progress::OnItsWay) => FallbackReason::Compiling,
        (_, Progress::Failed) => FallbackReason::CompileFailed,
        (_, Progress::Content | Progress::None) => reason,
    }
}

/// Why another answers what ended so; `None` where another would fail too, or nobody wants it.
fn reason_of(error: &RunError) -> Option<FallbackReason> {
    match error {
        RunError::NotReady { .. } => Some(FallbackReason::NotReady),
        RunError::Prepare { source, .. } => {
            let is_cancelled = matches!(**source, BackendError::Cancelled { .. });
            (!is_cancelled).then_some(FallbackReason::NotLoaded)
        }
        RunError::DeviceMemory { .. } => Some(FallbackReason::DeviceMemory),
        _ => None,
    }
}

/// An error and what caused it.
fn words(error: &RunError) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words.push_str(&format!(": {error}"));
        cause = error.source();
    }
    words
}

impl Session for RouterSession {
    fn run(&mut self, request: &Request<'_>, outputs: &mut Outputs) -> Result<RunReport, RunError> {
        request.check_bound_to(self.shared.preferred.signature())?;
        let (decision, progress) = self.decide(request.extents());
        if let Some(words) = self.resting(request.extents(), decision) {
            return self.fall_back_after(request, FallbackReason::NotLoaded, words, outputs);
        }
        match decision {
            Decision::Preferred => self.run_preferred(request, outputs),
            Decision::Hybrid { n_preferred, reason } => {
                self.run_both(request, (n_preferred, explained(reason, progress)), outputs)
            }
            Decision::Fallback(reason) => {
                self.fall_back(request, explained(reason, progress), outputs)
            }
        }
    }
}
