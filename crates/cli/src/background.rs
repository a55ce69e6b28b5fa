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
        progress: Option<Progress>,
        output: Output,
    ) -> std::io::Result<Self> {
        let (router, events) = (Arc::clone(router), router.events());
        let thread = thread::Builder::new().name("compiles".to_owned());
        let watcher = thread.spawn(move || {
            let mut compiled = Compiled::default();
            events.iter().for_each(|event| compiled.hear(event, progress.as_ref(), &output));
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
    fn hear(&mut self, event: Event, progress: Option<&Progress>, output: &Output) {
        let words = event.to_string();
        let say = |words: String| progress.into_iter().for_each(|it| it.say(words.clone()));
        let note = || match progress {
            Some(progress) => progress.aside(|| output.note(&words)),
            None => output.note(&words),
        };
        let bucket = event.bucket;
        match event.stage {
            Stage::Compiling { .. } => say(words),
            Stage::Ready { took } => {
                say(String::new());
                note();
                self.ready.push(Made { bucket, seconds: took.as_secs_f64() });
            }
            Stage::Failed { error } => {
                say(String::new());
                note();
                self.failed.push(NotMade { bucket, reason: error.to_string() });
            }
            Stage::GivenUp => self.given_up.push(bucket),
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
