//! What is compiled while others answer, as a person and a program see it.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use serde::Serialize;
use shapeyard_core::plan::Bucket;
use shapeyard_core::router::{Event, Router, Stage};

use crate::human;
use crate::output::Output;
use crate::progress::Progress;

/// What became of the programs that were wanted.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Compiled {
    /// Those that were made, and run requests.
    pub(crate) ready: Vec<Made>,
    /// Those that could not be made.
    pub(crate) failed: Vec<NotMade>,
    /// Those that were not made in time.
    pub(crate) given_up: Vec<Bucket>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Made {
    bucket: Bucket,
    seconds: f64,
}

#[derive(Debug, Serialize)]
pub(crate) struct NotMade {
    bucket: Bucket,
    reason: String,
}

/// Tells how compiling in the background goes, as long as the router compiles.
#[derive(Debug)]
pub(crate) struct Watched {
    router: Arc<Router>,
    watcher: JoinHandle<Compiled>,
}

impl Watched {
    /// Watches from now on: a line beside the bar says what is at work.
    pub(crate) fn start(
        router: &Arc<Router>,
        progress: Progress,
        output: Output,
    ) -> std::io::Result<Self> {
        let (router, events) = (Arc::clone(router), router.events());
        let thread = thread::Builder::new().name("compiles".to_owned());
        let watcher = thread.spawn(move || {
            let mut compiled = Compiled::default();
            events.iter().for_each(|event| compiled.hear(event, &progress, &output));
            compiled
        })?;
        Ok(Self { router, watcher })
    }

    /// Ends compiling, and says what became of it.
    pub(crate) fn finish(self) -> Compiled {
        self.router.stop_compiling();
        // It only listens; there is nothing in it that could panic.
        self.watcher.join().unwrap_or_default()
    }
}

impl Compiled {
    fn hear(&mut self, event: Event, progress: &Progress, output: &Output) {
        let words = event.to_string();
        match &event.stage {
            Stage::Compiling { .. } => progress.say(words),
            Stage::Ready { .. } | Stage::Failed { .. } => {
                progress.say("");
                progress.aside(|| output.note(&words));
            }
            _ => {}
        }
        self.count(event);
    }

    /// What was given up may be wanted again and made, and what is made may have been queued once more.
    fn count(&mut self, Event { bucket, stage }: Event) {
        match stage {
            Stage::Ready { took } => {
                self.given_up.retain(|it| *it != bucket);
                self.ready.push(Made { bucket, seconds: took.as_secs_f64() });
            }
            Stage::Failed { error } => {
                self.failed.push(NotMade { bucket, reason: error.to_string() });
            }
            Stage::GivenUp => {
                let is_ready = self.ready.iter().any(|it| it.bucket == bucket);
                if !is_ready && !self.given_up.contains(&bucket) {
                    self.given_up.push(bucket);
                }
            }
            _ => {}
        }
    }

    /// In one line.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{} in the background", human::count(self.ready.len(), "program"));
        for (n, what) in [(self.failed.len(), "failed"), (self.given_up.len(), "not done in time")]
        {
            if n > 0 {
                text.push_str(&format!(", {n} {what}"));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_ready_is_not_told_as_given_up() {
        let bucket = |n: usize| Bucket::from_iter([("batch", n)]);
        let mut compiled = Compiled::default();
        let mut count = |n, stage| compiled.count(Event { bucket: bucket(n), stage });
        count(1, Stage::GivenUp);
        count(2, Stage::GivenUp);
        count(2, Stage::GivenUp);
        count(1, Stage::Ready { took: Duration::from_secs(1) });
        count(1, Stage::GivenUp);
        assert_eq!(compiled.given_up, [bucket(2)]);
        assert_eq!(compiled.text(), "1 program in the background, 1 not done in time");
    }
}
