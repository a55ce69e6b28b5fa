//! One lane through a router: a lane through each of the two.

use std::sync::Arc;
use std::time::Instant;

use super::Shared;
use super::routes::{Decision, Routes};
use crate::backend::{Outputs, Request, RunError, Session};
use crate::{Extents, Fallback, FallbackReason, Route, RunReport};

pub(super) struct RouterSession {
    shared: Arc<Shared>,
    preferred: Box<dyn Session>,
    fallback: Box<dyn Session>,
    routes: Arc<Routes>,
    last: Option<(Extents, Decision)>,
    /// Answers of the two, before they are put together.
    parts: [Outputs; 2],
}

impl RouterSession {
    pub(super) fn new(
        shared: Arc<Shared>,
        preferred: Box<dyn Session>,
        fallback: Box<dyn Session>,
    ) -> Self {
        let routes = shared.routes();
        Self { shared, preferred, fallback, routes, last: None, parts: Default::default() }
    }

    fn decide(&mut self, request: &Extents) -> Decision {
        if self.routes.generation != self.shared.generation() {
            self.routes = self.shared.routes();
            self.last = None;
        }
        match &self.last {
            Some((extents, decision)) if extents == request => *decision,
            _ => {
                let decision = self.routes.decide(request);
                self.last = Some((request.clone(), decision));
                decision
            }
        }
    }

    /// Runs all of a request on the fallback, and has a program made for the next of its kind where one
    /// was lacking.
    fn fall_back(
        &mut self,
        request: &Request<'_>,
        reason: FallbackReason,
        outputs: &mut Outputs,
    ) -> Result<RunReport, RunError> {
        let reason = self.missed(request.extents(), reason);
        let request = request.bound_to(self.shared.fallback.signature());
        let report = self.fallback.run(&request, outputs)?;
        let (n_rows, _) = self.routes.n_rows_and_tokens(request.extents());
        let fallback = Some(Fallback { backend: report.backend.clone(), reason, n_rows });
        Ok(RunReport { route: Route::Fallback, fallback, ..report })
    }

    /// Tells whoever compiles in the background that a program was lacking, and says how far that one is.
    fn missed(&self, request: &Extents, reason: FallbackReason) -> FallbackReason {
        match &self.shared.background {
            Some(background) if reason != FallbackReason::Cheaper => {
                background.missed(&self.routes, request).unwrap_or(reason)
            }
            _ => reason,
        }
    }

    fn run_both(
        &mut self,
        request: &Request<'_>,
        (n_preferred, reason): (usize, FallbackReason),
        outputs: &mut Outputs,
    ) -> Result<RunReport, RunError> {
        let reason = self.missed(request.extents(), reason);
        let Some(layout) = &self.routes.layout else {
            return self.fall_back(request, reason, outputs);
        };
        let (n_rows, _) = self.routes.n_rows_and_tokens(request.extents());
        let [first, then] = &mut self.parts;
        let signature = self.shared.preferred.signature();
        let report =
            layout.run(self.preferred.as_mut(), signature, request, 0..n_preferred, first)?;
        let others = self.shared.fallback.signature();
        let rest =
            layout.run(self.fallback.as_mut(), others, request, n_preferred..n_rows, then)?;
        let joining = Instant::now();
        layout.join(first, then, (signature, &report.backend), outputs)?;
        let (mut times, mut sent) = (report.times, report.sent);
        sent += rest.sent;
        times.prepare += rest.times.prepare;
        times.run += rest.times.run;
        times.finish += rest.times.finish + joining.elapsed();
        let fallback = Fallback { backend: rest.backend, reason, n_rows: n_rows - n_preferred };
        Ok(RunReport {
            route: Route::Hybrid,
            fallback: Some(fallback),
            n_pieces: report.n_pieces + rest.n_pieces,
            n_padded_rows: report.n_padded_rows + rest.n_padded_rows,
            sent,
            times,
            ..report
        })
    }
}

impl Session for RouterSession {
    fn run(&mut self, request: &Request<'_>, outputs: &mut Outputs) -> Result<RunReport, RunError> {
        request.check_bound_to(self.shared.preferred.signature())?;
        let answer = match self.decide(request.extents()) {
            Decision::Preferred => self.preferred.run(request, outputs),
            Decision::Hybrid { n_preferred, reason } => {
                self.run_both(request, (n_preferred, reason), outputs)
            }
            Decision::Fallback(reason) => return self.fall_back(request, reason, outputs),
        };
        match answer {
            // A program went since the routes were made, to make room for others.
            Err(RunError::NotReady { .. }) => {
                self.shared.renew();
                self.fall_back(request, FallbackReason::NotReady, outputs)
            }
            answer => answer,
        }
    }
}
